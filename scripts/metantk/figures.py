"""Figures: cells (the paper's Figure 2), search traces, training curves, accuracies and search cost.

Every `draw_...` function returns a `matplotlib.figure.Figure` and leaves no global state behind. Equal input gives
equal bytes. Methods and operations keep their colours in every figure.
"""

import functools
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import colors, ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon, Rectangle
from matplotlib.path import Path as Curve
from matplotlib.textpath import TextPath

from metantk.figure_style import MUTED, STYLE, TEXT, new_figure


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


def _tint(colour: str, strength: float) -> tuple[float, ...]:
    """`colour` mixed with white: 0 is white, 1 the colour itself."""
    return tuple(1 - strength * (1 - channel) for channel in colors.to_rgb(colour))


def _message_figure(title: str, message: str) -> Figure:
    figure = new_figure(6.0, 1.1, title)
    figure.text(0.5, 0.42, message, ha="center", va="center", color=MUTED, fontsize=9)
    return figure


# --- Cells -----------------------------------------------------------------------------------------------
#
# A cell is drawn like a railway map, in inches. Nodes stand in columns from left to right on the line y = 0.
# In front of each node lies a column for the labels of its incoming edges. An edge leaves its source, changes
# to a lane of its own within the gap behind the source, follows that lane over or under everything between,
# carries its label in the column in front of its target, and turns into the target. Labels can therefore not
# meet each other, and no edge can run through a box, whatever the genotype. Lanes are counted from the
# middle: 0 for an edge between neighbouring nodes, 1, 2, ... above and -1, -2, ... below.

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
    return max((_text_width(operation, LABEL_SIZE) for operation in operations), default=0) + 0.14


@functools.cache
def _text_width(text: str, size: float) -> float:
    """Width in inches."""
    return TextPath((0, 0), text, size=size).get_extents().width / 72


def _place_boxes(nodes: int, label_width: float) -> list[Box]:
    """Boxes of the two inputs, of the intermediate nodes and of the output, in this order."""
    boxes = [
        Box(0, _home(0), INPUT_WIDTH, "$c_{k-2}$", "input"),
        Box(0, _home(1), INPUT_WIDTH, "$c_{k-1}$", "input"),
    ]
    for node in range(nodes):
        left = boxes[-1].right + FAN_OUT + label_width + FAN_IN
        boxes.append(Box(left, 0, NODE_WIDTH, str(node), "intermediate"))
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
    frame.set(facecolor=_tint(colour, 0.10), edgecolor=colour, gid=f"label-{name}")
    axes.add_patch(frame)
    _centred_text(axes, middle, height, link.operation, LABEL_SIZE)


def _draw_box(axes: Axes, name: str, box: Box) -> None:
    corner = (box.left, box.middle - BOX_HEIGHT / 2)
    frame = FancyBboxPatch(
        corner, box.width, BOX_HEIGHT, boxstyle="round,pad=0,rounding_size=0.06", linewidth=0.8, zorder=3
    )
    frame.set(facecolor=NODE_COLOURS[box.kind], edgecolor="#444444", gid=name)
    axes.add_patch(frame)
    _centred_text(axes, box.left + box.width / 2, box.middle, box.text, 10)


def _centred_text(axes: Axes, x: float, y: float, text: str, size: float, **options) -> None:
    options = {"color": TEXT, "zorder": 4} | options
    axes.text(x, y, text, ha="center", va="center_baseline", fontsize=size, **options)


# --- Search trace ----------------------------------------------------------------------------------------

ROUND_WIDTH = 1.02
GROUP_WIDTH = 0.48
RESULT_WIDTH = 1.08
RESULT_GAP = 0.10
ROW_HEIGHT = 0.21
GRID_TEXT = 7
PANEL_HEIGHT = 1.05
BAR_HEIGHT = 0.55
PANEL_GAP = 0.16
TRACE_LEFT = 1.15
TRACE_RIGHT = 0.15


