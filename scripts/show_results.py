"""Print the tables of a finished workflow and where its figures are.

Example:
    python scripts/show_results.py results
"""

from pathlib import Path

from metantk.command_line import make_parser, run
from metantk.storage import InputError


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("results", type=Path, help="the workflow's results folder")
    results = parser.parse_args().results
    for name in ("table2", "table1"):
        path = results / "tables" / f"{name}.md"
        if not path.is_file():
            raise InputError(f"{path}: is missing; run the workflow first")
        print(f"\n{path}\n\n{path.read_text(encoding='utf-8')}")
    print(f"Tables (CSV, Markdown, LaTeX):  {results / 'tables'}")
    print(f"Figures (SVG, PNG):             {results / 'figures'}")


if __name__ == "__main__":
    run(main)
