"""How rows, operations and criteria are coloured in every figure."""

import itertools
from collections.abc import Iterable
from typing import NamedTuple

from matplotlib import colors


class RowStyle(NamedTuple):
    """How a row of the tables is marked in every figure."""

    colour: str
    marker: str


# Okabe and Ito's colours first, which readers with any colour vision tell apart. Known models keep theirs.
MODELS = {
    "MetaNTK-NAS": RowStyle("#0072b2", "o"),
    "TE-NAS": RowStyle("#d55e00", "s"),
    "Linear Region": RowStyle("#009e73", "^"),
    "Random Cell": RowStyle("#7f7f7f", "D"),
    "MetaNAS (retrained)": RowStyle("#cc79a7", "v"),
    "RFS": RowStyle("#56b4e9", "X"),
    "MAML": RowStyle("#e69f00", "p"),
}
OTHERS = [
    ("#332288", "P"),
    ("#882255", "h"),
    ("#117733", "<"),
    ("#999933", ">"),
    ("#44aa99", "*"),
    ("#aa4499", "d"),
]

# One hue per family: separable, dilated, plain, pooling.
OPERATIONS = {
    "skip_connect": "#6b6b6b",
    "sep_conv_3x3": "#0072b2",
    "sep_conv_5x5": "#56b4e9",
    "dil_conv_3x3": "#009e73",
    "dil_conv_5x5": "#66c2a5",
    "conv_3x3": "#e69f00",
    "conv_1x5_5x1": "#d55e00",
    "avg_pool_3x3": "#cc79a7",
    "max_pool_3x3": "#882255",
}
OTHER_OPERATION = "#444444"

DECIDER_COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#332288", "#999933"]
SEED_LINES = ["-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3))]


def row_styles(rows: Iterable[str]) -> dict[str, RowStyle]:
    """Style of each row by its label, in the order in which figures list them: known models first, others by name.

    A known model's first row has its colour; rows that share a model, on other backbones, have colours of their
    own.
    """
    rows = sorted(set(rows))
    taken = {}
    for model, style in MODELS.items():
        for row in rows:
            if row.split(",")[0] == model:
                taken[row] = style if style not in taken.values() else None
    others = itertools.cycle(OTHERS)
    styles = {row: style or RowStyle(*next(others)) for row, style in taken.items()}
    return styles | {row: RowStyle(*next(others)) for row in rows if row not in styles}


def tint(colour: str, strength: float) -> tuple[float, ...]:
    """`colour` mixed with white: 0 is white, 1 the colour itself."""
    return tuple(1 - strength * (1 - channel) for channel in colors.to_rgb(colour))


def decider_colour(index: int) -> str:
    """Of a search's criterion number `number`; with more criteria than colours they come round again."""
    return DECIDER_COLOURS[index % len(DECIDER_COLOURS)]
