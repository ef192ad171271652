"""Options of the T-NAS search. Defaults: as published for 5-way 5-shot mini-ImageNet. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field

from metantk.options.base import Count, Need
from metantk.options.base import Options as Base

Rate = Annotated[float, Field(ge=0)]


class TNasOptions(Base):
    """First-order MAML on weights and architecture together."""

    kind: Literal["t-nas"] = Field("t-nas", description="the search")
    variant: Literal["t-nas", "auto-maml"] = Field(
        "t-nas", description="whether tasks adapt the architecture, or share one that is learned beside (auto-maml)"
    )
    space: Literal["few-shot", "darts"] = Field(
        "few-shot",
        description="what a cell can be made of; darts includes T-NAS's operation none during the search",
    )
    layout: Literal["t-nas", "few-shot"] = Field(
        "t-nas",
        description="how the network of the search stacks cells: T-NAS's own way (a normal and a reduction cell "
        "behind poolings), or as the backbone that is searched for",
    )
    channels: Count | None = Field(16, description="channels of the network of the search; null: as the backbone")
    image_size: Count | None = Field(None, description="pixels; images are resized to it; null: left as they are")
    ways: Annotated[int, Field(ge=2)] = Field(5, description="classes per task")
    shots: Count = Field(5, description="support images per class")
    queries: Count = Field(15, description="query images per class")
    epochs: Count = Field(10, description="Epochs of meta-training, each followed by a validation")
    steps_per_epoch: Count = Field(1250, description="Meta-steps per epoch")
    meta_batch_size: Count = Field(4, description="tasks per meta-step")
    inner_steps: Count = Field(5, description="steps per task while training")
    inner_lr: Rate = Field(0.1, description="rate of the weights within a task (published code: 0.01)")
    arch_inner_lr: Rate = Field(30.0, description="rate of the architecture within a task; unused by auto-maml")
    meta_lr: Rate = Field(1e-3, description="Adam's rate of the weights between tasks")
    arch_meta_lr: Rate | None = Field(
        None, description="Adam's rate of the architecture between tasks; null: 0.001, or 0.0003 for auto-maml"
    )
    arch_weight_decay: Rate = Field(1e-3, description="L2 penalty of the architecture's parameters")
    validation_episodes: Count = Field(100, description="validation tasks after each epoch; the best epoch is kept")
    validation_inner_steps: Count = Field(10, description="steps per validation task")

    @property
    def needs(self) -> list[Need]:
        return [Need(part, self.ways, self.shots + self.queries) for part in ("train", "val")]


Options = TNasOptions
