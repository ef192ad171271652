"""The support vector head against qpth, the solver of the published code: forward and backward, in one run.

Both sides get the same features in float32 and the same number of threads, and take turns. qpth solves in
float32 with 15 iterations, as published; ours in float64 inside. Seconds are the least of all turns.
`largest_difference` is between the logits of both sides, relative to the largest logit.

qpth is not part of the environment. Install it somewhere else and name the place; without it nothing is measured:

    pip install --no-deps --target /tmp/qpth qpth
    PYTHONPATH=/tmp/qpth python tests/benchmarks/bench_heads.py
"""

import argparse
import json
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[2] / "scripts"))

from metantk.learners.heads import svm_logits
from metantk.runtime import devices

PENALTY = 0.1
Head = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--shots", type=int, default=15)
    parser.add_argument("--queries", type=int, default=6, help="of each class [6]")
    parser.add_argument("--features", type=int, nargs="+", default=[640, 16000])
    parser.add_argument("--sizes", type=float, nargs="+", default=[0.1, 1.0], help="of the features [0.1 1]")
    parser.add_argument("--turns", type=int, default=7, help="of each side [7]")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    # qpth imports cvxpy for a second solver, which is not used here.
    sys.modules.setdefault("cvxpy", types.ModuleType("cvxpy"))
    try:
        from qpth.qp import QPFunction
    except ImportError:
        print("qpth is not on the path: nothing to compare with (see --help)")
        return
    devices.keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    for features in arguments.features:
        for size in arguments.sizes:
            print(json.dumps(compare(arguments, QPFunction, features, size)), flush=True)


def compare(arguments: argparse.Namespace, solver: Callable, features: int, size: float) -> dict:
    """Seconds of both sides on the same episodes, and their ratio."""
    support, labels, query = make_episodes(arguments, features, size)
    heads: dict[str, Head] = {
        "ours": lambda *episode: svm_logits(*episode, ways=arguments.ways, penalty=PENALTY),
        "qpth": lambda *episode: published_logits(solver, *episode, arguments.ways),
    }
    seconds = {name: [] for name in heads}
    logits = {}
    for _ in range(arguments.turns):
        for name, head in heads.items():
            support.grad = query.grad = None
            began = time.perf_counter()
            answers = head(support, labels, query)
            answers.square().sum().backward()
            seconds[name].append(time.perf_counter() - began)
            logits[name] = answers.detach()
    ours, theirs = (min(seconds[name]) for name in heads)
    difference = (logits["ours"] - logits["qpth"]).abs().max() / logits["ours"].abs().max()
    return {
        "episodes": arguments.episodes,
        "ways": arguments.ways,
        "shots": arguments.shots,
        "features": features,
        "size": size,
        "threads": arguments.threads,
        "ours_seconds": round(ours, 4),
        "qpth_seconds": round(theirs, 4),
        "qpth_over_ours": round(theirs / ours, 1),
        "largest_difference": float(f"{float(difference):.1e}"),
    }


def make_episodes(arguments: argparse.Namespace, features: int, size: float) -> tuple[Tensor, Tensor, Tensor]:
    """Classes with means of their own, and a leaky ReLU as after the published backbone."""
    draw = devices.generator("episodes", features)
    means = torch.randn(arguments.episodes, arguments.ways, 1, features, generator=draw)

    def images(count: int) -> Tensor:
        noise = torch.randn(arguments.episodes, arguments.ways, count, features, generator=draw)
        values = size * torch.nn.functional.leaky_relu(means / 3 + noise, 0.1)
        return values.flatten(1, 2).requires_grad_()

    labels = torch.arange(arguments.ways).repeat_interleave(arguments.shots)
    return images(arguments.shots), labels.expand(arguments.episodes, -1), images(arguments.queries)


def published_logits(solver: Callable, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
    """The programme of `svm_logits` as one dense matrix for qpth, sample by sample as in the published code."""
    episodes, supports, _ = support.shape
    gram = support @ support.mT
    classes, everything = torch.eye(ways), torch.eye(ways * supports)
    hessian = torch.einsum("eij,kl->eikjl", gram, classes).reshape(episodes, *everything.shape) + everything
    own = (labels[..., None] == torch.arange(ways)).float().flatten(1)
    bounds = everything.expand(episodes, -1, -1), PENALTY * own
    sums = torch.kron(torch.eye(supports), torch.ones(1, ways)).expand(episodes, -1, -1)
    dual = solver(verbose=-1, maxIter=15)(hessian, -own, *bounds, sums, torch.zeros(episodes, supports))
    return query @ support.mT @ dual.view(episodes, supports, ways)


if __name__ == "__main__":
    main()
