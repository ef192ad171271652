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

__version__ = "0.1.0"

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # GNU's and LLVM's OpenMP
os.environ.setdefault("KMP_BLOCKTIME", "0")  # Intel's
if {"OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"} & os.environ.keys():
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # GNU's alone


def load(path: object) -> object:
    """A `metantk.deployment.exported.Extractor`; see there."""
    # By name: whatever imports a module of this library would depend on all of its networks.
    return importlib.import_module("metantk.deployment.exported").Extractor(path)