@matplotlib.rc_context(STYLE)
def draw_search_trace(trace: pd.DataFrame, title: str) -> Figure:
    """How a search went: the criteria round by round, and below them what was decided for each edge.

    Above, for each criterion, the value of the unpruned network (line) and of every candidate without one
    operation (dots, side by side in the order of the trace; crosses at the top where the value is not finite,
    or a condition number not positive), and the number of candidates scored. Below, one row per edge of both
    cell types and one column per round: the operation that the edge lost. In the edge stage, which scores all
    edges into one node in a round, `drop` marks the edges that the node lost. A stripe below a decision has the
    colours (of the panels' labels) of the criteria that would have decided so on their own; no stripe: only the
    sum of the ranks did. The last column holds what is left.

    Args:
        trace: `search.csv`. Read are the columns `round`, `stage` (`operations` or `edges`), `cell`, `edge`,
            `input`, `node`, `operation`, `removed`, `decided_by`, and for each criterion NAME `NAME_unpruned` and
            `NAME`.
            A trace with no rows (architectures drawn at random) gives a figure that says so.
        title: the figure's title.
    """
    if trace.empty:
        return _message_figure(title, "Nothing was scored: this method draws its architecture without a search.")
    trace = trace.assign(removed=trace["removed"].astype(bool))
    criteria = _criteria_of(trace)
    edges = _list_edges(trace)
    columns = _place_rounds(trace)
    end = max(left + width for left, width in columns.values())

    grid_height = (len(edges) + 2) * ROW_HEIGHT
    panels_height = len(criteria) * (PANEL_HEIGHT + PANEL_GAP) + BAR_HEIGHT + PANEL_GAP
    width = TRACE_LEFT + end + RESULT_GAP + RESULT_WIDTH + TRACE_RIGHT
    height = 0.5 + panels_height + grid_height + 0.1
    figure = new_figure(width, height, title)

    def add_axes(top: float, panel_height: float, panel_width: float) -> Axes:
        bottom = height - top - panel_height
        return figure.add_axes(
            (TRACE_LEFT / width, bottom / height, panel_width / width, panel_height / height),
            xlim=(0, panel_width),
        )

    top = 0.5
    for number, criterion in enumerate(criteria):
        axes = add_axes(top, PANEL_HEIGHT, end)
        _draw_criterion(axes, trace, criterion, columns)
        if len(criteria) > 1:
            axes.yaxis.label.set_color(DECIDER_COLOURS[number])
        if number == 0:
            place = {"loc": "upper left", "bbox_to_anchor": (1 + 0.05 / end, 1.05)}
            axes.legend(handlelength=1.2, borderpad=0, **place)
        top += PANEL_HEIGHT + PANEL_GAP
    _draw_candidate_counts(add_axes(top, BAR_HEIGHT, end), trace, columns)
    top += BAR_HEIGHT + PANEL_GAP
    _draw_decisions(add_axes(top, grid_height, end + RESULT_GAP + RESULT_WIDTH), trace, edges, columns)
    return figure


def _criteria_of(trace: pd.DataFrame) -> list[str]:
    return [column.removesuffix("_unpruned") for column in trace if column.endswith("_unpruned")]


def _list_edges(trace: pd.DataFrame) -> pd.DataFrame:
    """One row per edge: cell, edge, input, node; the normal cell first."""
    edges = trace[["cell", "edge", "input", "node"]].drop_duplicates(["cell", "edge"])
    return edges.sort_values(["cell", "edge"], ignore_index=True)


def _place_rounds(trace: pd.DataFrame) -> dict[int, tuple[float, float]]:
    """Left end and width, in inches, of the column of each round; rounds of the edge stage are narrow."""
    stages = trace.groupby("round")["stage"].first()
    widths = [GROUP_WIDTH if stage == "edges" else ROUND_WIDTH for stage in stages]
    lefts = np.cumsum([0, *widths[:-1]])
    return {number: (float(a), w) for number, a, w in zip(stages.index, lefts, widths, strict=True)}


