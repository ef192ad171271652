"""Options of the T-NAS search. Defaults: as published for 5-way 5-shot mini-ImageNet. Imports no torch."""

from typing import Literal

from pydantic import Field, model_validator

from metantk.options.base import Count, Need, Space
from metantk.options.base import Options as Base
from metantk.options.meta_learning import (
    ArchWeightDecay,
    InnerSteps,
    MetaBatchSize,
    QueryImages,
    Rate,
    ResizedImages,
    SearchChannels,
    SearchEpochs,
    StepsPerEpoch,
    SupportImages,
    Ways,
)


class TNasOptions(Base):
    """First-order MAML on weights and architecture together (T-NAS, Auto-MAML)."""

    kind: Literal["t-nas"] = "t-nas"
    variant: Literal["t-nas", "auto-maml"] = Field(
        "t-nas",
        description="Role of the architecture: adapted to each task (`t-nas`), or shared by all (`auto-maml`)",
    )
    space: Space = Field(
        "few-shot",
        description="Search space: operations and number of nodes of a cell; `darts` includes T-NAS's operation "
        "`none` during the search",
    )
    layout: Literal["t-nas", "few-shot"] = Field(
        "t-nas",
        description="Stacking of cells in the network of the search. `t-nas`: a normal and a reduction cell "
        "behind poolings; `few-shot`: that of the backbone",
    )
    channels: SearchChannels = 16
    image_size: ResizedImages = None
    ways: Ways = 5
    shots: SupportImages = 5
    queries: QueryImages = 15
    epochs: SearchEpochs = 10
    steps_per_epoch: StepsPerEpoch = 1250
    meta_batch_size: MetaBatchSize = 4
    inner_steps: InnerSteps = 5
    inner_lr: Rate = Field(0.1, description="Learning rate of the weights in the inner loop (published code: 0.01)")
    arch_inner_lr: Rate = Field(
        30.0, description="Learning rate of the architecture in the inner loop; for `variant: t-nas` only"
    )
    meta_lr: Rate = Field(1e-3, description="Learning rate of Adam for the weights in the outer loop")
    arch_meta_lr: Rate | None = Field(
        None,
        description="Learning rate of Adam for the architecture in the outer loop; null: 0.001, or 0.0003 for "
        "`variant: auto-maml`",
    )
    arch_weight_decay: ArchWeightDecay = 1e-3
    validation_episodes: Count = Field(
        100,
        description="Validation episodes after each epoch; the architecture of the best epoch is kept",
    )
    validation_inner_steps: Count = Field(10, description="Steps of the inner loop on a validation episode")

    @model_validator(mode="after")
    def _images_survive_the_poolings(self) -> "TNasOptions":
        if self.image_size is not None and self.image_size < self.smallest_image:
            raise ValueError(
                f"image_size {self.image_size} is too small: "
                f"layout {self.layout} needs {self.smallest_image} pixels"
            )
        return self

    @property
    def smallest_image(self) -> int:
        """Least height and width of an image in the network of the search, in pixels."""
        return 4 if self.layout == "t-nas" else 1  # twice halved by poolings

    @property
    def needs(self) -> list[Need]:
        side = self.smallest_image if self.image_size is None else 1
        return [Need(split, self.ways, self.shots + self.queries, side=side) for split in ("train", "val")]


Options = TNasOptions
