"""Cells, as in the paper's Figure 2.

A cell is drawn like a railway map, in inches. Nodes stand in columns from left to right on the line y = 0. In
front of each node lies a column for the labels of its incoming edges. An edge leaves its source, changes to a
lane of its own within the gap behind the source, follows that lane over or under everything between, carries its
label in the column in front of its target, and turns into the target. Labels can therefore not meet each other,
and no edge can run through a box, whatever the genotype. Lanes are counted from the middle: 0 for an edge between
neighbouring nodes, 1, 2, ... above and -1, -2, ... below.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon
from matplotlib.path import Path as Curve

from metantk.results.figures.palette import OPERATIONS, OTHER_OPERATION, tint
from metantk.results.figures.style import STYLE, TEXT, centred_text, new_figure, text_width

BOX_HEIGHT = 0.36
NODE_WIDTH = 0.38
INPUT_WIDTH = 0.56
INPUT_OFFSET = 0.40
LABEL_HEIGHT = 0.20
LABEL_SIZE = 8
FAN_OUT = 0.42
FAN_IN = 0.36
FIRST_LANE = 0.42
LANE_PITCH = 0.29
PORT_PITCH = 0.10
ARROW = 0.085
MARGIN = 0.12
CELL_TITLE_HEIGHT = 0.28
NODE_COLOURS = {"input": "#a9d8a0", "intermediate": "#a6cdec", "output": "#f7dc7a"}
CELL_NAMES = {"normal": "Normal cell", "reduce": "Reduction cell"}


class Link(NamedTuple):
    """An arrow of a cell. Nodes are numbered as in a genotype; the output comes after the last of them."""

    source: int
    target: int
    operation: str | None  # None: the link only carries a node's output into the cell's output


class Box(NamedTuple):
    """A node's box, in inches."""

    left: float
    middle: float
    width: float
    text: str
    kind: str

    @property
    def right(self) -> float:
        return self.left + self.width


@matplotlib.rc_context(STYLE)
def draw_cells(genotype: Mapping, title: str) -> Figure:
    """The normal and the reduction cell of an architecture, one above the other, as in the paper's Figure 2.

    Green boxes are the outputs of the two previous cells, blue boxes the intermediate nodes, the yellow box
    is the output of the cell: the concatenation of the nodes with a grey arrow into it. The operation of an
    edge stands in front of the node that the edge leads to.

    Args:
        genotype: keys `normal`, `normal_concat`, `reduce` and `reduce_concat`, as in `genotype.json`.
        title: the figure's title.
    """
    cells = {cell: _cell_links(genotype[cell], genotype[f"{cell}_concat"]) for cell in CELL_NAMES}
    lanes = {cell: _assign_lanes(links) for cell, links in cells.items()}
    label_width = _label_width(link.operation for links in cells.values() for link in links if link.operation)
    boxes = {cell: _place_boxes(len(genotype[cell]), label_width) for cell in CELL_NAMES}

    width = max(row[-1].right for row in boxes.values()) + 2 * MARGIN
    spans = {cell: _vertical_span(lanes[cell].values()) for cell in CELL_NAMES}
    heights = {cell: top - bottom + CELL_TITLE_HEIGHT for cell, (bottom, top) in spans.items()}
    height = 0.35 + sum(heights.values()) + MARGIN
    figure = new_figure(width, height, title)

    top_edge = height - 0.35
    for cell in CELL_NAMES:
        bottom, top = spans[cell]
        top_edge -= heights[cell]
        axes = figure.add_axes((0, top_edge / height, 1, heights[cell] / height))
        axes.set(xlim=(-MARGIN, width - MARGIN), ylim=(bottom, top + CELL_TITLE_HEIGHT), xticks=[], yticks=[])
        axes.set_axis_off()
        axes.text(0, top + 0.06, CELL_NAMES[cell], fontsize=9, color=TEXT)
        _draw_cell(axes, cell, boxes[cell], lanes[cell], label_width)
    return figure


def _cell_links(nodes: Sequence, concatenated: Sequence[int]) -> list[Link]:
    edges = [
        Link(source, target, operation) for target, node in enumerate(nodes, start=2) for operation, source in node
    ]
    return edges + [Link(source, len(nodes) + 2, None) for source in concatenated]


def _column(node: int) -> int:
    """Both inputs stand in column 0; every other node has a column of its own."""
    return max(node - 1, 0)


def _home(node: int) -> float:
    """Height of the middle of a node's box."""
    return {0: INPUT_OFFSET, 1: -INPUT_OFFSET}.get(node, 0.0)


