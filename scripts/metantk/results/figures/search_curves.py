"""A search that measures while it trains or grows: each measured quantity against the course of the search."""

import matplotlib
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metantk.results.figures.style import STYLE, TEXT, message_figure, new_figure

COURSE = ("epoch", "candidate")  # columns that say how far a search is
PANEL_HEIGHT = 1.25
UNITS = {
    "loss": "loss (nats)",
    "accuracy": "accuracy (%)",
    "entropy_normal": "entropy of operations,\nnormal cell (nats)",
    "entropy_reduce": "entropy of operations,\nreduction cell (nats)",
    "genotypes": "different genotypes\namong the tasks",
    "score": "validation accuracy",
    "predicted": "predicted accuracy",
    "rank_sum": "sum of ranks\n(the lowest is chosen)",
}


@matplotlib.rc_context(STYLE)
def draw_search_curves(trace: pd.DataFrame, title: str) -> Figure:
    """One panel per quantity; where something was predicted before it was measured, both share a panel.

    Args:
        trace: `search.csv`, with a column `epoch` or `candidate`; drawn are the columns of `UNITS` that it has.
        title: the figure's title.
    """
    course = next((column for column in COURSE if column in trace), None)
    columns = [column for column in UNITS if column in trace and trace[column].notna().any()]
    if course is None or not columns:
        return message_figure(title, "Nothing was measured: this architecture was sampled or given.")
    panels = [column for column in columns if column != "predicted" or "score" not in columns]
    figure = new_figure(6.6, 0.8 + PANEL_HEIGHT * len(panels), title, layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for own, column in zip(axes, panels, strict=True):
        _draw(own, trace, course, column, UNITS[column])
        if column == "score" and "predicted" in columns:
            options = {"color": "#d55e00", "markersize": 3, "label": "predicted before it was trained"}
            own.plot(trace[course], trace["predicted"], "x", **options)
            own.legend()
    axes[-1].set_xlabel(course)
    axes[-1].xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
    return figure


def _draw(axes: Axes, trace: pd.DataFrame, course: str, column: str, label: str) -> None:
    """Candidates are points, each for itself; epochs follow each other."""
    measured = trace[trace[column].notna()]
    style = "o" if course == "candidate" else "o-" if len(measured) < 30 else "-"
    axes.plot(measured[course], measured[column], style, color=TEXT, markersize=3, linewidth=1.1, label="measured")
    axes.set_ylabel(label)
    axes.grid(axis="y")
