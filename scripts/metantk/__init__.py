"""MetaNTK-NAS: the library behind the stages. After `pip install .`, two lines lead from a model to features:

    model = metantk.load("results/birds/5cells-8ch/metantk/seed0/rfs")
    features = model.features(images)

`metantk.load` takes the folder of a model, or a file of export_backbone.py, and images are uint8
`(images, height, width, 3)`, red before green before blue.

Imported before PyTorch by every program, for what follows is read when PyTorch is loaded. Threads that wait for
each other do so asleep. By default they spin: of two programs on the same cores each then waits for the other's
spinning, and a step takes many times as long (tests/benchmarks/bench_side_by_side.py). Where the number of threads
is given, as Snakemake and SLURM give it to jobs, the cores are this program's own: they spin for a moment first.
"""

import importlib
import os
import signal
import sys
from pathlib import Path

__version__ = "0.1.0"

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # GNU's and LLVM's OpenMP
os.environ.setdefault("KMP_BLOCKTIME", "0")  # Intel's
if {"OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"} & os.environ.keys():
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # GNU's alone

# Ctrl-C while one of our programs still imports PyTorch ends it, without a traceback; from its start on
# metantk.runtime.command_line handles it.
_program = getattr(sys.modules["__main__"], "__file__", None)
_is_ours = _program and Path(_program).resolve().parent == Path(__file__).resolve().parents[1]
if _is_ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def load(path: object) -> object:
    """A `metantk.deployment.exported.Extractor`; see there."""
    # By name: whatever imports a module of this library would depend on all of its networks.
    return importlib.import_module("metantk.deployment.exported").Extractor(path)
