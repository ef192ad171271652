"""Options of the criteria that count or compare patterns of ReLUs in the whole network."""

from pydantic import Field

from metantk.options.base import Need
from metantk.options.base import Options as Base


class PatternsOptions(Base):
    """Images whose patterns are recorded in one pass."""

    images: int = Field(64, ge=2, description="Number of images for NASWOT (published: 128)")
    swap_images: int = Field(
        16, ge=2, le=62, description="Number of images for SWAP, the first of those for NASWOT; at most `images`"
    )

    @property
    def needs(self) -> list[Need]:
        return [Need("train", images=self.images)]


Options = PatternsOptions
