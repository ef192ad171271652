"""`make why`: for each job that would run again, the option, module or image that changed."""

import pytest
from PIL import Image

from metantk.results.reruns import read_reruns

MANIFEST = "results/photos/data/manifest.json"


@pytest.fixture
def house(tiny_house):
    """A prepared folder of images."""
    for split in ("train", "val", "test"):
        for index in range(5):
            for image in range(2):
                path = tiny_house.path / "photos" / split / f"{split}{index}" / f"{image}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (12, 12), (20 * index + image,) * 3).save(path)
    configuration = tiny_house.configuration
    configuration["datasets"] = {"photos": {"source": "photos", "image_size": 16}}
    configuration["evaluation"] |= {"shots": [1], "queries": 1}
    tiny_house.configure(configuration)
    assert tiny_house.snakemake("--cores", 1, MANIFEST).returncode == 0
    return tiny_house


def explain(house):
    run = house.run("python", "scripts/explain_reruns.py", MANIFEST)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_each_kind_of_change_is_named(house):
    assert explain(house) == ["Nothing would run: all results are there and up to date."]

    configuration = house.configuration
    configuration["datasets"]["photos"]["image_size"] = 20
    house.configure(configuration)
    assert explain(house) == ["Prepare photos", "    option image_size: 16 -> 20"]

    store = house.path / "scripts" / "metantk" / "data" / "store.py"
    store.write_text(store.read_text() + "\nedited = 1\n")
    assert explain(house) == [
        "Prepare photos",
        "    module metantk/data/store.py changed",
        "    option image_size: 16 -> 20",
    ]

    # Snakemake looks no further where an input changed.
    image = "photos/train/train0/0.png"
    Image.new("RGB", (12, 12), "red").save(house.path / image)
    assert explain(house) == ["Prepare photos", f"    input changed: {image}"]


def test_a_wrong_configuration_is_refused_in_one_line(tiny_house):
    tiny_house.configure(tiny_house.configuration | {"tuna": 3})
    run = tiny_house.run("python", "scripts/explain_reruns.py")
    assert run.returncode == 2
    assert run.stderr.splitlines() == ["explain_reruns.py: error: configuration: unknown key 'tuna'"]


BLOCK = """
[Mon Nov 30 15:50:46 2026]
Job 2: Train a conv4
Reason: {reason}
[Mon Nov 30 15:50:46 2026]
rule all:
    input: results/a/model.json
    jobid: 0
    reason: Input files updated by another job: results/a/model.json
"""
BEFORE, NOW = (f"{sign * 64}" for sign in "ab")
CHANGED = "Params have changed since last execution: Union of exclusive params before and now across all output: "


@pytest.mark.parametrize(
    ("reason", "causes"),
    [
        ("Missing output files: c, b, a, d, e", ["not there: a, b and 3 more"]),
        ("Input files updated by another job: a", ["follows the jobs that write a"]),
        ("Code has changed since last execution", ["its rule's command changed"]),
        (f"{CHANGED}before: '{BEFORE}' now: '{NOW}' ", ["names or sizes of the data set's files changed"]),
        (
            CHANGED + """before: '{"a":{"b":1},"c":"it\\'s"}' now: '{"a":{"b":2},"d":[1]}' """,
            ["option a.b: 1 -> 2", "option c: it's -> (none)", "option d: (none) -> [1]"],
        ),
        (f"{CHANGED}before: <nothing exclusive> now: 'x/y' ", ["parameter: x/y is new"]),
    ],
)
def test_reasons_of_snakemake(reason, causes):
    (rerun,) = read_reruns(BLOCK.format(reason=reason))
    assert rerun.job == "Train a conv4"
    assert rerun.causes == causes


def test_former_modules_that_are_not_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = tmp_path / ".snakemake" / "code" / f"{NOW}.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    (rerun,) = read_reruns(BLOCK.format(reason=f"{CHANGED}before: '{BEFORE}' now: '{NOW}' "))
    assert rerun.causes == ["code changed; its former modules are not recorded"]
