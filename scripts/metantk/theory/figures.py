"""Figures of the theory in numbers: each statement's measurements against the width or the step."""

import itertools

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metantk.results.figures.style import MUTED, STYLE, TEXT, new_figure, set_logarithmic
from metantk.theory.learner import summarise_learners
from metantk.theory.training_checks import COMPARISONS
from metantk.theory.verdicts import EXPECTED_SLOPE, fit_slope

# Okabe and Ito's colours, in this order for whatever a panel compares.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f"]
MARKERS = ["o", "s", "^", "D", "v"]
SIGNS = {"full": "●■▲◆▼", "none": "○□△◇▽"}  # the same in text
SLOPE_HEIGHT = 0.05  # of a panel: what a line of text takes
PANEL_WIDTH, PANEL_HEIGHT = 3.1, 2.7  # inches
TOP = 1e3  # of a loss over that at the start


@matplotlib.rc_context(STYLE)
def draw_determinism(kernels: pd.DataFrame) -> Figure:
    """Statement 1: distance of the NTK (filled) and the MetaNTK (open) from infinite width, against the width."""
    flows = kernels[kernels["inner"] == "MAML, flow"]
    figure, panels = _panels("Kernels at initialisation tend to their limits (Eq. 5, Lemma 3)", flows["source"])
    for source, axes in panels.items():
        part = flows[flows["source"] == source]
        for number, (name, group) in enumerate(part.groupby("network", sort=False)):
            _draw_trend(axes, group, "ntk_limit", number, f"NTK: {name}")
            _draw_trend(axes, group, "meta_limit", number, f"MetaNTK: {name}", fill="none", line="--")
        _finish_trends(axes, source, "relative distance from the limit")
    _add_legend(figure, panels)
    return figure


@matplotlib.rc_context(STYLE)
def draw_formula(kernels: pd.DataFrame) -> Figure:
    """Statements 2 and 6: the MetaNTK by definition (Eq. 4) against Eq. 11, transposed and as printed."""
    labels = kernels["source"] + ": " + kernels["inner"]
    figure, panels = _panels("The MetaNTK by its definition (Eq. 4) against its formula (Eq. 11)", labels)
    for label, axes in panels.items():
        for number, (name, group) in enumerate(kernels[labels == label].groupby("network", sort=False)):
            _draw_trend(axes, group, "formula", number, f"transposed: {name}")
            _draw_trend(axes, group, "printed", number, f"as printed: {name}", fill="none", line=":")
        _finish_trends(axes, label, "relative error")
    _add_legend(figure, panels)
    return figure


@matplotlib.rc_context(STYLE)
def draw_convergence(curves: pd.DataFrame) -> Figure:
    """Statement 3: the loss at every step against the bound of Eq. 6 with R the loss at the start, which is 1 here.

    One line per seed; the dotted ones are trained at the slow rate.
    """
    labels = curves["source"] + ": " + curves["network"]
    colours = dict(zip(sorted(curves["width"].unique()), itertools.cycle(COLOURS), strict=False))
    figure, panels = _panels("Meta-training against the bound of Theorem 1 (Eq. 6)", labels)
    for label, axes in panels.items():
        part = curves[labels == label]
        fastest = part["rate"].max()
        for width, group in part.groupby("width"):
            for (rate, seed), run in group.groupby(["rate", "seed"]):
                name = f"width {width}" if (rate, seed) == (fastest, 0) else None
                if rate < fastest and seed == 0:
                    name = f"width {width}, η = {rate:g} η₀"
                axes.plot(
                    run["step"],
                    (run["loss"] / run["loss"].iloc[0]).clip(upper=TOP**2),  # one that diverges leaves the panel
                    color=colours[width],
                    linewidth=0.9,
                    linestyle="-" if rate == fastest else ":",
                    label=name,
                )
        one = part[(part["width"] == part["width"].iloc[0]) & (part["seed"] == 0) & (part["rate"] == fastest)]
        axes.plot(one["step"], one["bound"] / one["bound"].iloc[0], color=TEXT, linewidth=1.8, label="bound")
        low = float((one["bound"] / one["bound"].iloc[0]).iloc[-1])
        set_logarithmic(axes, "y")
        axes.set(xlabel="step", ylabel="loss / loss at the start", ylim=(low * 1e-4, TOP))
        axes.set_title(label)
        axes.grid(axis="y")
    _add_legend(figure, panels)
    return figure


@matplotlib.rc_context(STYLE)
def draw_regression(regression: pd.DataFrame) -> Figure:
    """Statement 4: error of kernel regression for the outputs on test tasks at the last time, against the width."""
    last = regression[regression["time"] == regression["time"].max()]
    labels = last["source"] + ": " + last["network"]
    figure, panels = _panels("Meta-trained networks on test tasks against kernel regression (Theorem 2)", labels)
    for label, axes in panels.items():
        for number, wanted in enumerate(COMPARISONS.values()):
            chosen = last[(labels == label) & (last[list(wanted)] == pd.Series(wanted)).all(axis=1)]
            _draw_trend(axes, chosen, "error", number, _describe(wanted))
        _finish_trends(axes, label, f"relative error at t = {last['time'].iloc[0]}")
    _add_legend(figure, panels)
    return figure


