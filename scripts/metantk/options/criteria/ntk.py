"""Options of the criteria that are summaries of the supervised network's NTK."""

from pydantic import Field

from metantk.options.base import Need
from metantk.options.base import Options as Base


class NtkOptions(Base):
    """The supervised kernel of TE-NAS."""

    images: int = Field(30, ge=2, description="Number of images per kernel")

    @property
    def needs(self) -> list[Need]:
        return [Need("train", images=self.images)]


Options = NtkOptions
