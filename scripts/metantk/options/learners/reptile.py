"""Options of Reptile."""

from typing import ClassVar, Literal

from pydantic import Field

from metantk.options.base import Need, Precision
from metantk.options.base import Options as Base
from metantk.options.meta_learning import (
    Epochs,
    InnerBatchSize,
    InnerSteps,
    MetaBatchSize,
    MetaSchedule,
    StepsPerEpoch,
    TaskImages,
    TestSteps,
    TestWays,
)


class ReptileOptions(Base):
    """Meta-learning of an initialisation that moves towards the weights trained on each task (Reptile)."""

    only_own_ways: ClassVar[bool] = True

    kind: Literal["reptile"] = "reptile"
    epochs: Epochs = 100
    steps_per_epoch: StepsPerEpoch = 1000
    meta_batch_size: MetaBatchSize = 5
    ways: TestWays = 5
    shots: TaskImages = 15
    inner_batch_size: InnerBatchSize = 10
    inner_steps: InnerSteps = 8
    test_steps: TestSteps = 50
    inner_lr: float = Field(
        1.0e-3, gt=0, description="Learning rate of Adam without momentum (β₁ = 0) in the inner loop"
    )
    weight_decay: float = Field(1.0e-4, ge=0, description="Weight decay (L2) in the inner loop")
    meta_lr: float = Field(
        1.0, gt=0, le=1, description="Share of the way to the adapted weights that a meta-step goes"
    )
    lr_schedule: MetaSchedule = "cosine"
    transductive: bool = Field(
        True,
        description="Normalise the query images of an episode by their own statistics, as published; false: by "
        "running averages of training",
    )
    precision: Precision = "float32"

    @property
    def needs(self) -> list[Need]:
        return [Need("train", self.ways, self.shots)]


Options = ReptileOptions
