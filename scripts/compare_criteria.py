"""Say what criteria are worth: scores of many architectures against the accuracies of their trained networks.

For each criterion: Kendall's τ with the accuracies, how much it knows beyond the number of parameters, what is
lost by picking by it, and what it costs; intervals by bootstrap over architectures. Architectures that were
trained with several seeds give the ceiling that the noise of training sets.

Writes scores.csv, correlations.csv and .md. For each data set, backbone and learner: a figure of prediction against
cost, and a tabular benchmark (docs/benchmark.md) of all trainings.

Example:
    python scripts/compare_criteria.py results/glyphs/3cells-4ch/random/seed*/rfs --output results/criteria
"""

import logging
from pathlib import Path

import pandas as pd
from pydantic import Field, model_validator

from metantk.benchmark.table import LIMITS, Table, is_fact
from metantk.options.study import LEAST_ARCHITECTURES
from metantk.results import study, tables
from metantk.results.figures.frontier import draw_frontier
from metantk.results.figures.style import save
from metantk.runtime.command_line import make_parser, progress, run
from metantk.runtime.files import InputError, atomic_write, canonical_json, check_writable
from metantk.runtime.typed_files import Record, read_record
from metantk.space.canonical import canonical_genotype

log = logging.getLogger("metantk")


class ScoreRecord(Record):
    values: list[float | None] = Field(min_length=1)
    operations: float = Field(ge=0, le=1e30)
    seconds: float = Field(ge=0, le=1e12)
    larger_is_better: bool


