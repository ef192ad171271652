"""What criteria are worth, and what they cost."""

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metantk.results.figures.style import MUTED, STYLE, TEXT, new_figure, set_logarithmic
from metantk.results.study import AGAIN, BASELINE

TRAINED = "trained "  # criteria that train have names of this beginning
COLOURS = {"training-free": "#0072b2", "short training": "#d55e00", "number of parameters": TEXT, "ceiling": MUTED}
LINE_HEIGHT = 0.155


@matplotlib.rc_context(STYLE)
def draw_frontier(table: pd.DataFrame, title: str) -> Figure:
    """Each criterion's Kendall's τ and regret with their intervals, and τ against cost; a row per number of shots.

    Intervals are 95 %, over architectures. `trained again` is what a second training of the same architectures
    reaches: the noise of training, a dashed line in the right panel. There those that nothing cheaper exceeds have
    names: the frontier. Criteria that need no operations (counts) stand at its left end.

    Args:
        table: rows of `metantk.results.study.correlate` for one data set, backbone and learner.
    """
    shots = sorted(table["shots"].unique())
    height = 0.9 + LINE_HEIGHT * table["criterion"].nunique()
    figure = new_figure(11.0, 0.5 + height * len(shots), title, layout="constrained")
    panels = figure.subplots(len(shots), 3, squeeze=False, width_ratios=[1, 1, 1.2])
    for line, count in zip(panels, shots, strict=True):
        of_shots = table[table["shots"] == count].sort_values("tau", ignore_index=True)
        _draw_intervals(line[0], of_shots, "tau", "Kendall's τ with the accuracy")
        line[0].set_yticks(range(len(of_shots)), of_shots["criterion"])
        _draw_intervals(line[1], of_shots, "regret", "regret of its best quarter (points)")
        line[1].set_yticks(range(len(of_shots)), [])
        again = of_shots["criterion"] == AGAIN
        _draw_costs(line[2], of_shots[~again], of_shots.loc[again, "tau"])
        line[0].set_title(f"{count}-shot")
    return figure


def _draw_intervals(axes: Axes, table: pd.DataFrame, column: str, label: str) -> None:
    for place, row in table.iterrows():
        colour = COLOURS[_kind(row["criterion"])]
        axes.plot([row[f"{column}_low"], row[f"{column}_high"]], [place, place], color=colour, linewidth=0.9)
        axes.plot(row[column], place, "o", color=colour, markersize=3.5)
    axes.axvline(0, color=MUTED, linewidth=0.6)
    axes.set_xlabel(label)
    axes.set_ylim(-0.7, len(table) - 0.3)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def _draw_costs(axes: Axes, table: pd.DataFrame, ceiling: pd.Series) -> None:
    costly = table["operations"][table["operations"] > 0]
    free = costly.min() / 10 if len(costly) else 1.0
    table = table.assign(cost=table["operations"].clip(lower=free)).sort_values(
        ["cost", "tau"], ascending=[True, False]
    )
    for kind, colour in COLOURS.items():
        part = table[[_kind(name) == kind for name in table["criterion"]]]
        if len(part):
            axes.plot(part["cost"], part["tau"], "o", color=colour, markersize=4, label=kind)
    best = table["tau"].cummax()
    frontier = table[(table["tau"] == best) & (best.shift(fill_value=-np.inf) < best)]
    axes.step(frontier["cost"], frontier["tau"], where="post", color=MUTED, linewidth=0.7)
    for _, row in frontier.iterrows():
        name = row["criterion"].removeprefix(TRAINED)
        axes.annotate(
            name, (row["cost"], row["tau"]), xytext=(2, 4), textcoords="offset points", fontsize=7, rotation=30
        )
    for value in ceiling:
        axes.axhline(value, color=COLOURS["ceiling"], linewidth=0.8, linestyle="--", label=AGAIN)
    axes.axhline(0, color=MUTED, linewidth=0.6)
    set_logarithmic(axes, "x")
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.margins(x=0.15, y=0.12)
    axes.set_xlabel("floating-point operations per architecture")
    axes.set_ylabel("Kendall's τ")
    axes.grid(axis="y")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)


def _kind(criterion: str) -> str:
    if criterion == AGAIN:
        return "ceiling"
    if criterion == BASELINE:
        return "number of parameters"
    return "short training" if criterion.startswith(TRAINED) else "training-free"
