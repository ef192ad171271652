"""Gather finished chains into the paper's tables: summary, Table 1, Table 2, differences, costs and transfer.

Each as CSV, Markdown, LaTeX and a page of the report, whose cover gets the main result. Accuracies are mean ±
standard deviation over seeds of the mean over episodes, in percent. All tables are made before the first is
written.

Example:
    python scripts/aggregate_tables.py results/glyphs/3cells-8ch/*/seed*/rfs --output results/tables
"""

import logging
from pathlib import Path

import pandas as pd

from metantk.results import costs, pages, tables, transfer
from metantk.results.published_results import compare_with_published
from metantk.runtime.command_line import make_parser, run
from metantk.runtime.files import InputError, atomic_write, check_writable

log = logging.getLogger("metantk")
MISSING = ["chain", "next_stage"]  # columns of missing.csv


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("chains", nargs="+", type=Path, metavar="CHAIN", help="folders of evaluation.json")
    parser.add_argument(
        "--transfers",
        nargs="*",
        default=[],
        type=Path,
        metavar="DIR",
        help="evaluations on other data sets, each a folder of evaluation.json within the chain's",
    )
    parser.add_argument("--titles", default="{}", metavar="JSON", help="names of searches and learners in tables")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="Results of the workflow, from which the costs of its stages are read",
    )
    parser.add_argument(
        "--partial",
        action="store_true",
        help="leave out chains that are not finished, and name them in missing.csv",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of the tables")
    arguments = parser.parse_args()
    if arguments.results is not None and not arguments.results.is_dir():
        raise InputError(f"--results {arguments.results}: is no folder")
    finished, missing = _split(arguments.chains, partial=arguments.partial)
    if not finished:
        raise InputError(f"none of {len(arguments.chains)} chains is finished yet")
    groups = tables.group_chains(tables.read_chain(folder) for folder in finished)
    titles = tables.parse_titles(arguments.titles)
    summary = tables.summarise(groups, titles)
    differences = tables.differences(summary, groups)
    evaluated, not_evaluated = _split_transfers(arguments.transfers, partial=arguments.partial)
    transferred = [transfer.read_transfer(folder) for folder in evaluated]
    missing = pd.concat([missing, not_evaluated])
    spent = costs.summarise(groups, arguments.results)
    published = compare_with_published(groups, summary)
    texts = {
        **render("summary", summary, summary.round(3).astype(str)),
        **render("table1", tables.make_table1(summary, groups)),
        **render("table2", tables.make_table2(summary, groups)),
        **render("differences", differences, differences.astype(object).fillna("").astype(str)),
        **render("costs", spent, spent.astype(object).fillna("").astype(str)),
        **render("published", published, published.astype(str)),
        **render("transfer", transfer.make_table(transferred, groups, titles)),
        "cover.rst": pages.to_cover(summary, groups, differences),
        "seeds.csv": tables.per_seed(groups).to_csv(index=False),
        "missing.csv": missing.to_csv(index=False),
    }
    check_writable(arguments.output)
    for name, text in texts.items():
        with atomic_write(arguments.output / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _split(chains: list[Path], *, partial: bool) -> tuple[list[Path], pd.DataFrame]:
    """Finished chains, and the first stage that the others lack."""
    finished, missing = [], []
    for folder in chains:
        stages = {
            "search_architecture": folder.parent / "architecture.json",
            "train_network": folder / "model.json",
            "evaluate_episodes": folder / "evaluation.json",
        }
        lacking = [stage for stage, path in stages.items() if not path.exists()]
        if lacking and partial:
            missing.append([str(folder), lacking[0]])
            log.warning("%s: not finished, %s is to come", folder, lacking[0])
        else:
            finished.append(folder)
    return finished, pd.DataFrame(missing, columns=MISSING)


def _split_transfers(folders: list[Path], *, partial: bool) -> tuple[list[Path], pd.DataFrame]:
    """Finished evaluations on other data sets, and those that are to come."""
    missing = [folder for folder in folders if partial and not (folder / "evaluation.json").exists()]
    for folder in missing:
        log.warning("%s: not finished, evaluate_episodes is to come", folder)
    rows = [[str(folder), "evaluate_episodes"] for folder in missing]
    return [folder for folder in folders if folder not in missing], pd.DataFrame(rows, columns=MISSING)


def render(name: str, table: pd.DataFrame, shown: pd.DataFrame | None = None) -> dict[str, str]:
    """A table in all formats; `shown` is what people read, with the best accuracies in bold."""
    shown = table if shown is None else shown
    return {
        f"{name}.csv": table.to_csv(index=False),
        f"{name}.md": tables.to_markdown(tables.bold_best(shown, "**{}**")),
        f"{name}.tex": tables.to_latex(shown),
        f"{name}.html": pages.to_page(tables.bold_best(shown, pages.BEST), title=name),
    }


if __name__ == "__main__":
    run(main)
