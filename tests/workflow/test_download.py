"""Sources that are fetched: a job of its own where Snakemake runs, and none for folders and glyphs."""

import re

import pytest
import yaml
from conftest import House

DATASETS = {
    "small": {"source": "cifar-fs", "download_folder": "given"},
    "coarse": {"source": "fc100", "download_folder": "given"},
    "letters": {"source": "omniglot"},
    "drawn": {"source": "glyphs"},
    "mine": {"source": "images"},
}


@pytest.fixture
def house(copy_of_house) -> House:
    for index in range(15):  # a dry run counts names, and opens nothing
        folder = copy_of_house.path / "images" / f"class{index}"
        folder.mkdir(parents=True)
        for image in range(20):
            (folder / f"{image}.png").touch()
    configuration = {
        "datasets": DATASETS,
        "rows": [{"backbone": "small", "learner": "rfs"}],
        "seeds": [0],
        "backbones": {"small": {"kind": "conv4", "channels": 4}},
    }
    (copy_of_house.path / "config" / "config.yaml").write_text(yaml.safe_dump(configuration))
    return copy_of_house


def dry_run(house: House, *arguments: str) -> str:
    """What a run would do; jobs with a message do not show their rule, so messages are taken out."""
    for path in house.path.glob("workflow/rules/*.smk"):
        path.write_text(re.sub(r'    message:\n        ".*"\n', "", path.read_text()))
    run = house.snakemake("--dry-run", *arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


def manifests() -> list[str]:
    return [f"results/{name}/data/manifest.json" for name in DATASETS]


def test_only_fetched_sources_have_a_download(house):
    printed = dry_run(house, *manifests())
    jobs = re.findall(r"^rule (\w+):\n(?:    .*\n)*?    wildcards: dataset=(\w+)$", printed, re.M)
    fetched = ("small", "coarse", "letters")
    assert set(jobs) == {
        *(("download_dataset", name) for name in fetched),
        *(("prepare_dataset", name) for name in DATASETS),
    }
    for name in fetched:
        prepare = re.search(rf"rule prepare_dataset:\n    input: (.*)\n    output: results/{name}/", printed)
        assert prepare[1] == f"results/{name}/download/files.json"


def test_downloads_run_where_snakemake_does_and_preparations_on_the_nodes(house):
    (house.path / "asking.smk").write_text(
        'include: "Snakefile"\n\nprint("local:", *sorted(workflow._localrules), file=sys.stderr)\n'
    )
    run = house.snakemake("--snakefile", "asking.smk", "--list-rules")
    assert run.returncode == 0, run.stderr
    local = re.search("^local: (.*)$", run.stderr, re.M)[1].split()
    of_seconds = ["aggregate_tables", "compare_criteria", "draw_results", "draw_searches", "inspect_dataset"]
    assert local == sorted(["download_dataset", *of_seconds, "tabulate_finished"])


def test_a_download_that_is_done_again_prepares_nothing_again(house):
    """Prepared images depend on what the files hold, which a second download does not change."""
    for name in DATASETS:
        folder = house.path / "results" / name
        for path in [
            f"data/{part}/{array}.npy" for part in ("train", "val", "test") for array in ("images", "labels")
        ]:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()
        (folder / "data" / "manifest.json").touch()
        if DATASETS[name]["source"] not in ("glyphs", "images"):
            (folder / "download").mkdir()
            (folder / "download" / "files.json").touch()  # later than what was prepared from it
    assert "Nothing to be done" in dry_run(house, "--rerun-triggers", "mtime", "--", *manifests())


def test_a_download_without_a_network_says_what_to_place_where(house):
    """The whole way through the rule, with a proxy where none is."""
    command = [
        "env",
        "https_proxy=http://127.0.0.1:9",
        "http_proxy=http://127.0.0.1:9",
        "python",
        "-m",
        "snakemake",
    ]
    run = house.run(*command, "--cores", 1, "results/letters/download/files.json")
    assert run.returncode != 0
    log = (house.path / "results/logs/download_dataset/letters.log").read_text()
    assert len(log.splitlines()) == 2, log
    assert "place images_background.zip (md5 68d2efa1b9178cc56df9314c21c6e718) in data/omniglot-py;" in log
