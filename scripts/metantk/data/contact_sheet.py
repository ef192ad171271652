"""A contact sheet: a few images of a few classes of each split, to see at a glance what a data set holds."""

import functools
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from metantk.data.store import Split
from metantk.runtime.files import atomic_write

# The font comes with matplotlib: the same everywhere. A dollar sign in the name of a class is a dollar sign.
STYLE = {"font.family": "DejaVu Sans", "font.size": 8, "text.parse_math": False}
CLASSES, IMAGES = 8, 8  # at most, per split and per class
GAP = 2  # pixels between images
PANEL_WIDTH, PANEL_HEIGHT = 4.0, 2.8  # inches
DOTS_PER_INCH = 150
LONGEST_NAME = 28  # characters


@matplotlib.rc_context(STYLE)
def draw_contact_sheet(splits: dict[str, Split], title: str) -> Figure:
    """One panel per split; classes and images at equal distances through the split, so that all of it is seen."""
    figure = Figure(figsize=(len(splits) * PANEL_WIDTH, PANEL_HEIGHT), layout="constrained")
    figure.suptitle(title)
    (panels,) = figure.subplots(1, len(splits), squeeze=False)
    for axes, (part, split) in zip(panels, splits.items(), strict=True):
        indices = _spread(len(split.class_names), CLASSES)
        sheet, step = tile([_images_of(split, index) for index in indices])
        axes.imshow(sheet, interpolation="nearest")
        axes.set_title(f"{part}: {len(split.labels):,} images of {len(split.class_names)} classes")
        axes.set_xticks([])
        labels = [label_of(split.class_names[index], index) for index in indices]
        axes.set_yticks([(row + 0.5) * step for row in range(len(labels))], labels)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def tile(rows: list[np.ndarray]) -> tuple[np.ndarray, int]:
    """Rows of images, each uint8 `(images, height, width, 3)`, on white; the sheet and the height of a row."""
    height, width = rows[0].shape[1:3]
    columns = max(map(len, rows))
    sheet = np.full((len(rows) * (height + GAP), columns * (width + GAP), 3), 255, np.uint8)
    for row, images in enumerate(rows):
        for column, image in enumerate(images):
            top, left = row * (height + GAP), column * (width + GAP)
            sheet[top : top + height, left : left + width] = image
    return sheet, height + GAP


def _images_of(split: Split, index: int) -> np.ndarray:
    members = np.flatnonzero(split.labels == index)
    return split.images[members[_spread(len(members), IMAGES)]]


def _spread(count: int, most: int) -> np.ndarray:
    """At most `most` of the numbers below `count`, at equal distances."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def label_of(name: str, index: int) -> str:
    """The name of a class as it can be drawn: by its index where the font lacks a sign of it, shortened if long."""
    if not _signs() >= set(map(ord, name)):
        return f"class {index}"
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


@functools.cache
def _signs() -> frozenset[int]:
    """Code points that the font has."""
    return frozenset(get_font(findfont(STYLE["font.family"])).get_charmap())


@matplotlib.rc_context(STYLE)
def save(figure: Figure, path: Path) -> None:
    """Write the PNG; equal data give equal bytes."""
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