def _middle(column: tuple[float, float]) -> float:
    return column[0] + column[1] / 2


def _draw_criterion(axes: Axes, trace: pd.DataFrame, criterion: str, columns: Mapping) -> None:
    logarithmic = criterion.endswith("condition")
    candidates = _drawable(trace[criterion], logarithmic)
    unpruned = _drawable(trace.groupby("round")[f"{criterion}_unpruned"].mean(), logarithmic)
    dots = {"color": "#7fb2d6", "markersize": 2.4, "markeredgewidth": 0}
    places = _candidate_places(trace, columns)
    axes.plot(places, candidates, "o", label="one candidate", **dots)
    if candidates.isna().any():
        top = pd.Series(0.96, index=candidates.index).where(candidates.isna())
        crosses = {"color": "#d55e00", "markersize": 3.5, "transform": axes.get_xaxis_transform()}
        axes.plot(places, top, "x", label="candidate with\nno valid value", **crosses)
    axes.plot(
        [_middle(columns[number]) for number in unpruned.index],
        unpruned,
        "o-",
        color=TEXT,
        markersize=4,
        linewidth=1.2,
        label="unpruned\nnetwork",
    )
    axes.margins(y=0.12)
    if logarithmic:
        axes.set_yscale("log")
        _label_short_log_axis(axes)
    _set_panel_label(axes, CRITERIA.get(criterion, criterion.replace("_", " ")))
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0, labelbottom=False)


def _candidate_places(trace: pd.DataFrame, columns: Mapping) -> pd.Series:
    """Candidates of a round stand side by side within its column: atop each other they would hide."""
    rounds = trace.groupby("round")["round"]
    share = (rounds.cumcount() + 0.5) / rounds.transform("size")
    lefts, widths = (trace["round"].map({number: c[i] for number, c in columns.items()}) for i in (0, 1))
    return lefts + widths * (0.15 + 0.7 * share)


def _drawable(values: pd.Series, logarithmic: bool) -> pd.Series:
    """Values without those that the axis cannot show: not finite, or not positive on a logarithmic axis."""
    values = values.astype(float)
    return values.where(np.isfinite(values) & (values > 0 if logarithmic else True))


def _label_short_log_axis(axes: Axes) -> None:
    """Label more than the powers of ten where these alone would leave one number or none."""
    low, high = axes.get_ylim()
    if high / low < 100:
        few = high / low < 4
        axes.yaxis.set_major_locator(ticker.MaxNLocator(4) if few else ticker.LogLocator(subs=[1, 2, 5]))
        axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _plain_number(value)))
        axes.yaxis.set_minor_locator(ticker.NullLocator())


def _plain_number(value: float) -> str:
    """Four digits and no exponent."""
    return np.format_float_positional(value, precision=4, fractional=False, trim="-")


def _set_panel_label(axes: Axes, text: str) -> None:
    """Labels of all panels end on one line, however wide the numbers beside them."""
    axes.set_ylabel(text)
    axes.yaxis.set_label_coords(-0.62 / axes.get_xlim()[1], 0.5)


def _draw_candidate_counts(axes: Axes, trace: pd.DataFrame, columns: Mapping) -> None:
    counts = trace.groupby("round").size()
    for number, count in counts.items():
        left, width = columns[number]
        axes.bar(_middle((left, width)), count, width=0.6 * width, color="#c9c9c9")
        axes.annotate(
            str(count),
            (_middle((left, width)), count),
            (0, 1.5),
            textcoords="offset points",
            ha="center",
            fontsize=7,
        )
    axes.set_ylim(0, 1.35 * counts.max())
    _set_panel_label(axes, "candidates")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="x", length=0, labelbottom=False)


