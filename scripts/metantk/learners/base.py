"""What a learner is given and what it hands over.

Each learner is a module of this package, or a .py file of one's own, that holds `Options` (a class of
`metantk.options.base.Options`), how many outputs its network has, how it trains, and how a trained model answers:

    def outputs(options: Options, classes: int) -> int
    class Learner: as the protocol below; made by Learner(options, network, images, seed)
    def scores(model: Model, tasks: Tasks) -> Tensor

A module whose answer to one image depends on no other query may hold

    def classifier(model: Model, tasks: Tasks) -> nn.Module

which gives the scores of a single, not transductive task as a fixed function of normalised images, in evaluation
mode: `(images, 3, height, width)` to `(images, ways)`, classified by logistic regression where `scores` asks the
tasks. export_classifier.py writes it.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from metantk.models import Stateful
from metantk.runtime import plugins
from metantk.runtime.devices import generator


class StepContext(NamedTuple):
    """A step of a training. Random numbers come from generators that it names: a resumed training has the same."""

    seed: int
    epoch: int
    step: int

    def generator(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """On the CPU the random numbers of a seed are the same for every device that they go to."""
        return generator(purpose, *self, device=device)


class Outcome(NamedTuple):
    """What a step has seen.

    Attributes:
        loss: mean over what was predicted, in nats; on the device.
        correct: number of correct predictions, on the device; None where a learner does not count them.
        seen: number of predictions.
    """

    loss: Tensor
    correct: Tensor | None
    seen: int


class Learner(Protocol):
    """How a network learns.

    A learner may have `validate(images, epoch, advance) -> float` (and then says by None whether it is not to be
    used): accuracy in percent on images of the validation classes after an epoch, counted from 0. The model is then
    that of the epoch where it is largest, else of the last. It calls `advance()`, which may raise, after each share
    of its work. `validated` is then the number of predictions that the accuracy is of. One that validates on tasks
    may have `validation_tasks(images)`, which is called before the first epoch and raises where images are too few.

    Attributes:
        network: the backbone with its head.
        extra: what else is learned, such as the scale of a head; saved with the model.
        optimiser: of all parameters.
        epochs: of the training.
        steps: of an epoch.
    """

    network: nn.Module
    extra: Stateful | None
    optimiser: torch.optim.Optimizer
    epochs: int
    steps: int

    def lr(self, epoch: int) -> float:
        """Of the optimiser in an epoch, counted from 0."""

    def indices(self, epoch: int, first: int) -> Iterator[Tensor]:
        """Indices of the images of each step of an epoch, from step `first` on; on the CPU."""

    def step(self, images: Tensor, labels: Tensor, context: StepContext) -> Outcome:
        """Leave the gradients of a step in the parameters.

        Args:
            images: uint8 `(images, height, width, 3)`, on the device.
            labels: int64 `(images,)`, on the device.
        """


def check_learner(learner: object, where: str) -> None:
    """Refuse a learner of a user's own that lacks what the training asks of it.

    Raises:
        InputError: an attribute or a method is missing, or of another type.
    """
    types = {"network": nn.Module, "extra": Stateful | None, "optimiser": torch.optim.Optimizer, "epochs": int}
    for name, expected in (types | {"steps": int}).items():
        value = getattr(learner, name, f"no {name}")
        plugins.expect(isinstance(value, expected), where, f"Learner(...).{name}", value, _name_of(expected))
    plugins.expect(learner.epochs >= 0, where, "Learner(...).epochs", learner.epochs, "0 or more")
    plugins.expect(
        learner.steps > 0 or learner.epochs == 0, where, "Learner(...).steps", learner.steps, "1 or more"
    )
    for name in ("lr", "indices", "step"):
        method = getattr(learner, name, None)
        plugins.expect(callable(method), where, f"Learner(...).{name}", method, "a method")


def _name_of(expected: type) -> str:
    return getattr(expected, "__name__", str(expected))


def check_indices(batch: object, images: int, where: str) -> None:
    """Refuse what is no batch: indices below the number of images.

    Raises:
        InputError: it is something else.
    """
    fits = isinstance(batch, Tensor) and batch.dtype == torch.int64 and batch.dim() == 1 and len(batch) > 0
    fits = fits and 0 <= int(batch.min()) <= int(batch.max()) < images
    plugins.expect(fits, where, "Learner.indices", batch, f"int64 tensors (images,) of 0 to {images - 1}")


def check_outcome(outcome: object, where: str) -> None:
    """Refuse what is no outcome of a step.

    Raises:
        InputError: it is something else.
    """
    plugins.expect(isinstance(outcome, Outcome), where, "Learner.step", outcome, "metantk.learners.base.Outcome")
    loss, correct, seen = outcome
    for name, value in (("loss", loss), ("correct", correct)):
        fits = isinstance(value, Tensor) and value.dim() == 0
        fits = fits or (name == "correct" and value is None)
        plugins.expect(fits, where, f"Learner.step's {name}", value, "a tensor ()")
    plugins.expect(isinstance(seen, int) and seen > 0, where, "Learner.step's seen", seen, "a whole number above 0")