def _describe(comparison: dict[str, str]) -> str:
    """A line of the legend: whose outputs, trained how, against what."""
    parts = [f"outputs {comparison['outputs']}", f"{comparison['rates']} rates"]
    against = " with ".join(comparison[key] for key in ("prediction", "decay") if key in comparison)
    return f"{', '.join(parts)}: {against}"


@matplotlib.rc_context(STYLE)
def draw_learners(learners: pd.DataFrame, ways: int) -> Figure:
    """Statement 5: accuracy on test tasks with its 95 % interval."""
    summary = summarise_learners(learners)
    figure = new_figure(6.4, 2.4, "Eq. 12 as a few-shot learner (glyphs, test classes)", layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(summary))
    axes.errorbar(
        summary["accuracy"], places, xerr=summary["ci95"], fmt="o", color=COLOURS[0], capsize=2.5, markersize=4
    )
    axes.axvline(100 / ways, color=MUTED, linestyle="--", linewidth=0.8, label="chance")
    axes.set_yticks(places, summary["learner"])
    axes.set(xlabel="accuracy (%), 95 % interval over test tasks", ylim=(len(summary) - 0.5, -0.5))
    axes.grid(axis="x")
    axes.legend()
    return figure


def _panels(title: str, labels: pd.Series) -> tuple[Figure, dict[str, Axes]]:
    """A figure with one panel per distinct label, three to a row."""
    names = list(dict.fromkeys(labels))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(0.4 + PANEL_WIDTH * max(columns, 2), 1.2 + PANEL_HEIGHT * rows, title, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[len(names) :]:
        unused.set_axis_off()
    return figure, dict(zip(names, axes, strict=False))


def _draw_trend(
    axes: Axes,
    table: pd.DataFrame,
    column: str,
    number: int,
    label: str,
    *,
    fill: str = "full",
    line: str = "-",
) -> None:
    """Every seed as a dot, the line through the medians, and its slope."""
    colour, shape = COLOURS[number % len(COLOURS)], number % len(MARKERS)
    faces = colour if fill == "full" else "none"
    finite = table[np.isfinite(table[column])]
    if finite.empty:
        return
    marks = {"marker": MARKERS[shape], "facecolors": faces, "edgecolors": colour, "linewidths": 0.6}
    axes.scatter(finite["width"], finite[column], s=9, **marks)
    medians = finite.groupby("width")[column].median()
    style = {"color": colour, "linestyle": line, "linewidth": 1.1}
    axes.plot(medians.index, medians, **style)
    axes.plot([], [], marker=MARKERS[shape], markersize=3, markerfacecolor=faces, label=label, **style)
    slope = fit_slope(table["width"], table[column]).value
    shown = f"{slope:.2f}".replace("-", "−") if np.isfinite(slope) else "no slope"  # an error is infinite
    text = f"{SIGNS[fill][shape]} {shown}"
    axes.text(1.0, medians.iloc[-1], text, color=colour, fontsize=6.5, va="center", gid="slope")


def _finish_trends(axes: Axes, title: str, quantity: str) -> None:
    """Logarithmic axes, the expected slope in grey, the fitted slopes at the right."""
    widths = np.array(sorted({point for line in axes.lines for point in line.get_xdata()}), float)
    top = max(max(line.get_ydata(), default=0) for line in axes.lines)
    expected = 1.4 * top * (widths / widths[0]) ** EXPECTED_SLOPE
    axes.plot(widths, expected, color=MUTED, linewidth=0.8, label="slope −1/2")
    for which in "xy":
        set_logarithmic(axes, which)
    axes.set(xlabel="width", ylabel=quantity)
    axes.set_xlim(widths[0] / 1.3, widths[-1] * 1.3)
    _spread_slopes(axes)
    axes.set_xticks(widths, [f"{width:g}" for width in widths])
    axes.xaxis.minorticks_off()
    axes.set_title(title)
    axes.grid(axis="y")


def _spread_slopes(axes: Axes) -> None:
    """Slopes stand right of the panel, each at the end of its line as far as there is room."""
    texts = sorted(
        (text for text in axes.texts if text.get_gid() == "slope"), key=lambda text: text.get_position()[1]
    )
    low, high = np.log(axes.get_ylim())
    previous = -SLOPE_HEIGHT
    for above, text in zip(range(len(texts) - 1, -1, -1), texts, strict=True):
        height = (np.log(text.get_position()[1]) - low) / (high - low)
        previous = min(max(height, previous + SLOPE_HEIGHT), max(1 - above * SLOPE_HEIGHT, previous + SLOPE_HEIGHT))
        text.set(position=(1.01, previous), transform=axes.transAxes)


def _add_legend(figure: Figure, panels: dict[str, Axes]) -> None:
    """One legend below all panels: they compare the same things in the same colours."""
    entries = {
        label: handle
        for axes in panels.values()
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    column = 0.6 + 0.065 * max(map(len, entries))  # inches: the handle, then the letters
    columns = max(1, int(figure.get_figwidth() / column))
    figure.legend(entries.values(), entries.keys(), loc="outside lower left", ncols=columns)
