"""Bring the figures of the documentation up to date: those of a run's results, and those of the measured tables.

`make figures` makes the results first. The tables are in tests/benchmarks/measured.

Example:
    python docs/figures/draw.py results
"""

import sys
import tempfile
from pathlib import Path

import pandas as pd
from PIL import Image

FIGURES = Path(__file__).resolve().parent
REPOSITORY = FIGURES.parents[1]
MEASURED = REPOSITORY / "tests" / "benchmarks" / "measured"
sys.path.insert(0, str(REPOSITORY / "scripts"))

from metantk.results.figures.frontier import draw_frontier  # noqa: E402
from metantk.results.figures.style import save  # noqa: E402

# By name in the documentation: the figure below the folder of results.
DRAWN = {
    "search": "figures/glyphs/3cells-4ch/search_metantk_seed0",
    "cells": "figures/glyphs/3cells-4ch/cells_metantk_seed0",
    "effects": "figures/glyphs/3cells-4ch/search_ntk-bo_seed0",
    "theory": "theory/convergence",
}
TABLES = {"criteria": "criteria-caltech101.csv", "criteria-glyphs": "criteria-glyphs.csv"}


def main(results: Path) -> None:
    for name, figure in DRAWN.items():
        publish(results / f"{figure}.png", name)
    for name, file in TABLES.items():
        draw_criteria(pd.read_csv(MEASURED / file), name)


def draw_criteria(table: pd.DataFrame, name: str) -> None:
    """The figure of a study."""
    row = ", ".join(table.loc[0, ["dataset", "backbone", "learner"]])
    with tempfile.TemporaryDirectory() as folder:
        _, png = save(draw_frontier(table, f"Criteria against accuracies: {row}"), Path(folder, name))
        publish(png, name)


def publish(png: Path, name: str) -> None:
    """Copy a figure with 128 colours: a third of the bytes, and no difference to the eye."""
    with Image.open(png) as image:
        image.convert("RGB").quantize(128).save(FIGURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
