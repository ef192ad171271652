"""A classifier around an ONNX file: what comes before its graph and after it, joined with it."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from metantk.deployment import exported
from metantk.models import Model
from metantk.runtime.files import InputError

if TYPE_CHECKING:
    import onnx

FEATURES, TAKEN = "features", "taken"


class Before(nn.Module):
    """What a classifier does to images in 0..1 before the file takes them."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> Tensor:
        """`(images, 3, height, width)` each."""
        return self.classifier.network.resized(self.classifier.normalised(images))


class After(nn.Module):
    """What a classifier makes of the file's features."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """`(images, feature_dim)` to `(images, ways)` and `(images, 1)`."""
        return self.classifier.outputs(features, self.classifier.answer.scores(features))


def write_around(classifier: nn.Module, model: Model, path: Path, outputs: list[str]) -> None:
    """Write a classifier whose network is an ONNX file.

    Args:
        classifier: a `metantk.deployment.classifier.Classifier`.
        outputs: names of what it gives.

    Raises:
        InputError: the graphs cannot be joined.
    """
    # Imported here: it takes seconds.
    import onnx
    from onnx.version_converter import ConvertError

    network = model.network

    def graph_of(module: nn.Module, example: Tensor, *names: str) -> onnx.ModelProto:
        exported.write_module(module, example, path, names=names, where=network.path)
        return onnx.load(path)

    before = graph_of(Before(classifier), exported.example_images(model), exported.INPUT, TAKEN)
    after = graph_of(After(classifier), torch.rand(2, network.feature_dim), FEATURES, *outputs)
    try:
        joined = join(before, onnx.load_model_from_string(network.content), after)
    except (ValueError, RuntimeError, ConvertError, onnx.checker.ValidationError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{network.path}: cannot be joined with its classifier ({reason})") from None
    onnx.save(joined, path)


def join(before: "onnx.ModelProto", body: "onnx.ModelProto", after: "onnx.ModelProto") -> "onnx.ModelProto":
    """One graph of three, in the newest of their versions; each takes the first output of the one before.

    Raises:
        ValueError and others of onnx: they cannot be joined.
    """
    from onnx import compose, inliner

    if body.functions:  # compose loses them
        body = inliner.inline_local_functions(body)
    before, body, after = _of_one_version([before, body, after])
    del body.metadata_props[:]
    before = compose.add_prefix(before, "before/", rename_inputs=False)
    after = compose.add_prefix(after, "after/", rename_outputs=False)
    if _names(body) & (_names(before) | _names(after)):
        body = compose.add_prefix(body, "body/")  # not always: it misses what a branch reads from outside
    features = _as_float(body)
    whole = compose.merge_models(before, body, [(before.graph.output[0].name, _input(body))], outputs=[features])
    return compose.merge_models(whole, after, [(features, _input(after))])


def _names(model: "onnx.ModelProto") -> set[str]:
    """Of all values but those within branches and loops."""
    return {name for node in model.graph.node for name in (*node.input, *node.output)}


def _as_float(model: "onnx.ModelProto") -> str:
    """The name of its first output, after a node that makes float32 of another type."""
    from onnx import TensorProto, helper

    output = model.graph.output[0]
    if output.type.tensor_type.elem_type == TensorProto.FLOAT:
        return output.name
    cast = model.graph.output.add()
    cast.CopyFrom(output)
    cast.name, cast.type.tensor_type.elem_type = f"{output.name}/float32", TensorProto.FLOAT
    model.graph.node.append(helper.make_node("Cast", [output.name], [cast.name], to=TensorProto.FLOAT))
    return cast.name


def _input(model: "onnx.ModelProto") -> str:
    """The name of its only input; old files name their weights as inputs, too."""
    weights = {tensor.name for tensor in model.graph.initializer}
    (name,) = [given.name for given in model.graph.input if given.name not in weights]
    return name


def _of_one_version(models: list["onnx.ModelProto"]) -> list["onnx.ModelProto"]:
    """The same with the newest set of operations, and the newest format, of all of them."""
    from onnx import version_converter

    operations = [_version(model) for model in models]
    newest, form = max(operations), max(model.ir_version for model in models)
    converted = [
        model if version == newest else version_converter.convert_version(model, newest)
        for model, version in zip(models, operations, strict=True)
    ]
    for model in converted:
        model.ir_version = form
    return converted


def _version(model: "onnx.ModelProto") -> int:
    """Of ONNX's own operations."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if len(versions) != 1:
        raise ValueError(f"it names {len(versions)} versions of ONNX's own operations")
    return versions[0]
