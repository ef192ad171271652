"""Options of Reptile."""

from typing import ClassVar, Literal

from pydantic import Field

from metantk.options.base import Count, Need
from metantk.options.base import Options as Base


class ReptileOptions(Base):
    """Meta-learning of an initialisation by moving towards where training on tasks leads (learner `reptile`)."""

    only_own_ways: ClassVar[bool] = True

    kind: Literal["reptile"] = "reptile"
    epochs: int = Field(100, ge=0, description="of meta-training; 0 leaves the network as it was drawn")
    steps_per_epoch: Count = Field(1000, description="of the outer loop, per epoch")
    meta_batch_size: Count = Field(5, description="tasks per step of the outer loop")
    ways: int = Field(5, ge=2, description="classes of a task; tests must have as many")
    shots: Count = Field(15, description="images per class of a task in training")
    inner_batch_size: Count = Field(10, description="images per inner step")
    inner_steps: Count = Field(8, description="steps of the inner loop in training")
    test_steps: int = Field(50, ge=0, description="steps of the inner loop in a test")
    inner_optimiser: Literal["adam", "sgd"] = Field("adam", description="`adam` has no momentum (β = 0, 0.999)")
    inner_lr: float = Field(1.0e-3, gt=0, description="of the inner loop")
    weight_decay: float = Field(1.0e-4, ge=0, description="of the inner loop")
    meta_lr: float = Field(1.0, gt=0, le=1, description="share of the way that an outer step goes")
    lr_schedule: Literal["constant", "cosine"] = Field("cosine", description="of the outer rate, over the epochs")
    transductive: bool = Field(
        True, description="normalise a test's queries by their own statistics; else by running averages"
    )
    precision: Literal["float32", "tf32"] = Field("float32", description="of the arithmetic, as for `rfs`")

    @property
    def needs(self) -> list[Need]:
        return [Need("train", self.ways, self.shots)]


Options = ReptileOptions