def _lane_height(lane: int) -> float:
    return float(np.sign(lane)) * (FIRST_LANE + (abs(lane) - 1) * LANE_PITCH) if lane else 0.0


def _is_straight(link: Link) -> bool:
    return link.source >= 2 and link.target == link.source + 1


def _assign_lanes(links: Sequence[Link]) -> dict[Link, int]:
    """The lane of each link: of all choices of sides, the one with the fewest crossings, then the flattest.

    Shorter links take the inner lanes. The links into the output share one lane, within or beyond the others.
    """
    straight = [link for link in links if _is_straight(link)]
    edges = [link for link in links if not _is_straight(link) and link.operation]
    bus = [link for link in links if not _is_straight(link) and not link.operation]
    by_length = sorted(edges, key=lambda link: (_column(link.target) - _column(link.source), link))
    bundles = [[link] for link in by_length]
    orders = [[bus, *bundles], [*bundles, bus]] if bus else [bundles]

    best, best_cost = {}, None
    for order in orders:
        for sides in itertools.product((1, -1), repeat=len(order)):
            lanes = dict.fromkeys(straight, 0) | _stack(order, sides)
            cost = (_count_crossings(lanes), len(set(lanes.values())), _count_detours(lanes))
            if best_cost is None or cost < best_cost:
                best, best_cost = lanes, cost
    return best


def _stack(bundles: Sequence[Sequence[Link]], sides: Sequence[int]) -> dict[Link, int]:
    """Give each bundle, in turn, the innermost lane on its side beyond all earlier ones that it overlaps."""
    lanes: dict[Link, int] = {}
    placed: list[tuple[int, int, int]] = []
    for bundle, side in zip(bundles, sides, strict=True):
        start = min(_column(link.source) for link in bundle)
        end = max(_column(link.target) for link in bundle)
        beyond = [abs(lane) for lane, low, high in placed if lane * side > 0 and low < end and start < high]
        lane = side * (max(beyond, default=0) + 1)
        placed.append((lane, start, end))
        lanes |= dict.fromkeys(bundle, lane)
    return lanes


class Way(NamedTuple):
    """A link as the crossings see it: first and last column, height at its source, height of its lane."""

    start: int
    end: int
    home: float
    height: float


def _count_crossings(lanes: Mapping[Link, int]) -> int:
    """Links cross only in the gaps behind and in front of a node, where one of them changes lanes."""
    ways = [
        Way(_column(link.source), _column(link.target), _home(link.source), _lane_height(lane))
        for link, lane in lanes.items()
    ]
    return sum(
        _swap(one, other) + _turns_across(one, other) + _turns_across(other, one)
        for one, other in itertools.combinations(ways, 2)
    )


def _swap(one: Way, other: Way) -> bool:
    """Whether two links out of one column change order at once: one leads up, the other down."""
    return one.start == other.start and (one.home - other.home) * (one.height - other.height) < 0


def _turns_across(turning: Way, passing: Way) -> int:
    """How often `turning` leaves or reaches a node across a link that passes this node."""
    out = passing.start < turning.start < passing.end
    into = passing.start < turning.end < passing.end
    return (out and _between(passing.height, turning.home, turning.height)) + (
        into and _between(passing.height, 0, turning.height)
    )


def _between(height: float, one: float, other: float) -> bool:
    return min(one, other) < height < max(one, other)


def _count_detours(lanes: Mapping[Link, int]) -> int:
    """Links that leave an input towards the other input's side."""
    return sum(lane * _home(link.source) < 0 for link, lane in lanes.items())


def _label_width(operations: Iterable[str]) -> float:
    return max((text_width(operation, LABEL_SIZE) for operation in operations), default=0) + 0.14


def _place_boxes(nodes: int, label_width: float) -> list[Box]:
    """Boxes of the two inputs, of the intermediate nodes and of the output, in this order."""
    boxes = [
        Box(0, _home(0), INPUT_WIDTH, "$c_{k-2}$", "input"),
        Box(0, _home(1), INPUT_WIDTH, "$c_{k-1}$", "input"),
    ]
    for node in range(nodes):
        left = boxes[-1].right + FAN_OUT + label_width + FAN_IN
        # As genotypes and search.csv number them: 0 and 1 are the two inputs.
        boxes.append(Box(left, 0, NODE_WIDTH, str(node + 2), "intermediate"))
    boxes.append(Box(boxes[-1].right + FAN_OUT + FAN_IN, 0, INPUT_WIDTH, "$c_{k}$", "output"))
    return boxes


