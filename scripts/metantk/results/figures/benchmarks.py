"""What tabular benchmarks show: regret of replayed searches, and what the number of convolutions does."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import stdtrit

from metantk.results.figures.palette import DECIDER_COLOURS
from metantk.results.figures.style import MUTED, STYLE, new_figure
from metantk.results.study import tau


@matplotlib.rc_context(STYLE)
def draw_regret(regrets: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Mean regret against the number of evaluations, with the 95 % interval over seeds; a panel per benchmark.

    Args:
        regrets: name of the benchmark -> columns `search`, `seed`, `evaluations`, `regret` (points), the rows of
            `metantk.benchmark.replay.replay` for all searches.
    """
    figure = new_figure(3.2 * len(regrets) + 0.4, 2.8, title, layout="constrained")
    panels = figure.subplots(1, len(regrets), squeeze=False)[0]
    for axes, (name, table) in zip(panels, regrets.items(), strict=True):
        for colour, (search, part) in zip(DECIDER_COLOURS, table.groupby("search", sort=False), strict=False):
            groups = part.groupby("evaluations")["regret"]
            mean, count = groups.mean(), groups.count()
            half = stdtrit(count - 1, 0.975) * groups.std() / np.sqrt(count)
            axes.plot(mean.index, mean, color=colour, linewidth=1.2, label=search)
            axes.fill_between(mean.index, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
        axes.set_title(name)
        axes.set(xlabel="evaluations", ylabel="regret (points)")
        axes.axhline(0, color=MUTED, linewidth=0.6)
        axes.grid(axis="y")
    panels[-1].legend(loc="upper right")
    return figure


@matplotlib.rc_context(STYLE)
def draw_convolutions(tables: Mapping[str, pd.DataFrame], columns: Sequence[str], title: str) -> Figure:
    """Columns of benchmarks against the number of convolutions of a genotype, with Kendall's τ; a dot each.

    Args:
        tables: name of the benchmark -> a row per architecture, with `convolutions` and all of `columns`.
        columns: a row of panels each.
    """
    height = 1.7 * len(columns)
    figure = new_figure(3.0 * len(tables) + 0.4, height + 0.5, title, layout="constrained")
    panels = figure.subplots(len(columns), len(tables), squeeze=False, sharex=True)
    for line, column in zip(panels, columns, strict=True):
        for axes, (name, table) in zip(line, tables.items(), strict=True):
            _draw_column(axes, table["convolutions"].to_numpy(), table[column].to_numpy())
            axes.set_ylabel(column.replace("_", " ") if axes is line[0] else "")
            if axes in panels[0]:
                axes.set_title(name)
    for axes in panels[-1]:
        axes.set_xlabel("convolutions, of 12 operations")
    return figure


def _draw_column(axes: Axes, convolutions: np.ndarray, values: np.ndarray) -> None:
    axes.plot(convolutions, values, "o", color=DECIDER_COLOURS[0], markersize=3, alpha=0.7)
    means = pd.Series(values).groupby(convolutions).mean()
    axes.plot(means.index, means, color=DECIDER_COLOURS[1], linewidth=1.0)
    axes.annotate(f"τ = {tau(values, convolutions):.2f}", (0.03, 0.9), xycoords="axes fraction", fontsize=7)
    axes.grid(axis="y")
