"""Options of MetaNAS as a learner: meta-training of weights and architecture, adapted to each task."""

from typing import ClassVar, Literal

from pydantic import Field

from metantk.options.base import Count
from metantk.options.searches.metanas import Adaptation, TaskLearning


class MetaNasLearnerOptions(TaskLearning):
    """The model MetaNAS of Table 1, on the backbone `mixed` (learner `metanas`)."""

    only_own_ways: ClassVar[bool] = True
    only_backbones: ClassVar[tuple[str, ...]] = ("mixed",)

    kind: Literal["metanas"] = "metanas"
    epochs: int = Field(30, ge=0, description="of meta-training; 0 leaves the network as it was drawn")
    steps_per_epoch: Count = Field(1000, description="meta-steps per epoch")
    warm_up_epochs: int = Field(15, ge=0, description="epochs at the start that leave the architecture")
    inner_steps: Count = Field(5, description="steps per task")
    prune_every_steps: Count = Field(
        2500, description="meta-steps after which tiny operations are removed for good"
    )
    adaptation: Adaptation = Adaptation()
    precision: Literal["float32", "tf32"] = Field("float32", description="of the arithmetic, as for `rfs`")


Options = MetaNasLearnerOptions
