"""What searches that measure criteria share: which criteria, on what networks. Imports no torch."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from metantk.options.base import Options as Base
from metantk.options.base import Space
from metantk.runtime.files import InputError

# A built-in criterion (a module of metantk.criteria), or the file of one's own.
CriterionName = Annotated[str, Field(pattern=r"^([a-z0-9_]+|.+\.py)$", max_length=200)]
# Told apart by type, so that an error names what is wrong with the one that was meant.
WeightedCriterion = Annotated[
    Annotated[CriterionName, Tag("name")]
    | Annotated[dict[CriterionName, Annotated[float, Field(gt=0, le=1e6)]], Tag("weighted")],
    Discriminator(lambda item: "name" if isinstance(item, str) else "weighted"),
]


def weights_of(criteria: list[WeightedCriterion]) -> dict[str, float]:
    """The weight of each criterion, in the order of the list; a bare name weighs 1."""
    weights: dict[str, float] = {}
    for item in criteria:
        entry = {item: 1.0} if isinstance(item, str) else item
        if len(entry) != 1:
            raise ValueError("write each criterion as a list item of its own, `name` or `{name: weight}`")
        weights |= entry
    if len({Path(kind).stem for kind in weights}) < len(criteria):
        raise ValueError("one criterion is listed twice")
    return weights


def _checked(criteria: list[WeightedCriterion]) -> list[WeightedCriterion]:
    weights_of(criteria)
    return criteria


Criteria = Annotated[list[WeightedCriterion], Field(min_length=1), AfterValidator(_checked)]


def check_layout(backbone: Base, *, where: str) -> None:
    """Refuse a stack that criteria do not measure: its networks would be other ones than those that are measured.

    Raises:
        InputError: the stack has another layout than `few-shot`.
    """
    layout = getattr(backbone, "layout", "few-shot")
    if layout != "few-shot":
        raise InputError(f"{where}: has layout {layout}; criteria are measured on stacks of layout few-shot only")


class MeasuringOptions(Base):
    """Criteria with their weights, and the untrained networks on which they are measured."""

    criteria: Criteria = Field(
        description="Criteria that rank architectures, each a `name` or `{name: weight}`. A name is a built-in "
        "criterion, or the path of a .py file",
    )
    space: Space = "few-shot"
    initialisation: Literal["kaiming_normal", "pytorch"] = Field(
        "kaiming_normal",
        description="Distribution of random weights: Kaiming's normal by fan-in (the paper), or PyTorch's "
        "default (the authors' code)",
    )
    image_size: int = Field(32, ge=8, le=1024, description="Height and width of the images, in pixels")
    precision: Literal["float32", "tf32", "float64"] = Field(
        "float32",
        description="Arithmetic of the networks; `tf32` is faster on NVIDIA GPUs and equals `float32` elsewhere. "
        "Gram matrices are summed in float64",
    )
    criteria_options: dict[str, dict] = Field(
        {}, description="Options of the criteria, by section; the workflow takes them from its section `criteria`"
    )

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each criterion, by name."""
        return {Path(kind).stem: weight for kind, weight in weights_of(self.criteria).items()}

    @property
    def kinds(self) -> dict[str, str]:
        """What each criterion is loaded by: its name, or the file that is named after it."""
        return {Path(kind).stem: kind for kind in weights_of(self.criteria)}

    @property
    def dependencies(self) -> list[tuple[str, str]]:
        return [("criteria", kind) for kind in self.kinds.values()]
