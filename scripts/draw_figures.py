"""Draw finished runs of one data set, depth and width: cells (paper, Figure 2), searches, training, accuracies.

Example:
    python scripts/draw_figures.py results/glyphs/3cells-4ch/*/seed* --tables results/tables --output my_figures
"""

from pathlib import Path

import pandas as pd

from metantk.command_line import make_parser, progress, run
from metantk.figures.accuracies import draw_accuracies, draw_cost_accuracy
from metantk.figures.cells import draw_cells
from metantk.figures.search_trace import draw_search_trace
from metantk.figures.style import save
from metantk.figures.training_curves import draw_training_curves
from metantk.space.genotype import read_genotype
from metantk.storage import InputError, check_writable, read_json
from metantk.tables import SUMMARY_COLUMNS, TITLES

TRACE_COLUMNS = [
    "round",
    "stage",
    "cell",
    "edge",
    "input",
    "node",
    "operation",
    "rank_sum",
    "removed",
    "decided_by",
]
CURVE_COLUMNS = ["epoch", "learning_rate", "loss", "accuracy"]


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("parts", nargs="+", type=Path, metavar="PART", help="<dataset>/<run>/<method>/seed<k>")
    parser.add_argument("--tables", required=True, type=Path, metavar="DIR", help="output of aggregate_tables.py")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the figures")
    arguments = parser.parse_args()
    drawn = draw(arguments.parts, arguments.tables)  # all of them before the first is written
    check_writable(arguments.output)
    for stem, figure in progress(drawn.items(), total=len(drawn), what="saving", unit="figure"):
        save(figure, arguments.output / stem)


def draw(parts: list[Path], tables: Path) -> dict[str, object]:
    """Figures by file name, without suffix."""
    dataset, run_name = parts[0].absolute().parts[-4:-2]
    title = f"{dataset}, {run_name}"
    drawn, curves = {}, {}
    for part in parts:
        method, seed = part.absolute().parts[-2:]
        number = seed.removeprefix("seed")
        of_part = f"{TITLES.get(method, method)}, seed {number}: {title}"
        drawn[f"cells_{method}_{seed}"] = draw_cells(read_genotype(part / "genotype.json"), of_part)
        trace = _read(part / "search.csv", TRACE_COLUMNS)
        drawn[f"search_{method}_{seed}"] = draw_search_trace(trace, of_part)
        curves[f"{method} seed {number}"] = _read(part / "training.csv", CURVE_COLUMNS)
    summary = _chosen(_read(tables / "summary.csv", SUMMARY_COLUMNS), dataset, run_name)
    seeds = _chosen(_read(tables / "seeds.csv", ["dataset", "run", "method", "seed"]), dataset, run_name)
    drawn["training"] = draw_training_curves(curves, title)
    drawn["accuracies"] = draw_accuracies(
        summary, title, chance=_chance(parts[0] / "evaluation.json"), per_seed=seeds
    )
    drawn["cost"] = draw_cost_accuracy(summary, title)
    return drawn


def _chance(path: Path) -> float:
    """Accuracy of a guess in percent."""
    evaluation = read_json(path)
    if not isinstance(evaluation, dict) or not isinstance(evaluation.get("ways"), int):
        raise InputError(f"{path}: lacks 'ways'; evaluate again")
    return 100 / evaluation["ways"]


def _read(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    missing = [column for column in columns if column not in table]
    if missing:
        raise InputError(f"{path}: lacks the columns {', '.join(missing)}; run its stage again")
    return table


def _chosen(table: pd.DataFrame, dataset: str, run_name: str) -> pd.DataFrame:
    return table[(table["dataset"] == dataset) & (table["run"] == run_name)]


if __name__ == "__main__":
    run(main)
