"""Ways of calling the workflow: by either Snakefile, and as a module from a folder or a version control host."""

import json
import os
import re
import subprocess

import pytest
import yaml
from conftest import House, copy_house

pytestmark = pytest.mark.slow

SNAKEFILE = """
configfile: "project.yaml"

module few_shot:
    snakefile: {source}
    config: config["few_shot"]
{more}
use rule * from few_shot as few_shot_*

rule read_name:
    default_target: True
    input: "shots/letters/data/manifest.json"
    output: "name.txt"
    shell: "grep letters {{input}} > {{output}}"

print("local:", *workflow._localrules)
"""
CONFIGURATION = {
    "results": "shots",
    "datasets": {"letters": {"source": "glyphs", "image_size": 16, "images_per_class": 20}},
    "rows": [{"backbone": "small", "learner": "rfs"}],
    "seeds": [0],
    "backbones": {"small": {"kind": "conv4", "channels": 4}},
}
# From the root, and where the workflow catalogue looks.
SNAKEFILES = ("Snakefile", "workflow/Snakefile")
STAGES = {"prepare_dataset", "inspect_dataset", "search_architecture", "train_network", "evaluate_episodes"}


def make_project(folder, source: str, *, more: str = "") -> House:
    folder.mkdir()
    (folder / "Snakefile").write_text(SNAKEFILE.format(source=source, more=more))
    (folder / "project.yaml").write_text(yaml.safe_dump({"few_shot": CONFIGURATION}))
    return House(folder)


def assert_it_runs(project: House) -> None:
    """A dry run of everything, the default target of the module; then one job of ours and one of theirs."""
    snakefile = project.path / "Snakefile"
    own = snakefile.read_text()
    snakefile.write_text(own.replace("    default_target: True\n", ""))
    dry = project.snakemake("--dry-run")
    snakefile.write_text(own)
    assert dry.returncode == 0, dry.stderr
    for stage in STAGES:
        assert f"\nfew_shot_{stage} " in dry.stdout + dry.stderr
    assert "few_shot_download_dataset" in re.search("^local: (.*)$", dry.stdout, re.M)[1].split()
    run = project.snakemake("--cores", 1)
    logs = [path.read_text() for path in project.path.glob("shots/logs/**/*.log")]
    assert run.returncode == 0, "\n".join([run.stderr, *logs])
    manifest = json.loads((project.path / "shots/letters/data/manifest.json").read_text())
    assert manifest["name"] == "letters"
    assert manifest["splits"]["train"]["images"] == 64 * 20
    assert (project.path / "name.txt").read_text().strip() == '"name": "letters",'
    again = project.snakemake("--cores", 1, "--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr


@pytest.mark.parametrize("snakefile", SNAKEFILES)
def test_a_module_from_a_folder(tmp_path, repository, snakefile):
    snakefile = os.path.relpath(repository / snakefile, tmp_path / "project")
    project = make_project(tmp_path / "project", repr(snakefile))
    assert_it_runs(project)
    assert not (project.path / "results").exists()


@pytest.mark.parametrize("snakefile", SNAKEFILES)
def test_a_module_from_a_version_control_host(tmp_path, monkeypatch, snakefile):
    """github() as the workflow catalogue's tool writes it; git is told that the host is a folder."""
    hosted = tmp_path / "hosts" / "someone" / "few-shot"
    hosted.mkdir(parents=True)
    copy_house(hosted)
    git = ["git", "-C", str(hosted), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "all"], ["tag", "v1"]):
        subprocess.run([*git, *command], check=True)
    (tmp_path / "gitconfig").write_text(f'[url "file://{tmp_path}/hosts/"]\n\tinsteadOf = https://github.com/\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    project = make_project(tmp_path / "project", f'github("someone/few-shot", path="{snakefile}", tag="v1")')
    assert_it_runs(project)


@pytest.mark.parametrize("more", ['    prefix: "mine"', '    replace_prefix: {"shots/": "mine/"}'])
def test_prefixes_are_refused(tmp_path, repository, more):
    """Rules name folders in parameters, too, which Snakemake leaves as they are."""
    project = make_project(tmp_path / "project", repr(str(repository / "Snakefile")), more=more)
    run = project.snakemake("--dry-run")
    assert run.returncode == 2
    assert run.stderr.strip().splitlines()[-1].startswith("error: module: leave out prefix and replace_prefix")


def test_both_ways_of_calling_plan_the_same_jobs(tiny_house):
    assert tiny_house.planned() == tiny_house.planned("--snakefile", "workflow/Snakefile") != set()
