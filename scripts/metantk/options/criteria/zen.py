"""Options of the Zen score."""

from pydantic import Field

from metantk.options.base import Options as Base


class ZenOptions(Base):
    """The noise that is passed through in place of images (facts of Zen-NAS)."""

    images: int = Field(32, ge=2, description="Number of images of noise (published: 64)")
    noise_scale: float = Field(
        0.01, gt=0, description="Standard deviation of the second noise, which is added to the images"
    )


Options = ZenOptions
