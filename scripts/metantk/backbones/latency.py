"""How long a network takes for the features of images, as a shipped classifier runs: onnxruntime, one CPU thread.

PyTorch would be the wrong clock: a small network of cells takes it some twenty times as long, nearly all of which
is the calling of its operations. Times are processor times of the one thread, the least of several runs. On an idle
machine they are what passes on the clock; what else runs there hardly changes them. Another machine has others.
"""

import time

import numpy as np
from torch import Tensor, nn

from metantk.backbones.graph import INPUT, UnknownOperation, to_graph

THREADS = 1
RUNS, ROUNDS = 8, 5  # of runs one after the other, and of such rounds
SECONDS = 0.2  # for the rounds of a network: none begins after that
TOLERANCE = 1e-3  # of features, relative to the largest


class Timed:
    """A network on its images; `best_ms` is the least time of all runs, in milliseconds."""

    def __init__(self, graph: bytes, image_size: int, images: int = 1) -> None:
        # Imported here: most stages do without.
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = THREADS
        options.log_severity_level = 4
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.images = np.random.default_rng(0).random((images, 3, image_size, image_size), np.float32)
        self.features = self.run()  # memory is laid out now
        self.best_ms = np.inf

    def run(self) -> np.ndarray:
        """Features `(images, feature_dim)`."""
        return self._session.run(None, {INPUT: self.images})[0]

    def time(self) -> None:
        """A few runs, one after the other: the first ones load the network into the caches."""
        for _ in range(RUNS):
            began = time.thread_time()
            self.run()
            self.best_ms = min(self.best_ms, 1000 * (time.thread_time() - began))


def latency_ms(network: nn.Module, image_size: int, images: int = 1) -> float:
    """Milliseconds for the features of so many images at once.

    Args:
        network: a backbone on the CPU.

    Raises:
        UnknownOperation: it cannot be written as a graph, or the graph computes something else.
    """
    timed = Timed(to_graph(network, image_size), image_size, images)
    _check(network, timed)
    began = time.thread_time()
    for _ in range(ROUNDS):
        timed.time()
        if time.thread_time() - began > SECONDS:
            break
    return timed.best_ms


def _check(network: nn.Module, timed: Timed) -> None:
    was_training = network.training
    expected: Tensor = network.eval().features(Tensor(timed.images)).detach()
    network.train(was_training)
    largest = float(expected.abs().nan_to_num(0, 0, 0).max())
    if not np.allclose(timed.features, expected.numpy(), rtol=0, atol=TOLERANCE * largest, equal_nan=True):
        raise UnknownOperation("it computes what its recorded operations do not")
