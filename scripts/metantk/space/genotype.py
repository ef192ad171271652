"""Search spaces and genotypes as data: the text and JSON forms, their validation. Imports no torch.

A genotype is `{"normal": [...], "normal_concat": [...], "reduce": [...], "reduce_concat": [...]}`: one list per
intermediate node with its two `[operation, input]` pairs. Inputs 0 and 1 are the two previous cells, 2 and up
the intermediate nodes.
"""

import ast
from pathlib import Path
from typing import NamedTuple

from metantk.runtime.files import SCRIPTS, InputError, parse_json, read_text

CELL_TYPES = ("normal", "reduce")
KEPT_EDGES = 2  # that a node keeps of all that lead to it
PUBLISHED = SCRIPTS.parent / "config" / "genotypes"


class Edge(NamedTuple):
    """A connection within a cell, from state `input` to intermediate node `node` (counted from 2)."""

    input: int
    node: int


class Space(NamedTuple):
    """What a cell can be made of.

    Attributes:
        operations: names of the candidates on each edge.
        nodes: intermediate nodes; node i takes inputs from all i earlier ones and the two previous cells.
    """

    operations: tuple[str, ...]
    nodes: int

    @property
    def edges(self) -> list[Edge]:
        """Edges in the published order: node by node, inputs ascending."""
        return [Edge(input, node) for node in range(2, 2 + self.nodes) for input in range(node)]


SPACES = {
    # MetaNAS and the paper, section 6.1.
    "few-shot": Space(
        (
            "skip_connect",
            "sep_conv_3x3",
            "dil_conv_3x3",
            "avg_pool_3x3",
            "max_pool_3x3",
            "conv_1x5_5x1",
            "conv_3x3",
        ),
        nodes=3,
    ),
    # DARTS.
    "darts": Space(
        (
            "skip_connect",
            "sep_conv_3x3",
            "sep_conv_5x5",
            "dil_conv_3x3",
            "dil_conv_5x5",
            "avg_pool_3x3",
            "max_pool_3x3",
        ),
        nodes=4,
    ),
}
OPERATIONS = tuple(dict.fromkeys(name for space in SPACES.values() for name in space.operations))
MOST_NODES = 12  # of a cell; the published ones have 3 and 4
PUBLISHED_SPELLINGS = {"max_pool_3x3BN": "max_pool_3x3", "avg_pool_3x3BN": "avg_pool_3x3"}


