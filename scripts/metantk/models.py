"""A trained model: its two files, its network, and the tasks that it answers.

`model.json` says all that uses a model (the architecture, the learner with its options, normalisation, classes,
checksum of the weights), `model.safetensors` holds the weights: the network's by their names, what else the
learner has learned under `learner.`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, NamedTuple, Protocol, runtime_checkable

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from metantk import backbones
from metantk.backbones.counting import count_parameters
from metantk.data import transforms
from metantk.options.base import Options, parse
from metantk.runtime import devices, plugins
from metantk.runtime.files import InputError, atomic_write, sha256_of, write_json
from metantk.runtime.typed_files import BuiltArchitecture, Record, Text, check_record, read_record

DESCRIPTION, WEIGHTS = "model.json", "model.safetensors"
EXTRA = "learner."
# Pixels per forward pass: 512 images of 32 × 32, so that activations stay within some hundreds of MB.
FORWARD_PIXELS = 512 * 32 * 32


@runtime_checkable
class Stateful(Protocol):
    """What is saved with a network: a module, or whatever else gives and takes tensors by name."""

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(self, tensors: dict[str, Tensor]) -> object: ...


class TrainedModel(Record):
    """What the users of a model read of model.json."""

    architecture: dict
    learner: dict
    outputs: int = Field(ge=1, le=10**6)
    parameters: int
    image_size: int = Field(ge=1, le=1024)
    data: str | None = Field(None, max_length=4096)
    data_sha256: Text | None = None
    classes: list[str] = Field([])
    mean: list[Annotated[float, Field(ge=0, le=1)]] = Field(min_length=3, max_length=3)
    std: list[Annotated[float, Field(gt=0, le=1)]] = Field(min_length=3, max_length=3)
    weights_sha256: Text


class Model(NamedTuple):
    """A trained network and how it is used.

    Attributes:
        network: the backbone with its head, in evaluation mode.
        learner: the learner's options.
        module: the learner's module.
        extra: what else was learned, by name.
        mean, std: per channel, of images in 0..1.
        facts: the content of model.json.
    """

    network: nn.Module
    learner: Options
    module: ModuleType
    extra: dict[str, Tensor]
    mean: list[float]
    std: list[float]
    facts: dict

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 `(images, height, width, 3)`, on any device, to what the network takes."""
        return transforms.normalise(transforms.to_float(images.to(self.device)), self.mean, self.std)

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """Normalised `(images, 3, height, width)` to `(images, feature_dim)`, as many at once as fit.

        Raises:
            InputError: they are not finite.
        """
        at_once = max(1, FORWARD_PIXELS // (images.shape[-1] * images.shape[-2]))
        while True:
            try:
                features = torch.cat([self.network.features(chunk) for chunk in images.split(at_once)])
                break
            except torch.OutOfMemoryError:
                if at_once == 1:
                    raise InputError("out of memory with a single image: use a larger GPU or the CPU") from None
                at_once //= 2
        fits = features.shape == (len(images), self.network.feature_dim)
        where, width = plugins.file_of(type(self.network)), self.network.feature_dim
        plugins.expect(fits, where, "features", features, f"({len(images)}, {width})")
        if not torch.isfinite(features).all():
            raise InputError("the model's features are not finite: its weights are of no use; train again")
        return features

    def scores(self, tasks: "Tasks") -> Tensor:
        """How well each query fits each class, `(episodes, queries, ways)`, by the learner's own way.

        Raises:
            InputError: they have another shape, or are not finite.
        """
        scores = self.module.scores(self, tasks)
        fits = isinstance(scores, Tensor) and scores.dim() == 3 and scores.shape[2] == tasks.ways
        fits = fits and tasks.size in (None, scores.shape[:2])
        episodes, queries = tasks.size or ("episodes", "queries")
        expected = f"a tensor ({episodes}, {queries}, {tasks.ways})"
        plugins.expect(fits, self.learner.kind, "scores", scores, expected)
        if not torch.isfinite(scores).all():
            raise InputError(
                "the model's scores are not finite: its weights are of no use, or adapting them to a task diverged;"
                " train again, with a lower rate"
            )
        return scores


class OnFeatures(nn.Module):
    """Scores of one task's classes as an affine function of features: images to `(images, ways)`.

    Attributes:
        network: the backbone, in evaluation mode.
        weight, bias: `(ways, feature_dim)` and `(ways,)`.
        normalises: whether features are divided by their L2 norm first.
    """

    def __init__(self, network: nn.Module, weight: Tensor, bias: Tensor | None, *, normalises: bool) -> None:
        super().__init__()
        self.network, self.normalises = network, normalises
        self.register_buffer("weight", weight.detach().float().clone())
        self.register_buffer("bias", None if bias is None else bias.detach().float().clone())
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Normalised `(images, 3, height, width)` to `(images, ways)`."""
        return self.scores(self.network.features(images))

    def scores(self, features: Tensor) -> Tensor:
        """`(images, feature_dim)` to `(images, ways)`."""
        if self.normalises:
            features = nn.functional.normalize(features, dim=1)
        return nn.functional.linear(features, self.weight, self.bias)


@dataclass(frozen=True)
class Tasks:
    """Few-shot tasks of equal shape, each with supports of known and queries of unknown classes.

    Attributes:
        ways: classes of a task.
        labels: int64 `(supports,)` in 0 .. ways - 1; the same for all tasks.
        classifier: name of the classifier, for learners that leave it to the evaluation.
        size: numbers of episodes and of queries of each, where the answer's shape is to be checked.
        transductive: whether queries may be normalised by their joint statistics, as published evaluations do; else
            an answer depends on the supports and the one query alone.
        support_images, query_images: give normalised images `(episodes, supports or queries, 3, height, width)`.
        support_features, query_features: give features `(episodes, supports or queries, features)`.
        augmented_features: gives features of augmented copies of the supports `(episodes, copies, features)`, and
            their labels `(copies,)`.
    """

    ways: int
    labels: Tensor
    classifier: str
    support_images: Callable[[], Tensor]
    query_images: Callable[[], Tensor]
    support_features: Callable[[], Tensor]
    query_features: Callable[[], Tensor]
    augmented_features: Callable[[], tuple[Tensor, Tensor]]
    transductive: bool = True
    size: tuple[int, int] | None = None


def save_model(folder: Path, network: nn.Module, extra: Stateful | None, facts: dict) -> None:
    """Write both files; the description, which says that the weights are whole, last.

    Parameters are counted without the head where the backbone is frozen: nothing trains or uses it.
    """
    tensors = network.state_dict()
    if extra is not None:
        tensors |= {f"{EXTRA}{name}": tensor for name, tensor in extra.state_dict().items()}
    weights = folder / WEIGHTS
    with atomic_write(weights) as temporary:
        temporary.write_bytes(save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}))
    is_frozen = plugins.options_class("backbones", facts["architecture"]["kind"]).frozen
    parameters = count_parameters(network) - (count_parameters(network.head) if is_frozen else 0)
    counted = {"parameters": parameters, "weights_sha256": sha256_of(weights)}
    write_json(folder / DESCRIPTION, facts | counted)


def load_model(folder: Path, device: torch.device) -> Model:
    """Rebuild a trained model; from here on this process computes in the precision of its training.

    Raises:
        InputError: a file is missing, damaged, or the two do not belong together.
    """
    description = folder / DESCRIPTION
    record = read_record(description, TrainedModel, stage="train_network")
    built = check_record(record.architecture, BuiltArchitecture, where=f"{description}: architecture")
    if (side := built.model_extra.get("image_size", record.image_size)) != record.image_size:
        raise InputError(f"{description}: image_size is {record.image_size}, its architecture's is {side}")
    plugins.options_class("learners", record.learner.get("kind"))
    module = plugins.load("learners", record.learner["kind"])
    options = parse(module.Options, record.learner, where=f"{description}, learner")
    devices.set_precision(getattr(options, "precision", "float32"))
    network = backbones.build(record.architecture, record.outputs, where=str(description))
    extra = _take_weights(network, folder, record.weights_sha256)
    # A frozen backbone gets its own weights later, and may have none before.
    is_frozen = plugins.options_class("backbones", built.kind).frozen
    if not is_frozen and (count := count_parameters(network)) != record.parameters:
        raise InputError(
            f"{description}: says {record.parameters} parameters, the network has {count}; train again"
        )
    return Model(
        network.to(device, memory_format=torch.channels_last).eval(),
        options,
        module,
        {name: tensor.to(device) for name, tensor in extra.items()},
        record.mean,
        record.std,
        record.model_dump(),
    )


def _take_weights(network: nn.Module, folder: Path, checksum: str) -> dict[str, Tensor]:
    """Load the network's weights; what else was learned, by name.

    Raises:
        InputError: the file is missing, damaged, or another's.
    """
    weights, description = folder / WEIGHTS, folder / DESCRIPTION
    if not weights.is_file():
        raise InputError(f"{weights}: is missing; train again")
    if sha256_of(weights) != checksum:
        raise InputError(f"{weights}: is not the file that {description} describes; train again")
    try:
        tensors = load_file(weights)
        _load_weights(network, {name: tensor for name, tensor in tensors.items() if not name.startswith(EXTRA)})
        _check_finite(tensors)
    except (SafetensorError, RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{weights}: does not fit {description} ({reason})") from None
    return {name.removeprefix(EXTRA): tensor for name, tensor in tensors.items() if name.startswith(EXTRA)}


def _load_weights(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Raises `RuntimeError` or `ValueError` where names, shapes or types are not the network's."""
    expected = network.state_dict()
    if others := sorted(expected.keys() ^ tensors.keys()):
        raise ValueError(f"{others[0]} is {'missing' if others[0] in expected else 'unknown'}")
    for name, own in expected.items():
        if tensors[name].dtype != own.dtype:
            raise ValueError(f"{name} is {tensors[name].dtype}, not {own.dtype}")
    network.load_state_dict(tensors)


def _check_finite(tensors: dict[str, Tensor]) -> None:
    """Raises `ValueError` where a number is not finite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{name} is not finite")
