"""Bring the figures of the documentation up to date: those of a run's results, of measured tables, of benchmarks.

`make figures` makes the results first. Tables are in tests/benchmarks/measured, benchmarks in metantk.benchmark.

Example:
    python docs/figures/draw.py results
"""

import sys
import tempfile
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

FIGURES = Path(__file__).resolve().parent
REPOSITORY = FIGURES.parents[1]
MEASURED = REPOSITORY / "tests" / "benchmarks" / "measured"
sys.path[:0] = [str(REPOSITORY / "scripts"), str(REPOSITORY / "tests" / "benchmarks")]

from convolutions import ACCURACY, with_convolutions  # noqa: E402

from metantk import benchmark  # noqa: E402
from metantk.benchmark.replay import SEARCHES, replay  # noqa: E402
from metantk.results.figures.benchmarks import draw_convolutions, draw_regret  # noqa: E402
from metantk.results.figures.frontier import draw_frontier  # noqa: E402
from metantk.results.figures.style import save  # noqa: E402

# By name in the documentation: the figure below the folder of results.
DRAWN = {
    "search": "figures/glyphs/3cells-4ch/search_metantk_seed0",
    "cells": "figures/glyphs/3cells-4ch/cells_metantk_seed0",
    "effects": "figures/glyphs/3cells-4ch/search_ntk-bo_seed0",
}
IN_DEPTH = "theory-in-depth/theory/convergence"  # of config/theory.yaml, a run of 90 minutes; left alone without it
TABLES = {
    "criteria": "criteria-caltech101.csv",
    "criteria-glyphs": "criteria-glyphs.csv",
    "criteria-cifar-fs": "criteria-cifar-fs.csv",
}
COUNTED = [ACCURACY, "linear_regions", "naswot"]  # against the number of convolutions


def main(results: Path) -> None:
    for name, figure in DRAWN.items():
        publish(results / f"{figure}.png", name)
    if (theory := results / f"{IN_DEPTH}.png").exists():
        publish(theory, "theory")
    for name, file in TABLES.items():
        table = pd.read_csv(MEASURED / file)
        row = ", ".join(table.loc[0, ["dataset", "backbone", "learner"]])
        draw(draw_frontier(table, f"Criteria against accuracies: {row}"), name)
    tables = {name: benchmark.load(name) for name in benchmark.names()}
    regrets = {
        name: pd.concat(replay(table, search, shots=5) for search in SEARCHES) for name, table in tables.items()
    }
    draw(draw_regret(regrets, "Searches replayed on the tabular benchmarks, 5-shot, 20 seeds"), "regret")
    counted = {name: with_convolutions(table.architectures) for name, table in tables.items()}
    draw(draw_convolutions(counted, COUNTED, "What the number of convolutions does"), "convolutions")


def draw(figure: Figure, name: str) -> None:
    """Publish a figure that is drawn here."""
    with tempfile.TemporaryDirectory() as folder:
        _, png = save(figure, Path(folder, name))
        publish(png, name)


def publish(png: Path, name: str) -> None:
    """Copy a figure with 128 colours: a third of the bytes, and no difference to the eye."""
    with Image.open(png) as image:
        image.convert("RGB").quantize(128).save(FIGURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
