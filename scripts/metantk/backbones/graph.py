"""A network's features as an ONNX graph, written within a tenth of a second.

PyTorch's own exporter, which writes the files that are shipped, takes seconds for each network. Here the operations
of one image are recorded and written as they are, with the batch left open. Both take onnxruntime as long: 1.24 ms
each for 5 cells of 16 channels and 32 pixels (one of 2 cores, no GPU, other jobs beside, 2026-11-30).
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

INPUT, OUTPUT = "images", "features"
OPSET, IR_VERSION = 18, 10
aten = torch.ops.aten


class UnknownOperation(Exception):
    """A network does what cannot be written here."""


def to_graph(network: nn.Module, image_size: int) -> bytes:
    """An ONNX file that turns float32 `(images, 3, height, width)` into `(images, feature_dim)`.

    Args:
        network: a backbone on the CPU, which is left in evaluation mode.

    Raises:
        UnknownOperation: the network does what cannot be written here.
    """
    # Imported here: most stages do without.
    from onnx import TensorProto, helper

    image = torch.zeros(1, 3, image_size, image_size)
    recorder = _Recorder(image)
    try:
        with recorder:
            features = network.eval().features(image)
    except UnknownOperation:
        raise
    except Exception as error:  # of a network that works, but not while it is recorded
        reason = (str(error).splitlines() or [""])[0][:200]
        raise UnknownOperation(f"{type(error).__name__}: {reason}") from error
    dims = ["batch", 3, image_size, image_size]
    graph = helper.make_graph(
        [*recorder.nodes, helper.make_node("Identity", [recorder.name_of(features)], [OUTPUT])],
        "features",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", features.shape[1]])],
        recorder.constants,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION).SerializeToString()


class _Recorder(TorchDispatchMode):
    """Writes down each operation on what comes from the image; all else is a constant."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.nodes: list = []
        self.constants: list = []
        self._names = {id(image): INPUT}
        self._alive = [image]  # another tensor would take the number of one that is gone

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: to skip what compiles networks, PyTorch would import it, for three seconds."""
        return False

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        flat = [item for value in args for item in (value if isinstance(value, list | tuple) else [value])]
        if any(id(item) in self._names for item in flat if isinstance(item, Tensor)):
            first = result[0] if isinstance(result, tuple) else result
            self._name(first, self._write(function, first, args, kwargs or {}))
        return result

    def _write(self, function, result: Tensor, args: tuple, kwargs: dict) -> str:
        if function not in WRITERS:
            raise UnknownOperation(f"{function} is not known")
        try:
            return WRITERS[function](self, result, *args, **kwargs)
        except TypeError:
            raise UnknownOperation(f"{function} has other arguments than those known") from None

    def _name(self, tensor: Tensor, name: str) -> str:
        self._names[id(tensor)] = name
        self._alive.append(tensor)
        return name

    def name_of(self, tensor: Tensor) -> str:
        """Its name in the graph; what was not computed from the image is a constant."""
        if not isinstance(tensor, Tensor):
            raise UnknownOperation(f"{tensor!r} stands where a tensor is expected")
        return self._names.get(id(tensor)) or self._name(tensor, self.constant(tensor.detach().numpy()))

    def constant(self, values: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, kind: str, inputs: list[Tensor | str], **attributes: object) -> str:
        """Write an operation of ONNX; the name of its output."""
        from onnx import helper

        names = [item if isinstance(item, str) else self.name_of(item) for item in inputs]
        name = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [name], **attributes))
        return name


Writer = Callable[..., str]


def _convolution(recorder, result, x, weight, bias, stride, padding, dilation, transposed, _, groups) -> str:
    inputs = [x, weight] if bias is None else [x, weight, bias]
    return recorder.node("Conv", inputs, strides=stride, pads=[*padding] * 2, dilations=dilation, group=groups)


def _batch_norm(recorder, result, x, weight, bias, mean, variance, *arguments) -> str:
    if mean is None:
        raise UnknownOperation("a norm uses the statistics of the batch")
    return recorder.node("BatchNormalization", [x, weight, bias, mean, variance], epsilon=arguments[-1])


def _max_pool(recorder, result, x, size, stride=(), padding=(0, 0), dilation=(1, 1), ceil=False) -> str:
    if (*dilation, ceil) != (1, 1, False):
        raise UnknownOperation("a pooling is dilated or rounds up")
    return recorder.node("MaxPool", [x], kernel_shape=size, strides=stride or size, pads=[*padding] * 2)


def _slice(recorder, result, x, dimension=0, start=None, end=None, step=1) -> str:
    if result.shape == x.shape:
        return recorder.name_of(x)
    bounds = (start or 0, x.shape[dimension] if end is None else end, dimension, step)
    return recorder.node("Slice", [x, *(recorder.constant(np.array([bound], np.int64)) for bound in bounds)])


def _pad(recorder, result, x, padding, value=0.0) -> str:
    """PyTorch begins with the last dimension, ONNX has all beginnings first."""
    given = list(zip(padding[::2], padding[1::2], strict=True))[::-1]
    pairs = [(0, 0)] * (x.ndim - len(given)) + given
    sizes = np.array(pairs, np.int64).T.ravel()
    return recorder.node("Pad", [x, recorder.constant(sizes), recorder.constant(np.array(value, np.float32))])


def _add(recorder, result, x, other, alpha=1) -> str:
    if alpha != 1:
        raise UnknownOperation(f"a sum is weighted by {alpha}")
    is_start_of_sum = not isinstance(other, Tensor) and other == 0
    return recorder.name_of(x) if is_start_of_sum else recorder.node("Add", [x, other])


def _mean(recorder, result, x, dimensions, keepdim=False, dtype=None) -> str:
    return recorder.node(
        "ReduceMean", [x, recorder.constant(np.array(dimensions, np.int64))], keepdims=int(keepdim)
    )


def _flatten(recorder, result, x, size) -> str:
    if result.shape != (x.shape[0], x[0].numel()):
        raise UnknownOperation(f"{tuple(x.shape)} becomes {tuple(result.shape)}")
    return recorder.node("Flatten", [x])


def _same(recorder, result, x, *_, **__) -> str:
    return recorder.name_of(x)


def _ones(recorder, result, *_, **__) -> str:
    return recorder.constant(result.numpy())


WRITERS: dict[object, Writer] = {
    aten.convolution.default: _convolution,
    aten.native_batch_norm.default: _batch_norm,
    aten.relu.default: lambda recorder, result, x: recorder.node("Relu", [x]),
    aten.leaky_relu.default: lambda recorder, result, x, slope=0.01: recorder.node("LeakyRelu", [x], alpha=slope),
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.slice.Tensor: _slice,
    aten.constant_pad_nd.default: _pad,
    aten.add.Tensor: _add,
    aten.mul.Tensor: lambda recorder, result, x, other: recorder.node("Mul", [x, other]),
    aten.cat.default: lambda recorder, result, parts, axis=0: recorder.node("Concat", parts, axis=axis),
    aten.mean.dim: _mean,
    aten.view.default: _flatten,
    aten._unsafe_view.default: _flatten,  # of channels-last maps
    aten.new_ones.default: _ones,
    aten.clone.default: _same,
    aten.detach.default: _same,
}
