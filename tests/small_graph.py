"""A small ONNX file for tests of what takes one."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def means_graph(
    path: Path,
    *,
    size: int | str = "height",
    batch: int | str = "images",
    output: tuple = ("images", 3),
    reduce: bool = True,
    version: int = 18,
) -> Path:
    """An ONNX file: the mean of each channel, or all pixels as a map; `version` is that of its operations."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, size, size])
    features = helper.make_tensor_value_info("y", TensorProto.FLOAT, list(output))
    scale = numpy_helper.from_array(np.array([[[1.0]], [[2.0]], [[3.0]]], np.float32), "scale")
    nodes = [helper.make_node("Mul", ["x", "scale"], ["z"])]
    if reduce:
        as_input = version >= 18  # where the axes stand
        given_axes = {} if as_input else {"axes": [2, 3]}
        names = ["z", "axes"] if as_input else ["z"]
        nodes.append(helper.make_node("ReduceMean", names, ["y"], keepdims=0, **given_axes))
    else:
        nodes.append(helper.make_node("Identity", ["z"], ["y"]))
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])
    graph = helper.make_graph(nodes, "means", [given], [features], [scale, axes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=10)
    onnx.save(model, path)
    return path
