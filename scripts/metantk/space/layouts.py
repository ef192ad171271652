"""How cells are stacked, as data: the paper's stack, and those in which MetaNAS and T-NAS were published.

Imports no torch.
"""

from typing import NamedTuple

from metantk.space.genotype import CELL_TYPES, cell_types


class Layout(NamedTuple):
    """All of a stack but what is inside its cells.

    Attributes:
        stem_channels: outputs of each of the stem's 3×3 convolutions, one or two. One keeps the size of the
            images; of two, each is followed by a pooling that halves it.
        kinds: "normal" or "reduce", by cell.
        channels: of each node, by cell.
        pools_are_normed: whether poolings within cells are followed by a norm; not so in T-NAS's networks.
    """

    stem_channels: tuple[int, ...]
    kinds: tuple[str, ...]
    channels: tuple[int, ...]
    pools_are_normed: bool = True

    def describe(self) -> dict:
        """In plain values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in self._asdict().items()}


def few_shot_layout(cells: int, channels: int) -> Layout:
    """The paper's (and this workflow's) stack: channels are doubled by each of the two reduction cells."""
    kinds = cell_types(cells)
    reductions = [kinds[: index + 1].count("reduce") for index in range(cells)]
    return Layout((channels,), tuple(kinds), tuple(channels * 2**count for count in reductions))


def metanas_layout(channels: int, cells: int, reductions: tuple[int, ...]) -> Layout:
    """MetaNAS's own: a stem of three times the channels, which are never doubled (published code).

    Args:
        reductions: numbers of the cells that halve the resolution: 1 and 3 of the search's 4 cells.
    """
    kinds = tuple("reduce" if index in reductions else "normal" for index in range(cells))
    return Layout((3 * channels,), kinds, (channels,) * cells)


def t_nas_layout(channels: int) -> Layout:
    """T-NAS's own: two convolutions with pooling, a normal cell, a reduction cell of twice the channels."""
    stem = (3 * channels // 2, 3 * channels)
    return Layout(stem, CELL_TYPES, (channels, 2 * channels), pools_are_normed=False)


def make_layout(name: str, *, cells: int, channels: int) -> Layout:
    """The layout of a trained network by its name.

    Args:
        name: "few-shot" (the paper's), "metanas" or "t-nas", which has two cells always.
    """
    if name == "few-shot":
        return few_shot_layout(cells, channels)
    if name == "t-nas":
        return t_nas_layout(channels)
    reductions = tuple(index for index, kind in enumerate(cell_types(cells)) if kind == "reduce")
    return metanas_layout(channels, cells, reductions)
