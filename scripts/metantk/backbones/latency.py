"""How long a network takes for the features of images, as a shipped classifier runs: onnxruntime, one CPU thread.

PyTorch would be the wrong clock: nearly all of a small network's time goes into the calling of its operations. It
took 7.4 ms instead of 0.19 (3 cells, 4 channels, 20 pixels), 17.5 instead of 1.4 (5 cells, 16 channels, 32 pixels)
and 112 instead of 55 (5 cells, 48 channels, 84 pixels; one of 2 cores, no GPU, other jobs beside, 2026-11-30).

Times are processor times of the one thread, the least of several runs. On an idle machine they are what passes on
the clock; what else runs there changes them little. Another machine has others.
"""

import time

import numpy as np
import torch
from torch import nn

from metantk.backbones.graph import INPUT, UnknownOperation, to_graph

THREADS = 1
RUNS, LEAST_RUNS = 40, 3
SECONDS = 0.2  # after which no further run begins
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

    def time_once(self) -> None:
        began = time.thread_time()
        self.run()
        self.best_ms = min(self.best_ms, 1000 * (time.thread_time() - began))


def latency_ms(network: nn.Module, image_size: int, images: int = 1) -> float:
    """Milliseconds for the features of so many images at once.

    Args:
        network: a backbone on the CPU, which is left in evaluation mode.

    Raises:
        UnknownOperation: it cannot be written as a graph, or the graph computes something else.
    """
    graph = to_graph(network, image_size)
    try:
        timed = Timed(graph, image_size, images)
    except Exception as error:  # errors of onnxruntime have no class of their own
        raise UnknownOperation(f"onnxruntime does not take it: {str(error).splitlines()[0][:200]}") from None
    _check(network, timed)
    began = time.thread_time()
    for run in range(RUNS):
        if run >= LEAST_RUNS and time.thread_time() - began > SECONDS:
            break
        timed.time_once()
    return timed.best_ms


def _check(network: nn.Module, timed: Timed) -> None:
    with torch.no_grad():
        expected = network.features(torch.from_numpy(timed.images))
    largest = float(expected.abs().nan_to_num(0, 0, 0).max())
    if not np.allclose(timed.features, expected.numpy(), rtol=0, atol=TOLERANCE * largest, equal_nan=True):
        raise UnknownOperation("it computes what its recorded operations do not")
