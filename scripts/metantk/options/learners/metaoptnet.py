"""Options of MetaOptNet."""

from typing import Literal

from pydantic import Field, model_validator

from metantk.options.augmentation import AugmentationOptions
from metantk.options.base import Count, MixedPrecision, Need
from metantk.options.base import Options as Base
from metantk.options.meta_learning import (
    Epochs,
    MetaBatchSize,
    QueryImages,
    StepsPerEpoch,
    SupportImages,
    ValidationQueries,
    ValidationShots,
    Ways,
)

FACTORS = (1.0, 0.06, 0.012, 0.0024)  # of the learning rate, between the published milestones


class MetaOptNetOptions(Base):
    """Meta-learning of features for a convex classifier per task (MetaOptNet)."""

    kind: Literal["metaoptnet"] = "metaoptnet"
    epochs: Epochs = 60
    steps_per_epoch: StepsPerEpoch = 1000
    meta_batch_size: MetaBatchSize = 8
    ways: Ways = 5
    shots: SupportImages = 15
    queries: QueryImages = 6
    head: Literal["svm", "ridge"] = Field(
        "svm", description="Classifier of an episode: a support vector machine, or ridge regression"
    )
    svm_c: float = Field(0.1, gt=0, description="Regularisation parameter C of the support vector machine")
    ridge: float = Field(50.0, gt=0, description="Regularisation parameter λ of the ridge regression")
    label_smoothing: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of the target that is spread over the other classes (published: 0 off miniImageNet)",
    )
    lr: float = Field(
        0.1, gt=0, description="Learning rate of SGD with Nesterov momentum before the first milestone"
    )
    milestones: list[Count] | None = Field(
        None,
        max_length=3,
        description="Epochs after which the learning rate is 0.06, 0.012 and 0.0024 of `lr`. null: after 1/3, "
        "2/3 and 5/6 of `epochs`, as published",
    )
    momentum: float = Field(0.9, gt=0, lt=1, description="Nesterov momentum of SGD")
    weight_decay: float = Field(5.0e-4, ge=0, description="Weight decay (L2) of all parameters")
    validation_episodes: int = Field(
        2000,
        ge=0,
        description="Validation episodes after each epoch; the epoch of the best accuracy is kept. 0: no "
        "validation, the last epoch is kept",
    )
    validation_shots: ValidationShots = 5
    validation_queries: ValidationQueries = 15
    drop_rate: float = Field(
        0.1, ge=0, lt=1, description="Drop-path rate of cells at the last epoch, or dropout rate of ResNet-12"
    )
    augmentation: AugmentationOptions = AugmentationOptions()
    precision: MixedPrecision = "float32"

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
            falls = [max(1, round(self.epochs * share)) for share in (1 / 3, 2 / 3, 5 / 6)]
        return FACTORS[sum(epoch >= fall for fall in falls)]

    @property
    def needs(self) -> list[Need]:
        training = Need("train", self.ways, self.shots + self.queries)
        validation = Need("val", self.ways, self.validation_shots + self.validation_queries)
        return [training, validation] if self.validation_episodes else [training]


Options = MetaOptNetOptions
