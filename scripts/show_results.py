"""Print the tables of a finished workflow and where its figures are.

Example:
    python scripts/show_results.py results
"""

from pathlib import Path

import yaml

from metantk.command_line import make_parser, run
from metantk.storage import InputError


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("results", nargs="?", type=Path, help="the workflow's results folder")
    parser.add_argument("--configfile", type=Path, help="a configuration, instead of the folder that it names")
    arguments = parser.parse_args()
    results = arguments.results or _results_of(arguments.configfile)
    for name in ("table2", "table1"):
        path = results / "tables" / f"{name}.md"
        if not path.is_file():
            raise InputError(f"{path}: is missing; run the workflow first")
        print(f"\n{path}\n\n{path.read_text(encoding='utf-8')}")
    print(f"Tables (CSV, Markdown, LaTeX):  {results / 'tables'}")
    print(f"Figures (SVG, PNG):             {results / 'figures'}")


def _results_of(configfile: Path | None) -> Path:
    if configfile is None:
        raise InputError("say whose results: a folder, or --configfile FILE")
    try:
        configuration = yaml.safe_load(configfile.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{configfile}: cannot be read ({str(error).splitlines()[0]})") from None
    named = configuration.get("results", "results") if isinstance(configuration, dict) else "results"
    return Path(str(named))


if __name__ == "__main__":
    run(main)
