"""What a run on one's own images came to: its rows, whether training was worth it, the model, the next command."""

import pytest
import yaml
from conftest import run_program
from small_chain import ASKED, change, write_chain

from metantk.results import tables, verdict

ROWS = {("small", "rfs"): 9.0, ("small", "none"): 2.0, ("pixels", "none"): 4.0}


def lines_of(root, rows, seeds=(0,)):
    folders = [
        write_chain(root, "fixed", seed, dataset="images", backbone=backbone, learner=learner, shift=shift)
        for (backbone, learner), shift in rows.items()
        for seed in seeds
    ]
    return list(verdict.describe(tables.group_chains(map(tables.read_chain, folders))))


def test_three_rows_with_intervals_the_verdict_the_model_and_the_next_command(tmp_path):
    text = "\n".join(lines_of(tmp_path, ROWS))
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert [line.split("|")[1].strip() for line in table] == [
        "Row",
        "small, trained by rfs",
        "small, untrained",
        "raw pixels",
    ]
    assert all(line.count(" ± ") == 2 for line in table[1:])
    # All rows have the same noise here, so that their differences have none.
    told = "5.0 ± 0.0 points above raw pixels, 7.0 ± 0.0 points above the same network untrained"
    assert f"small, trained by rfs, 5-shot: {told}; training was worth it." in text
    assert "one seed" in text
    assert "paper" not in text
    folder = tmp_path / "images/small/fixed/seed0/rfs"
    assert f"Model:  {folder}\n" in text
    assert f"scripts/classify_images.py --model {folder} " in text


def test_a_training_that_is_below_a_baseline_is_not_worth_it(tmp_path):
    text = "\n".join(lines_of(tmp_path, ROWS | {("small", "rfs"): 3.0}, seeds=(0, 1)))
    assert "1.0 ± 0.0 points below raw pixels, 1.0 ± 0.0 points above the same network untrained" in text
    assert "training was not worth it yet" in text
    assert "mean of 2 seeds" in text


def test_warnings_of_a_training_are_told(tmp_path):
    folder = write_chain(tmp_path, "fixed", 0, dataset="images", backbone="small")
    change(folder / "model.json", warnings=["at chance"])
    text = "\n".join(verdict.describe(tables.group_chains([tables.read_chain(folder)])))
    assert "Note: small, trained by rfs: 1 of 1 trainings warned, seed 0: at chance" in text


def test_each_data_set_has_its_verdict(tmp_path, repository):
    configuration = {
        "results": "mine",
        "datasets": {name: {"source": "x"} for name in ("birds", "cars")},
        "rows": [{"backbone": "small", "learner": "rfs"}],
        "seeds": [0],
        "backbones": {"small": {"kind": "resnet12"}},
        "evaluation": {"episodes": ASKED["episodes"]},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(configuration))
    how = {"backbone": "small", "search_options": {"kind": "fixed"}}
    for dataset in configuration["datasets"]:
        write_chain(tmp_path / "mine", "fixed", 0, dataset=dataset, **how)
    words = ("python", repository / "scripts/show_results.py", "--configfile", "mine.yaml", "--verdict")
    printed = run_program(*words, folder=tmp_path).stdout
    birds, cars = printed.split("--- cars ---")
    assert "--- birds ---" in birds
    for text, dataset in ((birds, "birds"), (cars, "cars")):
        assert f"Model:  mine/{dataset}/small/fixed/seed0/rfs\n" in text


def test_without_a_trained_row_there_is_no_model(tmp_path):
    text = "\n".join(lines_of(tmp_path, {("pixels", "none"): 0.0}))
    assert "Model:" not in text


@pytest.mark.parametrize("is_finished", [True, False])
def test_the_program_shows_it(tmp_path, repository, is_finished):
    configuration = {
        "results": "mine",
        "datasets": {"images": {"source": "x"}},
        "rows": [{"backbone": "small", "learner": ["rfs", "none"]}],
        "seeds": [0],
        "backbones": {"small": {"kind": "resnet12"}},
        "evaluation": {"episodes": ASKED["episodes"]},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(configuration))
    if is_finished:
        write_chain(
            tmp_path / "mine", "fixed", 0, dataset="images", backbone="small", search_options={"kind": "fixed"}
        )
    words = ("python", repository / "scripts/show_results.py", "--configfile", "mine.yaml", "--verdict")
    run = run_program(*words, folder=tmp_path)
    assert run.returncode == (0 if is_finished else 2), run.stderr
    if is_finished:
        assert "Model:  mine/images/small/fixed/seed0/rfs" in run.stdout
        assert "mine/tables" in run.stdout
    else:
        assert run.stderr == "show_results.py: error: mine: no row is finished; run the workflow first\n"
