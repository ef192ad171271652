"""Features of an ONNX file, computed by onnxruntime on the CPU: networks of any framework, frozen.

Images of the prepared size are resized (bilinear, with antialiasing) where the file takes another one, and
normalised by the option's mean and deviation; the defaults leave them in 0..1, as files of `export_backbone.py`
take them. The file's bytes, and those of the weights beside it, are kept with the model's weights: a trained model
needs the files no longer.

A graph of ONNX's own operations is data; operations of other libraries are not loaded.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from metantk.backbones.drop import Drop
from metantk.data import transforms
from metantk.options.backbones.onnx import Architecture as Architecture
from metantk.options.backbones.onnx import Options as Options
from metantk.runtime.files import InputError
from metantk.runtime.onnx_files import Graph, count_numbers, read_onnx


class Network(nn.Module):
    """The file as a buffer of bytes, and a linear head that nothing trains.

    Attributes:
        statistics: mean and deviation of the normalisation.
        initial_weights: file and checksum, once it is read.
        numbers_in_file: its parameters, once it is read.
    """

    def __init__(self, architecture: dict, outputs: int) -> None:
        super().__init__()
        self.path, self.sha256 = architecture["file"], architecture["file_sha256"]
        self.image_size, self.input_size = architecture["image_size"], architecture["input_size"]
        self.statistics = {"mean": architecture["mean"], "std": architecture["std"]}
        self.register_buffer("file", torch.zeros(architecture["file_bytes"], dtype=torch.uint8))
        self.feature_dim = architecture["feature_dim"]
        self.head = nn.Linear(self.feature_dim, outputs)
        self.numbers_in_file = 0
        self.initial_weights: dict | None = None
        self._graph: Graph | None = None

    def features(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        """Normalised `(images, 3, height, width)` to `(images, feature_dim)`."""
        features = self.graph(self.resized(images).detach().to("cpu", torch.float32).numpy())
        return torch.from_numpy(features).to(images.device)

    @property
    def content(self) -> bytes:
        """Of the file."""
        return self.file.cpu().numpy().tobytes()

    @property
    def graph(self) -> Graph:
        """The file, opened when it is first asked for."""
        if self._graph is None:
            self._graph = Graph(self.content, where=self.path, image_size=self.image_size)
        return self._graph

    def resized(self, images: Tensor) -> Tensor:
        """Normalised images at the size that the file takes."""
        return images if self.input_size is None else transforms.resize(images, self.input_size)

    def forward(self, images: Tensor, drop: Drop | None = None) -> Tensor:
        """The head's outputs, `(images, outputs)`."""
        return self.head(self.features(images, drop))

    def initialise_(self, generator: torch.Generator) -> None:
        """Read the file; only the head, which nothing asks, is drawn.

        Raises:
            InputError: it is missing, or no longer what architecture.json describes.
        """
        found = read_onnx(Path(self.path), image_size=self.image_size)
        if found.sha256 != self.sha256:
            raise InputError(f"{self.path}: has changed since the architecture was written; write that again")
        self.file.copy_(torch.from_numpy(np.frombuffer(found.content, np.uint8).copy()))
        self.numbers_in_file, self._graph = count_numbers(found.content), None
        self.initial_weights = {"file": self.path, "sha256": found.sha256}
        nn.init.kaiming_uniform_(self.head.weight, generator=generator)
        nn.init.zeros_(self.head.bias)


def build(architecture: dict, outputs: int) -> Network:
    """The network with `outputs` outputs, its file not read yet; `architecture` as in `Architecture`."""
    return Network(architecture, outputs)
