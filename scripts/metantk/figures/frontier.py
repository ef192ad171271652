"""What criteria are worth against what they cost."""

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metantk.figures.style import MUTED, STYLE, TEXT, new_figure
from metantk.study import AGAIN, BASELINE

TRAINED = "trained "  # criteria that train have names of this beginning
COLOURS = {"training-free": "#0072b2", "short training": "#d55e00", "number of parameters": TEXT}


@matplotlib.rc_context(STYLE)
def draw_frontier(table: pd.DataFrame, title: str) -> Figure:
    """Kendall's τ (left) and regret (right) of each criterion against its floating-point operations.

    A row of panels per number of shots. Bars are 95 % intervals over architectures. The dashed line is what a
    second training of the same architectures reaches: the noise of training. Criteria that need no operations
    (counts) stand at the left end.

    Args:
        table: rows of `metantk.study.correlate` for one data set, backbone and learner.
    """
    shots = sorted(table["shots"].unique())
    figure = new_figure(10.0, 0.5 + 3.6 * len(shots), title, layout="constrained")
    panels = figure.subplots(len(shots), 2, squeeze=False)
    for line, count in zip(panels, shots, strict=True):
        of_shots = table[table["shots"] == count]
        _draw(line[0], of_shots, "tau", "Kendall's τ with the accuracy")
        _draw(line[1], of_shots, "regret", "regret of the best quarter (points)")
        line[0].set_title(f"{count}-shot")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=len(handles))
    return figure


def _draw(axes: Axes, table: pd.DataFrame, column: str, label: str) -> None:
    criteria = table[table["criterion"] != AGAIN]
    costly = criteria["operations"][criteria["operations"] > 0]
    free = costly.min() / 10 if len(costly) else 1.0
    for kind, colour in COLOURS.items():
        part = criteria[[_kind(name) == kind for name in criteria["criterion"]]]
        places = part["operations"].clip(lower=free)
        errors = [part[column] - part[f"{column}_low"], part[f"{column}_high"] - part[column]]
        style = {"fmt": "o", "markersize": 4, "elinewidth": 0.7, "color": colour, "label": kind}
        axes.errorbar(places, part[column], yerr=[error.clip(lower=0) for error in errors], **style)
        for x, y, name in zip(places, part[column], part["criterion"], strict=True):
            text = name.removeprefix(TRAINED)
            axes.annotate(text, (x, y), xytext=(4, 3), textcoords="offset points", fontsize=6, color=colour)
    ceiling = table.loc[table["criterion"] == AGAIN, column]
    if len(ceiling):
        axes.axhline(float(ceiling.iloc[0]), color=MUTED, linestyle="--", linewidth=0.9, label=AGAIN)
    axes.axhline(0, color=MUTED, linewidth=0.6)
    axes.set_xscale("log")
    axes.set_xlabel("floating-point operations per architecture")
    axes.set_ylabel(label)
    axes.grid(axis="y")


def _kind(criterion: str) -> str:
    if criterion == BASELINE:
        return "number of parameters"
    return "short training" if criterion.startswith(TRAINED) else "training-free"