class Scores(Record):
    """scores.json"""

    genotype: dict
    scores: dict[str, ScoreRecord] = Field(min_length=1)
    options: dict = Field({})

    @model_validator(mode="after")
    def _names_are_free(self) -> "Scores":
        for name in self.scores:
            if name == study.AGAIN or is_fact(name):
                raise ValueError(f"scores: {name!r} is the name of another row or column")
        return self

    @property
    def form(self) -> dict[str, tuple[int, bool]]:
        """Of each criterion the number of draws and which way is better: the same for all architectures."""
        return {name: (len(each.values), each.larger_is_better) for name, each in self.scores.items()}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "chains",
        nargs="+",
        type=Path,
        metavar="CHAIN",
        help="folders of evaluation.json, below that of scores.json",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of tables and figures")
    arguments = parser.parse_args()
    chains, rows, trainings, first = [], [], {}, None
    for folder in progress(arguments.chains, total=len(arguments.chains), what="reading", unit="chain"):
        chain, file = tables.read_chain(folder), folder.parent / "scores.json"
        found = read_record(file, Scores, stage="score_architecture")
        first = first or found
        if found.genotype != chain.model.architecture.genotype:
            raise InputError(f"{file}: is of another architecture; run score_architecture again")
        if found.form != first.form:
            raise InputError(f"{file}: has other criteria or draws than the first; run score_architecture again")
        if found.options != first.options:
            raise InputError(f"{file}: was made with other options than the first; run score_architecture again")
        chains.append(chain)
        rows += rows_of(chain, found.scores)
        trainings.setdefault((chain.key[0], chain.key[1], chain.key[3]), []).append((chain, found))
    tables.group_chains(chains)  # refuses what was not made and evaluated alike, and chains that are given twice
    scores = pd.DataFrame(rows)
    for key, count in scores.groupby(study.GROUP)["architecture"].nunique().items():
        if count < LEAST_ARCHITECTURES:
            where = f"{key[0]}, {key[1]} by {key[2]}, {key[3]}-shot"
            raise InputError(f"{where}: has fewer than {LEAST_ARCHITECTURES} different architectures; add seeds")
    table = study.correlate(scores)
    verdict = study.verdict(table)
    figures = {
        "_".join(["frontier", *key]): draw_frontier(group, f"Criteria against accuracies: {', '.join(key)}")
        for key, group in table.groupby(study.GROUP[:3])
    }
    check_writable(arguments.output)
    for name, text in {
        "scores.csv": scores.drop(columns="draws").to_csv(index=False),
        "correlations.csv": table.to_csv(index=False),
        "correlations.md": f"{verdict}\n\n{tables.to_markdown(describe(table))}",
    }.items():
        with atomic_write(arguments.output / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    for stem, figure in figures.items():
        save(figure, arguments.output / stem)
    for key, members in trainings.items():
        benchmark_of("_".join(["benchmark", *key]), members).write(arguments.output)
    log.info("%s", verdict)


def rows_of(chain: tables.Chain, scores: dict[str, ScoreRecord]) -> list[dict]:
    """A row for each number of shots and criterion of a trained architecture."""
    origin, architecture = chain.model.architecture.origin, chain.model.architecture
    shared = {
        "dataset": origin.dataset,
        "backbone": origin.backbone,
        "learner": chain.model.learner_name,
        "search": origin.search,
        "seed": origin.seed,
        "architecture": canonical_json(canonical_genotype(architecture.genotype)),
    }
    return [
        shared
        | {
            "shots": int(shots),
            "accuracy": result.accuracy_mean,
            "criterion": name,
            "score": sum(finite(each)) / len(each.values),
            "draws": finite(each),
            "operations": each.operations,
            "seconds": each.seconds,
            "larger_is_better": each.larger_is_better,
        }
        for shots, result in chain.evaluation.shots.items()
        for name, each in scores.items()
    ]


def benchmark_of(name: str, members: list[tuple[tables.Chain, Scores]]) -> Table:
    """Trainings of one data set, backbone and learner, by seed, as a tabular benchmark."""
    members = sorted(members, key=lambda member: member[0].seed)
    chain, scores = members[0]
    architecture = chain.model.architecture
    settings = {
        "dataset": architecture.origin.dataset,
        "space": scores.options.get("space", "few-shot"),
        "backbone": architecture.model_dump(include={"kind", "cells", "channels"}),
        "learner": chain.model.learner,
        "evaluation": chain.evaluation.options.model_dump() | {"split": chain.evaluation.split},
        "criteria": {key: value for key, value in scores.options.items() if key != "criteria"},
        "larger_is_better": dict.fromkeys(LIMITS, True)
        | {name: each.larger_is_better for name, each in scores.scores.items()},
        "device": chain.model.device,
    }
    return Table.of(name, settings, [training_of(*member) for member in members])


def training_of(chain: tables.Chain, scores: Scores) -> dict:
    """The row of a benchmark."""
    shots = {
        f"{what}_{count}shot": value
        for count, result in chain.evaluation.shots.items()
        for what, value in (("accuracy", result.accuracy_mean), ("ci95", result.ci95))
    }
    model = chain.model
    # A score that there is not leaves a gap.
    criteria = {
        name: None if None in each.values else sum(each.values) / len(each.values)
        for name, each in scores.scores.items()
    }
    return {
        "seed": chain.seed,
        "genotype": scores.genotype,
        **shots,
        "training_seconds": model.seconds,
        **criteria,
        "parameters": model.parameters_in_tests,
        "multiply_accumulates": model.multiply_accumulates,
    }


def finite(score: ScoreRecord) -> list[float]:
    """Values; one that there is not (it was infinite) is worse than any other."""
    worst = -1e300 if score.larger_is_better else 1e300
    return [worst if value is None else value for value in score.values]


def describe(table: pd.DataFrame) -> pd.DataFrame:
    """The table for people."""
    described = table[[*study.GROUP, "criterion", "architectures"]].astype(str)
    for name, title in (
        ("tau", "Kendall's τ"),
        ("above_baseline", "τ above parameters"),
        ("regret", "regret (points)"),
    ):
        described[title] = [
            "" if pd.isna(value) else f"{value:.2f} [{low:.2f}, {high:.2f}]"
            for value, low, high in table[[name, f"{name}_low", f"{name}_high"]].to_numpy(float)
        ]
    for name, title in (("partial_tau", "partial τ"), ("repeatability", "τ between draws")):
        described[title] = [("" if pd.isna(value) else f"{value:.2f}") for value in table[name]]
    described["operations"] = [("" if pd.isna(value) else f"{value:.1e}") for value in table["operations"]]
    described["seconds"] = [("" if pd.isna(value) else f"{value:.2f}") for value in table["seconds"]]
    return described


if __name__ == "__main__":
    run(main)
