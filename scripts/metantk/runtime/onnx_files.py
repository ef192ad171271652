"""ONNX files that turn images into features: opened, checked and run. Imports no torch.

Programs such as PyTorch's exporter write large weights into a file beside the graph's. They are read from there,
and from nowhere else, into the graph's own bytes.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from metantk.runtime.files import InputError, check_regular

if TYPE_CHECKING:
    import onnx

IMAGES = "float32 images (images, 3, height, width)"
TOLERANCE = 1e-3  # of features, relative to the largest: rounding differs with the number of images
LARGEST_GRAPH = 2**31 - 1  # bytes, of a protocol buffer


class Graph:
    """A file with one input of images and features as its first output, run on the CPU.

    Attributes:
        input_size: height and width that it takes, in pixels; none where it takes any.
        feature_dim: of its features.
        batch: images that it takes at once; none where it takes any number. 1 where the graph says any, but a
            number of images is fixed inside.
        metadata: what its maker wrote into it.
    """

    def __init__(self, content: bytes, *, where: str, image_size: int) -> None:
        """`image_size`: of an image for trying it, where it takes any size.

        Raises:
            InputError: it cannot be run, takes or gives something else, or features depend on other images.
        """
        # Imported here: most stages do without.
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        # OpenMP takes a number for each level; 0: as many as there are processors.
        threads = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
        options.intra_op_num_threads = int(threads) if threads.isdecimal() and len(threads) < 5 else 0
        try:
            # From bytes, which `read_onnx` has made whole: what would lie in other files is not looked for.
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
        self._try_out(self.input_size or image_size)

    def _try_out(self, side: int) -> None:
        """Pass two different images through it, one by one and together.

        Raises:
            InputError: as of `__call__`; or what it gives for an image depends on the other.
        """
        images = np.linspace(0, 1, 2 * 3 * side**2, dtype=np.float32).reshape(2, 3, side, side)
        alone = np.concatenate([self(images[:1]), self(images[1:])])
        self.feature_dim = alone.shape[1]
        try:
            together = self(images)
        except InputError:
            # It runs with one image, so their number is fixed inside, whatever its input says.
            self.batch = 1
            return
        largest = np.abs(alone, where=np.isfinite(alone), out=np.zeros_like(alone)).max(initial=0)
        if not np.allclose(together, alone, rtol=0, atol=TOLERANCE * largest, equal_nan=True):
            raise InputError(
                f"{self.where}: the features of an image depend on the images beside it: export the network in "
                "evaluation mode"
            )

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
    """A file and what it is.

    Attributes:
        content: its bytes, with the weights of the files beside it.
        sha256: of `content`.
    """

    content: bytes
    sha256: str
    graph: Graph


def read_onnx(path: Path, *, image_size: int) -> OnnxFile:
    """Open a file, with the weights that lie beside it.

    Raises:
        InputError: it or its weights are missing, cannot be run, or take or give something else than features of
            images.
    """
    content = _read(path)
    model = _parse(content)
    if model is not None and _external_tensors(model):
        content = _with_weights(model, path)
    return OnnxFile(
        content, hashlib.sha256(content).hexdigest(), Graph(content, where=str(path), image_size=image_size)
    )


def files_beside(path: Path) -> list[str]:
    """Paths of the files that hold weights of a file; none of what is missing or no ONNX file.

    Raises:
        InputError: they would lie elsewhere than beside it, or it cannot be read.
    """
    model = _parse(_read(path)) if path.is_file() else None
    tensors = _external_tensors(model) if model is not None else []
    return list(dict.fromkeys(str(_place(tensor, path)) for tensor in tensors))


def _read(path: Path) -> bytes:
    check_regular(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _parse(content: bytes) -> "onnx.ModelProto | None":
    """The graph; None of what is no ONNX file, of which running it says more."""
    # Imported here: most stages do without.
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load_model_from_string(content)
    except DecodeError:
        return None


def _external_tensors(model: "onnx.ModelProto") -> list:
    """Tensors whose numbers lie in other files."""
    import onnx

    nodes = (node for function in model.functions for node in function.node)
    found = [*_tensors_of_graph(model.graph), *(tensor for node in nodes for tensor in _tensors_of_node(node))]
    return [tensor for tensor in found if tensor.data_location == onnx.TensorProto.EXTERNAL]


def _tensors_of_graph(graph: "onnx.GraphProto") -> Iterator:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _tensors_of_node(node)


def _tensors_of_node(node: "onnx.NodeProto") -> Iterator:
    for attribute in node.attribute:
        yield from (attribute.t, *attribute.tensors)
        for graph in (attribute.g, *attribute.graphs):
            yield from _tensors_of_graph(graph)


def _with_weights(model: "onnx.ModelProto", path: Path) -> bytes:
    """The bytes of a graph that holds all of its numbers.

    Raises:
        InputError: a file of weights is missing, too short, or not beside the graph's; or all is too large.
    """
    import onnx

    for tensor in _external_tensors(model):
        place = _place(tensor, path)
        check_regular(place, f"; {path} has its weights there")
        first, length = _extent(tensor, place.stat().st_size, path)
        with place.open("rb") as file:
            file.seek(first)
            tensor.raw_data = file.read(length)
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]
    if model.ByteSize() > LARGEST_GRAPH:
        raise InputError(f"{path}: holds {model.ByteSize() / 1e9:.1f} GB with its weights; 2 GB are the most")
    return model.SerializeToString(deterministic=True)


def _extent(tensor: "onnx.TensorProto", size: int, path: Path) -> tuple[int, int]:
    """Offset and length of a tensor's numbers in a file of `size` bytes; by default they are all of it.

    Raises:
        InputError: they are not within the file.
    """
    given = {entry.key: entry.value for entry in tensor.external_data}
    first, length = given.get("offset", "0"), given.get("length", "")
    if first.isdecimal() and (length or "0").isdecimal():
        first, length = int(first), int(length) if length else size - int(first)
        if 0 <= length <= size - first:
            return first, length
    raise InputError(f"{_place(tensor, path)}: has {size} bytes, not all of the weights that {path} takes of it")


def _place(tensor: "onnx.TensorProto", path: Path) -> Path:
    """The file of a tensor's numbers, beside that of the graph.

    Raises:
        InputError: it would be another place.
    """
    name = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    name = name.removeprefix("./")
    if name in ("", ".", "..") or Path(name).name != name:
        raise InputError(f"{path}: names {name!r} as the file of its weights; they have to lie beside it")
    return path.parent / name


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
