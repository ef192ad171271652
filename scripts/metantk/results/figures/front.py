"""Accuracy against the size of the network: every row and seed, and the Pareto front of all of them."""

from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from metantk.results.figures.palette import RowStyle, row_styles
from metantk.results.figures.style import MUTED, STYLE, message_figure, new_figure, set_logarithmic

COSTS = {
    "params": "parameters",
    "multiply_accumulates": "multiply-accumulates for one image",
    "latency_ms": "latency of one image (ms)",
}


class SizeLabels(ticker.LogFormatter):
    """Labels such as 0.5, 20k and 1.56M, at as many marks as a short axis has room for."""

    with_prefix = ticker.EngFormatter(sep="")

    def __call__(self, value: float, position: int | None = None) -> str:
        if not super().__call__(value, position):
            return ""
        return f"{value:g}" if value < 1 else self.with_prefix.format_eng(value)


@matplotlib.rc_context(STYLE)
def draw_front(per_seed: pd.DataFrame, title: str) -> Figure:
    """A line of panels per number of shots, a column per cost; a point per row and seed, a line for the front.

    What is not known has no point: the size of raw pixels, the multiply-accumulates of ONNX files, latencies that
    were not measured. Without any latency there is no column for it.

    Args:
        per_seed: rows of `seeds.csv` for one data set, with columns `row` and `latency_ms`. Read are also `shots`,
            `accuracy` (percent), and those of `COSTS`.
        title: the figure's title.
    """
    costs = [cost for cost in COSTS if (per_seed[cost] > 0).any()]
    if not costs:
        return message_figure(title, "No network of known size was evaluated.")
    styles = row_styles(per_seed["row"])
    shots = sorted(per_seed["shots"].unique())
    figure = new_figure(2.2 + 3.2 * len(costs), 0.6 + 2.7 * len(shots), title, layout="constrained")
    panels = figure.subplots(len(shots), len(costs), squeeze=False, sharex="col", sharey="row")
    for line, count in zip(panels, shots, strict=True):
        of_shots = per_seed[per_seed["shots"] == count]
        for axes, cost in zip(line, costs, strict=True):
            _draw_panel(axes, of_shots[of_shots[cost] > 0], cost, styles)
        line[0].set_ylabel(f"{count}-shot accuracy (%)")
    for axes, cost in zip(panels[-1], costs, strict=True):
        axes.set_xlabel(COSTS[cost])
    marks = [
        Line2D([], [], label=row, color=style.colour, marker=style.marker, markersize=5, linestyle="none")
        for row, style in styles.items()
    ]
    line = Line2D([], [], label="Pareto front", color=MUTED, linewidth=1)
    figure.legend(handles=[*marks, line], loc="outside right center", title="each seed", alignment="left")
    return figure


def _draw_panel(axes: Axes, points: pd.DataFrame, cost: str, styles: Mapping[str, RowStyle]) -> None:
    axes.grid(axis="y")
    for row, group in points.groupby("row"):
        style = styles[row]
        axes.scatter(group[cost], group["accuracy"], s=22, marker=style.marker, color=style.colour, linewidths=0)
    front = points[is_on_front(points[cost].to_numpy(), points["accuracy"].to_numpy())].sort_values(cost)
    axes.step(front[cost], front["accuracy"], where="post", color=MUTED, linewidth=1, zorder=1)
    set_logarithmic(axes, "x")
    for formatter in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        formatter(SizeLabels(minor_thresholds=(2, 0.5)))
    axes.margins(x=0.1, y=0.1)


def is_on_front(costs: np.ndarray, accuracies: np.ndarray) -> np.ndarray:
    """Whether nothing is as cheap and as accurate, and better in one of them; `(points,)` each."""
    no_dearer = costs[None] <= costs[:, None]
    no_worse = accuracies[None] >= accuracies[:, None]
    better = (costs[None] < costs[:, None]) | (accuracies[None] > accuracies[:, None])
    return ~(no_dearer & no_worse & better).any(1)