def is_reduction(cell: int, cells: int) -> bool:
    """Whether cell number `cell` (from 0) of a stack of `cells` halves the resolution and doubles the channels."""
    return cell in (cells // 3, 2 * cells // 3)


def cell_types(cells: int) -> list[str]:
    return ["reduce" if is_reduction(cell, cells) else "normal" for cell in range(cells)]


def read_genotype(path: Path | str) -> dict:
    """Read a genotype from JSON or from the published one-line text.

    Raises:
        InputError: the file cannot be read, or holds no valid genotype.
    """
    return parse_genotype(read_text(path), where=str(path))


def read_named(name_or_path: Path | str) -> dict:
    """Read a genotype from a file, or a published one by its name in config/genotypes/.

    Raises:
        InputError: there is no such file or name, or it holds no valid genotype.
    """
    published = {path.stem: path for path in sorted(PUBLISHED.glob("*.json"))}
    if Path(name_or_path).is_file():
        return read_genotype(name_or_path)
    if str(name_or_path) in published:
        return read_genotype(published[str(name_or_path)])
    raise InputError(
        f"{name_or_path}: is neither a file nor the name of a published genotype ({', '.join(published)})"
    )


def check_space(genotype: dict, space: str, *, where: str) -> None:
    """Refuse a genotype that is not of a space.

    Raises:
        InputError: its cells have another number of nodes, or an operation that the space does not have, or one
            operation twice on an edge, where a space has each once.
    """
    operations, nodes = SPACES[space]
    found = {operation for cell in CELL_TYPES for node in genotype[cell] for operation, _ in node}
    if others := sorted(found - set(operations)):
        raise InputError(f"{where}: is not of space {space}, which has no {others[0]}")
    if len(genotype["normal"]) != nodes:
        raise InputError(
            f"{where}: is not of space {space}: its cells have {len(genotype['normal'])} nodes, not {nodes}"
        )
    for cell in CELL_TYPES:
        for node, (one, other) in enumerate(genotype[cell], start=2):
            if tuple(one) == tuple(other):
                raise InputError(
                    f"{where}: is not of space {space}: its {cell} cell has {one[0]} twice on edge {one[1]}→{node}"
                )


def parse_genotype(text: str, *, where: str = "genotype") -> dict:
    """Parse and check a genotype; nothing in the text is executed."""
    text = text.strip()
    if text.startswith("Genotype("):
        value = _parse_published(text, where)
    else:
        try:
            value = parse_json(text)
        except ValueError as error:
            raise InputError(f"{where}: is neither JSON nor a Genotype(...) text ({error})") from None
    return check_genotype(value, where=where)


def _parse_published(text: str, where: str) -> dict:
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("expected Genotype(normal=..., ...)")
        if not all(keyword.arg for keyword in call.keywords):
            raise ValueError("expected Genotype(normal=..., ...)")
        return {keyword.arg: _literal(keyword.value) for keyword in call.keywords}
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise InputError(f"{where}: is not a Genotype(...) text ({error})") from None


def _literal(node: ast.expr) -> object:
    """`ast.literal_eval`, and `range(a, b)` and `list(range(a, b))` of numbers."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) in (1, 2):
        if node.func.id == "list":
            return _literal(node.args[0])
        bounds = [ast.literal_eval(argument) for argument in node.args]
        if node.func.id == "range" and all(isinstance(b, int) and 0 <= b <= 16 for b in bounds):
            return list(range(*bounds))
    return ast.literal_eval(node)


def check_genotype(value: object, *, where: str = "genotype") -> dict:
    """Check the structure and return it in the form of this module's docstring.

    A flat list of pairs (two per node, as DARTS writes it) is grouped by node.

    Raises:
        InputError: naming the cell, the node and what is wrong.
    """
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected an object with {', '.join(CELL_TYPES)}")
    known = {key for cell in CELL_TYPES for key in (cell, f"{cell}_concat")}
    for key in sorted(known ^ set(value)):
        raise InputError(f"{where}: '{key}' is {'missing' if key in known else 'unknown'}")
    genotype = {}
    for cell in CELL_TYPES:
        nodes = _group_by_node(value[cell], f"{where}, {cell} cell")
        concat = value[f"{cell}_concat"]
        if not isinstance(concat, list | tuple) or list(concat) != list(range(2, 2 + len(nodes))):
            raise InputError(
                f"{where}, {cell} cell: {cell}_concat is {concat!r}, but its {len(nodes)} nodes are "
                f"{list(range(2, 2 + len(nodes)))} (is a node missing?)"
            )
        genotype |= {cell: nodes, f"{cell}_concat": list(concat)}
    if len(genotype["normal"]) != len(genotype["reduce"]):
        raise InputError(f"{where}: the cells have {len(genotype['normal'])} and {len(genotype['reduce'])} nodes")
    return genotype


def _group_by_node(pairs: object, where: str) -> list[list[list]]:
    if not isinstance(pairs, list | tuple) or not pairs:
        raise InputError(f"{where}: expected a list of nodes")
    if isinstance(pairs[0], list | tuple) and pairs[0] and isinstance(pairs[0][0], str):
        if len(pairs) % 2:
            raise InputError(f"{where}: {len(pairs)} pairs, but each node has 2")
        pairs = [pairs[start : start + 2] for start in range(0, len(pairs), 2)]
    if len(pairs) > MOST_NODES:
        raise InputError(f"{where}: has {len(pairs)} nodes; {MOST_NODES} are the most")
    return [_check_node(node, index, f"{where}, node {index}") for index, node in enumerate(pairs, start=2)]


def _check_node(node: object, index: int, where: str) -> list[list]:
    if not isinstance(node, list | tuple) or len(node) != 2:
        raise InputError(f"{where}: expected 2 [operation, input] pairs, found {node!r}")
    return [_check_pair(pair, index, where) for pair in node]


def _check_pair(pair: object, index: int, where: str) -> list:
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str):
        raise InputError(f"{where}: expected [operation, input], found {pair!r}")
    operation, source = PUBLISHED_SPELLINGS.get(pair[0], pair[0]), pair[1]
    if operation not in OPERATIONS:
        raise InputError(f"{where}: unknown operation {pair[0]!r}; choose from {', '.join(OPERATIONS)}")
    if type(source) is not int or not 0 <= source < index:
        raise InputError(f"{where}: input {source!r} of {operation} is not one of 0 to {index - 1}")
    return [operation, source]


def to_genotype(space: Space, masks: dict) -> dict:
    """The genotype of a network with one operation on each of two edges per node.

    Args:
        masks: by cell type, `(edges, operations)` bool.
    """
    genotype = {}
    for cell in CELL_TYPES:
        nodes: list[list[list]] = [[] for _ in range(space.nodes)]
        for index, edge in enumerate(space.edges):
            for operation in masks[cell][index].nonzero().flatten().tolist():
                nodes[edge.node - 2].append([space.operations[operation], edge.input])
        genotype |= {cell: nodes, f"{cell}_concat": list(range(2, 2 + space.nodes))}
    return genotype
