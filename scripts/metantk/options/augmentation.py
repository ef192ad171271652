"""Options of the augmentation of images, in training and in the evaluation."""

from pydantic import Field

from metantk.options.base import Options


class AugmentationOptions(Options):
    """Random augmentation of training images, and of the copies of support images."""

    padding: int = Field(8, ge=0, le=1024, description="Padding on each side before the random crop, in pixels")
    jitter: float = Field(
        0.4, ge=0, le=1, description="Strength of the changes of brightness, contrast and saturation, in 0..1"
    )
    flip: bool = Field(True, description="Mirror images left to right with probability 1/2")