def _draw_decisions(axes: Axes, trace: pd.DataFrame, edges: pd.DataFrame, columns: Mapping) -> None:
    axes.set_ylim(len(edges), -2)  # in rows, downwards; two rows of headings
    axes.set_axis_off()
    _draw_headings(axes, trace, columns)
    for row, edge in edges.iterrows():
        history = trace[(trace["cell"] == edge["cell"]) & (trace["edge"] == edge["edge"])]
        _draw_edge_row(axes, row, history, columns, _criteria_of(trace))
    for row in edges.index[edges["cell"] != edges["cell"].shift()][1:]:
        axes.plot([-TRACE_LEFT + 0.2, axes.get_xlim()[1]], [row, row], color=TEXT, linewidth=0.8, clip_on=False)


def _draw_headings(axes: Axes, trace: pd.DataFrame, columns: Mapping) -> None:
    headings = {"operations": "operation removed in round", "edges": "edge stage"}
    for stage, rounds in trace.groupby("stage")["round"]:
        left, right = columns[rounds.min()][0], sum(columns[rounds.max()])
        _centred_text(axes, (left + right) / 2, -1.5, headings[stage], GRID_TEXT + 0.5)
        axes.plot([left + 0.06, right - 0.06], [-1.05, -1.05], color=MUTED, linewidth=0.7)
    for number, column in columns.items():
        _centred_text(axes, _middle(column), -0.5, str(number), GRID_TEXT + 0.5, color=MUTED)
    middle = axes.get_xlim()[1] - RESULT_WIDTH / 2
    _centred_text(axes, middle, -0.5, "result", GRID_TEXT + 0.5, fontweight="bold")


def _draw_edge_row(axes: Axes, row: int, history: pd.DataFrame, columns: Mapping, criteria: Sequence) -> None:
    """The row of one edge. `history` are the edge's rows of the trace."""
    first = history.iloc[0]
    pruned = history[history["stage"] == "operations"]
    grouped = history[history["stage"] == "edges"]
    dropped = bool(grouped["removed"].any())
    axes.text(
        -0.1,
        row + 0.5,
        f"{first['cell']} {first['input']}→{first['node']}",
        ha="right",
        va="center_baseline",
        fontsize=GRID_TEXT + 0.5,
        color=MUTED if dropped else TEXT,
    )
    for entry in pruned[pruned["removed"]].itertuples():
        colour = OPERATIONS.get(entry.operation, OTHER_OPERATION)
        _draw_grid_cell(axes, row, *columns[entry.round], entry.operation, _tint(colour, 0.22))
        _draw_deciders(axes, row, *columns[entry.round], entry.decided_by, criteria)
    for entry in grouped.itertuples():
        word, fill, colour = ("drop", "#d9d9d9", TEXT) if entry.removed else ("keep", "white", MUTED)
        _draw_grid_cell(axes, row, *columns[entry.round], word, fill, color=colour)
        if entry.removed:
            _draw_deciders(axes, row, *columns[entry.round], entry.decided_by, criteria)
    _draw_result(axes, row, _survivor(pruned, grouped), dropped)


def _draw_deciders(axes: Axes, row: int, left: float, width: float, decided_by: str, criteria: Sequence) -> None:
    """A stripe in the colour of each criterion that would have decided so on its own; one criterion needs none."""
    deciders = [number for number, name in enumerate(criteria) if name in decided_by.split()]
    if len(criteria) == 1 or not deciders:
        return
    each = (width - 0.04) / len(deciders)
    for place, number in enumerate(deciders):
        corner = (left + 0.02 + place * each, row + 0.84)
        axes.add_patch(Rectangle(corner, each, 0.1, facecolor=DECIDER_COLOURS[number], edgecolor="none"))


def _survivor(pruned: pd.DataFrame, grouped: pd.DataFrame) -> str:
    """Name of the operation that an edge ends with; a number where an unfinished search left several."""
    last = pruned[pruned["round"] == pruned["round"].max()]
    left = last.loc[~last["removed"], "operation"] if len(pruned) else grouped["operation"]
    names = sorted(set(left))
    return names[0] if len(names) == 1 else f"{len(names)} left"


