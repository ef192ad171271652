"""Speed of the episodes' logistic regressions, fitted together, against scikit-learn's, one after the other.

Features are positive, as after a ReLU, and of length 1; 5 ways, 5 copies of each support, 15 queries a class. Both
sides fit the same episodes and answer their queries, in turn, and the least of the repetitions counts. Threads are
OMP_NUM_THREADS.

Example:
    OMP_NUM_THREADS=2 python tests/benchmarks/bench_classifiers.py
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import normalize

from metantk.learners.linear import logistic_regression
from metantk.runtime.devices import keep_freed_memory

WAYS, COPIES, QUERIES = 5, 5, 15
SHOTS, FEATURES = (1, 5), (96, 640)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for shots in SHOTS:
        for features in FEATURES:
            print(json.dumps(measure(shots, features, arguments.episodes, arguments.repeat)), flush=True)


def measure(shots: int, features: int, episodes: int, repeat: int) -> dict:
    """Milliseconds an episode, and how often the two agree, in percent of the queries."""
    support, labels, query = draw_episodes(shots, features, episodes)
    together, single = [], []
    for _ in range(repeat):
        together.append(timed(lambda: logistic_regression(support, labels, query, ways=WAYS).argmax(2).numpy()))
        single.append(timed(lambda: fit_one_after_the_other(support, labels, query)))
    agreement = 100 * float(np.mean(together[0][2] == single[0][2]))
    fast, slow = (1000 * min(wall for wall, _, _ in runs) / episodes for runs in (together, single))
    busy, busy_single = (
        1000 * min(processor for _, processor, _ in runs) / episodes for runs in (together, single)
    )
    return {
        "supports": WAYS * shots * COPIES,
        "features": features,
        "threads": torch.get_num_threads(),
        "together_ms": round(fast, 3),
        "scikit_learn_ms": round(slow, 3),
        "ratio": round(slow / fast, 1),
        "together_processor_ms": round(busy, 3),
        "scikit_learn_processor_ms": round(busy_single, 3),
        "processor_ratio": round(busy_single / busy, 1),
        "agreement_percent": round(agreement, 3),
    }


def draw_episodes(shots: int, features: int, episodes: int) -> tuple[Tensor, Tensor, Tensor]:
    draws = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(episodes, WAYS, *shape, features, generator=draws)

    centres = 1 + 0.3 * noise(1, 1)
    support = centres + 0.6 * noise(shots, 1) + 0.2 * noise(shots, COPIES)
    query = centres + 0.6 * noise(QUERIES, 1)
    support, query = (normalize(part.relu().flatten(1, 3), dim=2) for part in (support, query))
    return support, torch.arange(WAYS).repeat_interleave(shots * COPIES), query


def fit_one_after_the_other(support: Tensor, labels: Tensor, query: Tensor) -> np.ndarray:
    predicted = []
    for one, asked in zip(support.numpy(), query.numpy(), strict=True):
        model = LogisticRegression(C=1.0, solver="lbfgs", max_iter=1000).fit(one, labels.numpy())
        predicted.append(model.predict(asked))
    return np.stack(predicted)


def timed(work: Callable[[], np.ndarray]) -> tuple[float, float, np.ndarray]:
    """Seconds by the clock and of the processor, which others on the machine disturb less, and the result."""
    began, processor = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - began, time.process_time() - processor, result


if __name__ == "__main__":
    main()
