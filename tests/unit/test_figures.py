"""Figures: what is drawn is what was given, nothing hides anything else, equal input gives equal bytes."""

import itertools
import json
import random
import re
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.text import Text
from small_chain import GENOTYPE, change, write_chain

import draw_results
import draw_searches
from metantk.criteria.base import load_criterion
from metantk.options import catalogue
from metantk.results import tables
from metantk.results.figures import (
    accuracies,
    benchmarks,
    cells,
    front,
    frontier,
    palette,
    search_curves,
    search_trace,
    style,
    training_curves,
)
from metantk.results.figures import effects as effects_figures
from metantk.results.records import SearchReport
from metantk.runtime.files import InputError
from metantk.theory import figures as theory_figures
from metantk.theory.training_checks import COMPARISONS

FIXTURES = Path(__file__).parents[1] / "fixtures"
OPERATIONS = [
    "skip_connect",
    "sep_conv_3x3",
    "dil_conv_3x3",
    "avg_pool_3x3",
    "max_pool_3x3",
    "conv_1x5_5x1",
    "conv_3x3",
]
CONDITION = "meta_ntk_condition"
CRITERIA = tuple(catalogue.CRITERIA)
FACTS = {name: load_criterion(name).facts for name in CRITERIA}


def published_genotypes() -> list[dict]:
    architectures = json.loads((FIXTURES / "published_genotypes.json").read_text())["architectures"]
    return [architecture["genotype"] for architecture in architectures]


def random_genotype(seed: int, nodes: int = 3) -> dict:
    generator = random.Random(seed)
    genotype = {}
    for cell in ("normal", "reduce"):
        inputs = [sorted(generator.sample(range(2 + node), 2)) for node in range(nodes)]
        genotype[cell] = [[[generator.choice(OPERATIONS), source] for source in pair] for pair in inputs]
        genotype[f"{cell}_concat"] = list(range(2, 2 + nodes))
    return genotype


def crowded_genotype(nodes: int = 4) -> dict:
    """Every node takes both inputs: as many links as possible run in parallel."""
    cell = [[["conv_1x5_5x1", 0], ["dil_conv_3x3", 1]] for _ in range(nodes)]
    concatenated = list(range(2, 2 + nodes))
    return {"normal": cell, "normal_concat": concatenated, "reduce": cell, "reduce_concat": concatenated}


def make_trace(seed: int, criteria=(CONDITION, "linear_regions"), nodes: int = 3) -> pd.DataFrame:
    """A search whose scores are drawn at random, in the format of search.csv."""
    generator = np.random.default_rng(seed)
    ends = [(source, 2 + node) for node in range(nodes) for source in range(2 + node)]
    remaining = {(cell, edge): OPERATIONS.copy() for cell in ("normal", "reduce") for edge in range(len(ends))}
    rows, rounds = [], itertools.count()

    def score(stage: str, keys: list) -> list[dict]:
        index = next(rounds)
        unpruned = {name: 5000 * 0.8**index if name == CONDITION else 1000 * 1.1**index for name in criteria}
        return [score_one(index, stage, key, operation, unpruned) for key in keys for operation in remaining[key]]

    def score_one(index: int, stage: str, key: tuple, operation: str, unpruned: dict) -> dict:
        source, node = ends[key[1]]
        row = {"round": index, "stage": stage, "cell": key[0], "edge": key[1], "input": source, "node": node}
        row["operation"] = operation
        for name in criteria:
            change = generator.normal(0, 0.03)
            row |= {f"{name}_unpruned": unpruned[name], name: unpruned[name] * (1 - change)}
            row |= {f"{name}_change": change, f"{name}_rank": int(generator.integers(50))}
        decided = {"removed": False, "decided_by": criteria[int(generator.integers(len(criteria)))]}
        return row | {"rank_sum": sum(row[f"{name}_rank"] for name in criteria)} | decided

    while any(len(operations) > 1 for operations in remaining.values()):
        scored = score("operations", list(remaining))
        for key in remaining:
            own = [row for row in scored if (row["cell"], row["edge"]) == key]
            lowest = min(own, key=lambda row: row["rank_sum"])
            lowest["removed"] = True
            remaining[key].remove(lowest["operation"])
        rows += scored
    for cell, node in itertools.product(("normal", "reduce"), range(3, 2 + nodes)):
        scored = score("edges", [(cell, edge) for edge, end in enumerate(ends) if end[1] == node])
        for row in sorted(scored, key=lambda row: row["rank_sum"])[:-2]:
            row["removed"] = True
        rows += scored
    return pd.DataFrame(rows)


def training_table(epochs: int = 20) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    rate = np.where(epoch > 12, 0.002, 0.02)
    return pd.DataFrame({"epoch": epoch, "lr": rate, "loss": 4 / epoch, "accuracy": 100 - 80 / epoch})


def summary_table(offset: float = 0.0) -> pd.DataFrame:
    columns = ["row", "seeds", "params", "search_seconds", "accuracy_mean", "accuracy_std", "ci95"]
    rows = [
        ("MetaNTK-NAS", 3, 1.77e6, 6000.0, 63.88, 0.81, 0.5),
        ("TE-NAS", 3, 1.90e6, 4000.0, 62.51, 0.42, 0.5),
        ("Random Cell", 3, 1.70e6, 0.0, 62.55, 1.15, 0.5),
        ("RFS", 1, 12.5e6, np.nan, 62.02, np.nan, 0.63),
    ]
    table = pd.DataFrame(rows, columns=columns).assign(dataset="mini-imagenet")
    shots = [table.assign(shots=1), table.assign(shots=5, accuracy_mean=table["accuracy_mean"] + 16)]
    return pd.concat(shots, ignore_index=True).assign(accuracy_mean=lambda frame: frame["accuracy_mean"] + offset)


