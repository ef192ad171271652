"""What all figures share: their style, an empty figure with its title, and how they are saved."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from metantk.storage import atomic_write

STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that text has the same size on every machine
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "metantk",
}
PNG_DOTS_PER_INCH = 200
TITLE_SIZE = 10.5
TEXT = "#222222"
MUTED = "#8a8a8a"


@matplotlib.rc_context(STYLE)
def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `<stem>.svg` (text stays text) and `<stem>.png`, each whole or not at all. Returns both paths."""
    formats = {
        "svg": {"metadata": {"Date": None, "Creator": None}},
        "png": {"metadata": {"Software": None}, "dpi": PNG_DOTS_PER_INCH},
    }
    paths = []
    for suffix, options in formats.items():
        # Not with_suffix(): a stem such as "tau-0.5" would lose its end.
        path = Path(stem).with_name(f"{Path(stem).name}.{suffix}")
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format=suffix, **options)
        paths.append(path)
    return paths


def new_figure(width: float, height: float, title: str, **options) -> Figure:
    """An empty figure of `width` × `height` inches with its title at the top left."""
    figure = Figure(figsize=(width, height), **options)
    # A layout engine moves the panels out of the title's way only if the title's height is left to it.
    place = {} if "layout" in options else {"y": 1 - 0.1 / height, "va": "top"}
    figure.suptitle(title, x=0.1 / width, ha="left", fontsize=TITLE_SIZE, color=TEXT, **place)
    return figure
