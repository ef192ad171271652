"""Draw finished runs of one data set, depth and width: cells (paper, Figure 2), searches, training, accuracies.

Example:
    python scripts/draw_figures.py results/glyphs/3cells-8ch/*/seed* --tables results/tables --output my_figures
"""

from pathlib import Path

import pandas as pd

from metantk import figures
from metantk.command_line import make_parser, run
from metantk.space.genotype import read_genotype
from metantk.storage import InputError, read_json
from metantk.tables import TITLES


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "parts", nargs="+", type=Path, metavar="PART", help="<dataset>/<run>/<method>/seed<k> folders"
    )
    parser.add_argument("--tables", required=True, type=Path, metavar="DIR", help="output of aggregate_tables.py")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the figures")
    arguments = parser.parse_args()
    dataset, run_name = arguments.parts[0].absolute().parts[-4:-2]
    curves = {}
    for part in arguments.parts:
        method, seed = part.absolute().parts[-2:]
        label = f"{TITLES.get(method, method)}, seed {seed.removeprefix('seed')}"
        title = f"{label}: {dataset}, {run_name}"
        cells = figures.draw_cells(read_genotype(part / "genotype.json"), title)
        figures.save(cells, arguments.output / f"cells_{method}_{seed}")
        figures.save(
            figures.draw_search_trace(_read(part / "search.csv"), title),
            arguments.output / f"search_{method}_{seed}",
        )
        curves[f"{method} seed {seed.removeprefix('seed')}"] = _read(part / "training.csv")
    title = f"{dataset}, {run_name}"
    summary = _chosen(_read(arguments.tables / "summary.csv"), dataset, run_name)
    seeds = _chosen(_read(arguments.tables / "seeds.csv"), dataset, run_name)
    chance = 100 / read_json(arguments.parts[0] / "evaluation.json")["ways"]
    figures.save(figures.draw_training_curves(curves, title), arguments.output / "training")
    accuracies = figures.draw_accuracies(summary, title, chance=chance, per_seed=seeds)
    figures.save(accuracies, arguments.output / "accuracies")
    figures.save(figures.draw_cost_accuracy(summary, title), arguments.output / "cost")


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None


def _chosen(table: pd.DataFrame, dataset: str, run_name: str) -> pd.DataFrame:
    return table[(table["dataset"] == dataset) & (table["run"] == run_name)]


if __name__ == "__main__":
    run(main)
