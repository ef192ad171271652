"""Do criteria that count activations turn round as convolutions increase (NCD, ICCV 2025)?

For each tabular benchmark: Kendall's τ with the number of convolutions, and with the 1-shot accuracy among the
architectures of at most the median of convolutions and among the others. Intervals: 95 %, by bootstrap over
architectures.

    PYTHONPATH=scripts python tests/benchmarks/convolutions.py
"""

import json

import numpy as np
import pandas as pd

from metantk import benchmark
from metantk.results.study import RESAMPLES, tau
from metantk.runtime.devices import numpy_generator

COUNTERS = ["linear_regions", "naswot", "swap"]  # they count patterns of active units
OTHERS = ["parameters", "ntk_condition", "meta_ntk_condition"]
ACCURACY = "accuracy_1shot"
HEADER = "| benchmark | column | τ with convolutions | τ with accuracy, fewer | more |\n|---|---|---|---|---|"


def main() -> None:
    print(HEADER)
    for name in benchmark.names():
        table = with_convolutions(benchmark.load(name).architectures)
        few = table["convolutions"] <= table["convolutions"].median()
        for column in [ACCURACY, *COUNTERS, *OTHERS]:
            cells = [described(table[column], table["convolutions"])]
            if column != ACCURACY:
                cells += [
                    f"{described(part[column], part[ACCURACY])}, n = {len(part)}"
                    for part in (table[few], table[~few])
                ]
            print(f"| {name} | {' | '.join([column, *cells])} |")


def with_convolutions(architectures: pd.DataFrame) -> pd.DataFrame:
    """The table with the number of operations that are convolutions, of the twelve of a genotype."""
    counts = [
        sum("conv" in name for kind in ("normal", "reduce") for node in genotype[kind] for name, _ in node)
        for genotype in map(json.loads, architectures["genotype"])
    ]
    return architectures.assign(convolutions=counts)


def described(one: pd.Series, other: pd.Series) -> str:
    one, other = one.to_numpy(float), other.to_numpy(float)
    samples = numpy_generator("bootstrap").integers(len(one), size=(RESAMPLES, len(one)))
    low, high = np.percentile([tau(one[s], other[s]) for s in samples], [2.5, 97.5])
    return f"{tau(one, other):.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
