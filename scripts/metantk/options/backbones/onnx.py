"""Options of the backbone `onnx`: features of an ONNX file. Imports no torch."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from metantk.options.base import Options as Base
from metantk.options.base import parse
from metantk.runtime.onnx_files import files_beside, read_onnx

Positive = Annotated[float, Field(gt=0)]


class OnnxOptions(Base):
    """Features that an ONNX file computes; its learner is `none`."""

    searchable: ClassVar[bool] = False
    frozen: ClassVar[bool] = True

    kind: Literal["onnx"] = Field("onnx", description="Features of an ONNX file, frozen")
    file: str = Field(
        min_length=1,
        description="ONNX file that turns float32 images into one row of features per image; weights in a file "
        "beside it, as PyTorch writes them, are read, too",
    )
    mean: list[float] = Field(
        [0.0, 0.0, 0.0],
        min_length=3,
        max_length=3,
        description="Mean of each channel, subtracted from images in 0..1",
    )
    std: list[Positive] = Field(
        [1.0, 1.0, 1.0],
        min_length=3,
        max_length=3,
        description="Standard deviation of each channel, by which images are divided after that",
    )

    @property
    def title(self) -> str:
        """For tables."""
        return f"{Path(self.file).stem} (ONNX)"

    @property
    def files(self) -> list[str]:
        return [self.file, *files_beside(Path(self.file))]

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


class Architecture(OnnxOptions):
    """All that builds the network; the file is read when it is initialised, and then kept with the model."""

    image_size: int = Field(ge=8, le=1024, description="Height and width of the images, in pixels")
    input_size: int | None = Field(
        ge=1, le=4096, description="Image size that the file takes, in pixels; null: any"
    )
    feature_dim: int = Field(ge=1, le=10**6, description="Number of features of an image")
    file_bytes: int = Field(ge=1, description="Size of the file, in bytes")
    file_sha256: str = Field(pattern="^[0-9a-f]{64}$", description="Checksum of the file")


Options = OnnxOptions