def all_figures() -> dict:
    """A function per figure, each called anew."""
    return {
        "cells": lambda: cells.draw_cells(published_genotypes()[0], "cells"),
        "trace": lambda: search_trace.draw_search_trace(make_trace(0), "trace", FACTS),
        "empty": lambda: search_trace.draw_search_trace(make_trace(0).iloc[:0], "empty"),
        "curves": lambda: training_curves.draw_training_curves({("MetaNTK-NAS", 0): training_table()}, "curves"),
        "accuracies": lambda: accuracies.draw_accuracies(summary_table(), "accuracies", chance=20.0),
        "cost": lambda: accuracies.draw_cost_accuracy(summary_table(), "cost"),
        "front": lambda: front.draw_front(seeds_table(), "front"),
    }


def effects_figure():
    """A search by experiment, with a criterion on a logarithmic axis."""
    rows = [
        {
            "cell": "normal",
            "edge": edge,
            "input": edge,
            "node": 2,
            "operation": operation,
            "kept": operation == "conv_3x3",
        }
        for edge in (0, 1)
        for operation in OPERATIONS
    ]
    effects = pd.DataFrame(rows).assign(effect=0.5, std=0.2, certainty=0.4)
    trace = pd.DataFrame({"candidate": range(4), "stage": ["first sample"] * 2 + ["focused"] * 2})
    trace[CONDITION] = [20.0, 300.0, 40.0, 5000.0]
    return effects_figures.draw_effects(effects, trace, "effects", {CONDITION: FACTS[CONDITION]})


def frontier_figure():
    columns = [
        "shots",
        "criterion",
        "tau",
        "tau_low",
        "tau_high",
        "regret",
        "regret_low",
        "regret_high",
        "operations",
    ]
    rows = [
        (1, "parameters", 0.3, 0.2, 0.4, 2.0, 1.0, 3.0, 0.0),
        (1, "ntk_condition", 0.1, 0.0, 0.2, 3.0, 2.0, 4.0, 2e9),
        (1, "trained 2 epochs", 0.5, 0.4, 0.6, 1.0, 0.5, 1.5, 5e11),
        (1, "trained again", 0.6, 0.5, 0.7, 1.0, 0.5, 1.5, np.nan),
    ]
    return frontier.draw_frontier(pd.DataFrame(rows, columns=columns), "frontier")


def kernels_table() -> pd.DataFrame:
    widths = np.array([16.0, 32.0, 64.0])
    errors = dict.fromkeys(("ntk_limit", "meta_limit", "formula", "printed"), widths**-0.5)
    names = {"source": "glyphs", "network": "fully connected, relu, depth 2", "inner": "MAML, flow"}
    return pd.DataFrame({"width": widths, **errors, **names})


def convergence_table() -> pd.DataFrame:
    steps = np.arange(20)
    names = {"source": "glyphs", "network": "fully connected, relu, depth 2", "width": 16, "rate": 0.9, "seed": 0}
    return pd.DataFrame({"step": steps, "loss": 0.7**steps, "bound": 0.9**steps, **names})


def regression_table() -> pd.DataFrame:
    widths = np.array([16.0, 32.0, 64.0])
    names = {"source": "glyphs", "network": "fully connected, relu, depth 2", "time": 4}
    cases = [
        pd.DataFrame({"width": widths, "error": widths**-0.5, **names, **case}) for case in COMPARISONS.values()
    ]
    return pd.concat(cases, ignore_index=True)


LOGARITHMIC = {
    "trace": lambda: search_trace.draw_search_trace(make_trace(0), "trace", FACTS),
    "cost": lambda: accuracies.draw_cost_accuracy(summary_table(), "cost"),
    "effects": effects_figure,
    "frontier": frontier_figure,
    "determinism": lambda: theory_figures.draw_determinism(kernels_table()),
    "formula": lambda: theory_figures.draw_formula(kernels_table()),
    "convergence": lambda: theory_figures.draw_convergence(convergence_table()),
    "regression": lambda: theory_figures.draw_regression(regression_table()),
}


def svg_root(figure, folder: Path) -> ElementTree.Element:
    return ElementTree.parse(style.save(figure, folder / "figure")[0]).getroot()


def svg_texts(figure, folder: Path) -> list[str]:
    texts = svg_root(figure, folder).iter("{http://www.w3.org/2000/svg}text")
    return [" ".join("".join(text.itertext()).split()) for text in texts]


def figure_texts(figure) -> list[str]:
    return [artist.get_text() for artist in figure.findobj(lambda a: hasattr(a, "get_text")) if artist.get_text()]


def artists(figure, prefix: str) -> dict:
    """Artists whose name starts with `prefix`, by the rest of the name."""
    found = figure.findobj(lambda artist: (artist.get_gid() or "").startswith(prefix))
    return {artist.get_gid().removeprefix(prefix): artist for artist in found}


def ends_of(cell: str, genotype: dict) -> list[str]:
    return [f"{cell}-{i}-{n}" for n, node in enumerate(genotype[cell], 2) for _, i in node]


# --- Saving ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", all_figures())
def test_same_input_gives_same_bytes(name, tmp_path):
    draw = all_figures()[name]
    first, second = (style.save(draw(), tmp_path / run / "figure") for run in ("first", "second"))
    assert [path.name for path in first] == ["figure.svg", "figure.png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert "<dc:date>" not in first[0].read_text()
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == ["figure.png", "figure.svg"]


def test_save_keeps_dots_in_names(tmp_path):
    figure = search_trace.draw_search_trace(make_trace(0).iloc[:0], "empty")
    names = [path.name for path in style.save(figure, tmp_path / "ridge-0.5")]
    assert names == ["ridge-0.5.svg", "ridge-0.5.png"]


@pytest.mark.parametrize("name", LOGARITHMIC)
def test_numbers_on_logarithmic_axes_are_plain_and_inside_the_figure(name):
    figure = LOGARITHMIC[name]()
    FigureCanvasAgg(figure).draw()
    scaled = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) if axis.get_scale() == "log"]
    assert scaled
    for axis in scaled:
        low, high = sorted(axis.get_view_interval())
        ticks = [
            tick for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()] if low <= tick.get_loc() <= high
        ]
        labels = [tick.label1 for tick in ticks if tick.label1.get_text()]
        assert labels
        for label in labels:
            assert re.fullmatch(r"[0-9.]+|([0-9.]+×)?10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+|[0-9.]+ (s|min|h|d)", label.get_text())
            box = label.get_window_extent()
            assert figure.bbox.containsx(box.x0)
            assert figure.bbox.containsx(box.x1)
            assert figure.bbox.containsy(box.y0)
            assert figure.bbox.containsy(box.y1)


