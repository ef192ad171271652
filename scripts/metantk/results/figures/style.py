"""What all figures share: their style, an empty figure with its title, text, and how they are saved.

Every `draw_...` function of this package returns a `matplotlib.figure.Figure` and leaves no global state behind.
Equal input gives equal bytes.
"""

import functools
import re
import warnings
from pathlib import Path

import matplotlib
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from metantk.runtime.files import atomic_write

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
    "text.parse_math": False,  # names are other people's: a dollar sign is a dollar sign
    "svg.fonttype": "none",
    "svg.hashsalt": "metantk",
}
PNG_DOTS_PER_INCH = 200
TITLE_SIZE = 10.5
TEXT = "#222222"
MUTED = "#8a8a8a"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


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
        with atomic_write(path) as temporary, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")  # it is drawn as a box
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


def message_figure(title: str, message: str) -> Figure:
    figure = new_figure(6.0, 1.1, title)
    figure.text(0.5, 0.42, message, ha="center", va="center", color=MUTED, fontsize=9)
    return figure


class PlainPowers(ticker.LogFormatterSciNotation):
    """Labels of a logarithmic axis as plain text: matplotlib's own need its mathematics.

    Decimals such as 0.3 where all of the axis is between 0.001 and 10 000, otherwise powers such as 3×10⁻⁴.
    """

    def __call__(self, value: float, position: int | None = None) -> str:
        text = super().__call__(value, position).removeprefix(r"$\mathdefault{").removesuffix("}$")
        low, high = sorted(self.axis.get_view_interval())
        if text and low >= 1e-3 and high <= 1e4:
            return f"{value:g}"
        text = text.replace(r"\times", "×")
        return re.sub(r"\^\{(-?\d+)\}", lambda power: power[1].translate(SUPERSCRIPTS), text)


def set_logarithmic(axes: Axes, which: str) -> None:
    """Make an axis, `x` or `y`, logarithmic, with labels in plain text."""
    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    axis.set_major_formatter(PlainPowers())
    axis.set_minor_formatter(PlainPowers())


@functools.cache
def text_width(text: str, size: float) -> float:
    """Width in inches."""
    return TextPath((0, 0), text, size=size).get_extents().width / 72


def centred_text(axes: Axes, x: float, y: float, text: str, size: float, **options) -> None:
    options = {"color": TEXT, "zorder": 4} | options
    axes.text(x, y, text, ha="center", va="center_baseline", fontsize=size, **options)