def _draw_result(axes: Axes, row: int, operation: str, dropped: bool) -> None:
    left = axes.get_xlim()[1] - RESULT_WIDTH
    if dropped:
        _draw_grid_cell(axes, row, left, RESULT_WIDTH, operation, "#f2f2f2", color=MUTED)
        half = _text_width(operation, GRID_TEXT) / 2 + 0.03
        middle = left + RESULT_WIDTH / 2
        axes.plot([middle - half, middle + half], [row + 0.5] * 2, color=MUTED, linewidth=0.8, zorder=5)
        return
    colour = OPERATIONS.get(operation, OTHER_OPERATION)
    _draw_grid_cell(
        axes,
        row,
        left,
        RESULT_WIDTH,
        operation,
        _tint(colour, 0.5),
        edge=colour,
        fontweight="bold",
        color="black",
    )


def _draw_grid_cell(
    axes: Axes, row: int, left: float, width: float, text: str, fill, *, edge: str = "none", **options
) -> None:
    frame = Rectangle((left + 0.02, row + 0.08), width - 0.04, 0.84, facecolor=fill, edgecolor=edge, linewidth=0.8)
    axes.add_patch(frame)
    _centred_text(axes, left + width / 2, row + 0.5, text, GRID_TEXT, **options)


# --- Training curves -------------------------------------------------------------------------------------


@matplotlib.rc_context(STYLE)
def draw_training_curves(curves: Mapping[str, pd.DataFrame], title: str) -> Figure:
    """Training loss and training accuracy against the epoch, one line per network.

    Dotted verticals mark the first epoch after a step of the learning rate.

    Args:
        curves: label -> `training.csv`. Read are the columns `epoch`, `learning_rate`, `loss` and `accuracy`
            (percent). A label is a method's name, followed by ` seed 0` where there are several: the method
            sets the colour, the seed the style of the line.
        title: the figure's title.
    """
    if not curves:
        return _message_figure(title, "No network was trained.")
    figure = new_figure(8.6, 3.2, title, layout="constrained")
    panels = figure.subplots(1, 2)
    labels = {label: _split_label(label) for label in curves}
    styles = method_styles(method for method, _ in labels.values())
    rank = {method: position for position, method in enumerate(styles)}
    seeds = {seed: position for position, seed in enumerate(sorted({seed for _, seed in labels.values()}))}
    for label in sorted(curves, key=lambda label: (rank[labels[label][0]], labels[label][1])):
        method, seed = labels[label]
        name = styles[method].name + (f", seed {seed}" if seed >= 0 else "")
        line = {"color": styles[method].colour, "linestyle": SEED_LINES[seeds[seed] % len(SEED_LINES)]}
        # A line through a single epoch would not be seen.
        line["marker"] = "o" if len(curves[label]) < 4 else None
        for axes, column in zip(panels, ("loss", "accuracy"), strict=True):
            axes.plot(
                curves[label]["epoch"], curves[label][column], label=name, markersize=3, linewidth=1.2, **line
            )
    drops = _rate_drops(curves.values())
    for axes, name in zip(panels, ("training loss", "training accuracy (%)"), strict=True):
        for number, epoch in enumerate(drops):
            label = None if number else "learning rate falls"
            axes.axvline(epoch, color=MUTED, linestyle=":", linewidth=0.8, zorder=0, label=label)
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.grid(axis="y")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", handlelength=2.4)
    return figure


def _split_label(label: str) -> tuple[str, int]:
    """Method and seed of a label such as `metantk seed 0`; seed -1 where the label names none."""
    match = re.fullmatch(r"(.*\S)\s+seed\s*(\d+)", label)
    return (match[1], int(match[2])) if match else (label, -1)


def _rate_drops(tables: Iterable[pd.DataFrame]) -> list[int]:
    """Epochs in which a stepwise schedule has just lowered the rate; a smooth one has no such epochs."""
    drops = set()
    for table in tables:
        falls = table.loc[table["learning_rate"].diff() < 0, "epoch"]
        drops |= set(falls) if len(falls) <= len(table) / 4 else set()
    return sorted(drops)


