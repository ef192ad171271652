"""ONNX files that turn images into features: opened, checked and run. Imports no torch."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from metantk.runtime.files import InputError, check_regular

IMAGES = "float32 images (images, 3, height, width)"


class Graph:
    """A file with one input of images and features as its first output, run on the CPU.

    Attributes:
        input_size: height and width that it takes, in pixels; none where it takes any.
        feature_dim: of its features.
        batch: images that it takes at once; none where it takes any number.
        metadata: what its maker wrote into it.
    """

    def __init__(self, content: bytes, *, where: str, image_size: int) -> None:
        """`image_size`: of an image for trying it, where it takes any size.

        Raises:
            InputError: it cannot be run, or takes or gives something else.
        """
        # Imported here: most stages do without.
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # OpenMP takes a number for each level; 0: as many as there are processors.
        threads = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
        options.intra_op_num_threads = int(threads) if threads.isdecimal() and len(threads) < 5 else 0
        try:
            # From bytes: what would lie in other files is not looked for.
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # errors of onnxruntime have no class of their own
            raise InputError(f"{where}: is no ONNX file that can be run ({_reason(error)})") from None
        inputs = self._session.get_inputs()
        shape = inputs[0].shape if len(inputs) == 1 else []
        if len(shape) != 4 or shape[1] != 3 or inputs[0].type != "tensor(float)" or _side(shape) == -1:
            found = ", ".join(f"{given.type} {given.shape}" for given in inputs) or "nothing"
            raise InputError(f"{where}: takes {found}; expected {IMAGES}")
        self._name = inputs[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.where = where
        self.batch = shape[0] if isinstance(shape[0], int) else None
        self.input_size = _side(shape)
        try:
            self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        except UnicodeDecodeError:
            raise InputError(f"{where}: is damaged: its metadata are no text") from None
        self.feature_dim = 0
        side = self.input_size or image_size
        self.feature_dim = self(np.zeros((1, 3, side, side), np.float32)).shape[1]

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """float32 `(images, 3, height, width)` to `(images, feature_dim)`.

        Raises:
            InputError: it fails, or gives something else.
        """
        return self.first_outputs(images, 1)[0]

    def first_outputs(self, images: np.ndarray, count: int) -> list[np.ndarray]:
        """The first `count` outputs, each float32 `(images, numbers)`; arguments and errors of a call."""
        each = self.batch or max(1, len(images))
        parts = [images[first : first + each] for first in range(0, len(images), each)]
        values = [self._run(part, each, count) for part in parts]
        return [np.concatenate(output) for output in zip(*values, strict=True)]

    def _run(self, images: np.ndarray, size: int, count: int) -> list[np.ndarray]:
        padding = np.zeros((size - len(images), *images.shape[1:]), np.float32)
        given = np.ascontiguousarray(np.concatenate([images, padding]))
        try:
            outputs = self._session.run(self._outputs[:count], {self._name: given})
        except Exception as error:
            raise InputError(f"{self.where}: cannot be run on {images.shape} ({_reason(error)})") from None
        for features in outputs:
            if features.dtype.kind != "f" or features.ndim != 2 or len(features) != size:
                raise InputError(
                    f"{self.where}: gives {features.dtype} {features.shape} of {size} images; expected features "
                    "(images, features): leave out the classifier, and average over the last map"
                )
        return [features[: len(images)].astype(np.float32) for features in outputs]


class OnnxFile(NamedTuple):
    """A file's content and what it is."""

    content: bytes
    sha256: str
    graph: Graph


def read_onnx(path: Path, *, image_size: int) -> OnnxFile:
    """Open a file.

    Raises:
        InputError: it is missing, cannot be run, or takes or gives something else than features of images.
    """
    check_regular(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return OnnxFile(
        content, hashlib.sha256(content).hexdigest(), Graph(content, where=str(path), image_size=image_size)
    )


def count_numbers(content: bytes) -> int:
    """Numbers that a graph holds: its parameters, statistics and constants."""
    # Imported here: most stages do without.
    import onnx

    return sum(int(np.prod(tensor.dims)) for tensor in onnx.load_model_from_string(content).graph.initializer)


def _side(shape: list) -> int | None:
    """Height and width of the images: none where they are left open, -1 where they are no square."""
    height, width = shape[2:]
    if not isinstance(height, int) or not isinstance(width, int):
        return None
    return height if height == width else -1


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
