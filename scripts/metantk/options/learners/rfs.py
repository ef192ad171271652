"""Options of the RFS recipe: plain classification of all training classes."""

from typing import Literal

from pydantic import Field, model_validator

from metantk.options.augmentation import AugmentationOptions
from metantk.options.base import Count, MixedPrecision, Need
from metantk.options.base import Options as Base


class RfsOptions(Base):
    """Classification of all training classes, and a linear classifier on the features of each episode (RFS)."""

    kind: Literal["rfs"] = "rfs"
    epochs: Count = Field(100, description="Epochs of training, each a pass over the training split")
    lr: float = Field(0.02, gt=0, description="Learning rate of SGD before the first milestone")
    milestones: list[Count] | None = Field(
        None,
        description="Epochs after which the learning rate is multiplied by `lr_decay`, each below `epochs`. "
        "null: after 60 and 80 % of `epochs`, rounded",
    )
    lr_decay: float = Field(
        0.1, gt=0, le=1, description="Factor by which the learning rate is multiplied at each milestone"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD")
    weight_decay: float = Field(5.0e-4, ge=0, description="Weight decay (L2) of all parameters")
    batch_size: int = Field(
        64, ge=2, description="Images per step; an incomplete last batch of an epoch is dropped"
    )
    drop_rate: float = Field(
        0.2, ge=0, lt=1, description="Drop-path rate of cells at the last epoch, or dropout rate of ResNet-12"
    )
    precision: MixedPrecision = "float32"
    augmentation: AugmentationOptions = AugmentationOptions()

    @model_validator(mode="after")
    def _milestones_ascend_and_pass(self) -> "RfsOptions":
        milestones = self.milestones or []
        if sorted(set(milestones)) != milestones:
            raise ValueError("milestones must ascend")
        if milestones and milestones[-1] >= self.epochs:
            raise ValueError(
                f"milestones: {milestones[-1]} is not below epochs, {self.epochs}: the rate would never fall"
            )
        return self

    @property
    def falls(self) -> list[int]:
        """Epochs after which the rate falls."""
        if self.milestones is not None:
            return self.milestones
        return sorted({round(share * self.epochs) for share in (0.6, 0.8)} - {0, self.epochs})

    @property
    def needs(self) -> list[Need]:
        return [Need("train", images=2)]  # batch normalisation takes two


Options = RfsOptions
