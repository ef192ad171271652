"""Check the paper's theory in numbers: Eqs. 4-13, Theorems 1 and 2, Definition 2, and ANIL's kernel.

Trains small networks of growing width by MAML and compares kernels, losses and outputs with what the theory says of
the infinite width. Writes theory.md with a verdict per statement, the measurements (CSV), figures (SVG and PNG) and
theory.json. Statement 7 is judged from the table of measure_trainability.py, where one is given.

On one core of an AMD EPYC the default takes about a minute.

Example:
    python scripts/verify_theory.py --seeds 6 --output my_theory
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from metantk import devices
from metantk.command_line import make_parser, parse_options, progress, run
from metantk.options.theory import TheoryOptions
from metantk.figures.style import save
from metantk.storage import InputError, atomic_write, check_writable, provenance, write_json
from metantk.theory import correlation, figures
from metantk.theory.kernel_checks import INNER_LOOPS, judge_kernels, measure_kernels
from metantk.theory.learner import LEARNERS, judge_learners, measure_learners
from metantk.theory.report import write_report
from metantk.theory.training_checks import (
    judge_bounds,
    judge_regression,
    measure_convergence,
    measure_regression,
    summarise_bounds,
)
from metantk.theory.verdicts import Verdict

log = logging.getLogger("metantk")


def main() -> None:
    parser = make_parser(__doc__, TheoryOptions)
    parser.add_argument("--trainability", type=Path, metavar="FILE", help="trainability.csv, for statement 7")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder of theory.md and the rest"
    )
    arguments = parser.parse_args()
    options = parse_options(TheoryOptions, arguments)
    trainability = _read_trainability(arguments.trainability) if arguments.trainability else None
    check_writable(arguments.output)
    devices.start()
    began = time.perf_counter()
    with progress(None, total=count_units(options), what="theory", unit="network") as bar:
        tables, drawn, verdicts = verify(options, lambda: bar.update(1))
    if trainability is not None:
        tables["correlations"] = correlation.correlate(trainability)
        verdicts += correlation.judge_correlations(tables["correlations"], len(trainability))
        drawn["correlations"] = figures.draw_trainability(
            trainability, list(correlation.CRITERIA), list(correlation.OUTCOMES)
        )
    report = {
        "seconds": round(time.perf_counter() - began, 3),
        **provenance(__file__, options.model_dump()),
    }
    _write(arguments.output, tables, drawn, verdicts, report)
    log.info("%s, %.1f s", arguments.output / "theory.md", report["seconds"])


def count_units(options: TheoryOptions) -> int:
    """How often `verify` calls `advance`."""
    per_source = sum(
        len(INNER_LOOPS) * len(entry.widths) + 2 * len(entry.trained_widths) for entry in options.networks
    )
    return per_source * len(options.sources) + len(LEARNERS)


def verify(
    options: TheoryOptions, advance: Callable[[], object]
) -> tuple[dict[str, pd.DataFrame], dict[str, Figure], list[Verdict]]:
    """Measurements and figures by file name, without suffix, and the verdicts on statements 1 to 6."""
    cases = [(source, entry) for source in options.sources for entry in options.networks]
    trained = [case for case in cases if case[1].trained_widths]
    kernels = pd.concat([measure_kernels(*case, options, advance) for case in cases], ignore_index=True)
    learners = measure_learners(options, advance)
    tables = {"kernels": kernels, "learners": learners}
    verdicts = judge_kernels(kernels) + judge_learners(learners, options.learner.ways)
    drawn = {
        "determinism": figures.draw_determinism(kernels),
        "formula": figures.draw_formula(kernels),
        "learners": figures.draw_learners(learners, options.learner.ways),
    }
    curves = pd.concat([measure_convergence(*case, options, advance) for case in trained], ignore_index=True)
    bounds = summarise_bounds(curves)
    regression = pd.concat([measure_regression(*case, options, advance) for case in trained], ignore_index=True)
    tables |= {"convergence": curves, "bounds": bounds, "regression": regression}
    verdicts += judge_bounds(bounds, options) + judge_regression(regression)
    drawn |= {
        "convergence": figures.draw_convergence(curves),
        "regression": figures.draw_regression(regression),
    }
    return tables, drawn, verdicts


def _read_trainability(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    missing = [name for name in (*correlation.CRITERIA, *correlation.OUTCOMES) if name not in table]
    if missing:
        raise InputError(f"{path}: lacks the columns {', '.join(missing)}; run measure_trainability.py again")
    return table


def _write(
    output: Path,
    tables: dict[str, pd.DataFrame],
    drawn: dict[str, Figure],
    verdicts: list[Verdict],
    report: dict,
) -> None:
    """Write everything; theory.md, which speaks of the rest, last."""
    for name, table in {**tables, "verdicts": pd.DataFrame(verdicts)}.items():
        with atomic_write(output / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
    for name, figure in drawn.items():
        save(figure, output / name)
    write_json(output / "theory.json", report)
    with atomic_write(output / "theory.md") as temporary:
        temporary.write_text(write_report(verdicts), encoding="utf-8")


if __name__ == "__main__":
    run(main)
