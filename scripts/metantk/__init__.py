"""MetaNTK-NAS. Imported before PyTorch by every program, for what follows is read when PyTorch is loaded.

Threads that wait for each other do so asleep. By default they spin: of two programs on the same cores each then
waits for the other's spinning, and a step takes many times as long (tests/benchmarks/bench_side_by_side.py).
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # GNU's and LLVM's OpenMP
os.environ.setdefault("KMP_BLOCKTIME", "0")  # Intel's
