"""Options of the backbone `timm`: a network of timm with weights that were trained elsewhere. Imports no torch."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from metantk.options.base import Options as Base
from metantk.options.base import parse
from metantk.runtime.files import InputError

Pixels = Annotated[int, Field(ge=8, le=2048)]


class TimmOptions(Base):
    """A pretrained network as it is; its learner is `none`."""

    searchable: ClassVar[bool] = False
    frozen: ClassVar[bool] = True

    kind: Literal["timm"] = Field("timm", description="Network of timm with weights trained elsewhere, frozen")
    # As timm lists them; nothing that timm would take for a place to fetch a model from.
    name: str = Field(
        pattern=r"^[a-z0-9][A-Za-z0-9_.]{0,99}$",
        description="Name of the network in timm, such as `resnet18.a1_in1k`",
    )
    weights: str | None = Field(
        None,
        min_length=1,
        description="File of the weights (`.safetensors`, or a `.pth` that holds nothing but tensors); null: those "
        "that timm has for the name, from your own cache of Hugging Face or PyTorch; nothing is downloaded",
    )
    input_size: Pixels | None = Field(
        None,
        description="Height and width that images are resized to, in pixels; null: those that the network was "
        "trained on",
    )

    @property
    def title(self) -> str:
        """For tables."""
        return f"{self.name} (timm)"

    @property
    def files(self) -> list[str]:
        return [self.weights] if self.weights else []

    def architecture(self, image_size: int, genotype: dict | None = None) -> dict:
        """The content of architecture.json; there is no genotype.

        Raises:
            InputError: the file of the weights is missing.
        """
        if self.weights and not Path(self.weights).is_file():
            raise InputError(f"backbone timm: {self.weights}: no such file")
        values = self.model_dump() | {"image_size": image_size}
        return parse(Architecture, values, where="backbone timm").model_dump()


class Architecture(TimmOptions):
    """All that builds the network; the weights are read when it is initialised."""

    image_size: int = Field(ge=8, le=1024, description="Height and width of the images, in pixels")


Options = TimmOptions
