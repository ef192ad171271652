"""Accuracies of all rows, and what their searches cost."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from metantk.results.figures.palette import row_styles, tint
from metantk.results.figures.style import MUTED, STYLE, TEXT, message_figure, new_figure, set_logarithmic
from metantk.results.tables import SHORTEST_SEARCH

SINGLE_SEED_TINT = 0.25  # filling of the marker of a row with one seed


@matplotlib.rc_context(STYLE)
def draw_accuracies(
    summary: pd.DataFrame, title: str, *, chance: float | None = None, per_seed: pd.DataFrame | None = None
) -> Figure:
    """Few-shot accuracy of each row, one panel per number of shots.

    Bars are ± one standard deviation over seeds, or, where a row has one seed only, the 95 % interval over
    episodes; the figure says which. The numbers stand beside each row.

    Args:
        summary: rows of `summary.csv` for one data set. Read are the columns `dataset`,
            `row`, `seeds`, `shots`, `accuracy_mean`, `accuracy_std` and `ci95` (all three in percent).
        title: the figure's title.
        chance: accuracy of a guess in percent; drawn as a dashed line, or, where the axis would have to
            stretch so far that the rows could not be told apart, named at its left end.
        per_seed: columns `row`, `seed`, `shots` and `accuracy`: one small open circle per row, for
            rows with several seeds.
    """
    _require_one(summary, ["dataset"])
    if summary.empty:
        return message_figure(title, "No network was evaluated.")
    styles = row_styles(summary["row"])
    shots = sorted(summary["shots"].unique())
    figure = new_figure(1.6 + 3.4 * len(shots), 1.35 + 0.34 * len(styles), title, layout="constrained")
    panels = figure.subplots(1, len(shots), sharey=True, squeeze=False)[0]
    for axes, shot in zip(panels, shots, strict=True):
        points = None if per_seed is None else per_seed[per_seed["shots"] == shot]
        _draw_accuracy_panel(axes, summary[summary["shots"] == shot], styles, points)
        axes.set_title(f"{shot}-shot", pad=6 if chance is None else 13)
    if chance is not None:
        _draw_chance(panels, chance)
    panels[0].set_yticks(range(len(styles)), list(styles))
    panels[0].set_ylim(len(styles) - 0.5, -0.5)
    handles = _accuracy_legend(summary, per_seed is not None)
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), handlelength=1.6)
    return figure


def _require_one(summary: pd.DataFrame, columns: Sequence[str]) -> None:
    for column in columns:
        values = sorted(set(summary[column]))
        if len(values) > 1:
            raise ValueError(f"rows of one {column} expected, found {', '.join(map(str, values))}: select one")


def _draw_accuracy_panel(axes: Axes, summary: pd.DataFrame, styles: Mapping, per_seed: pd.DataFrame | None) -> None:
    places = {row: place for place, row in enumerate(styles)}
    axes.grid(axis="x")
    if per_seed is not None:
        repeated = summary.loc[summary["seeds"] > 1, "row"]
        for row, group in per_seed[per_seed["row"].isin(repeated)].groupby("row"):
            options = {"s": 14, "facecolors": "none", "edgecolors": styles[row].colour, "linewidths": 0.7}
            axes.scatter(group["accuracy"], [places[row] + 0.28] * len(group), **options)
    for entry in summary.itertuples(index=False):
        row, style, error = places[entry.row], styles[entry.row], _error(entry)
        axes.errorbar(
            entry.accuracy_mean,
            row,
            xerr=error,
            fmt=style.marker,
            color=style.colour,
            markersize=5,
            capsize=2.5,
            elinewidth=1.3,
            markerfacecolor=style.colour if entry.seeds > 1 else tint(style.colour, SINGLE_SEED_TINT),
        )
        text = f"{entry.accuracy_mean:.2f}" + (f" ± {error:.2f}" if np.isfinite(error) else "")
        axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=7.5, color=TEXT)
    axes.margins(x=0.08)
    axes.set_xlabel("accuracy (%)")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _draw_chance(panels: Sequence[Axes], chance: float) -> None:
    """A line in every panel; its value beside the panels where a line would take up more than half of one."""
    limits = [axes.get_xlim() for axes in panels]
    near = all(low - chance <= high - low for low, high in limits)
    for axes in panels:
        if near:
            axes.axvline(chance, color=TEXT, linestyle="--", linewidth=0.9)
            axes.text(chance, 1.01, "chance", transform=axes.get_xaxis_transform(), ha="center", fontsize=7)
        else:
            axes.text(0, 1.01, f"← chance {chance:.4g} %", transform=axes.transAxes, fontsize=7, color=MUTED)


def _error(entry) -> float:
    """Half the length of the bar: std over seeds; for a single seed the 95 % interval over episodes."""
    return float(entry.accuracy_std if entry.seeds > 1 else entry.ci95)


def _accuracy_legend(summary: pd.DataFrame, with_seeds: bool) -> list[Line2D]:
    bar = {"color": TEXT, "marker": "o", "markersize": 4.5, "linewidth": 1.2}
    handles = []
    if (summary["seeds"] > 1).any():
        handles.append(Line2D([], [], label="mean ± std over seeds", **bar))
    if (summary["seeds"] <= 1).any():
        label = "one seed, 95 % interval over episodes"
        handles.append(Line2D([], [], label=label, markerfacecolor=tint(TEXT, SINGLE_SEED_TINT), **bar))
    if with_seeds and (summary["seeds"] > 1).any():
        open_circle = {"marker": "o", "linestyle": "none", "markerfacecolor": "none", "markersize": 4}
        handles.append(Line2D([], [], color=TEXT, label="each seed", **open_circle))
    return handles


@matplotlib.rc_context(STYLE)
def draw_cost_accuracy(summary: pd.DataFrame, title: str) -> Figure:
    """Accuracy at the largest number of shots against the time of the search.

    Markers grow with the number of parameters. Bars are as in `draw_accuracies`. Rows without a search stand side
    by side in a strip of their own, left of the logarithmic axis. Without any search there is nothing to draw.

    Args:
        summary: rows of `summary.csv` for one data set. Read are the columns `dataset`,
            `row`, `seeds`, `params`, `search_seconds`, `shots`, `accuracy_mean`, `accuracy_std`, `ci95`.
        title: the figure's title.
    """
    _require_one(summary, ["dataset"])
    if summary.empty:
        return message_figure(title, "No network was evaluated.")
    summary = summary[summary["shots"] == summary["shots"].max()]
    styles = row_styles(summary["row"])
    is_searched = summary["search_seconds"] >= SHORTEST_SEARCH
    searched, unsearched = summary[is_searched], summary[~is_searched]
    if searched.empty:
        return message_figure(title, "No row has a search.")

    figure = new_figure(6.4, 3.5, title, layout="constrained")
    ratios = [1, 5] if len(unsearched) else [1]
    panels = figure.subplots(1, len(ratios), sharey=True, squeeze=False, width_ratios=ratios)[0]
    if len(unsearched):
        places = (np.arange(len(unsearched)) + 0.5) / len(unsearched) * 2 - 1
        _draw_cost_points(panels[0], unsearched.assign(search_seconds=places), styles)
        panels[0].set(xlim=(-1, 1), xticks=[0], xticklabels=["no search"], facecolor="#f6f6f6")
    _draw_cost_points(panels[-1], searched, styles)
    _scale_seconds(panels[-1], searched["search_seconds"])
    if len(panels) == 2:
        panels[1].spines["left"].set_visible(False)
        panels[1].tick_params(axis="y", length=0)
    panels[0].margins(y=0.15)
    panels[0].set_ylabel(f"{summary['shots'].iloc[0]}-shot accuracy (%)")
    figure.legend(
        handles=_cost_legend(summary, styles),
        loc="outside right center",
        title="parameters",
        alignment="left",
    )
    return figure


def _draw_cost_points(axes: Axes, summary: pd.DataFrame, styles: Mapping) -> None:
    axes.grid(axis="y")
    for entry in summary.itertuples(index=False):
        style = styles[entry.row]
        axes.errorbar(
            entry.search_seconds, entry.accuracy_mean, yerr=_error(entry), color=style.colour, capsize=2.5
        )
        # The root keeps networks apart whose sizes differ a hundredfold, and all of them visible.
        area = 40 * np.sqrt(entry.params / 1e6) if entry.params > 0 else 40
        options = {"marker": style.marker, "color": style.colour, "linewidths": 0}
        axes.scatter(entry.search_seconds, entry.accuracy_mean, s=max(area, 28), zorder=3, **options)


def _scale_seconds(axes: Axes, seconds: pd.Series) -> None:
    """A logarithmic axis with the marks of a clock: seconds, minutes, hours, days."""
    marks = {0.1: "0.1 s", 1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min"}
    marks |= {3600: "1 h", 36000: "10 h", 86400 * 4: "4 d", 86400 * 40: "40 d"}
    set_logarithmic(axes, "x")
    low, high = seconds.min() / 3, seconds.max() * 3
    # At least one mark on each side, or the scale could not be read.
    low = max((mark for mark in marks if low / 3 <= mark <= low), default=low)
    high = min((mark for mark in marks if high <= mark <= high * 3), default=high)
    axes.set_xlim(low, high)
    axes.set_xlabel("search time")
    axes.xaxis.set_major_locator(ticker.FixedLocator(list(marks)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: marks.get(value, "")))
    axes.xaxis.set_minor_locator(ticker.NullLocator())


def _cost_legend(summary: pd.DataFrame, styles: Mapping) -> list[Line2D]:
    parameters = summary.set_index("row")["params"]
    handles = []
    for row, style in styles.items():
        label = f"{row}, {_short_count(parameters[row])}" if parameters[row] > 0 else row
        marks = {"color": style.colour, "marker": style.marker, "markersize": 5, "linestyle": "none"}
        handles.append(Line2D([], [], label=label, **marks))
    return handles


def _short_count(count: float) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1e6 else f"{count / 1e3:.3g} k"
