#!/bin/sh
# GPU checks and measurements in one go, on a machine that has torch and torchvision for CUDA and nothing else.
# Before: `make wheels` on a machine with network, and carry wheels/ along with the repository.
#
#   sh tests/gpu/run.sh [FOLDER FOR THE FIGURES]
set -eu
out=${1:-.}
packages=$(mktemp -d)
python -m pip install --quiet --no-index --no-deps --find-links wheels --target "$packages" wheels/*.whl
export PYTHONPATH="$packages"
# Into files, not through pipes, which would hide a failure.
python -m pytest tests/gpu > "$out/gpu-tests.txt" 2>&1 || { cat "$out/gpu-tests.txt"; exit 1; }
bench="python tests/benchmarks/bench_search.py --device cuda --channels 48"
$bench --parts kernel regions round search > "$out/gpu-bench-5cells.jsonl"
$bench --parts search --cells 8 > "$out/gpu-bench-8cells.jsonl"
$bench --parts search --precision tf32 > "$out/gpu-bench-tf32.jsonl"
cat "$out"/gpu-*
