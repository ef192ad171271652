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

    steps: int = Field(100, ge=0, description="steps on the support set")
    architecture_share: float = Field(
        0.5, ge=0, le=1, description="first part of the steps, in 0..1, that learns the architecture too"
    )
    batch: Count = Field(15, description="pictures per step, drawn with replacement (published: 5 if 1-shot)")
    threshold: Threshold = Field(0.05, description="operations and pairs of this weight or less are skipped")


class TaskLearning(Base):
    """How tasks are learned in meta-training, weights and, after a warm-up, a softly pruned architecture."""

    tasks: Count = Field(10, description="tasks per meta-step")
    ways: Annotated[int, Field(ge=2)] = Field(5, description="classes per task")
    shots: Count = Field(15, description="pictures per class of a task")
    batch: Count = Field(20, description="pictures per step, drawn with replacement from the task")
    weight_rate: Rate = Field(1e-3, description="Adam's rate of the weights within a task")
    alpha_rate: Rate = Field(1e-3, description="Adam's rate of the architecture within a task")
    alpha_decay: Rate = Field(1e-3, description="L2 penalty of the architecture's parameters")
    meta_weight_rate: Rate = Field(1.0, description="Reptile's rate of the weights")
    meta_alpha_rate: Rate = Field(0.6, description="Reptile's rate of the architecture")
    drop_path: float = Field(0.2, ge=0, lt=1, description="probability to drop an operation's output for a picture")
    minimum_temperature: float = Field(
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
    image_size: Count | None = Field(None, description="pixels; pictures are resized to it; null: left as they are")
    meta_epochs: Count = Field(30000, description="meta-steps")
    warm_up_epochs: int = Field(15000, ge=0, description="meta-steps at the start that leave the architecture")
    steps: Count = Field(5, description="steps per task")
    prune_every: Count = Field(2500, description="meta-steps after which tiny operations are removed for good")

    @model_validator(mode="after")
    def _warm_up_ends(self) -> "MetaNasOptions":
        if self.warm_up_epochs > self.meta_epochs:
            raise ValueError(
                f"warm_up_epochs is {self.warm_up_epochs}, but there are {self.meta_epochs} meta_epochs"
            )
        return self


Options = MetaNasOptions
