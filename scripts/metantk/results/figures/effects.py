"""A Bayesian optimisation: what it measured, and the effect of each operation on each edge with its interval."""

from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metantk.results.figures.palette import OPERATIONS, OTHER_OPERATION
from metantk.results.figures.style import MUTED, STYLE, TEXT, new_figure, set_logarithmic

WIDTH, PANEL_HEIGHT, EDGE_HEIGHT, EDGE_COLUMNS = 9.6, 1.4, 1.5, 3


@matplotlib.rc_context(STYLE)
def draw_effects(effects: pd.DataFrame, trace: pd.DataFrame, title: str, facts: Mapping[str, Mapping]) -> Figure:
    """Above, each criterion's value of each architecture measured; below, a panel for each edge.

    In an edge's panel each operation has its effect on what the search minimises (dot), in standard deviations of
    the first sample, ± 2 standard deviations of the posterior (line). What the result has is filled. Its number
    says in how many of a hundred functions drawn from the posterior the optimum has it, too.

    Args:
        effects: `effects` of search.json: `cell`, `edge`, `input`, `node`, `operation`, `effect`, `std`,
            `certainty`, `kept`.
        trace: search.csv: `candidate`, `stage`, and a column per criterion.
        facts: by criterion, its `title` and whether its axis is `logarithmic`; from search.json.
    """
    edges = list(effects.groupby(["cell", "edge"], sort=False))
    lines = -(-len(edges) // EDGE_COLUMNS)
    heights = [PANEL_HEIGHT] * len(facts) + [EDGE_HEIGHT] * lines
    figure = new_figure(WIDTH, 0.6 + sum(heights), title, layout="constrained")
    grid = figure.add_gridspec(len(heights), EDGE_COLUMNS, height_ratios=heights)
    for index, (name, fact) in enumerate(facts.items()):
        _draw_values(figure.add_subplot(grid[index, :]), trace, name, fact)
    shared = None
    for index, ((cell, _), of_edge) in enumerate(edges):
        place = grid[len(facts) + index // EDGE_COLUMNS, index % EDGE_COLUMNS]
        axes = figure.add_subplot(place, sharex=shared)
        shared = shared or axes
        _draw_edge(axes, of_edge, cell)
        if index >= len(edges) - EDGE_COLUMNS:
            axes.set_xlabel("effect (standard deviations)")
    return figure


def _draw_values(axes: Axes, trace: pd.DataFrame, name: str, fact: Mapping) -> None:
    values = trace[name].where(np.isfinite(trace[name].astype(float)))
    first = trace["stage"] == "first sample"
    for chosen, colour, label in ((first, MUTED, "first sample (random)"), (~first, "#0072b2", "focused")):
        axes.plot(trace["candidate"][chosen], values[chosen], ".", color=colour, markersize=3, label=label)
    if fact.get("logarithmic"):
        set_logarithmic(axes, "y")
    axes.set_ylabel(str(fact.get("title", name)), color=TEXT)
    axes.set_xlabel("architecture measured")
    axes.grid(axis="y")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _draw_edge(axes: Axes, of_edge: pd.DataFrame, cell: str) -> None:
    for height, (_, row) in enumerate(of_edge.iloc[::-1].iterrows()):
        colour = OPERATIONS.get(row["operation"], OTHER_OPERATION)
        spread = 2 * row["std"]
        axes.plot([row["effect"] - spread, row["effect"] + spread], [height, height], color=colour, linewidth=1.2)
        face = colour if row["kept"] else "white"
        axes.plot(row["effect"], height, "o", color=colour, markerfacecolor=face, markersize=4.5)
        if row["kept"]:
            text = f"{100 * row['certainty']:.0f} %"
            axes.annotate(
                text, (1, height), xycoords=("axes fraction", "data"), ha="right", va="center", fontsize=7
            )
    axes.axvline(0, color=MUTED, linewidth=0.6)
    axes.set_yticks(range(len(of_edge)), of_edge["operation"][::-1])
    axes.tick_params(axis="y", length=0)
    edge = of_edge.iloc[0]
    axes.set_title(f"{cell} {edge['input']}→{edge['node']}", fontsize=8)
