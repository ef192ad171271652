"""Print the tables of a workflow and where its figures are; of one that is under way, how far it is.

Of a configuration whose tables are not there yet, or with --status: the jobs that are done, running and left, the
time left as far as finished jobs say, the table as it stands, and what is missing in it. A row that does not beat
raw pixels, or its own untrained network, is named. With --verdict: what a run on one's own images came to.

Examples:
    python scripts/show_results.py results
    python scripts/show_results.py --configfile config/config.yaml --status
"""

from pathlib import Path

from metantk.options.config import Config, parse_config, read_yaml, with_own
from metantk.results import layout, status, tables, verdict
from metantk.results.baselines import find_weak
from metantk.results.standing import read_rows, titles_of
from metantk.runtime.command_line import make_parser, run
from metantk.runtime.files import InputError

LISTED = 30  # unfinished rows that are named
HEAD = 2  # lines of a Markdown table without rows, as Table 2 is where no cells were searched for


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("results", nargs="?", type=Path, help="the workflow's results folder")
    parser.add_argument("--configfile", type=Path, help="a configuration, instead of the folder that it names")
    parser.add_argument("--status", action="store_true", help="how far it is (with --configfile)")
    parser.add_argument("--verdict", action="store_true", help="what it came to (with --configfile)")
    parser.add_argument("--folder", action="store_true", help="print only the folder of the results")
    arguments = parser.parse_args()
    if arguments.folder and arguments.configfile:
        print(_read_results(arguments.configfile))
        return
    if arguments.status:
        if arguments.configfile is None:
            raise InputError("--status: say of which configuration, with --configfile FILE")
        show_status(_read_config(arguments.configfile))
        return
    if arguments.verdict:
        if arguments.configfile is None:
            raise InputError("--verdict: say of which configuration, with --configfile FILE")
        show_verdict(_read_config(arguments.configfile))
        return
    if arguments.results is None and arguments.configfile is None:
        raise InputError("say whose results: a folder, or --configfile FILE")
    show_tables(arguments.results or _read_results(arguments.configfile))


def show_tables(results: Path) -> None:
    """Print the tables of a finished workflow.

    Raises:
        InputError: there are none.
    """
    for name in ("table2", "table1", "published", "transfer"):
        path = results / layout.TABLES / f"{name}.md"
        if not path.is_file():
            raise InputError(f"{path}: is missing; run the workflow first (`make status` says how far it is)")
        table = path.read_text(encoding="utf-8").strip()
        if len(table.splitlines()) > HEAD:
            print(f"\n{path}\n\n{table}\n")
    for line in find_weak(results / layout.TABLES / "summary.csv"):
        print(f"Note: {line}")
    _show_folders(results)


def show_verdict(config: Config) -> None:
    """Print what a finished run came to, for who trained on images of their own.

    Raises:
        InputError: nothing is finished, or what is finished does not fit together.
    """
    standing = read_rows(config)
    for problem in standing.problems:
        print(problem)
    if not standing.chains:
        raise InputError(f"{config.results}: no row is finished; run the workflow first")
    groups = tables.group_chains(standing.chains)
    datasets = dict.fromkeys(key[0] for key in groups)
    for dataset in datasets:
        if len(datasets) > 1:
            print(f"--- {dataset} ---\n")
        for line in verdict.describe({key: chains for key, chains in groups.items() if key[0] == dataset}):
            print(line)
    _show_folders(Path(config.results))


def _show_folders(results: Path) -> None:
    print(f"Tables (CSV, Markdown, LaTeX):  {results / layout.TABLES}")
    print(f"Figures (SVG, PNG):             {results / 'figures'}")


def show_status(config: Config) -> None:
    """Print how far a workflow is, the table as it stands, and rows that are broken or stale."""
    seen = status.look(config)
    print(f"{'':22}{'done':>6}{'running':>9}{'left':>6}")
    for stage in layout.STAGES:
        counts = (sum(job.stage == stage for job in jobs) for jobs in (seen.done, seen.running, seen.left))
        print("{:22}{:>6}{:>9}{:>6}".format(stage, *counts))
    for job in seen.running:
        print(f"running: {job.name}: {status.describe_running(job, seen.steps.get(job.name))}")
    print(status.describe_time_left(seen))
    standing = read_rows(config)
    for problem in standing.problems[:LISTED]:
        print(problem)
    if len(standing.problems) > LISTED:
        print(f"broken or stale: {len(standing.problems) - LISTED} more")
    if standing.chains:
        groups = tables.group_chains(standing.chains)
        table = tables.make_table1(tables.summarise(groups, titles_of(config)), groups)
        ours = table[table["Source"] == "this run"].drop(columns=["Source", "Device"])
        print(f"\n{tables.to_markdown(ours)}")
    unfinished = [*seen.running, *seen.left]
    missing = [job for job in unfinished if job.stage == "evaluate_episodes"]
    for job in missing[:LISTED]:
        print(f"missing: {' '.join(job.place)}: {_next_stage(job, unfinished)} is to come")
    if len(missing) > LISTED:
        print(f"missing: {len(missing) - LISTED} more")


def _next_stage(evaluation: status.Job, unfinished: list[status.Job]) -> str:
    """The first stage that a row lacks."""
    for job in unfinished:
        if evaluation.place[: len(job.place)] == job.place:
            return job.stage
    return evaluation.stage


def _read_config(configfile: Path) -> Config:
    return parse_config(read_yaml(configfile))


def _read_results(configfile: Path) -> Path:
    return Path(str(with_own(read_yaml(configfile)).get("results", "results")))


if __name__ == "__main__":
    run(main)
