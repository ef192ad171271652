"""Loss and accuracy of trainings, epoch by epoch."""

from collections import Counter
from collections.abc import Iterable, Mapping

import matplotlib
import pandas as pd
from matplotlib import ticker
from matplotlib.figure import Figure

from metantk.results.figures.palette import SEED_LINES, row_styles
from metantk.results.figures.style import MUTED, STYLE, message_figure, new_figure


@matplotlib.rc_context(STYLE)
def draw_training_curves(curves: Mapping[tuple[str, int], pd.DataFrame], title: str) -> Figure:
    """Training loss and training accuracy against the epoch, one line per network.

    The legend names each network. With more seeds than there are styles of lines, it names the rows.

    Dotted verticals mark the first epoch after a step of the learning rate.

    Args:
        curves: (row, seed) -> `training.csv`. Read are the columns `epoch`, `lr`, `loss` and
            `accuracy` (percent). The row sets the colour, the seed the style of the line.
        title: the figure's title.
    """
    if not curves:
        return message_figure(title, "No network was trained.")
    figure = new_figure(8.6, 3.2, title, layout="constrained")
    panels = figure.subplots(1, 2)
    styles = row_styles(row for row, _ in curves)
    rank = {row: position for position, row in enumerate(styles)}
    seeds = {seed: position for position, seed in enumerate(sorted({seed for _, seed in curves}))}
    counts = Counter(row for row, _ in curves)
    told_apart = len(seeds) <= len(SEED_LINES)
    for row, seed in sorted(curves, key=lambda key: (rank[key[0]], key[1])):
        curve, name = curves[row, seed], f"{row}, seed {seed}"
        line = {
            "color": styles[row].colour,
            "linestyle": SEED_LINES[seeds[seed] % len(SEED_LINES)],
            "linewidth": 1.2,
        }
        if not told_apart:
            name = f"{row}, {counts.pop(row)} seeds" if row in counts else None
            line |= {"linestyle": "-", "linewidth": 0.4}
        # A line through a single epoch would not be seen.
        line["marker"] = "o" if len(curve) < 4 else None
        for axes, column in zip(panels, ("loss", "accuracy"), strict=True):
            axes.plot(curve["epoch"], curve[column], label=name, markersize=3, **line)
    drops = _rate_drops(curves.values())
    for axes, name in zip(panels, ("training loss", "training accuracy (%)"), strict=True):
        for index, epoch in enumerate(drops):
            label = None if index else "learning rate falls"
            axes.axvline(epoch, color=MUTED, linestyle=":", linewidth=0.8, zorder=0, label=label)
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.grid(axis="y")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", handlelength=2.4)
    return figure


def _rate_drops(tables: Iterable[pd.DataFrame]) -> list[int]:
    """Epochs in which a stepwise schedule has just lowered the rate; a smooth one has no such epochs."""
    drops = set()
    for table in tables:
        falls = table.loc[table["lr"].diff() < 0, "epoch"]
        drops |= set(falls) if len(falls) <= len(table) / 4 else set()
    return sorted(drops)