def test_effects_name_edges_as_genotypes_do():
    texts = figure_texts(effects_figure())
    assert {"normal 0→2", "normal 1→2", "effect (standard deviations)"} <= set(texts)


@pytest.mark.parametrize(("value", "text"), [(1000.0, "10³"), (1e12, "10¹²"), (3e-6, "3×10⁻⁶"), (0.3, "0.3")])
def test_powers_of_ten_have_superscripts_and_short_axes_decimals(value, text):
    formatter = style.PlainPowers()
    formatter.create_dummy_axis()
    formatter.axis.set_view_interval(1e-9 if text.startswith(("10", "3×")) else value / 2, value * 1.5)
    assert formatter(value) == text


@pytest.mark.parametrize("name", ["determinism", "formula", "regression"])
def test_slopes_stand_beside_each_other(name):
    figure = LOGARITHMIC[name]()
    renderer = FigureCanvasAgg(figure).get_renderer()
    FigureCanvasAgg(figure).draw()
    texts = figure.findobj(lambda artist: artist.get_gid() == "slope")
    assert len(texts) >= 2
    assert all(text.get_text().endswith("−0.50") for text in texts)
    boxes = [text.get_window_extent(renderer) for text in texts]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_a_dollar_sign_in_a_name_is_one():
    table = summary_table().replace("RFS", "$my_row^2$")
    for draw in (accuracies.draw_accuracies, accuracies.draw_cost_accuracy):
        figure = draw(table, "$title_1$")
        names = [text for text in figure.findobj(Text) if "$" in text.get_text()]
        assert len(names) >= 2
        assert not any(text.get_parse_math() for text in names)


# --- Styles ----------------------------------------------------------------------------------------------


def test_styles_of_known_models_are_stable_and_all_rows_differ():
    styles = palette.row_styles(["zebra", "Random Cell", "TE-NAS", "MetaNTK-NAS", "aardvark"])
    assert list(styles) == ["MetaNTK-NAS", "TE-NAS", "Random Cell", "aardvark", "zebra"]
    assert styles["TE-NAS"] == palette.MODELS["TE-NAS"] == palette.row_styles(["TE-NAS"])["TE-NAS"]
    assert len({style.colour for style in styles.values()}) == 5
    assert len({style.marker for style in styles.values()}) == 5


def test_one_row_of_a_model_has_its_colour_and_the_others_have_their_own():
    rows = [f"MetaNTK-NAS, {cells}cells-48ch" for cells in (2, 5, 8)]
    styles = palette.row_styles([*rows, "RFS"])
    assert styles[rows[0]] == palette.MODELS["MetaNTK-NAS"]
    assert len({style.colour for style in styles.values()}) == 4