# --- Accuracies and cost ---------------------------------------------------------------------------------

SINGLE_SEED_TINT = 0.25  # filling of the marker of a method with one seed


@matplotlib.rc_context(STYLE)
def draw_accuracies(
    summary: pd.DataFrame, title: str, *, chance: float | None = None, per_seed: pd.DataFrame | None = None
) -> Figure:
    """Few-shot accuracy of each method, one panel per number of shots.

    Bars are ± one standard deviation over seeds, or, where a method has one seed only, the 95 % interval over
    episodes; the figure says which. The numbers stand beside each row.

    Args:
        summary: rows of `summary.csv` for one data set and run. Read are the columns `dataset`, `run`,
            `method`, `seeds`, `shots`, `accuracy_mean`, `accuracy_std` and `ci95` (all three in percent).
        title: the figure's title.
        chance: accuracy of a guess in percent; drawn as a dashed line, or, where the axis would have to
            stretch so far that the methods could not be told apart, named at its left end.
        per_seed: columns `method`, `seed`, `shots` and `accuracy`: one small open circle per row, for
            methods with several seeds.
    """
    _require_one(summary, ["dataset", "run"])
    if summary.empty:
        return _message_figure(title, "No network was evaluated.")
    styles = method_styles(summary["method"])
    shots = sorted(summary["shots"].unique())
    figure = new_figure(1.6 + 3.4 * len(shots), 1.35 + 0.34 * len(styles), title, layout="constrained")
    panels = figure.subplots(1, len(shots), sharey=True, squeeze=False)[0]
    for axes, shot in zip(panels, shots, strict=True):
        points = None if per_seed is None else per_seed[per_seed["shots"] == shot]
        _draw_accuracy_panel(axes, summary[summary["shots"] == shot], styles, points)
        axes.set_title(f"{shot}-shot", pad=6 if chance is None else 13)
    if chance is not None:
        _draw_chance(panels, chance)
    panels[0].set_yticks(range(len(styles)), [style.name for style in styles.values()])
    panels[0].set_ylim(len(styles) - 0.5, -0.5)
    handles = _accuracy_legend(summary, per_seed is not None)
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles), handlelength=1.6)
    return figure


def _require_one(summary: pd.DataFrame, columns: Sequence[str]) -> None:
    for column in columns:
        values = sorted(set(summary[column]))
        if len(values) > 1:
            raise ValueError(f"rows of one {column} expected, found {', '.join(map(str, values))}: select one")


def _draw_accuracy_panel(axes: Axes, summary: pd.DataFrame, styles: Mapping, per_seed: pd.DataFrame | None) -> None:
    rows = {method: row for row, method in enumerate(styles)}
    axes.grid(axis="x")
    if per_seed is not None:
        repeated = summary.loc[summary["seeds"] > 1, "method"]
        for method, group in per_seed[per_seed["method"].isin(repeated)].groupby("method"):
            options = {"s": 14, "facecolors": "none", "edgecolors": styles[method].colour, "linewidths": 0.7}
            axes.scatter(group["accuracy"], [rows[method] + 0.28] * len(group), **options)
    for entry in summary.itertuples(index=False):
        row, style, error = rows[entry.method], styles[entry.method], _error(entry)
        axes.errorbar(
            entry.accuracy_mean,
            row,
            xerr=error,
            fmt=style.marker,
            color=style.colour,
            markersize=5,
            capsize=2.5,
            elinewidth=1.3,
            markerfacecolor=style.colour if entry.seeds > 1 else _tint(style.colour, SINGLE_SEED_TINT),
        )
        text = f"{entry.accuracy_mean:.2f}" + (f" ± {error:.2f}" if np.isfinite(error) else "")
        axes.text(1.02, row, text, transform=axes.get_yaxis_transform(), va="center", fontsize=7.5, color=TEXT)
    axes.margins(x=0.08)
    axes.set_xlabel("accuracy (%)")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _draw_chance(panels: Sequence[Axes], chance: float) -> None:
    """A line in every panel; its value beside the panels where a line would take up more than half of one."""
    limits = [axes.get_xlim() for axes in panels]
    near = all(low - chance <= high - low for low, high in limits)
    for axes in panels:
        if near:
            axes.axvline(chance, color=TEXT, linestyle="--", linewidth=0.9)
            axes.text(chance, 1.01, "chance", transform=axes.get_xaxis_transform(), ha="center", fontsize=7)
        else:
            axes.text(0, 1.01, f"← chance {chance:.4g} %", transform=axes.transAxes, fontsize=7, color=MUTED)


