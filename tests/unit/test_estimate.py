"""How long a configuration will take: extrapolation, schedules, and the program on a tiny one."""

from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, run_program, tiny_configuration

import estimate_campaign
from estimate_campaign import PROGRESS, Cost, Step, carry_on, schedule
from metantk.options.config import parse_config
from metantk.runtime.files import InputError


def test_progress_is_carried_on_to_its_end_without_the_start():
    # 5 s of start, then 2 steps a second: 100 of them are done after 55 s.
    marks = [(4.0, 0, 100), (5.5, 1, 100), (10.0, 10, 100), (15.0, 20, 100)]
    assert carry_on(marks, "x") == pytest.approx(55)
    assert carry_on([(7.0, 100, 100)], "x") == 7
    for few in ([], marks[:1], marks[:2], [marks[1], (9.0, 1, 100)]):
        with pytest.raises(
            InputError, match=r"x\.py: no second step was seen in time; give it more with --seconds"
        ):
            carry_on(few, "x.py")


@pytest.mark.parametrize(("workers", "seconds"), [(1, 4 + 2 * 10 + 3), (2, 4 + 10 + 3), (4, 4 + 10)])
def test_what_waits_for_the_same_job_goes_side_by_side_after_it(workers, seconds):
    """A data set, one search for three networks of 3, 10 and 10 seconds, and their evaluations."""
    networks = [Step(1, [Step(2, [])]), Step(6, [Step(4, [])]), Step(5, [Step(5, [])])]
    steps = [Step(3, [Step(1, networks)])]
    assert schedule(steps, workers) == seconds


def test_data_sets_are_prepared_one_after_the_other_on_one_worker():
    steps = [Step(100, [Step(1, [])]), Step(100, [Step(1, [])])]
    assert schedule(steps, 1) == 202
    assert schedule(steps, 2) == 101


def test_a_search_that_learners_share_is_counted_once(monkeypatch):
    rows = [{"backbone": "3cells-2ch", "search": "random", "learner": ["rfs", "maml", "anil"]}]
    config = parse_config(tiny_configuration() | {"rows": rows, "seeds": [0, 1]})
    monkeypatch.setattr(estimate_campaign, "find_data", lambda config, dataset, folder: Path("/nowhere"))
    monkeypatch.setattr(estimate_campaign, "run_for", lambda *arguments: Cost(7.0, 1.0, True))
    monkeypatch.setattr(estimate_campaign, "measure_search", lambda *arguments: Cost(1000.0, 1.0, True))
    monkeypatch.setattr(estimate_campaign, "measure_learner", lambda *arguments: (Cost(10.0, 1.0, True),) * 2)
    jobs, steps = estimate_campaign.measure(config, Path("/nowhere"), None)
    total = sum(job.count * job.cost.seconds for job in jobs)
    assert total == 7 + 2 * (1000 + 3 * 20)
    assert schedule(steps, 1) == total


@pytest.mark.parametrize(
    ("learner", "kind", "changed"),
    [
        ({"kind": "rfs", "epochs": 100}, "none", {}),
        ({"kind": "maml", "epochs": 60}, "maml", {"epochs": 0}),
        ({"kind": "metaoptnet", "milestones": [20, 40, 50]}, "metaoptnet", {"epochs": 0, "milestones": None}),
    ],
)
def test_what_stands_in_for_a_network_is_not_trained(learner, kind, changed):
    configuration = tiny_configuration()
    configuration["learners"] = configuration.get("learners", {}) | {"mine": learner}
    configuration["rows"] = [{"backbone": "conv4", "learner": "mine"}]
    found = estimate_campaign.without_training(parse_config(configuration).learner("mine"))
    assert found.kind == kind
    assert {name: getattr(found, name) for name in changed} == changed


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("training: 12/300 [00:05<02:00]", ("12", "300")),
        ("rank stability: 1.5k/3k [00:05<?]", ("1.5k", "3k")),
        ("12:30:01 device cpu, 1 threads, on node", None),
    ],
)
def test_lines_of_progress_are_told_from_others(line, found):
    match = PROGRESS.match(line)
    assert (match and match.groups()) == found