# --- Cells -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("genotype", [*published_genotypes()[::6], crowded_genotype(3), random_genotype(0, 4)])
def test_svg_of_cells_holds_every_operation_and_edge(genotype, tmp_path):
    root = svg_root(cells.draw_cells(genotype, "an architecture"), tmp_path)
    texts = Counter("".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text"))
    nodes = [node for cell in ("normal", "reduce") for node in genotype[cell]]
    operations = Counter(operation for node in nodes for operation, _ in node)
    assert {name: texts[name] for name in OPERATIONS} == {name: operations[name] for name in OPERATIONS}
    assert texts["an architecture"] == texts["Normal cell"] == texts["Reduction cell"] == 1
    assert all(texts[str(node)] == 2 for node in genotype["normal_concat"])

    names = Counter(element.get("id") for element in root.iter() if element.get("id"))
    for cell in ("normal", "reduce"):
        output = len(genotype[cell]) + 2
        edges = ends_of(cell, genotype)
        links = [f"{cell}-{node}-{output}" for node in genotype[f"{cell}_concat"]]
        assert all(names[f"label-{edge}"] == 1 for edge in edges)
        assert sorted(name for name in names if name.startswith(f"edge-{cell}-")) == sorted(
            f"edge-{link}" for link in edges + links
        )


def test_labels_name_their_edges():
    genotype = random_genotype(3)
    figure = cells.draw_cells(genotype, "")
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = figure.findobj(lambda artist: hasattr(artist, "get_text") and artist.get_text() in OPERATIONS)
    for name, label in artists(figure, "label-").items():
        cell, source, node = name.split("-")
        box = label.get_window_extent(renderer)
        inside = [t.get_text() for t in texts if box.contains(*middle(t.get_window_extent(renderer)))]
        assert [[inside[0], int(source)]] == [
            edge for edge in genotype[cell][int(node) - 2] if edge[1] == int(source)
        ]
        assert len(inside) == 1


def middle(box) -> tuple[float, float]:
    return (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2


def assert_cells_are_legible(genotype: dict) -> None:
    figure = cells.draw_cells(genotype, "an architecture")
    renderer = FigureCanvasAgg(figure).get_renderer()
    labels, nodes = artists(figure, "label-"), artists(figure, "node-")
    boxes = {name: box.get_window_extent(renderer) for name, box in (labels | nodes).items()}
    for one, other in itertools.combinations(boxes, 2):
        assert not boxes[one].overlaps(boxes[other]), (one, other)
    for text in figure.findobj(lambda artist: hasattr(artist, "get_text") and artist.get_text() in OPERATIONS):
        extent = text.get_window_extent(renderer)
        around = [box for name, box in boxes.items() if name in labels and box.overlaps(extent)]
        assert len(around) == 1
        assert around[0].x0 < extent.x0 < extent.x1 < around[0].x1
    for box in boxes.values():
        assert figure.bbox.containsx(box.x0)
        assert figure.bbox.containsx(box.x1)
        assert figure.bbox.containsy(box.y0)
        assert figure.bbox.containsy(box.y1)
    for name, edge in artists(figure, "edge-").items():
        cell, source, target = name.split("-")
        curve = edge.get_path().interpolated(1).to_polygons(edge.get_transform(), closed_only=False)[0]
        points = np.concatenate([np.linspace(a, b, 20) for a, b in itertools.pairwise(curve)])
        for other, box in boxes.items():
            if other not in (name, f"{cell}-{source}", f"{cell}-{target}"):
                across = (points > [box.x0, box.y0]) & (points < [box.x1, box.y1])
                assert not across.all(axis=1).any(), f"the link {name} runs under {other}"


def test_no_box_of_a_published_cell_hides_anything():
    for genotype in published_genotypes():
        assert_cells_are_legible(genotype)


@pytest.mark.slow
@pytest.mark.parametrize("nodes", [3, 4])
def test_no_box_of_a_random_cell_hides_anything(nodes):
    for seed in range(15 if nodes == 3 else 5):
        assert_cells_are_legible(random_genotype(seed, nodes))
    assert_cells_are_legible(crowded_genotype(nodes))


def test_cells_without_all_nodes_in_the_output():
    genotype = crowded_genotype(3) | {"normal_concat": [4], "reduce_concat": [2, 4]}
    links = artists(cells.draw_cells(genotype, ""), "edge-")
    outputs = [name for name in links if name.endswith("-5")]
    assert sorted(outputs) == ["normal-4-5", "reduce-2-5", "reduce-4-5"]
    assert_cells_are_legible(genotype)


def test_cells_accept_unknown_operations():
    genotype = random_genotype(1)
    genotype["normal"][0][0][0] = "a_rather_long_name_7x7"
    assert "a_rather_long_name_7x7" in figure_texts(cells.draw_cells(genotype, ""))
    assert_cells_are_legible(genotype)


def test_straight_chain_needs_no_crossing():
    nodes = [[["conv_3x3", 0], ["conv_3x3", 1]], [["conv_3x3", 0], ["conv_3x3", 2]]]
    lanes = cells._assign_lanes(cells._cell_links(nodes, [2, 3]))
    assert cells._count_crossings(lanes) == 0


# --- Search trace ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("nodes", [3, 4])
def test_trace_grid_shows_every_removed_operation_and_every_survivor(nodes, tmp_path):
    trace = make_trace(5, nodes=nodes)
    texts = Counter(svg_texts(search_trace.draw_search_trace(trace, "a search"), tmp_path))
    edges = len(trace[["cell", "edge"]].drop_duplicates())
    removed = trace[(trace["stage"] == "operations") & trace["removed"]]
    assert len(removed) == edges * (len(OPERATIONS) - 1)
    # Every edge loses all operations but one, and the last column shows that one: each appears once per edge.
    assert {name: texts[name] for name in OPERATIONS} == dict.fromkeys(OPERATIONS, edges)

    grouped = trace[trace["stage"] == "edges"]
    assert texts["drop"] == grouped["removed"].sum()
    assert texts["keep"] == (~grouped["removed"]).sum()
    for row in trace.drop_duplicates(["cell", "edge"]).itertuples():
        assert texts[f"{row.cell} {row.input}→{row.node}"] == 1
    for count, times in Counter(trace.groupby("round").size()).items():
        assert texts[str(count)] >= times


def test_trace_grid_puts_operations_in_their_round_and_row():
    trace = make_trace(6)
    figure = search_trace.draw_search_trace(trace, "a search")
    axes = figure.axes[-1]
    places = {(round(x, 2), y): text.get_text() for text in axes.texts for x, y in [text.get_position()]}
    columns = search_trace._place_rounds(trace)
    edges = search_trace._list_edges(trace)
    for row, edge in edges.iterrows():
        own = trace[(trace["cell"] == edge["cell"]) & (trace["edge"] == edge["edge"])]
        for entry in own[own["removed"]].itertuples():
            shown = places[round(search_trace._middle(columns[entry.round]), 2), row + 0.5]
            assert shown == (entry.operation if entry.stage == "operations" else "drop")
        lost = set(own.loc[own["removed"] & (own["stage"] == "operations"), "operation"])
        result = [text for (x, y), text in places.items() if y == row + 0.5 and x > max(columns.values())[0] + 0.5]
        assert result == [(set(OPERATIONS) - lost).pop()]


def test_trace_draws_each_criterion():
    trace = make_trace(7, ("ntk_condition", "linear_regions", "ntk_spectral_entropy", "my_score"))
    axes = search_trace.draw_search_trace(trace, "a search", FACTS).axes
    assert [a.get_ylabel() for a in axes[:4]] == [
        "condition number\nof the NTK",
        "linear regions",
        "spectral entropy\nof the NTK",
        "my score",  # it says nothing of itself
    ]
    assert [a.get_yscale() for a in axes[:4]] == ["log", "linear", "linear", "linear"]
    unpruned = axes[1].lines[-1].get_ydata()
    assert np.allclose(unpruned, trace.groupby("round")["linear_regions_unpruned"].first())


@pytest.mark.parametrize("count", [1, 5, 9])
def test_traces_of_any_number_of_criteria_are_drawn(count, tmp_path):
    """Five, for instance: a panel each, with a label in a colour of its own, and stripes in that colour."""
    names = (*CRITERIA, "one", "two", "three", "four", "five")[:count]
    trace = make_trace(11, names)
    figure = search_trace.draw_search_trace(trace, "a search", FACTS)
    panels = figure.axes[:count]
    titles = [FACTS.get(name, {}).get("title", name) for name in names]
    assert [axes.get_ylabel() for axes in panels] == titles
    texts = svg_texts(figure, tmp_path)
    assert sum(text == "a search" for text in texts) == 1
    for one, other in itertools.pairwise(panels):  # one below the other
        assert other.get_position().y1 < one.get_position().y0
    assert figure.axes[-1].get_position().y0 >= 0
    colours = [to_hex(axes.yaxis.label.get_color()) for axes in panels]
    stripes = Counter(
        to_hex(patch.get_facecolor()) for patch in figure.axes[-1].patches if patch.get_height() < 0.2
    )
    if count == 1:
        assert not stripes  # one criterion decides all
    else:
        assert len(set(colours)) == min(count, len(palette.DECIDER_COLOURS))
        decided = trace.loc[trace["removed"], "decided_by"]
        expected = Counter()
        for index, name in enumerate(names):
            expected[colours[index]] += int((decided == name).sum())
        assert stripes == +expected


def test_a_decision_of_several_criteria_has_the_colours_of_all_and_a_compromise_none():
    trace = make_trace(12, ("ntk_condition", "linear_regions"))
    assert stripes_of(trace.assign(decided_by="ntk_condition linear_regions")) == {
        colour: trace["removed"].sum() for colour in palette.DECIDER_COLOURS[:2]
    }
    assert stripes_of(trace.assign(decided_by="compromise")) == {}
    assert stripes_of(trace.assign(decided_by="")) == {}


def stripes_of(trace: pd.DataFrame) -> dict:
    patches = search_trace.draw_search_trace(trace, "a search", FACTS).axes[-1].patches
    return Counter(to_hex(patch.get_facecolor()) for patch in patches if patch.get_height() < 0.2)


def test_trace_marks_values_that_no_axis_can_show():
    trace = make_trace(8)
    trace.loc[[0, 5, 200], CONDITION] = [np.inf, np.nan, -3.0]
    panel = search_trace.draw_search_trace(trace, "a search", FACTS).axes[0]
    candidates, crosses, _ = panel.lines
    assert np.flatnonzero(np.isnan(candidates.get_ydata())).tolist() == [0, 5, 200]
    assert np.flatnonzero(np.isfinite(crosses.get_ydata())).tolist() == [0, 5, 200]


def test_trace_read_from_csv_gives_the_same_figure(tmp_path):
    make_trace(9).to_csv(tmp_path / "search.csv", index=False)
    read = pd.read_csv(tmp_path / "search.csv")
    drawn = search_trace.draw_search_trace(read, "a search")
    assert figure_texts(drawn) == figure_texts(search_trace.draw_search_trace(make_trace(9), "a search"))


def test_unfinished_trace_says_what_is_left():
    trace = make_trace(10)
    texts = Counter(figure_texts(search_trace.draw_search_trace(trace[trace["round"] < 2], "a search")))
    assert texts[f"{len(OPERATIONS) - 2} left"] == 18


def test_empty_trace_says_so(tmp_path):
    figure = search_trace.draw_search_trace(make_trace(0).iloc[:0], "random cell")
    texts = svg_texts(figure, tmp_path)
    assert "random cell" in texts
    assert any(re.search("Nothing was measured", text) for text in texts)


# --- Training curves -------------------------------------------------------------------------------------


def test_training_curves_are_coloured_by_row_and_dashed_by_seed():
    rows = [("MetaNTK-NAS", 0), ("MetaNTK-NAS", 3), ("TE-NAS", 0), ("my own, conv4", 10)]
    figure = training_curves.draw_training_curves({row: training_table() for row in rows}, "training")
    loss, accuracy = figure.axes
    lines = {line.get_label(): line for line in loss.lines}
    assert list(lines)[:4] == [
        "MetaNTK-NAS, seed 0",
        "MetaNTK-NAS, seed 3",
        "TE-NAS, seed 0",
        "my own, conv4, seed 10",
    ]
    first, second, other = (lines[name] for name in list(lines)[:3])
    assert first.get_color() == second.get_color() != other.get_color()
    assert first.get_linestyle() == other.get_linestyle() != second.get_linestyle()
    assert np.array_equal(first.get_ydata(), training_table()["loss"])
    assert np.array_equal(accuracy.lines[0].get_ydata(), training_table()["accuracy"])
    assert list(lines["learning rate falls"].get_xdata()) == [13, 13]
    assert {text.get_text() for text in figure.legends[0].get_texts()} == set(lines)


def test_smooth_schedules_have_no_marks():
    table = training_table().assign(lr=np.linspace(0.1, 0, 20))
    assert len(training_curves.draw_training_curves({("MetaNTK-NAS", 0): table}, "training").axes[0].lines) == 1


def test_training_curves_of_many_seeds_are_named_by_row():
    seeds = len(palette.SEED_LINES) + 1
    curves = {(row, seed): training_table() for row in ("MetaNTK-NAS", "TE-NAS") for seed in range(seeds)}
    del curves["TE-NAS", 0]
    figure = training_curves.draw_training_curves(curves, "training")
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named[:2] == [f"MetaNTK-NAS, {seeds} seeds", f"TE-NAS, {seeds - 1} seeds"]
    assert [name for name in named if "seed" in name] == named[:2]
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]
    assert len(lines) == len(curves)
    assert {line.get_linestyle() for line in lines} == {"-"}


def test_training_curves_of_one_epoch_are_visible():
    figure = training_curves.draw_training_curves({("MetaNTK-NAS", 0): training_table(1)}, "training")
    assert figure.axes[0].lines[0].get_marker() == "o"
    assert figure_texts(training_curves.draw_training_curves({}, "nothing"))[-1] == "No network was trained."


# --- Accuracies and cost ---------------------------------------------------------------------------------


def test_accuracies_show_means_errors_and_chance():
    figure = accuracies.draw_accuracies(summary_table(-38), "accuracies", chance=20.0)
    texts = figure_texts(figure)
    assert {"1-shot", "5-shot", "MetaNTK-NAS", "TE-NAS", "Random Cell", "RFS"} <= set(texts)
    # Standard deviation over seeds where there are several, otherwise the interval over episodes.
    assert {"25.88 ± 0.81", "24.02 ± 0.63", "41.88 ± 0.81"} <= set(texts)
    means = [container.lines[0].get_xdata()[0] for container in figure.axes[0].containers]
    assert np.allclose(means, [25.88, 24.51, 24.55, 24.02])


@pytest.mark.parametrize(("offset", "drawn"), [(-60, True), (0, False)])
def test_chance_is_a_line_where_it_is_near_and_a_note_where_it_is_far(offset, drawn):
    summary = summary_table(offset)
    summary = summary[summary["shots"] == 1]
    figure = accuracies.draw_accuracies(summary, "accuracies", chance=2.0)
    lines = [line for line in figure.axes[0].lines if list(line.get_xdata()) == [2.0, 2.0]]
    assert bool(lines) == drawn
    assert ("← chance 2 %" in figure_texts(figure)) != drawn
    low, high = figure.axes[0].get_xlim()
    assert high - low < 8
    assert not any("chance" in text for text in figure_texts(accuracies.draw_accuracies(summary, "")))


def test_accuracies_show_seeds_of_repeated_rows():
    rows = [("MetaNTK-NAS", seed, shots, 63.0 + seed) for seed in range(3) for shots in (1, 5)]
    per_seed = pd.DataFrame([*rows, ("RFS", 0, 1, 62.0)], columns=["row", "seed", "shots", "accuracy"])
    figure = accuracies.draw_accuracies(summary_table(), "accuracies", per_seed=per_seed)
    (points,) = markers(figure.axes[0])  # the network with a single seed has its mean only
    assert points.get_offsets()[:, 0].tolist() == [63, 64, 65]
    assert "each seed" in figure_texts(figure)


@pytest.mark.parametrize("draw", [accuracies.draw_accuracies, accuracies.draw_cost_accuracy])
def test_one_data_set_at_a_time(draw):
    mixed = pd.concat([summary_table(), summary_table().assign(dataset="omniglot")])
    with pytest.raises(ValueError, match="one dataset expected, found mini-imagenet, omniglot"):
        draw(mixed, "mixed")
    assert "No network was evaluated." in figure_texts(draw(summary_table().iloc[:0], "nothing"))


def test_cost_shows_unsearched_rows_beside_the_logarithmic_axis():
    figure = accuracies.draw_cost_accuracy(summary_table(), "cost")
    strip, searched = figure.axes
    assert [label.get_text() for label in strip.get_xticklabels()] == ["no search"]
    assert searched.get_xscale() == "log"
    assert strip.get_ylabel() == "5-shot accuracy (%)"
    assert shown_points(strip) == {"#7f7f7f": 78.55, "#56b4e9": 78.02}
    assert shown_points(searched) == {"#0072b2": 79.88, "#d55e00": 78.51}
    assert "MetaNTK-NAS, 1.77 M" in figure_texts(figure)
    sizes = {to_hex(c.get_facecolor()[0]): c.get_sizes()[0] for c in markers(strip) + markers(searched)}
    assert sizes["#56b4e9"] > sizes["#d55e00"] > sizes["#0072b2"] > sizes["#7f7f7f"]


def markers(axes) -> list:
    return [collection for collection in axes.collections if isinstance(collection, PathCollection)]


def shown_points(axes) -> dict[str, float]:
    return {to_hex(c.get_facecolor()[0]): round(float(c.get_offsets()[0, 1]), 2) for c in markers(axes)}


def test_rows_sampled_given_or_fixed_have_no_search_time():
    """What computes nothing takes some milliseconds, too."""
    summary = summary_table().replace({"search_seconds": {0.0: 0.006}})
    strip, searched = accuracies.draw_cost_accuracy(summary, "cost").axes
    assert "#7f7f7f" in shown_points(strip)
    assert len(shown_points(searched)) == 2
    nothing = accuracies.draw_cost_accuracy(summary.assign(search_seconds=0.006), "cost")
    assert "No row has a search." in figure_texts(nothing)


@pytest.mark.parametrize("seconds", [0.5, 40.0, 500000.0])
def test_cost_of_one_row_fits_its_axis(seconds):
    summary = summary_table()
    figure = accuracies.draw_cost_accuracy(
        summary[summary["row"] == "MetaNTK-NAS"].assign(search_seconds=seconds), "x"
    )
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert low <= seconds <= high
    assert sum(low <= tick <= high for tick in axes.get_xticks()) >= 1


# --- Front -----------------------------------------------------------------------------------------------


def seeds_table() -> pd.DataFrame:
    columns = ["row", "seed", "shots", "accuracy", "params", "multiply_accumulates"]
    rows = [
        ("MetaNTK-NAS", 0, 5, 80.0, 12_000, 900_000),
        ("MetaNTK-NAS", 1, 5, 78.0, 15_000, 800_000),
        ("Random Cell", 0, 5, 75.0, 9_000, 700_000),
        ("Random Cell", 1, 5, 74.0, 10_000, 950_000),
        ("raw pixels", 0, 5, 40.0, 0, 0),
    ]
    return pd.DataFrame(rows, columns=columns).assign(latency_ms=np.nan)


def test_the_front_has_every_row_and_seed_and_its_line_what_nothing_exceeds():
    figure = front.draw_front(seeds_table(), "front")
    by_parameters, by_computation = figure.axes
    points = sorted(tuple(point) for drawn in markers(by_parameters) for point in drawn.get_offsets().tolist())
    assert points == [(9_000, 75), (10_000, 74), (12_000, 80), (15_000, 78)]
    (line,) = by_parameters.lines
    assert line.get_xdata().tolist() == [9_000, 12_000]
    (line,) = by_computation.lines
    assert line.get_xdata().tolist() == [700_000, 800_000, 900_000]
    figure.draw_without_rendering()
    assert {"MetaNTK-NAS", "Random Cell", "Pareto front", "10k", "800k"} <= set(figure_texts(figure))


def test_a_measured_latency_is_a_cost_of_its_own():
    figure = front.draw_front(seeds_table().assign(latency_ms=[2.0, 1.0, 0.5, 4.0, np.nan]), "front")
    (line,) = figure.axes[-1].lines
    assert line.get_xdata().tolist() == [0.5, 1, 2]
    assert figure.axes[-1].get_xlabel() == "latency of one image (ms)"
    assert sum(len(drawn.get_offsets()) for drawn in markers(figure.axes[-1])) == 4


@pytest.mark.parametrize(
    "costs", [[1_560_000, 1_580_000, 1_600_000, 1_640_000, 0], [40_100, 40_600, 41_300, 43_900, 0]]
)
def test_no_two_marks_of_a_narrow_range_are_labelled_alike(costs):
    figure = front.draw_front(seeds_table().assign(params=costs), "front")
    figure.draw_without_rendering()
    axis = figure.axes[0].xaxis
    labels = [label.get_text() for label in axis.get_ticklabels(which="both") if label.get_text()]
    assert len(set(labels)) == len(labels) >= 2


def test_a_front_without_any_known_size_says_so():
    unknown = seeds_table().assign(params=0, multiply_accumulates=0)
    assert "No network of known size was evaluated." in figure_texts(front.draw_front(unknown, "front"))


def test_equal_points_are_all_on_the_front():
    found = front.is_on_front(np.array([1, 1, 2, 2, 3]), np.array([5.0, 5.0, 5.0, 6.0, 4.0]))
    assert found.tolist() == [True, True, False, True, False]


# --- Searches that train ---------------------------------------------------------------------------------


def test_searches_that_train_are_drawn_by_what_they_measured():
    epochs = pd.DataFrame(
        {"epoch": [0, 1, 2], "loss": [3.0, 2.0, 1.0], "accuracy": [20.0, np.nan, 60.0], "more": 1}
    )
    axes = search_curves.draw_search_curves(epochs, "a search").axes
    assert [a.get_ylabel() for a in axes] == ["loss (nats)", "accuracy (%)"]
    assert axes[0].lines[0].get_ydata().tolist() == [3, 2, 1]
    assert axes[1].lines[0].get_xdata().tolist() == [0, 2]  # nothing was measured in between
    assert axes[1].get_xlabel() == "epoch"


def test_what_was_predicted_stands_beside_what_was_measured():
    candidates = pd.DataFrame(
        {"candidate": range(4), "score": [0.3, 0.4, 0.5, 0.6], "predicted": [np.nan, 0.5, 0.4, 0.6]}
    )
    (axes,) = search_curves.draw_search_curves(candidates, "a search").axes
    measured, predicted = axes.lines
    assert measured.get_ydata().tolist() == [0.3, 0.4, 0.5, 0.6]
    assert np.array_equal(predicted.get_ydata(), candidates["predicted"], equal_nan=True)


# --- Programs --------------------------------------------------------------------------------------------


def lead_to(genotype: dict, trace: pd.DataFrame) -> pd.DataFrame:
    """The trace, but what the genotype has stays."""
    choices = zip(trace["cell"], trace["node"], trace["input"], trace["operation"], strict=True)
    stays = [[operation, source] in genotype[cell][node - 2] for cell, node, source, operation in choices]
    return trace.assign(removed=trace["removed"] & ~np.array(stays))


@pytest.fixture
def finished(tmp_path):
    """Two searches with two seeds each, a ResNet-12, and their tables."""
    folders = [write_chain(tmp_path, name, seed) for name in ("metantk", "random") for seed in (0, 1)]
    folders.append(write_chain(tmp_path, "fixed", 0, backbone="resnet12"))
    for folder in folders:
        training_table().to_csv(folder / "training.csv", index=False)
        measured = "/metantk/" in str(folder)
        trace = lead_to(GENOTYPE, make_trace(1)) if measured else make_trace(1).iloc[:0]
        trace.to_csv(folder.parent / "search.csv", index=False)
        facts = {name: FACTS[name] for name in (CONDITION, "linear_regions")} if measured else {}
        change(folder.parent / "search.json", criteria=facts)
    groups = tables.group_chains(map(tables.read_chain, folders))
    (tmp_path / "tables").mkdir()
    titles = tables.Titles(searches=catalogue.TITLES["searches"])
    tables.summarise(groups, titles).to_csv(tmp_path / "tables" / "summary.csv", index=False)
    tables.per_seed(groups).to_csv(tmp_path / "tables" / "seeds.csv", index=False)
    return folders


def test_results_of_a_data_set_are_drawn(finished, tmp_path):
    drawn = draw_results.draw(finished, tmp_path / "tables")
    assert list(drawn) == ["training", "accuracies", "cost", "front"]
    names = {text.get_text() for text in drawn["training"].legends[0].get_texts()}
    assert {"MetaNTK-NAS, seed 0", "MetaNTK-NAS, seed 1", "Random Cell, seed 0", "rfs, seed 0"} <= names
    assert {"MetaNTK-NAS", "Random Cell", "rfs"} <= set(figure_texts(drawn["accuracies"]))


def test_results_of_two_data_sets_are_refused(finished, tmp_path):
    other = write_chain(tmp_path, "random", 0, dataset="omniglot")
    with pytest.raises(InputError, match="chains of one data set expected, found glyphs, omniglot"):
        draw_results.draw([*finished, other], tmp_path / "tables")


def test_results_beside_older_tables_are_named(finished, tmp_path):
    new = write_chain(tmp_path, "te-nas", 0)
    training_table().to_csv(new / "training.csv", index=False)
    with pytest.raises(InputError, match=r"summary\.csv: lacks the row of .*te-nas.*run aggregate_tables again"):
        draw_results.draw([*finished, new], tmp_path / "tables")
    (finished[0] / "training.csv").write_text("epoch,loss\n1,2\n")
    with pytest.raises(InputError, match="lacks the columns lr, accuracy; run train_network again"):
        draw_results.draw(finished, tmp_path / "tables")


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        ("summary", lambda table: table.iloc[:0], "the tables do not fit each other"),
        ("seeds", lambda table: table.replace("random", "zz"), r"do not fit each other \(.*zz"),
        ("summary", lambda table: pd.concat([table, table]), "has a row twice"),
    ],
)
def test_tables_that_do_not_fit_are_named(finished, tmp_path, name, edit, message):
    path = tmp_path / "tables" / f"{name}.csv"
    edit(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(InputError, match=message):
        draw_results.draw(finished, tmp_path / "tables")


def test_searches_are_drawn_under_their_titles(finished):
    drawn = draw_searches.draw(draw_searches.read(finished[1].parent), {"metantk": "MetaNTK-NAS"})
    assert list(drawn) == ["cells_metantk_seed1", "search_metantk_seed1"]
    for figure in drawn.values():
        assert "MetaNTK-NAS, seed 1: glyphs, 5cells-48ch" in figure_texts(figure)
    assert drawn["search_metantk_seed1"].axes[0].get_ylabel() == FACTS[CONDITION]["title"]
    nothing = draw_searches.draw(draw_searches.read(finished[2].parent), {})["search_random_seed0"]
    assert any("Nothing was measured" in text for text in figure_texts(nothing))


def test_searches_without_cells_and_with_damaged_traces_are_named(finished):
    with pytest.raises(InputError, match=r"architecture\.json"):
        draw_searches.draw(draw_searches.read(finished[-1].parent), {})
    trace = finished[0].parent / "search.csv"
    trace.write_text("round,stage,removed\n0,operations,True\n")
    with pytest.raises(InputError, match=r"search\.csv: lacks the columns edge, .*run search_architecture again"):
        draw_searches.draw(draw_searches.read(finished[0].parent), {})


# What the searches that train write to search.csv, and what of it is shown.
COURSES = {
    "metanas": (
        {
            "event": ["epoch", "epoch", "removal"],
            "epoch": [1, 2, 2],
            "loss": [1.6, 1.5, None],
            "entropy_normal": [1.9, 1.8, 1.7],
            "entropy_reduce": [1.9, 1.9, 1.9],
            "removed": [None, None, 3],
        },
        [
            "loss (nats)",
            "entropy of operations,\nnormal cell (nats)",
            "entropy of operations,\nreduction cell (nats)",
        ],
    ),
    "t-nas": (
        {"epoch": [1, 2], "loss": [1.8, 1.7], "accuracy": [30.0, 39.0], "genotypes": [4, 4], "best": [True, True]},
        ["loss (nats)", "accuracy (%)", "different genotypes\namong the tasks"],
    ),
    "autometa": (
        {"candidate": [0, 1, 2], "blocks": [1, 1, 2], "predicted": [None, None, 0.3], "score": [0.2, 0.25, 0.28]},
        ["validation accuracy"],
    ),
}


@pytest.mark.parametrize("name", COURSES)
def test_a_search_that_trains_is_drawn_by_what_it_measured(name):
    columns, shown = COURSES[name]
    figure = draw_searches.draw_trace(
        pd.DataFrame(columns),
        name,
        SearchReport(
            seconds=1.0, device="cpu", options={}, dataset="glyphs", backbone="cells", search=name, seed=0
        ),
    )
    assert [axes.get_ylabel() for axes in figure.axes] == shown
    lines = {line.get_label() for axes in figure.axes for line in axes.get_lines()}
    assert ("predicted before it was trained" in lines) == ("predicted" in columns)


def test_regret_is_the_mean_over_seeds_of_each_search():
    rows = [(s, seed, n, seed + 10 / n) for s in ("random", "other") for seed in (0, 2) for n in (1, 2)]
    table = pd.DataFrame(rows, columns=["search", "seed", "evaluations", "regret"])
    figure = benchmarks.draw_regret({"one": table, "two": table}, "Regret")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["one", "two"]
    line = figure.axes[1].get_lines()[0]
    assert line.get_label() == "random"
    assert line.get_xydata().tolist() == [[1, 11], [2, 6]]


def test_convolutions_have_a_dot_for_each_architecture_and_kendalls_tau():
    table = pd.DataFrame(
        {"convolutions": [2, 3, 4, 4], "naswot": [1.0, 2.0, 3.0, 5.0], "swap": [4.0, 3.0, 1.0, 1.0]}
    )
    figure = benchmarks.draw_convolutions({"one": table}, ["naswot", "swap"], "Convolutions")
    dots, means = figure.axes[0].get_lines()
    assert dots.get_xydata().tolist() == [[2, 1], [3, 2], [4, 3], [4, 5]]
    assert means.get_xydata().tolist() == [[2, 1], [3, 2], [4, 4]]
    assert [axes.texts[0].get_text() for axes in figure.axes] == ["τ = 0.91", "τ = -1.00"]


def test_a_width_has_one_colour_in_all_panels():
    """Panels of other widths would give one colour two meanings in the shared legend."""
    table = convergence_table()
    wide = [table.assign(network="wide", width=width) for width in (16, 64, 256)]
    narrow = [table.assign(network="narrow", width=width, loss=np.inf) for width in (4, 16)]
    figure = theory_figures.draw_convergence(pd.concat([*wide, *narrow]))
    found: dict[str, set[str]] = {}
    for axes in figure.axes:
        for line in axes.get_lines():
            if str(line.get_label()).startswith("width"):
                found.setdefault(line.get_label(), set()).add(line.get_color())
    assert sorted(found) == ["width 16", "width 256", "width 4", "width 64"]
    assert all(len(colours) == 1 for colours in found.values())
    assert len(set.union(*found.values())) == 4