def _error(entry) -> float:
    """Half the length of the bar: deviation over seeds; for a single seed the interval over episodes."""
    return float(entry.accuracy_std if entry.seeds > 1 else entry.ci95)


def _accuracy_legend(summary: pd.DataFrame, with_seeds: bool) -> list[Line2D]:
    bar = {"color": TEXT, "marker": "o", "markersize": 4.5, "linewidth": 1.2}
    handles = []
    if (summary["seeds"] > 1).any():
        handles.append(Line2D([], [], label="mean ± deviation over seeds", **bar))
    if (summary["seeds"] <= 1).any():
        label = "one seed, 95 % interval over episodes"
        handles.append(Line2D([], [], label=label, markerfacecolor=_tint(TEXT, SINGLE_SEED_TINT), **bar))
    if with_seeds and (summary["seeds"] > 1).any():
        open_circle = {"marker": "o", "linestyle": "none", "markerfacecolor": "none", "markersize": 4}
        handles.append(Line2D([], [], color=TEXT, label="each seed", **open_circle))
    return handles


@matplotlib.rc_context(STYLE)
def draw_cost_accuracy(summary: pd.DataFrame, title: str) -> Figure:
    """Accuracy at the largest number of shots against the time of the search.

    Markers grow with the number of parameters. Bars are as in `draw_accuracies`. Methods that need no search
    (0 or no seconds) stand side by side in a strip of their own, left of the logarithmic axis.

    Args:
        summary: rows of `summary.csv` for one data set and run. Read are the columns `dataset`, `run`,
            `method`, `seeds`, `params`, `search_seconds`, `shots`, `accuracy_mean`, `accuracy_std`, `ci95`.
        title: the figure's title.
    """
    _require_one(summary, ["dataset", "run"])
    if summary.empty:
        return _message_figure(title, "No network was evaluated.")
    summary = summary[summary["shots"] == summary["shots"].max()]
    styles = method_styles(summary["method"])
    searched = summary[summary["search_seconds"] > 0]
    unsearched = summary[~(summary["search_seconds"] > 0)]

    figure = new_figure(6.4, 3.5, title, layout="constrained")
    ratios = [ratio for ratio, group in ((1, unsearched), (5, searched)) if len(group)]
    panels = figure.subplots(1, len(ratios), sharey=True, squeeze=False, width_ratios=ratios)[0]
    if len(unsearched):
        places = (np.arange(len(unsearched)) + 0.5) / len(unsearched) * 2 - 1
        _draw_cost_points(panels[0], unsearched.assign(search_seconds=places), styles)
        panels[0].set(xlim=(-1, 1), xticks=[0], xticklabels=["no search"], facecolor="#f6f6f6")
    if len(searched):
        _draw_cost_points(panels[-1], searched, styles)
        _scale_seconds(panels[-1], searched["search_seconds"])
    if len(panels) == 2:
        panels[1].spines["left"].set_visible(False)
        panels[1].tick_params(axis="y", length=0)
    panels[0].margins(y=0.15)
    panels[0].set_ylabel(f"{summary['shots'].iloc[0]}-shot accuracy (%)")
    figure.legend(
        handles=_cost_legend(summary, styles),
        loc="outside right center",
        title="parameters",
        alignment="left",
    )
    return figure


