"""Options of the Zen score."""

from pydantic import Field

from metantk.options.base import Options as Base


class ZenOptions(Base):
    """The noise that is passed through in place of images (facts of Zen-NAS)."""

    images: int = Field(32, ge=2, description="images of noise (published: 64)")
    noise_scale: float = Field(0.01, gt=0, description="share of a second noise that is added")


Options = ZenOptions
