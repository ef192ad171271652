"""Options of the backbone `onnx`: features of an ONNX file. Imports no torch."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from metantk.options.base import Options as Base
from metantk.options.base import parse
from metantk.runtime.onnx_files import read_onnx

Mean = Annotated[list[float], Field(min_length=3, max_length=3)]
Deviation = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=3, max_length=3)]
FILE = Field(min_length=1, description="the ONNX file: float32 images in, one row of features per image out")
MEAN = Field([0.0, 0.0, 0.0], description="per channel, taken off images in 0..1 before they go in")
STD = Field([1.0, 1.0, 1.0], description="per channel, divided by after that")


class Architecture(Base):
    """All that builds the network; the file is read when it is initialised, and then kept with the model."""

    kind: Literal["onnx"]
    file: str = FILE
    mean: Mean = MEAN
    std: Deviation = STD
    image_size: int = Field(ge=8, le=1024, description="height and width of the images, in pixels")
    input_size: int | None = Field(ge=1, le=4096, description="what the file takes, in pixels; null: any")
    feature_dim: int = Field(ge=1, le=10**6)
    file_bytes: int = Field(ge=1)
    file_sha256: str = Field(pattern="^[0-9a-f]{64}$")


class OnnxOptions(Base):
    """Features that an ONNX file computes; its learner is `none`."""

    searchable: ClassVar[bool] = False
    frozen: ClassVar[bool] = True

    kind: Literal["onnx"] = Field("onnx", description="features of an ONNX file, frozen")
    file: str = FILE
    mean: Mean = MEAN
    std: Deviation = STD

    @property
    def title(self) -> str:
        """For tables."""
        return f"{Path(self.file).stem} (ONNX)"

    @property
    def files(self) -> list[str]:
        return [self.file]

    def architecture(self, image_size: int, genotype: dict | None = None) -> dict:
        """The content of architecture.json; there is no genotype.

        Raises:
            InputError: the file is missing, or does not give features of images.
        """
        found = read_onnx(Path(self.file), image_size=image_size)
        values = {
            **self.model_dump(),
            "image_size": image_size,
            "input_size": found.graph.input_size,
            "feature_dim": found.graph.feature_dim,
            "file_bytes": len(found.content),
            "file_sha256": found.sha256,
        }
        return parse(Architecture, values, where="backbone onnx").model_dump()


Options = OnnxOptions
