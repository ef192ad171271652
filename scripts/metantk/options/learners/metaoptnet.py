"""Options of MetaOptNet."""

from typing import Literal

from pydantic import Field, model_validator

from metantk.options.augmentation import AugmentationOptions
from metantk.options.base import Count, Need
from metantk.options.base import Options as Base

FACTORS = (1.0, 0.06, 0.012, 0.0024)  # of the learning rate, between the published milestones


class MetaOptNetOptions(Base):
    """Meta-learning of features for a convex classifier per task (learner `metaoptnet`)."""

    kind: Literal["metaoptnet"] = "metaoptnet"
    epochs: int = Field(60, ge=0, description="of meta-training; 0 leaves the network as it was drawn")
    steps_per_epoch: Count = Field(1000, description="per epoch")
    meta_batch_size: Count = Field(8, description="tasks per step")
    ways: int = Field(5, ge=2, description="classes of a task in training")
    shots: Count = Field(15, description="support images per class in training; one model for all tests")
    queries: Count = Field(6, description="query images per class in training")
    head: Literal["svm", "ridge"] = Field("svm", description="the classifier of a task")
    svm_c: float = Field(0.1, gt=0, description="C of the support vector machine")
    ridge: float = Field(50.0, gt=0, description="λ of the ridge regression")
    label_smoothing: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of the target that goes to the other classes (published: 0 off miniImageNet)",
    )
    lr: float = Field(0.1, gt=0, description="of SGD with Nesterov momentum, before the first milestone")
    milestones: list[Count] | None = Field(
        None,
        max_length=3,
        description="epochs after which the rate is 0.06, 0.012 and 0.0024 of what it was; null: after 1/3, 2/3 "
        "and 5/6 of them, as published",
    )
    momentum: float = Field(0.9, gt=0, lt=1, description="of SGD")
    weight_decay: float = Field(5.0e-4, ge=0, description="on all parameters")
    validation_episodes: int = Field(
        2000, ge=0, description="after each epoch; the epoch of the best accuracy on them is kept; 0: the last one"
    )
    validation_shots: Count = Field(5, description="support images per class of a validation episode")
    validation_queries: Count = Field(15, description="query images per class of a validation episode")
    drop_rate: float = Field(0.1, ge=0, lt=1, description="as for `rfs`")
    augmentation: AugmentationOptions = AugmentationOptions()
    precision: Literal["float32", "tf32", "bfloat16", "float16"] = Field(
        "float32", description="of the arithmetic, as for `rfs`"
    )

    @model_validator(mode="after")
    def _milestones_ascend_and_pass(self) -> "MetaOptNetOptions":
        milestones = self.milestones or []
        if sorted(set(milestones)) != milestones or (milestones and milestones[-1] >= self.epochs):
            raise ValueError(f"milestones must ascend and be below epochs, {self.epochs}")
        return self

    def factor(self, epoch: int) -> float:
        """On the learning rate in an epoch, counted from 0."""
        falls = self.milestones
        if falls is None:
            falls = [round(self.epochs * share) for share in (1 / 3, 2 / 3, 5 / 6)]
        return FACTORS[sum(epoch >= fall for fall in falls)]

    @property
    def needs(self) -> list[Need]:
        training = Need("train", self.ways, self.shots + self.queries)
        validation = Need("val", self.ways, self.validation_shots + self.validation_queries)
        return [training, validation] if self.validation_episodes else [training]


Options = MetaOptNetOptions
