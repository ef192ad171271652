"""Draw searches: the cells that each found (paper, Figure 2) and how it went, round by round.

Example:
    python scripts/draw_searches.py results/glyphs/3cells-4ch/metantk/seed* --output my_figures
"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from metantk.results.figures.cells import draw_cells
from metantk.results.figures.effects import draw_effects
from metantk.results.figures.search_curves import draw_search_curves
from metantk.results.figures.search_trace import draw_search_trace
from metantk.results.figures.style import save
from metantk.results.records import Architecture, SearchReport, check_pruning, read_trace
from metantk.results.tables import parse_titles
from metantk.runtime.command_line import make_parser, progress, run
from metantk.runtime.files import check_writable
from metantk.runtime.typed_files import Origin, read_record
from metantk.space.genotype import check_genotype


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("searches", nargs="+", type=Path, metavar="SEARCH", help="folders of architecture.json")
    parser.add_argument("--titles", default="{}", metavar="JSON", help="names of searches in figures")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the figures")
    arguments = parser.parse_args()
    titles = parse_titles(arguments.titles)
    searches = [read(folder) for folder in arguments.searches]  # all of them before the first figure is written
    check_writable(arguments.output)
    for search in progress(searches, total=len(searches), what="drawing", unit="search"):
        for stem, figure in draw(search, titles.searches).items():
            save(figure, arguments.output / stem)


class Search(NamedTuple):
    """What a search left, its genotype checked."""

    origin: Origin
    genotype: dict
    report: SearchReport
    trace: pd.DataFrame


def read(folder: Path) -> Search:
    """Read what a search left.

    Raises:
        InputError: a file is missing or damaged, or they do not fit each other.
    """
    architecture = read_record(folder / "architecture.json", Architecture, stage="search_architecture")
    report = read_record(folder / "search.json", SearchReport, stage="search_architecture")
    trace = read_trace(folder / "search.csv", report)
    genotype = check_genotype(architecture.genotype, where=str(folder / "architecture.json"))
    if report.criteria and not report.effects:
        check_pruning(trace, genotype, where=folder / "search.csv")
    return Search(architecture.origin, genotype, report, trace)


def draw(search: Search, titles: dict[str, str]) -> dict[str, Figure]:
    """Figures of one search by file name, without suffix."""
    origin = search.origin
    title = f"{titles.get(origin.search) or origin.search}, seed {origin.seed}: {origin.dataset}, {origin.backbone}"
    of_search = f"{origin.search}_seed{origin.seed}"
    return {
        f"cells_{of_search}": draw_cells(search.genotype, title),
        f"search_{of_search}": draw_trace(search.trace, title, search.report),
    }


def draw_trace(trace: pd.DataFrame, title: str, report: SearchReport) -> Figure:
    """Of an experiment, the effects; of a pruning, edge by edge; of any other search, what it measured."""
    criteria = {name: facts.model_dump() for name, facts in report.criteria.items()}
    if report.effects:
        effects = pd.DataFrame([effect.model_dump() for effect in report.effects])
        return draw_effects(effects, trace, title, criteria)
    if criteria:
        return draw_search_trace(trace, title, criteria)
    return draw_search_curves(trace, title)


if __name__ == "__main__":
    run(main)