def test_measurements_share_the_time_and_are_named(monkeypatch, caplog):
    caplog.set_level("INFO", logger="metantk")
    now = iter([0.0, 0.0, 60.0, 110.0])
    monkeypatch.setattr(estimate_campaign.time, "monotonic", lambda: next(now))
    pace = estimate_campaign.Pace(3, loading=2.0, seconds=None)
    assert pace.next("a") == pytest.approx(80 / 3 / 2)
    assert pace.next("b") == 20 / 2 / 2
    assert pace.next("c") == estimate_campaign.LEAST_SECONDS  # the time is over
    assert caplog.messages == ["measuring 1 of 3: a", "measuring 2 of 3: b", "measuring 3 of 3: c"]
    monkeypatch.undo()
    assert estimate_campaign.Pace(3, loading=2.0, seconds=7.0).next("a") == 7


def test_rows_of_the_same_backbone_and_learner_are_measured_once():
    rows = [
        {"backbone": "3cells-2ch", "search": ["metantk", "random"], "learner": ["rfs", "anil"]},
        {"backbone": "conv4", "learner": "rfs"},
    ]
    config = parse_config(tiny_configuration() | {"rows": rows})
    assert estimate_campaign.count_measurements(config) == 3 + 2 * 3


SLOW_STEPS = """
import sys, time
for step in range(1, 4):
    print(f"steps: {step}/100 [00:00<00:00]", file=sys.stderr, flush=True)
    time.sleep(0.3)
time.sleep(60)
"""


def test_a_job_is_not_ended_before_its_second_step(tmp_path):
    (tmp_path / "steps.py").write_text(SLOW_STEPS)
    cost = estimate_campaign.run_for(0.01, str(tmp_path / "steps"), [])
    assert not cost.whole
    assert 10 < cost.seconds < 300  # 100 steps of 0.3 s


@pytest.mark.slow
def test_the_program_measures_each_distinct_job(tmp_path):
    rows = [
        {"backbone": "3cells-2ch", "search": "linear-regions", "learner": "rfs"},
        {"backbone": "conv4-2", "learner": "rfs"},
    ]
    configuration = tiny_configuration() | {"rows": rows, "seeds": [0, 1, 2], "results": str(tmp_path / "results")}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(configuration))
    program = REPOSITORY / "scripts" / "estimate_campaign.py"
    run = run_program("python", program, "--configfile", tmp_path / "config.yaml", "--seconds", 1)
    assert run.returncode == 0, run.stderr
    printed = run.stdout
    lines = [line.split() for line in printed.splitlines()]
    assert [line[0] for line in lines[1:8]] == [
        "prepare_dataset",
        *["search_architecture", "train_network", "evaluate_episodes"] * 2,
    ]
    assert {line[-3] for line in lines[2:8]} == {"3"}
    assert all(float(line[-1]) > 50 for line in lines[1:8])
    seconds = [float(line[-2]) for line in lines[1:8]]
    assert seconds[1] > 0  # the search of cells takes longest; others may be less than half a second
    assert seconds[4] == min(seconds)  # `fixed` computes nothing
    assert f"{1 + 6 * 3 + 2 + 1 + 1} jobs; the largest takes" in printed
    assert "search 3cells-2ch linear-regions: cannot be counted" in printed
    computed = [line for line in lines if line[:1] in (["training"], ["evaluation"])]
    names = [[stage, row, "rfs"] for row in ("3cells-2ch", "conv4-2") for stage in ("training", "evaluation")]
    assert [line[:3] for line in computed] == names
    assert all(line[3] == "3" and line[6::2] == ["s"] * 3 for line in computed)
    hours = [float(line[3]) for line in lines if line[1:3] == ["at", "once:"]]
    assert len(hours) == 4
    assert hours == sorted(hours, reverse=True)
    assert not (tmp_path / "results").exists()


def test_a_run_that_ends_in_time_is_measured_and_one_that_fails_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"^draw_results\.py: .*error: "):
        estimate_campaign.run_for(5, "draw_results", ["--nonsense"])
    cost = estimate_campaign.run_for(60, "write_schema", ["--help"])
    assert isinstance(cost, Cost)
    assert cost.whole
    assert cost.seconds > 0
    assert cost.memory_mb > 10
