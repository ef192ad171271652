"""Options of the MetaNAS search. Defaults: as published for mini-ImageNet. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from metantk.options.base import Count, Need
from metantk.options.base import Options as Base

# Below one in the number of operations (7) and of pairs (10 in four nodes): something always survives.
Threshold = Annotated[float, Field(ge=0, lt=0.1)]
Rate = Annotated[float, Field(ge=0)]


class Adaptation(Base):
    """How a task that was never seen is learned, weights and architecture, after meta-training."""

    inner_steps: int = Field(100, ge=0, description="steps on the support set")
    architecture_share: float = Field(
        0.5, ge=0, le=1, description="first part of the steps, in 0..1, that learns the architecture too"
    )
    inner_batch_size: Count = Field(
        15, description="images per step, drawn with replacement (published: 5 if 1-shot)"
    )
    threshold: Threshold = Field(0.05, description="operations and pairs of this weight or less are skipped")


class TaskLearning(Base):
    """How tasks are learned in meta-training, weights and, after a warm-up, a softly pruned architecture."""

    meta_batch_size: Count = Field(10, description="tasks per meta-step")
    ways: Annotated[int, Field(ge=2)] = Field(5, description="classes per task")
    shots: Count = Field(15, description="images per class of a task")
    inner_batch_size: Count = Field(20, description="images per step, drawn with replacement from the task")
    inner_lr: Rate = Field(1e-3, description="Adam's rate of the weights within a task")
    arch_inner_lr: Rate = Field(1e-3, description="Adam's rate of the architecture within a task")
    arch_weight_decay: Rate = Field(1e-3, description="L2 penalty of the architecture's parameters")
    meta_lr: Rate = Field(1.0, description="Reptile's rate of the weights")
    arch_meta_lr: Rate = Field(0.6, description="Reptile's rate of the architecture")
    drop_path_rate: float = Field(
        0.2, ge=0, lt=1, description="probability to drop an operation's output for an image"
    )
    min_temperature: float = Field(
        0.1, gt=0, le=1, description="of the softmaxes at a task's last architecture step (1 at its first)"
    )
    threshold: Threshold = Field(0.01, description="operations and pairs of this weight or less are skipped")

    @property
    def needs(self) -> list[Need]:
        return [Need("train", self.ways, self.shots)]


class MetaNasOptions(TaskLearning):
    """Reptile over tasks that learn weights and, after a warm-up, a softly pruned architecture."""

    kind: Literal["metanas"] = Field("metanas", description="the search")
    space: Literal["few-shot", "darts"] = Field("few-shot", description="what a cell can be made of")
    layout: Literal["metanas", "few-shot"] = Field(
        "metanas", description="how the network of the search stacks cells: MetaNAS's own way, or the paper's"
    )
    cells: Count | None = Field(4, description="cells of the network of the search; null: as the backbone")
    channels: Count | None = Field(28, description="channels of the network of the search; null: as the backbone")
    reductions: list[Annotated[int, Field(ge=0)]] = Field(
        [1, 3], description="numbers of the reduction cells (from 0); only for layout metanas"
    )
    image_size: Count | None = Field(None, description="pixels; images are resized to it; null: left as they are")
    epochs: Count = Field(30, description="Epochs of meta-training")
    steps_per_epoch: Count = Field(1000, description="Meta-steps per epoch")
    warm_up_epochs: int = Field(15, ge=0, description="Epochs at the start that leave the architecture as it is")
    inner_steps: Count = Field(5, description="steps per task")
    prune_every_steps: Count = Field(
        2500, description="meta-steps after which tiny operations are removed for good"
    )

    @model_validator(mode="after")
    def _warm_up_ends(self) -> "MetaNasOptions":
        if self.warm_up_epochs > self.epochs:
            raise ValueError(f"warm_up_epochs is {self.warm_up_epochs}, but there are {self.epochs} epochs")
        return self

    @property
    def meta_steps(self) -> int:
        """Meta-steps of the whole search."""
        return self.epochs * self.steps_per_epoch

    @property
    def warm_up_steps(self) -> int:
        """Meta-steps of the warm-up."""
        return self.warm_up_epochs * self.steps_per_epoch


Options = MetaNasOptions
