"""Options of MAML and its kin: ANIL, first-order MAML, MAML++."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from metantk.options.augmentation import AugmentationOptions
from metantk.options.base import Count, Need
from metantk.options.base import Options as Base

Shots = Annotated[list[Count], Field(min_length=1)]


class MamlOptions(Base):
    """Meta-learning of an initialisation that a few steps of gradient descent adapt (learner `maml`)."""

    only_own_ways: ClassVar[bool] = True

    kind: Literal["maml"] = "maml"
    epochs: int = Field(60, ge=0, description="of meta-training; 0 leaves the network as it was drawn")
    steps_per_epoch: Count = Field(1000, description="of the outer loop, per epoch")
    meta_batch_size: Count = Field(4, description="tasks per step of the outer loop")
    ways: int = Field(5, ge=2, description="classes of a task; tests must have as many")
    shots: Shots = Field(
        [1, 5],
        description="support images per class in training: a network is trained for each, side by side, and a "
        "test is answered by the one that is nearest to its shots; a single number: one network for all",
    )
    queries: Count = Field(15, description="query images per class in training")
    adapt: Literal["all", "all but norms", "head"] = Field(
        "all but norms", description="what the inner loop changes; scales and offsets of norms only if `all`"
    )
    inner_steps: Count = Field(5, description="steps of the inner loop in training")
    test_steps: int = Field(10, ge=0, description="steps of the inner loop in a test")
    inner_lr: float = Field(
        0.05, gt=0, description="of the inner loop, on the mean loss (the published 0.01 is on the sum over ways)"
    )
    first_order: bool = Field(False, description="take the inner loop's gradients for constants")
    first_order_epochs: int = Field(0, ge=0, description="MAML++: epochs at first order before second order begins")
    multi_step_loss_epochs: int = Field(
        0, ge=0, description="MAML++: epochs over which the loss after every inner step gives way to the last one's"
    )
    learn_inner_lr: bool = Field(False, description="MAML++: learn an inner rate per parameter and step")
    per_step_batch_norm: bool = Field(
        False,
        description="MAML++: scales, offsets and running averages of norms apart for each inner step; takes "
        "`all but norms`",
    )
    lr_schedule: Literal["constant", "cosine"] = Field("constant", description="of the outer rate, over the epochs")
    meta_lr: float = Field(1.0e-3, gt=0, description="of the outer loop (Adam)")
    clip_grad_value: float = Field(
        10.0, gt=0, description="outer gradients are clipped to ± this, number by number"
    )
    test_classifier: Literal["head", "nil"] = Field(
        "head", description="of a test: the adapted head, or without one by cosines to the supports (NIL)"
    )
    transductive: bool = Field(
        True,
        description="normalise a test's supports and its queries by their own statistics, as published; else by "
        "the running averages of training",
    )
    joint_statistics: bool = Field(
        False, description="`head` only: supports and queries go through the body as one batch (learn2learn's ANIL)"
    )
    augmentation: AugmentationOptions | None = Field(None, description="of training images; null: none")
    precision: Literal["float32", "tf32"] = Field("float32", description="of the arithmetic, as for `rfs`")

    @model_validator(mode="after")
    def _fit_each_other(self) -> "MamlOptions":
        if self.joint_statistics and self.adapt != "head":
            raise ValueError("joint_statistics takes adapt: head")
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
    def needs(self) -> list[Need]:
        return [Need("train", self.ways, max(self.shots) + self.queries)]


Options = MamlOptions
