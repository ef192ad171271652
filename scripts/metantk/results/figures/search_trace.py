"""A search, round by round: criteria of all candidates, and what each edge lost."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from metantk.results.figures.palette import OPERATIONS, OTHER_OPERATION, decider_colour, tint
from metantk.results.figures.style import (
    MUTED,
    STYLE,
    TEXT,
    centred_text,
    message_figure,
    new_figure,
    set_logarithmic,
    text_width,
)

COLUMNS = ["round", "stage", "cell", "edge", "input", "node", "operation", "removed", "decided_by"]
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
def draw_search_trace(trace: pd.DataFrame, title: str, facts: Mapping[str, Mapping] | None = None) -> Figure:
    """How a search went: the criteria round by round, and below them what was decided for each edge.

    Above, for each criterion, the value of the unpruned network (line) and of every candidate without one
    operation (dots, side by side in the order of the trace; crosses at the top where the value is not finite,
    or a condition number not positive), and the number of candidates scored. Below, one row per edge of both
    cell types and one column per round: the operation that the edge lost. In the edge stage, which scores all
    edges into one node in a round, `drop` marks the edges that the node lost. A stripe below a decision has the
    colours (of the panels' labels) of the criteria that would have decided so on their own; no stripe: only the
    sum of the ranks did. The last column holds what is left.

    Args:
        trace: `search.csv`. Read are `COLUMNS` (`stage` is `operations` or `edges`), and for each criterion NAME
            `NAME_unpruned` and `NAME`.
            A trace with no rows (architectures drawn at random) gives a figure that says so.
        title: the figure's title.
        facts: by criterion, its `title` and whether its axis is `logarithmic`; from search.json.
    """
    if trace.empty:
        return message_figure(title, "Nothing was measured: this architecture was sampled or given.")
    facts = facts or {}
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
    for index, criterion in enumerate(criteria):
        axes = add_axes(top, PANEL_HEIGHT, end)
        _draw_criterion(axes, trace, criterion, columns, facts.get(criterion, {}))
        if len(criteria) > 1:
            axes.yaxis.label.set_color(decider_colour(index))
        if index == 0:
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
    return {index: (float(a), w) for index, a, w in zip(stages.index, lefts, widths, strict=True)}


def _middle(column: tuple[float, float]) -> float:
    return column[0] + column[1] / 2


def _draw_criterion(axes: Axes, trace: pd.DataFrame, criterion: str, columns: Mapping, facts: Mapping) -> None:
    logarithmic = bool(facts.get("logarithmic"))
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
        [_middle(columns[index]) for index in unpruned.index],
        unpruned,
        "o-",
        color=TEXT,
        markersize=4,
        linewidth=1.2,
        label="unpruned\nnetwork",
    )
    axes.margins(y=0.12)
    if logarithmic:
        set_logarithmic(axes, "y")
        _label_short_log_axis(axes)
    _set_panel_label(axes, str(facts.get("title", criterion.replace("_", " "))))
    axes.grid(axis="y")
    axes.tick_params(axis="x", length=0, labelbottom=False)


def _candidate_places(trace: pd.DataFrame, columns: Mapping) -> pd.Series:
    """Candidates of a round stand side by side within its column: atop each other they would hide."""
    rounds = trace.groupby("round")["round"]
    share = (rounds.cumcount() + 0.5) / rounds.transform("size")
    lefts, widths = (trace["round"].map({index: c[i] for index, c in columns.items()}) for i in (0, 1))
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
    for index, count in counts.items():
        left, width = columns[index]
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
        centred_text(axes, (left + right) / 2, -1.5, headings.get(stage, stage), GRID_TEXT + 0.5)
        axes.plot([left + 0.06, right - 0.06], [-1.05, -1.05], color=MUTED, linewidth=0.7)
    for index, column in columns.items():
        centred_text(axes, _middle(column), -0.5, str(index), GRID_TEXT + 0.5, color=MUTED)
    middle = axes.get_xlim()[1] - RESULT_WIDTH / 2
    centred_text(axes, middle, -0.5, "result", GRID_TEXT + 0.5, fontweight="bold")


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
        _draw_grid_cell(axes, row, *columns[entry.round], entry.operation, tint(colour, 0.22))
        _draw_deciders(axes, row, *columns[entry.round], entry.decided_by, criteria)
    for entry in grouped.itertuples():
        word, fill, colour = ("drop", "#d9d9d9", TEXT) if entry.removed else ("keep", "white", MUTED)
        _draw_grid_cell(axes, row, *columns[entry.round], word, fill, color=colour)
        if entry.removed:
            _draw_deciders(axes, row, *columns[entry.round], entry.decided_by, criteria)
    _draw_result(axes, row, _survivor(pruned, grouped), dropped)


def _draw_deciders(axes: Axes, row: int, left: float, width: float, decided_by: str, criteria: Sequence) -> None:
    """A stripe in the colour of each criterion that would have decided so on its own; one criterion needs none."""
    deciders = [index for index, name in enumerate(criteria) if name in decided_by.split()]
    if len(criteria) == 1 or not deciders:
        return
    each = (width - 0.04) / len(deciders)
    for place, index in enumerate(deciders):
        corner = (left + 0.02 + place * each, row + 0.84)
        axes.add_patch(Rectangle(corner, each, 0.1, facecolor=decider_colour(index), edgecolor="none"))


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
        half = text_width(operation, GRID_TEXT) / 2 + 0.03
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
        tint(colour, 0.5),
        edge=colour,
        fontweight="bold",
        color="black",
    )


def _draw_grid_cell(
    axes: Axes, row: int, left: float, width: float, text: str, fill, *, edge: str = "none", **options
) -> None:
    frame = Rectangle((left + 0.02, row + 0.08), width - 0.04, 0.84, facecolor=fill, edgecolor=edge, linewidth=0.8)
    axes.add_patch(frame)
    centred_text(axes, left + width / 2, row + 0.5, text, GRID_TEXT, **options)
