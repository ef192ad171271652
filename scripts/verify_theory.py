"""Check the paper's theory in numbers: Eqs. 4-13, Theorems 1 and 2, Definition 2, and ANIL's kernel.

Trains small networks of growing width by MAML and compares kernels, losses and outputs with what the theory says of
the infinite width. Runs on the CPU. Writes theory.md with a verdict per statement, the measurements (CSV), figures
(SVG and PNG) and theory.json. A killed run goes on after the last part that it measured.

On one core of an AMD EPYC the default takes about a minute.

Example:
    python scripts/verify_theory.py --seeds 6 --output my_theory
"""

import hashlib
import logging
import time
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from pydantic import Field, model_validator

from metantk.options.theory import TheoryOptions
from metantk.results.figures.style import save
from metantk.runtime import devices
from metantk.runtime.command_line import make_parser, parse_options, progress, run
from metantk.runtime.files import (
    atomic_write,
    canonical_json,
    check_writable,
    checkpoint_path,
    remove_checkpoint,
    write_json,
)
from metantk.runtime.provenance import code_hash, provenance
from metantk.runtime.typed_files import Record, read_record
from metantk.theory import figures, measurements
from metantk.theory.judgements import judge
from metantk.theory.report import write_report
from metantk.theory.verdicts import Verdict

log = logging.getLogger("metantk")


class KeptParts(Record):
    """What a killed run has left: the rows of each part as CSV."""

    parts: dict[str, str]
    seconds: float = Field(ge=0)
    sha256: str

    @model_validator(mode="after")
    def _is_whole(self) -> "KeptParts":
        if self.sha256 != checksum_of(self.parts):
            raise ValueError("is damaged")
        return self


def checksum_of(parts: dict[str, str]) -> str:
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def main() -> None:
    parser = make_parser(__doc__, TheoryOptions)
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder of theory.md and the rest"
    )
    arguments = parser.parse_args()
    options = parse_options(TheoryOptions, arguments)
    check_writable(arguments.output)
    device = devices.start(uses_device=False)
    # Not this script's code: other verdicts or figures need no other measurements.
    key = {"options": options.model_dump(), "code": code_hash(measurements.__file__)}
    checkpoint = checkpoint_path(arguments.output, "theory", key)
    state, seconds = _measure(options, checkpoint)
    tables = measurements.join_parts(options, state)
    verdicts = judge(tables, options)
    report = {
        "seconds": round(seconds, 3),
        "peak_memory_mb": devices.peak_memory_mb(device),
        **provenance(__file__, options=options.model_dump()),
    }
    _write(arguments.output, tables, draw(tables, options), verdicts, report)
    remove_checkpoint(checkpoint)
    log.info("%s, %.1f s", arguments.output / "theory.md", seconds)


def _measure(options: TheoryOptions, checkpoint: Path) -> tuple[dict[str, str], float]:
    """All parts, and the seconds that they took, in earlier attempts too; each is kept in the checkpoint."""
    state, spent = {}, 0.0
    if checkpoint.exists():
        found = read_record(checkpoint, KeptParts, stage="verify_theory, without this file,")
        state, spent = found.parts, found.seconds
        log.info("going on after %d parts", len(state))
    began = time.perf_counter()

    def keep() -> None:
        bar.update(1)
        seconds = spent + time.perf_counter() - began
        write_json(checkpoint, {"parts": state, "seconds": seconds, "sha256": checksum_of(state)})

    total = len(measurements.list_parts(options))
    with progress(None, total=total, initial=len(state), what="theory", unit="part") as bar:
        measurements.measure_parts(options, state, keep)
    return state, spent + time.perf_counter() - began


def draw(tables: dict[str, pd.DataFrame], options: TheoryOptions) -> dict[str, Figure]:
    """The figures by file name, without suffix."""
    return {
        "determinism": figures.draw_determinism(tables["kernels"]),
        "formula": figures.draw_formula(tables["kernels"]),
        "learners": figures.draw_learners(tables["learners"], options.learner.ways),
        "convergence": figures.draw_convergence(tables["convergence"]),
        "regression": figures.draw_regression(tables["regression"]),
    }


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
