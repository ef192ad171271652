"""describe_architecture.py as a program, on the published architectures."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from metantk.storage import SCRIPTS

PUBLISHED = json.loads((Path(__file__).parents[1] / "fixtures" / "published_genotypes.json").read_text())[
    "architectures"
]


def describe(entry, folder, *flags):
    path = folder / "genotype.json"
    path.write_text(json.dumps(entry["genotype"]))
    size = ("--cells", entry["cells"], "--channels", 48, "--classes", 64)
    command = [sys.executable, SCRIPTS / "describe_architecture.py", path, *size, *flags]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("entry", [PUBLISHED[0], PUBLISHED[3]], ids=lambda entry: entry["name"])
def test_json_holds_the_published_sizes(entry, tmp_path):
    facts = json.loads(describe(entry, tmp_path, "--json"))
    assert set(facts) == {"parameters", "backbone_parameters", "macs", "feature_dim"}
    expected = entry["parameters"]
    assert (facts["parameters"], facts["backbone_parameters"]) == (expected["total"], expected["backbone"])
    assert facts["feature_dim"] == 48 * 4 * 3
    assert facts["macs"] > facts["parameters"]


def test_text_names_every_operation(tmp_path):
    text = describe(PUBLISHED[0], tmp_path)
    for node in PUBLISHED[0]["genotype"]["normal"]:
        for operation, source in node:
            assert f"{operation}({source})" in text
    assert "1,760,800" in text
