"""Options of MAML and its kin: ANIL, first-order MAML, MAML++."""

from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from metantk.options.augmentation import AugmentationOptions
from metantk.options.base import Count, Need, Precision
from metantk.options.base import Options as Base
from metantk.options.meta_learning import (
    Epochs,
    InnerSteps,
    MetaBatchSize,
    MetaSchedule,
    QueryImages,
    StepsPerEpoch,
    TestSteps,
    TestWays,
)

ShotList = Annotated[list[Count], Field(min_length=1)]
Shots = Annotated[
    ShotList,
    BeforeValidator(
        lambda given: [given] if isinstance(given, int) else given, json_schema_input_type=Count | ShotList
    ),
]


class MamlOptions(Base):
    """Meta-learning of an initialisation that a few steps of gradient descent adapt (MAML, ANIL, MAML++)."""

    only_own_ways: ClassVar[bool] = True

    kind: Literal["maml"] = "maml"
    epochs: Epochs = 60
    steps_per_epoch: StepsPerEpoch = 1000
    meta_batch_size: MetaBatchSize = 4
    ways: TestWays = 5
    shots: Shots = Field(
        [1, 5],
        description="Support images of each class in a training task. One network is trained for each number, "
        "and a test episode takes the one with the nearest number. A single number stands for one network",
    )
    queries: QueryImages = 15
    adapt: Literal["all", "all but norms", "head"] = Field(
        "all but norms",
        description="Parameters that the inner loop adapts; scales and offsets of normalisation layers only if "
        "`all`",
    )
    inner_steps: InnerSteps = 5
    test_steps: TestSteps = 10
    inner_lr: float = Field(
        0.05,
        gt=0,
        description="Learning rate of the inner loop, for the mean of the loss; the published 0.01 is for its "
        "sum over the classes",
    )
    first_order: bool = Field(
        False, description="Treat gradients of the inner loop as constants (first-order MAML)"
    )
    first_order_epochs: int = Field(
        0, ge=0, description="First epochs that treat gradients of the inner loop as constants (MAML++)"
    )
    multi_step_loss_epochs: int = Field(
        0,
        ge=0,
        description="Epochs over which the weight of the losses after each inner step moves to the last step "
        "(MAML++)",
    )
    learn_inner_lr: bool = Field(
        False, description="Learn a learning rate of the inner loop for each parameter and step (MAML++)"
    )
    per_step_batch_norm: bool = Field(
        False,
        description="Keep scales, offsets and running averages of normalisation layers for each inner step "
        "(MAML++); requires `adapt: all but norms`",
    )
    lr_schedule: MetaSchedule = "constant"
    meta_lr: float = Field(1.0e-3, gt=0, description="Learning rate of Adam in the outer loop")
    clip_grad_value: float = Field(
        10.0,
        gt=0,
        description="Largest absolute value of an entry of the outer loop's gradients; others are clipped",
    )
    test_classifier: Literal["head", "nil"] = Field(
        "head",
        description="Classifier of test episodes: the adapted head, or the cosine similarity to the support "
        "images' features (NIL)",
    )
    transductive: bool = Field(
        True,
        description="Normalise the query images of an episode by their own statistics, as published; false: by "
        "running averages of training",
    )
    joint_statistics: bool = Field(
        False,
        description="Pass support and query images through the body as one batch, as learn2learn's ANIL does; "
        "requires `adapt: head`",
    )
    augmentation: AugmentationOptions | None = Field(
        None, description="Augmentation of training images, as an object of its options; null: none"
    )
    precision: Precision = "float32"

    @model_validator(mode="after")
    def _fit_each_other(self) -> "MamlOptions":
        if self.joint_statistics and self.adapt != "head":
            raise ValueError("joint_statistics takes adapt: head")
        if 0 < self.epochs <= self.first_order_epochs:
            raise ValueError(
                f"first_order_epochs, {self.first_order_epochs}, is not below epochs, {self.epochs}: second order "
                "would never begin; first_order: true says so"
            )
        if 0 < self.epochs < self.multi_step_loss_epochs:
            raise ValueError(
                f"multi_step_loss_epochs is {self.multi_step_loss_epochs}, but there are {self.epochs} epochs"
            )
        if len(set(self.shots)) < len(self.shots):
            raise ValueError("shots: one is listed twice")
        if self.learn_inner_lr and self.test_steps > self.inner_steps:
            raise ValueError("learn_inner_lr: there is no rate for test_steps above inner_steps")
        if self.per_step_batch_norm and (self.adapt != "all but norms" or self.test_classifier != "head"):
            raise ValueError("per_step_batch_norm takes adapt: all but norms, and test_classifier: head")
        if self.per_step_batch_norm and self.test_steps > self.inner_steps:
            raise ValueError("per_step_batch_norm: there are no norms for test_steps above inner_steps")
        return self

    @property
    def uses_head(self) -> bool:
        return self.test_classifier == "head"

    @property
    def phases(self) -> list[tuple[float, "MamlOptions"]]:
        """See `metantk.options.meta_learning.phases_of`: of first or second order, with one loss or one a step."""
        changes = {self.first_order_epochs, self.multi_step_loss_epochs}
        starts = [0, *sorted(epoch for epoch in changes if 0 < epoch < self.epochs)]
        return [
            ((end - start) / max(1, self.epochs), self._all_as_in(start))
            for start, end in zip(starts, [*starts[1:], self.epochs], strict=True)
        ]

    def _all_as_in(self, epoch: int) -> "MamlOptions":
        return self.model_copy(
            update={
                "first_order": self.first_order or epoch < self.first_order_epochs,
                "first_order_epochs": 0,
                "multi_step_loss_epochs": self.epochs if epoch < self.multi_step_loss_epochs else 0,
            }
        )

    @property
    def needs(self) -> list[Need]:
        return [Need("train", self.ways, max(self.shots) + self.queries)]


Options = MamlOptions
