"""Tabular benchmarks for few-shot architecture search: trained random architectures, to look up instead of train.

    from metantk import benchmark

    benchmark.names()                                # ['caltech101-5cells-8ch', 'glyphs-3cells-4ch', ...]
    table = benchmark.load("glyphs-3cells-4ch")
    table.query(genotype)                            # every training of this architecture
    table.best(shots=5, parameters=10_000)           # the best one of at most so many parameters
    table.trainings                                  # all of them, a pandas DataFrame

A table is two files of this package's folder `tables`. NAME.csv has a row for each training:

| column | meaning |
|---|---|
| `architecture` | number of the architecture; trainings of one architecture share it |
| `seed` | random seed of the training |
| `genotype` | JSON, as in `metantk.space.genotype` |
| `accuracy_1shot`, `accuracy_5shot` | mean test accuracy over the episodes, in percent |
| `ci95_1shot`, `ci95_5shot` | half-width of its 95 % interval over episodes, in points; empty if not recorded |
| `training_seconds` | duration of the training; empty if it was not recorded |
| `parameters`, `multiply_accumulates`, `layers` | size of the backbone without its head |
| all others | criteria, each the mean over its repeats; `trained E epochs` is a short training's accuracy |

NAME.json says how they were measured: data set, backbone, space, learner, evaluation, which way each criterion
is better, hardware, date.
"""

from pathlib import Path

from metantk.benchmark.table import Table
from metantk.runtime.files import InputError

FOLDER = Path(__file__).with_name("tables")


def names() -> list[str]:
    """Names of the benchmarks that come with this package."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def load(name: str | Path) -> Table:
    """A benchmark by its name, or by the path of a NAME.csv that a study has written.

    Raises:
        InputError: there is no benchmark of that name.
    """
    if Path(name).suffix == ".csv":
        return Table.read(Path(name))
    if name not in names():
        raise InputError(f"benchmark {name!r}: there is none; choose from {', '.join(names())}")
    return Table.read(FOLDER / f"{name}.csv")
