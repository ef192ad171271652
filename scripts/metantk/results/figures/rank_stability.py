"""How far the ranks of repeated first rounds agree."""

from collections.abc import Mapping

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from metantk.results.figures.palette import decider_colour
from metantk.results.figures.style import MUTED, STYLE, new_figure


@matplotlib.rc_context(STYLE)
def draw_rank_stability(table: pd.DataFrame, title: str, titles: Mapping[str, str] | None = None) -> Figure:
    """How far repetitions of a round agree, against what a repetition costs; one panel per criterion.

    Args:
        table: `rank_stability.csv`, columns as of `metantk.searches.rank_stability.COLUMNS`.
        title: the figure's title.
        titles: of the criteria, by name; one without a title is called by its name.
    """
    criteria = list(dict.fromkeys(table["criterion"]))
    figure = new_figure(0.6 + 2.5 * len(criteria), 2.8, title, layout="constrained")
    panels = figure.subplots(1, len(criteria), sharey=True, squeeze=False)[0]
    for axes, criterion in zip(panels, criteria, strict=True):
        for index, (draws, group) in enumerate(table[table["criterion"] == criterion].groupby("draws")):
            colour = decider_colour(index)
            axes.plot(group["evaluations"], group["kendall_tau"], "o-", color=colour, markersize=3.5, label=draws)
            axes.fill_between(group["evaluations"], group["lowest"], group["highest"], color=colour, alpha=0.15)
        label = {"rank_sum": "sum of ranks", **(titles or {})}.get(criterion, criterion.replace("_", " "))
        axes.set_title(label.replace("\n", " "))
        axes.set_xlabel("networks evaluated per repetition")
        axes.axhline(0, color=MUTED, linewidth=0.7)
        axes.grid(axis="y")
    panels[0].set(ylabel="Kendall's τ", ylim=(min(-0.1, table["lowest"].min()), 1.02))
    panels[0].legend(title="random numbers", loc="best")
    return figure
