"""Options of the MetaNAS search. Defaults: as published for mini-ImageNet. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from metantk.options.base import Count, Need, Space
from metantk.options.base import Options as Base
from metantk.options.meta_learning import (
    ArchWeightDecay,
    InnerBatchSize,
    InnerSteps,
    MetaBatchSize,
    PruneEverySteps,
    Rate,
    ResizedImages,
    SearchCells,
    SearchChannels,
    SearchEpochs,
    StepsPerEpoch,
    TaskImages,
    WarmUpEpochs,
    Ways,
)

# Below one in the number of operations (7) and of pairs (10 in four nodes): something always survives.
Threshold = Annotated[
    float,
    Field(
        ge=0, lt=0.1, description="Weight at or below which operations, and pairs of a node's inputs, are skipped"
    ),
]


def check_warm_up(warm_up_epochs: int, epochs: int) -> None:
    """Raises `ValueError` where the architecture would never be learned; a training of no epochs has no phases."""
    if 0 < epochs <= warm_up_epochs:
        raise ValueError(
            f"warm_up_epochs, {warm_up_epochs}, is not below epochs, {epochs}: the architecture "
            "would never be learned"
        )


class Adaptation(Base):
    """Adaptation of weights and architecture to a test episode."""

    inner_steps: int = Field(100, ge=0, description="Steps of the inner loop on the support set of a test episode")
    architecture_share: float = Field(
        0.5, ge=0, le=1, description="Share of the steps, from the first, that adapt the architecture too"
    )
    inner_batch_size: Count = Field(
        15,
        description="Images per step, sampled with replacement from the support set (published for 1 shot: 5)",
    )
    threshold: Threshold = 0.05


class TaskLearning(Base):
    """Learning of training tasks: weights and, after a warm-up, a softly pruned architecture."""

    steps_per_epoch: StepsPerEpoch = 1000
    warm_up_epochs: WarmUpEpochs = 15
    meta_batch_size: MetaBatchSize = 10
    ways: Ways = 5
    shots: TaskImages = 15
    inner_steps: InnerSteps = 5
    inner_batch_size: InnerBatchSize = 20
    inner_lr: Rate = Field(1e-3, description="Learning rate of Adam for the weights in the inner loop")
    arch_inner_lr: Rate = Field(1e-3, description="Learning rate of Adam for the architecture in the inner loop")
    arch_weight_decay: ArchWeightDecay = 1e-3
    meta_lr: Rate = Field(
        1.0, description="Share of the way to the adapted weights that a meta-step of Reptile goes"
    )
    arch_meta_lr: Rate = Field(
        0.6, description="Share of the way to the adapted architecture that a meta-step of Reptile goes"
    )
    drop_path_rate: float = Field(
        0.2, ge=0, lt=1, description="Probability that an operation's output is dropped for an image"
    )
    min_temperature: float = Field(
        0.1,
        gt=0,
        le=1,
        description="Temperature of the softmaxes at the last architecture step of a task; it is 1 at the first",
    )
    threshold: Threshold = 0.01
    prune_every_steps: PruneEverySteps = 2500

    @property
    def needs(self) -> list[Need]:
        return [Need("train", self.ways, self.shots)]


class MetaNasOptions(TaskLearning):
    """Reptile over tasks that learn weights and, after a warm-up, a softly pruned architecture (MetaNAS)."""

    kind: Literal["metanas"] = "metanas"
    space: Space = "few-shot"
    layout: Literal["metanas", "few-shot"] = Field(
        "metanas", description="Stacking of cells in the network of the search: that of MetaNAS, or of the paper"
    )
    cells: SearchCells = 4
    channels: SearchChannels = 28
    reductions: list[Annotated[int, Field(ge=0)]] = Field(
        [1, 3], description="Indices of the reduction cells, from 0; for `layout: metanas` only"
    )
    image_size: ResizedImages = None
    epochs: SearchEpochs = 30

    @model_validator(mode="after")
    def _warm_up_ends(self) -> "MetaNasOptions":
        check_warm_up(self.warm_up_epochs, self.epochs)
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
