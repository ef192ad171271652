"""The one training loop, for all learners: steps, epochs, what a checkpoint must hold."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from metantk.data.images import ImageData
from metantk.learners.base import Learner, StepContext, check_indices, check_outcome
from metantk.runtime import plugins
from metantk.runtime.divergence import advice
from metantk.runtime.files import DivergedError

FAR = 2.0  # times the loss of guessing: no learning rate that learns ends there
log = logging.getLogger("metantk")
CURVE = ["epoch", "lr", "loss", "accuracy"]  # columns of training.csv, and validation_accuracy for some


class Trainer:
    """A learner in training and all that a checkpoint must hold.

    Attributes:
        epoch: finished epochs.
        step: finished steps of the epoch that runs.
        curve: a row for each finished epoch.
        best: the `epoch` of the best validation accuracy, counted from 1, where there is a validation: its
            `accuracy`, and the tensors of `network` and `extra`, on the CPU.
    """

    def __init__(
        self, learner: Learner, data: ImageData, *, seed: int, validation: ImageData | None = None
    ) -> None:
        self.learner = learner
        # Images come as height × width × channels; convolutions are faster when weights lie the same way.
        for network in self.networks:
            network.to(memory_format=torch.channels_last)
        self.data, self.seed, self.validation = data, seed, validation
        self.where = plugins.file_of(type(learner))  # in errors
        self.best: dict | None = None
        self.epoch = self.step = self.seen = self.counted = self.last_counted = 0
        self.curve: list[dict] = []
        # Summed on the device: reading a number would wait for the device at every step.
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=data.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=data.device)

    @property
    def networks(self) -> list[nn.Module]:
        """The learner's, and copies of it that are trained beside it (MAML's for other numbers of shots)."""
        modules = getattr(self.learner.extra, "modules", list)
        copies = [part for part in modules() if hasattr(part, "recompute")]
        return [self.learner.network, *copies]

    def state(self) -> dict:
        extra = self.learner.extra
        return {
            "network": self.learner.network.state_dict(),
            "extra": {} if extra is None else extra.state_dict(),
            "optimiser": self.learner.optimiser.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "seen": self.seen,
            "counted": self.counted,
            "last_counted": self.last_counted,
            "curve": self.curve,
            "loss_sum": self.loss_sum,
            "correct": self.correct,
            "best": self.best,
        }

    def load_state(self, state: dict) -> None:
        self.learner.network.load_state_dict(state["network"])
        if self.learner.extra is not None:
            self.learner.extra.load_state_dict(state["extra"])
        self.learner.optimiser.load_state_dict(state["optimiser"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.seen, self.counted, self.last_counted = state["seen"], state["counted"], state["last_counted"]
        self.curve, self.best = list(state["curve"]), state["best"]
        self.loss_sum.copy_(state["loss_sum"])
        self.correct.copy_(state["correct"])

    def train_epoch(self, advance: Callable[[int], None]) -> None:
        """What is left of an epoch; adds a row to the curve (loss in nats, accuracies in percent).

        After each step, and with 0 within a validation, `advance` is called, and may raise: the state is then that
        after the step.

        Raises:
            DivergedError: the loss is not finite, or, after the last epoch, the network.
            InputError: a learner of a user's own gives something else than it should.
        """
        learner = self.learner
        rate = learner.lr(self.epoch)
        is_rate = isinstance(rate, int | float) and 0 <= rate < math.inf
        plugins.expect(is_rate, self.where, "Learner.lr", rate, "a number, 0 or more")
        for group in learner.optimiser.param_groups:
            group["lr"] = rate
        learner.network.train()
        for images, labels in self.data.batches(self._indices()):
            learner.optimiser.zero_grad(set_to_none=True)
            outcome = learner.step(images, labels, StepContext(self.seed, self.epoch, self.step))
            check_outcome(outcome, self.where)
            learner.optimiser.step()
            self.loss_sum += outcome.loss * outcome.seen
            if outcome.correct is not None:
                self.correct += outcome.correct
                self.counted += outcome.seen
            self.seen += outcome.seen
            self.step += 1
            advance(1)
        plugins.expect(
            self.step == learner.steps,
            self.where,
            "Learner.indices",
            f"{self.step} batches",
            f"{learner.steps} (steps)",
        )
        self._finish_epoch(advance)

    def _indices(self) -> Iterator[Tensor]:
        """Of the batches that are left of the epoch."""
        batches = self.learner.indices(self.epoch, self.step)
        plugins.expect(
            isinstance(batches, Iterable), self.where, "Learner.indices", batches, "an iterator of batches"
        )
        for batch in batches:
            check_indices(batch, len(self.data.labels), self.where)
            yield batch

    def _finish_epoch(self, advance: Callable[[int], None]) -> None:
        rate, loss = self.learner.lr(self.epoch), float(self.loss_sum) / self.seen
        is_last = self.epoch + 1 == self.learner.epochs
        what = (
            "loss is" if not math.isfinite(loss) else "weights are" if is_last and not self._is_finite() else None
        )
        if what:
            raise DivergedError(f"training: the {what} not finite in epoch {self.epoch + 1}: {self._advice()}")
        accuracy = 100 * int(self.correct) / self.counted if self.counted else math.nan
        row = {"epoch": self.epoch + 1, "lr": rate, "loss": loss, "accuracy": accuracy}
        self.last_counted = self.counted
        if self.validation is not None:
            row["validation_accuracy"] = self._validate(lambda: advance(0))
        self.curve.append(row)
        self.epoch, self.step, self.seen, self.counted = self.epoch + 1, 0, 0, 0
        self.loss_sum.zero_()
        self.correct.zero_()

    def _is_finite(self) -> bool:
        parts = [part for part in (self.learner.network, self.learner.extra) if part is not None]
        tensors = [tensor for part in parts for tensor in part.state_dict().values()]
        return all(bool(torch.isfinite(tensor).all()) for tensor in tensors if tensor.is_floating_point())

    def _validate(self, advance: Callable[[], None]) -> float:
        """Accuracy in percent; the epoch is the result if it is better than all before."""
        accuracy = self.learner.validate(self.validation, self.epoch, advance)
        fits = isinstance(accuracy, int | float) and 0 <= accuracy <= 100
        plugins.expect(fits, self.where, "Learner.validate", accuracy, "an accuracy in percent")
        if self.best is None or accuracy > self.best["accuracy"]:
            extra = self.learner.extra
            self.best = {
                "epoch": self.epoch + 1,
                "accuracy": accuracy,
                "network": _on_cpu(self.learner.network.state_dict()),
                "extra": {} if extra is None else _on_cpu(extra.state_dict()),
            }
        return accuracy

    def _advice(self) -> str:
        return advice(getattr(self.learner, "options", None))

    def warnings(self) -> list[str]:
        """What speaks against the training: a last loss far above that of guessing, accuracies at chance."""
        if not self.curve:
            return []
        last, classes = self.curve[-1], self.learner.network.head.out_features
        guessing, found = math.log(classes), []
        if last["loss"] > FAR * guessing:
            found.append(
                f"the last epoch's loss, {last['loss']:.4g}, is far above that of guessing, {guessing:.2f}: the "
                f"training diverged or is too short: {self._advice()}"
            )
        accuracies = [("training", last["accuracy"], self.last_counted)]
        if self.best is not None:
            accuracies.append(("validation", self.best["accuracy"], getattr(self.learner, "validated", 0)))
        for name, accuracy, predictions in accuracies:
            if predictions and accuracy <= (least := _above_chance(classes, predictions)):
                found.append(
                    f"the {name} accuracy, {accuracy:.2f} %, is not above that of guessing: below {least:.2f} % of "
                    f"{predictions} predictions among {classes} classes, chance explains it"
                )
        return found

    def take_best(self) -> int:
        """Go back to the best epoch, where there is a validation; the epoch, counted from 1, or the last one."""
        if self.best is None:
            return self.epoch
        self.learner.network.load_state_dict(self.best["network"])
        if self.learner.extra is not None:
            self.learner.extra.load_state_dict(self.best["extra"])
        return self.best["epoch"]

    @property
    def steps_done(self) -> int:
        return self.epoch * self.learner.steps + self.step


def _above_chance(classes: int, predictions: int) -> float:
    """Accuracy in percent that guessing stays below in 97.5 % of cases."""
    return 100 / classes + 196 * math.sqrt((classes - 1) / predictions) / classes


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