def _draw_cost_points(axes: Axes, summary: pd.DataFrame, styles: Mapping) -> None:
    axes.grid(axis="y")
    for entry in summary.itertuples(index=False):
        style = styles[entry.method]
        axes.errorbar(
            entry.search_seconds, entry.accuracy_mean, yerr=_error(entry), color=style.colour, capsize=2.5
        )
        # The root keeps networks apart whose sizes differ a hundredfold, and all of them visible.
        area = 40 * np.sqrt(entry.params / 1e6) if entry.params > 0 else 40
        options = {"marker": style.marker, "color": style.colour, "linewidths": 0}
        axes.scatter(entry.search_seconds, entry.accuracy_mean, s=max(area, 28), zorder=3, **options)


def _scale_seconds(axes: Axes, seconds: pd.Series) -> None:
    """A logarithmic axis with the marks of a clock: seconds, minutes, hours, days."""
    marks = {0.01: "10 ms", 0.1: "0.1 s", 1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min"}
    marks |= {3600: "1 h", 36000: "10 h", 86400 * 4: "4 d", 86400 * 40: "40 d"}
    axes.set_xscale("log")
    low, high = seconds.min() / 3, seconds.max() * 3
    # At least one mark on each side, or the scale could not be read.
    low = max((mark for mark in marks if low / 3 <= mark <= low), default=low)
    high = min((mark for mark in marks if high <= mark <= high * 3), default=high)
    axes.set_xlim(low, high)
    axes.set_xlabel("time of the search")
    axes.xaxis.set_major_locator(ticker.FixedLocator(list(marks)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: marks.get(value, "")))
    axes.xaxis.set_minor_locator(ticker.NullLocator())


def _cost_legend(summary: pd.DataFrame, styles: Mapping) -> list[Line2D]:
    parameters = summary.set_index("method")["params"]
    handles = []
    for method, style in styles.items():
        label = f"{style.name}, {_short_count(parameters[method])}" if parameters[method] > 0 else style.name
        marks = {"color": style.colour, "marker": style.marker, "markersize": 5, "linestyle": "none"}
        handles.append(Line2D([], [], label=label, **marks))
    return handles


def _short_count(count: float) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1e6 else f"{count / 1e3:.3g} k"


# --- Rank stability --------------------------------------------------------------------------------------


@matplotlib.rc_context(STYLE)
def draw_rank_stability(table: pd.DataFrame, title: str) -> Figure:
    """How far repetitions of a round agree, against what a repetition costs; one panel per criterion.

    Args:
        table: `rank_stability.csv`, columns as of `metantk.rank_stability.COLUMNS`.
        title: the figure's title.
    """
    criteria = list(dict.fromkeys(table["criterion"]))
    figure = new_figure(0.6 + 2.5 * len(criteria), 2.8, title, layout="constrained")
    panels = figure.subplots(1, len(criteria), sharey=True, squeeze=False)[0]
    for axes, criterion in zip(panels, criteria, strict=True):
        for number, (draws, group) in enumerate(table[table["criterion"] == criterion].groupby("draws")):
            colour = DECIDER_COLOURS[number]
            axes.plot(group["evaluations"], group["kendall_tau"], "o-", color=colour, markersize=3.5, label=draws)
            axes.fill_between(group["evaluations"], group["lowest"], group["highest"], color=colour, alpha=0.15)
        label = {**CRITERIA, "rank_sum": "sum of ranks"}.get(criterion, criterion)
        axes.set_title(label.replace("\n", " "))
        axes.set_xlabel("networks evaluated per repetition")
        axes.axhline(0, color=MUTED, linewidth=0.7)
        axes.grid(axis="y")
    panels[0].set(ylabel="Kendall's τ", ylim=(min(-0.1, table["lowest"].min()), 1.02))
    panels[0].legend(title="draws", loc="best")
    return figure
