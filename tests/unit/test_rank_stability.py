"""Rank stability: made-up criteria of known noise, the cost of both styles, and the program itself."""

import numpy as np
import pandas as pd
import pytest
import torch
from metantk.config import SearchOptions

from metantk.criteria import CRITERIA, Criterion, Measured, Setting
from metantk.datasets.store import Split
from metantk.devices import numpy_generator
from metantk.figures.rank_stability import draw_rank_stability
from metantk.rank_stability import COLUMNS, common_draws, measure_rank_stability, total_networks
from metantk.space.genotype import CELL_TYPES


def noisy_setting(monkeypatch, *, shared: float, private: float) -> tuple[Setting, list[int]]:
    """A criterion with a true worth per operation, noise of a draw that all networks share, and noise of each."""
    worth = {kind: np.random.default_rng(number).uniform(1, 2, (9, 7)) for number, kind in enumerate(CELL_TYPES)}

    def measure(setting, key, masks):
        count = len(masks["normal"])
        setting.advance(count)
        true = 1000 - sum((masks[kind].numpy() * worth[kind]).sum((1, 2)) for kind in CELL_TYPES)
        noise = shared * numpy_generator("shared", *key).normal()
        return Measured(true + noise + private * numpy_generator("private", *key).normal(size=count), 0)

    for name in ("ntk_condition", "linear_regions"):
        monkeypatch.setitem(CRITERIA, name, Criterion(measure, larger_is_better=False))
    networks = []
    options = SearchOptions(criteria=["ntk_condition", {"linear_regions": 0.5}])
    nothing = Split(np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0, np.int64), [])
    return Setting(options, 5, 4, nothing, torch.device("cpu"), networks.append), networks


def test_without_noise_all_repetitions_agree(monkeypatch):
    setting, networks = noisy_setting(monkeypatch, shared=0, private=0)
    table = measure_rank_stability(setting, seed=0, draws=2)
    assert list(table.columns) == COLUMNS
    assert set(table["criterion"]) == {"ntk_condition", "linear_regions", "rank_sum"}
    np.testing.assert_allclose(table["kendall_tau"], 1)
    assert sum(networks) == total_networks(setting, 2)


def test_noise_of_each_network_leaves_no_order(monkeypatch):
    setting, _ = noisy_setting(monkeypatch, shared=0, private=50)
    table = measure_rank_stability(setting, seed=0, draws=6)
    assert table.loc[table["repeat"] == 1, "kendall_tau"].abs().max() < 0.15


def test_averaging_over_draws_helps(monkeypatch):
    setting, _ = noisy_setting(monkeypatch, shared=0, private=0.5)
    table = measure_rank_stability(setting, seed=0, draws=8)
    common = table[(table["draws"] == "common") & (table["criterion"] == "ntk_condition")].set_index("repeat")
    assert common.loc[5, "kendall_tau"] > common.loc[1, "kendall_tau"] + 0.1


def test_both_styles_cost_the_same():
    for draws in (2, 5, 9):
        assert 0 <= draws * 2 * 126 - common_draws(draws, 126) * 127 < 127


def test_figure_shows_a_panel_per_criterion(monkeypatch):
    setting, _ = noisy_setting(monkeypatch, shared=0, private=1)
    figure = draw_rank_stability(measure_rank_stability(setting, seed=0, draws=3), "title")
    assert len(figure.axes) == 3
    assert all(len(axes.lines) == 3 for axes in figure.axes)  # two styles and the zero line


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--independent-draws", "1"], "has nothing to compare"), ([], "uniform draw")]
)
def test_program_refuses_what_cannot_be_compared(tiny_house, arguments, message):
    finished = tiny_house.run(
        "python", "scripts/measure_rank_stability.py", "--data", "data", "--cells", 3, "--channels", 2,
        "--criteria", "[]", "--output", "out", *arguments,
    )  # fmt: skip
    assert finished.returncode == 2
    assert message in finished.stderr
    assert not (tiny_house.path / "out").exists()


def test_program_writes_the_table_and_the_figure(finished):
    run = finished.run(
        "python", "scripts/measure_rank_stability.py", "--data", "results/glyphs/data", "--cells", 3,
        "--channels", 2, "--criteria", '["linear_regions"]', "--linear-regions.pictures", 60,
        "--linear-regions.batches", 1, "--image-size", 8, "--independent-draws", 2, "--output", "out",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    table = pd.read_csv(finished.path / "out" / "rank_stability.csv")
    assert set(table["draws"]) == {"common", "independent"}
    assert {path.suffix for path in (finished.path / "out").iterdir()} == {".csv", ".svg", ".png"}
