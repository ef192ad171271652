"""How methods, operations and criteria are named and coloured in every figure."""

import itertools
import re
from collections.abc import Iterable
from typing import NamedTuple

from matplotlib import colors


class MethodStyle(NamedTuple):
    """How a method is named and marked in every figure."""

    name: str
    colour: str
    marker: str


# Okabe and Ito's colours, which readers with any colour vision tell apart. Keys: `_method_key`.
METHODS = {
    "metantk": MethodStyle("MetaNTK-NAS", "#0072b2", "o"),
    "tenas": MethodStyle("TE-NAS", "#d55e00", "s"),
    "linearregions": MethodStyle("Linear regions", "#009e73", "^"),
    "random": MethodStyle("Random cell", "#7f7f7f", "D"),
    "metanas": MethodStyle("MetaNAS", "#cc79a7", "v"),
    "conv4": MethodStyle("Conv-4", "#e69f00", "p"),
    "resnet12": MethodStyle("ResNet-12", "#56b4e9", "X"),
}
OTHER_METHODS = [("#332288", "P"), ("#882255", "h"), ("#117733", "<"), ("#999933", ">"), ("#44aa99", "*")]

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

CRITERIA = {
    "meta_ntk_condition": "condition number\nof the MetaNTK",
    "ntk_condition": "condition number\nof the NTK",
    "ntk_spectral_entropy": "spectral entropy\nof the NTK",
    "linear_regions": "linear regions",
}
DECIDER_COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"]  # Okabe and Ito's, one per criterion
SEED_LINES = ["-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3))]


def method_styles(methods: Iterable[str]) -> dict[str, MethodStyle]:
    """Style of each method, in the order in which figures list them: known ones first, others by name."""
    methods = set(methods)
    styles = {
        method: style for key, style in METHODS.items() for method in sorted(methods) if _method_key(method) == key
    }
    others = itertools.cycle(OTHER_METHODS)
    for method in sorted(methods - set(styles)):
        styles[method] = MethodStyle(method, *next(others))
    return styles


def _method_key(method: str) -> str:
    return re.sub(r"[^a-z0-9]", "", method.lower())


def tint(colour: str, strength: float) -> tuple[float, ...]:
    """`colour` mixed with white: 0 is white, 1 the colour itself."""
    return tuple(1 - strength * (1 - channel) for channel in colors.to_rgb(colour))
