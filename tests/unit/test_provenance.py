"""The code behind an output: what is followed, what changes its hash, and what does not."""

import subprocess
import sys
from collections import Counter

import pytest

from metantk.options import catalogue
from metantk.options.base import parse
from metantk.runtime import plugins, provenance
from metantk.runtime.files import SCRIPTS, InputError
from metantk.runtime.provenance import code_hash, local_modules

PROGRAMS = ["search_architecture.py", "train_network.py", "evaluate_episodes.py", "verify_theory.py"]


def names(*files) -> set[str]:
    return {path.relative_to(SCRIPTS).as_posix() for path in local_modules(*files)}


def files_of(script: str, family: str, name: str) -> list:
    """A script with the modules of a kind that it was asked for, as its rule names them."""
    entry = catalogue.named(family, name)
    options = parse(catalogue.KINDS[family][entry["kind"]], entry, where="test")
    return [SCRIPTS / script, *plugins.module_files(family, options)]


def test_code_is_followed_through_imports():
    training = names(SCRIPTS / "train_network.py")
    assert {
        "train_network.py",
        "metantk/__init__.py",
        "metantk/training.py",
        "metantk/learners/base.py",
    } <= training
    assert "metantk/kernels.py" not in training
    assert "metantk/searches/prune.py" not in names(SCRIPTS / "evaluate_episodes.py")
    assert code_hash(SCRIPTS / "train_network.py") != code_hash(SCRIPTS / "evaluate_episodes.py")


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Nothing is kept yet, and what will be lies elsewhere."""
    monkeypatch.setattr(provenance, "KEPT", tmp_path / "kept" / "syntax.json")
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    provenance._kept.cache_clear()
    yield provenance.KEPT
    provenance._kept.cache_clear()


def test_a_later_process_parses_nothing_again(kept, monkeypatch):
    first = code_hash(SCRIPTS / "train_network.py")
    provenance._kept.cache_clear()
    monkeypatch.setattr(provenance, "_parse_anew", None)
    assert code_hash(SCRIPTS / "train_network.py") == first


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', '{"a": [["os"], "no checksum"]}'])
def test_what_was_kept_and_is_damaged_is_found_anew(kept, content):
    first = code_hash(SCRIPTS / "train_network.py")
    kept.write_text(content)
    provenance._kept.cache_clear()
    assert code_hash(SCRIPTS / "train_network.py") == first
    provenance._kept.cache_clear()
    assert len(provenance._kept()) > 20


def test_an_edit_counts_whatever_was_kept_before(kept, tmp_path):
    hashes = []
    for text in ("a = 1\n", "a = 2\n", "a = 1  # one\n"):
        (tmp_path / "own.py").write_text(text)
        hashes.append(code_hash(tmp_path / "own.py"))
        provenance._kept.cache_clear()
    assert hashes[0] == hashes[2] != hashes[1]


def test_what_another_version_kept_does_not_count(kept, monkeypatch):
    code_hash(SCRIPTS / "train_network.py")
    monkeypatch.setattr(provenance, "_reader", lambda: "another version")
    monkeypatch.setattr(provenance, "_parse_anew", None)
    with pytest.raises(TypeError):
        code_hash(SCRIPTS / "train_network.py")


def test_a_folder_that_cannot_be_written_is_done_without(kept, tmp_path):
    kept.parent.write_text("a file")
    assert code_hash(SCRIPTS / "train_network.py") == code_hash(SCRIPTS / "train_network.py")


def test_modules_of_kinds_are_those_that_were_asked_for():
    """A script knows no kind: what it was asked for is followed, with what that imports, and nothing else."""
    alone = names(SCRIPTS / "search_architecture.py")
    for family in ("searches", "criteria", "learners", "backbones"):
        folder = f"metantk/{family}/"
        assert {name for name in alone if name.startswith(folder)} <= {f"{folder}__init__.py", f"{folder}base.py"}
    metantk = names(*files_of("search_architecture.py", "searches", "metantk"))
    assert {"metantk/searches/prune.py", "metantk/kernels.py", "metantk/space/supernet.py"} <= metantk
    assert {name for name in metantk if name.startswith("metantk/criteria/")} == {
        f"metantk/criteria/{name}.py"
        for name in (
            *("__init__", "base", "chunks", "inputs", "formulas"),
            *("gram", "meta_ntk", "linear_regions"),
        )
    }
    random = names(*files_of("search_architecture.py", "searches", "random"))
    assert "metantk/searches/sample.py" in random
    assert "metantk/searches/prune.py" not in random
    assert "metantk/options/searches/prune.py" not in random


def test_no_program_of_a_chain_knows_the_catalogue():
    """A kind that is added to it must rerun nothing."""
    for script in PROGRAMS:
        assert "metantk/options/catalogue.py" not in names(SCRIPTS / script)


def test_a_kind_of_ones_own_is_followed_into_the_house(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from metantk.kernels import condition_numbers\n")
    modules = local_modules(SCRIPTS / "search_architecture.py", path)
    assert {path.resolve(), SCRIPTS / "metantk" / "kernels.py"} <= set(modules)
    assert SCRIPTS / "metantk" / "kernels.py" not in local_modules(SCRIPTS / "search_architecture.py")


CODE = '''"""A module."""

import math


class Shape:
    """A shape."""

    sides = 3

    def area(self, side: float) -> float:
        """Of one side."""
        return math.sqrt(3) / 4 * side**2
'''


def hash_of(path, text: str) -> str:
    path.write_text(text)
    return code_hash(path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("    sides", "    # how many\n    sides"),
        lambda text: text.replace("sides = 3", "sides   =   3   # three"),
        lambda text: text.replace("\n\n", "\n"),
        lambda text: text.replace("math.sqrt(3) / 4 * side**2", "(\n            math.sqrt(3) / 4\n * side ** 2)"),
        lambda text: text.replace("A module.", "Another text."),
        lambda text: text.replace('    """A shape."""\n\n', ""),
        lambda text: text.replace(
            "Of one side.", "Of one side.\n\n        Args:\n            side: in metres.\n        "
        ),
    ],
    ids=["comment", "spaces", "lines", "brackets", "module's docstring", "no docstring", "longer docstring"],
)
def test_comments_formatting_and_docstrings_change_nothing(tmp_path, edit):
    assert edit(CODE) != CODE
    assert hash_of(tmp_path / "a.py", edit(CODE)) == hash_of(tmp_path / "a.py", CODE)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("sides = 3", "sides = 4"),
        lambda text: text.replace("sides = 3", "sides = 3.0"),
        lambda text: text.replace("sides = 3", "sides = '3'"),
        lambda text: text.replace("side**2", "side*2"),
        lambda text: text.replace("import math", "import cmath as math"),
        lambda text: text.replace("def area", "@staticmethod\n    def area"),
        lambda text: text.replace("return math", "'a text that is no docstring'; return math"),
        lambda text: text + "print(1)\n",
        lambda text: text.replace("sides", "corners"),
    ],
)
def test_code_changes_the_hash(tmp_path, edit):
    assert edit(CODE) != CODE
    assert hash_of(tmp_path / "a.py", edit(CODE)) != hash_of(tmp_path / "a.py", CODE)


@pytest.mark.parametrize("edited", ["net", "learner"])
def test_files_from_elsewhere_may_share_a_name(tmp_path, edited):
    """A user's backbone and learner, both own.py in folders of their own."""
    files = {name: tmp_path / name / "own.py" for name in ("net", "learner")}
    for path in files.values():
        path.parent.mkdir()
        path.write_text("value = 1\n")
    before = code_hash(SCRIPTS / "train_network.py", *files.values())
    files[edited].write_text("value = 2\n")
    assert code_hash(SCRIPTS / "train_network.py", *files.values()) != before