def _vertical_span(lanes: Iterable[int]) -> tuple[float, float]:
    lanes = list(lanes)
    reach = INPUT_OFFSET + BOX_HEIGHT / 2
    bottom = min(_lane_height(min(lanes)) - LABEL_HEIGHT / 2, -reach)
    top = max(_lane_height(max(lanes)) + LABEL_HEIGHT / 2, reach)
    return bottom - 0.08, top + 0.08


def _draw_cell(axes: Axes, cell: str, boxes: Sequence[Box], lanes: Mapping[Link, int], label_width: float) -> None:
    for link, lane in lanes.items():
        start = boxes[link.source].middle + _port(lane, [lanes[a] for a in lanes if a.source == link.source])
        end = boxes[link.target].middle + _port(lane, [lanes[a] for a in lanes if a.target == link.target])
        _draw_link(axes, f"{cell}-{link.source}-{link.target}", link, boxes, start, _lane_height(lane), end)
        if link.operation:
            middle = boxes[link.target].left - FAN_IN - label_width / 2
            _draw_label(axes, f"{cell}-{link.source}-{link.target}", link, middle, _lane_height(lane), label_width)
    for node, box in enumerate(boxes):
        _draw_box(axes, f"node-{cell}-{node}", box)


def _port(lane: int, lanes: Sequence[int]) -> float:
    """Height, from the middle of a box's side, at which the link on `lane` meets it, among links on `lanes`.

    Ports have the order of the lanes, so that links do not cross at the box; lane 0 runs straight on.
    """
    order = sorted(set(lanes))
    middle = order.index(0) if 0 in order else (len(order) - 1) / 2
    reach = max(middle, len(order) - 1 - middle)
    pitch = min(PORT_PITCH, (BOX_HEIGHT / 2 - 0.05) / max(reach, 1))
    return (order.index(lane) - middle) * pitch


def _draw_link(
    axes: Axes, name: str, link: Link, boxes: Sequence[Box], start: float, height: float, end: float
) -> None:
    left, right = boxes[link.source].right, boxes[link.target].left
    colour = OPERATIONS.get(link.operation, OTHER_OPERATION) if link.operation else "#a8a8a8"
    turn_out, turn_in, stop = left + FAN_OUT, right - FAN_IN, right - ARROW
    points = [
        (left, start),
        (left + 0.6 * FAN_OUT, start),
        (turn_out - 0.6 * FAN_OUT, height),
        (turn_out, height),
        (turn_in, height),
        (turn_in + 0.6 * (stop - turn_in), height),
        (stop - 0.6 * (stop - turn_in), end),
        (stop, end),
    ]
    codes = [Curve.MOVETO, *[Curve.CURVE4] * 3, Curve.LINETO, *[Curve.CURVE4] * 3]
    line = PathPatch(Curve(points, codes), fill=False, edgecolor=colour, linewidth=1.2, zorder=1)
    line.set_gid(f"edge-{name}")
    axes.add_patch(line)
    tip = [(right, end), (stop, end + ARROW * 0.42), (stop, end - ARROW * 0.42)]
    axes.add_patch(Polygon(tip, facecolor=colour, edgecolor="none", zorder=2))


def _draw_label(axes: Axes, name: str, link: Link, middle: float, height: float, width: float) -> None:
    colour = OPERATIONS.get(link.operation, OTHER_OPERATION)
    corner = (middle - width / 2, height - LABEL_HEIGHT / 2)
    frame = FancyBboxPatch(
        corner, width, LABEL_HEIGHT, boxstyle="round,pad=0,rounding_size=0.05", linewidth=0.8, zorder=3
    )
    frame.set(facecolor=tint(colour, 0.10), edgecolor=colour, gid=f"label-{name}")
    axes.add_patch(frame)
    centred_text(axes, middle, height, link.operation, LABEL_SIZE)


def _draw_box(axes: Axes, name: str, box: Box) -> None:
    corner = (box.left, box.middle - BOX_HEIGHT / 2)
    frame = FancyBboxPatch(
        corner, box.width, BOX_HEIGHT, boxstyle="round,pad=0,rounding_size=0.06", linewidth=0.8, zorder=3
    )
    frame.set(facecolor=NODE_COLOURS[box.kind], edgecolor="#444444", gid=name)
    axes.add_patch(frame)
    centred_text(axes, box.left + box.width / 2, box.middle, box.text, 10, parse_math=True)
