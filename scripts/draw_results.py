"""Draw finished chains of one data set: training, accuracies, what the searches cost, and the Pareto front.

Example:
    python scripts/draw_results.py results/glyphs/*/*/seed*/rfs --tables results/tables --output my_figures
"""

from pathlib import Path

import pandas as pd

from metantk.results.figures.accuracies import draw_accuracies, draw_cost_accuracy
from metantk.results.figures.front import draw_front
from metantk.results.figures.style import save
from metantk.results.figures.training_curves import draw_training_curves
from metantk.results.records import (
    CURVE,
    PERCENT,
    SIZE,
    TEXT,
    WHOLE,
    Evaluation,
    ModelDescription,
    read_table,
)
from metantk.results.tables import KEY, labels
from metantk.runtime.command_line import make_parser, progress, run
from metantk.runtime.files import InputError, check_writable
from metantk.runtime.typed_files import read_record

SUMMARY = {
    **dict.fromkeys([*KEY, "model", "device"], TEXT),
    **dict.fromkeys(["seeds", "params", "multiply_accumulates", "shots"], WHOLE),
    **dict.fromkeys(["search_seconds", "ci95"], SIZE),
    "accuracy_mean": PERCENT,
    "accuracy_std": SIZE._replace(gaps=True),
}
SEEDS = {
    **dict.fromkeys(KEY, TEXT),
    **dict.fromkeys(["seed", "params", "multiply_accumulates", "shots"], WHOLE),
    "accuracy": PERCENT,
}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("chains", nargs="+", type=Path, metavar="CHAIN", help="folders of evaluation.json")
    parser.add_argument("--tables", required=True, type=Path, metavar="DIR", help="output of aggregate_tables.py")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the figures")
    arguments = parser.parse_args()
    drawn = draw(arguments.chains, arguments.tables)  # all of them before the first is written
    check_writable(arguments.output)
    for stem, figure in progress(drawn.items(), total=len(drawn), what="saving", unit="figure"):
        save(figure, arguments.output / stem)


def draw(chains: list[Path], tables: Path) -> dict[str, object]:
    """Figures by file name, without suffix."""
    models = {
        folder: read_record(folder / "model.json", ModelDescription, stage="train_network") for folder in chains
    }
    datasets = {model.architecture.origin.dataset for model in models.values()}
    if len(datasets) > 1:
        raise InputError(f"chains of one data set expected, found {', '.join(sorted(datasets))}")
    title = datasets.pop()
    summary = read_table(tables / "summary.csv", SUMMARY, stage="aggregate_tables")
    seeds = read_table(tables / "seeds.csv", SEEDS, stage="aggregate_tables")
    summary, seeds = (table[table["dataset"] == title] for table in (summary, seeds))
    named = labels(summary)
    if summary.duplicated([*KEY, "shots"]).any():
        raise InputError(f"{tables / 'summary.csv'}: has a row twice; run aggregate_tables again")
    summary, seeds = (table.assign(row=_rows(table, named, tables)) for table in (summary, seeds))
    curves, latencies = {}, {}
    for folder, model in models.items():
        origin = model.architecture.origin
        row = named.get((origin.backbone, origin.search, model.learner_name))
        if row is None:
            raise InputError(f"{tables / 'summary.csv'}: lacks the row of {folder}; run aggregate_tables again")
        if not ((seeds["row"] == row) & (seeds["seed"] == origin.seed)).any():
            raise InputError(f"{tables / 'seeds.csv'}: lacks the lines of {folder}; run aggregate_tables again")
        curves[row, origin.seed] = _curve(folder, model)
        latencies[row, origin.seed] = model.latency_ms
    measured = [latencies.get(key) for key in zip(seeds["row"], seeds["seed"], strict=True)]
    costs = seeds.assign(latency_ms=pd.Series(measured, seeds.index, dtype=float))
    evaluation = read_record(chains[0] / "evaluation.json", Evaluation, stage="evaluate_episodes")
    return {
        "training": draw_training_curves(curves, title),
        "accuracies": draw_accuracies(summary, title, chance=100 / evaluation.ways, per_seed=seeds),
        "cost": draw_cost_accuracy(summary, title),
        "front": draw_front(costs, title),
    }


def _curve(folder: Path, model: ModelDescription) -> pd.DataFrame:
    """The training of a chain; of a network that was not trained it has no line."""
    curve = read_table(folder / "training.csv", CURVE, stage="train_network")
    epochs = model.learner.get("epochs", len(curve))
    if curve["epoch"].tolist() != list(range(1, len(curve) + 1)) or len(curve) != epochs:
        raise InputError(f"{folder / 'training.csv'}: has not the {epochs} epochs of it; run train_network again")
    return curve


def _rows(table, named: dict, tables: Path) -> list[str]:
    """The label of each line's row."""
    keys = list(zip(table["backbone"], table["search"], table["learner"], strict=True))
    if unknown := [key for key in keys if key not in named]:
        raise InputError(
            f"{tables}: the tables do not fit each other ({', '.join(unknown[0])}); run aggregate_tables again"
        )
    return [named[key] for key in keys]


if __name__ == "__main__":
    run(main)
