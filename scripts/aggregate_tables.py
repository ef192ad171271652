"""Gather finished runs into the paper's tables: summary, Table 1, Table 2 and costs, as CSV, Markdown and LaTeX.

Accuracies are mean ± standard deviation over seeds of the mean over episodes, in percent.

Example:
    python scripts/aggregate_tables.py results/glyphs/3cells-8ch/*/seed* --output results/tables
"""

import logging
from pathlib import Path

import pandas as pd

from metantk import costs, tables
from metantk.command_line import make_parser, run
from metantk.storage import atomic_write

log = logging.getLogger("metantk")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "parts", nargs="+", type=Path, metavar="PART", help="<dataset>/<run>/<method>/seed<k> folders"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the tables")
    arguments = parser.parse_args()
    by_folder = {folder: tables.read_part(folder) for folder in arguments.parts}
    parts = list(by_folder.values())
    criteria = {part.method: part.search["options"]["criteria"] for part in parts}
    summary = tables.summarise(parts)
    write(arguments.output / "summary", summary, summary.round(3).astype(str))
    write(arguments.output / "table1", tables.make_table1(summary))
    write(arguments.output / "table2", tables.make_table2(summary, criteria))
    spent = costs.summarise(by_folder)
    write(arguments.output / "costs", spent, spent.fillna("").astype(str))
    with atomic_write(arguments.output / "seeds.csv") as temporary:
        tables.per_seed(parts).to_csv(temporary, index=False)


def write(stem: Path, table: pd.DataFrame, shown: pd.DataFrame | None = None) -> None:
    """Write a table in all three formats; `shown` is what people read, with the best accuracies in bold."""
    shown = table if shown is None else shown
    texts = {".csv": table.to_csv(index=False)}
    for suffix, convert, mark in (
        (".md", tables.to_markdown, "**{}**"),
        (".tex", tables.to_latex, r"\textbf{{{}}}"),
    ):
        texts[suffix] = convert(tables.bold_best(shown, mark) if "Data" in shown else shown)
    for suffix, text in texts.items():
        with atomic_write(stem.with_suffix(suffix)) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run(main)