def test_modules_beside_a_file_from_elsewhere_are_its_code(tmp_path):
    own, helper = tmp_path / "own.py", tmp_path / "helper.py"
    own.write_text("import sys\nsys.path.insert(0, '.')\nimport helper\n")
    hashes = [hash_of(helper, f"value = {value}\n") and code_hash(own) for value in (1, 2)]
    assert hashes[0] != hashes[1]


@pytest.mark.parametrize(
    "content", ["\ufeffvalue = 1\n".encode(), "# -*- coding: latin-1 -*-\nvalue = 'é'\n".encode("latin-1")]
)
def test_files_are_read_in_the_encoding_that_they_name(tmp_path, content):
    path = tmp_path / "own.py"
    path.write_bytes(content)
    before = code_hash(path)
    path.write_bytes(content + b"other = 1\n")
    assert code_hash(path) != before


@pytest.mark.parametrize("content", [b"value = \n", b"value = '\xe9'\n", b"\0"])
def test_what_is_no_python_is_refused(tmp_path, content):
    path = tmp_path / "own.py"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"own\.py: is no Python"):
        code_hash(path)


def test_an_edit_of_a_module_changes_the_hash_of_those_that_use_it_alone(tmp_path, monkeypatch):
    for name, text in {
        "one.py": "from package import used\n",
        "other.py": "import json\n",
        "package/__init__.py": "",
        "package/used.py": "import package.deeper\n",
        "package/deeper.py": "value = 1\n",
        "package/unused.py": "value = 1\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(provenance, "SCRIPTS", tmp_path)

    def hashes():
        return code_hash(tmp_path / "one.py"), code_hash(tmp_path / "other.py")

    before = hashes()
    (tmp_path / "package" / "unused.py").write_text("value = 2\n")
    assert hashes() == before
    (tmp_path / "package" / "deeper.py").write_text("value = 2\n")
    after = hashes()
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_each_module_is_parsed_once_however_many_rules_ask_for_it(kept, monkeypatch):
    parsed, parse_anew = Counter(), provenance._parse_anew
    monkeypatch.setattr(provenance, "_parse_anew", lambda text: parsed.update([text]) or parse_anew(text))
    modules = {path for script in PROGRAMS for path in local_modules(SCRIPTS / script)}
    texts = Counter(path.read_text() for path in modules)
    assert len(modules) > len(PROGRAMS)
    for script in PROGRAMS:
        code_hash(SCRIPTS / script)
    assert set(parsed) == set(texts)
    assert all(parsed[text] <= index for text, index in texts.items())


def test_provenance_says_how_an_output_came_about():
    files = files_of("train_network.py", "learners", "rfs")
    told = provenance.provenance(*files, options={"epochs": 3}, seed=4, device="cpu")
    assert told["script"] == "train_network.py"
    assert told["code"] == code_hash(*files)
    assert (told["options"], told["seed"], told["device"]) == ({"epochs": 3}, 4, "cpu")
    assert {"python", "torch", "numpy"} <= set(told["versions"])
    assert told == provenance.provenance(*files, options={"epochs": 3}, seed=4, device="cpu")  # no times


def test_asking_for_code_needs_no_torch():
    code = (
        "import sys; from metantk.runtime.provenance import code_hash; from metantk.runtime.files import SCRIPTS;"
        " code_hash(SCRIPTS / 'train_network.py'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(SCRIPTS)}, check=True)
