"""Train random architectures and note what the search's criteria said of them before (statement 7 of the theory).

Of each architecture: condition numbers of the MetaNTK and the NTK, number of linear regions, the loss that MAML
reaches after a fixed number of steps, and the few-shot accuracy after the RFS training, all on glyphs. Writes
trainability.csv (one row per architecture) and trainability.json; verify_theory.py draws the conclusions.

Example:
    python scripts/measure_trainability.py --architectures 8 --maml-steps 10 --output my_trainability
"""

import time
from pathlib import Path

from metantk import devices
from metantk.command_line import make_parser, parse_options, progress, run
from metantk.config import TrainabilityOptions
from metantk.storage import InputError, atomic_write, check_writable, provenance, write_json
from metantk.theory.trainability import measure_trainability


def main() -> None:
    parser = make_parser(__doc__, TrainabilityOptions)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of trainability.csv")
    arguments = parser.parse_args()
    options = parse_options(TrainabilityOptions, arguments)
    if options.architectures == 0:
        raise InputError("options: architectures is 0, nothing to measure; name at least 4")
    check_writable(arguments.output)
    device = devices.start()
    began = time.perf_counter()
    with progress(None, total=options.architectures, what="trainability", unit="architecture") as bar:
        table = measure_trainability(options, device, lambda: bar.update(1))
    report = {
        "seconds": round(time.perf_counter() - began, 3),
        "peak_memory_mb": devices.peak_memory_mb(device),
        **provenance(__file__, options.model_dump(), device=devices.describe_device(device)),
    }
    write_json(arguments.output / "trainability.json", report)
    with atomic_write(arguments.output / "trainability.csv") as temporary:
        table.to_csv(temporary, index=False)


if __name__ == "__main__":
    run(main)
