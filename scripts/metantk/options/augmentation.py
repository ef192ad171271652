"""Options of the random changes of images, in training and in evaluation alike."""

from pydantic import Field

from metantk.options.base import Options


class AugmentationOptions(Options):
    """Random changes of the training images (and of the support images' copies in the evaluation)."""

    padding: int = Field(8, ge=0, le=1024, description="pixels added on each side before the random crop")
    jitter: float = Field(0.4, ge=0, le=1, description="strength of brightness, contrast and saturation changes")
    flip: bool = Field(True, description="mirror half of the images left to right")
