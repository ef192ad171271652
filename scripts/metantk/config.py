"""Typed options of the workflow and of each stage. Unknown keys are refused; units stand in the descriptions.

`Config` is what config/config.yaml holds; workflow/schemas/ is generated from it (`make schema`). Each stage's
script takes the options class of its own stage. Imports no torch.
"""

from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from metantk.options.theory import TheoryOptions
from metantk.storage import InputError

Criterion = Literal["meta_ntk_condition", "ntk_condition", "ntk_spectral_entropy", "linear_regions"]
# Told apart by type, so that an error names what is wrong with the one that was meant.
WeightedCriterion = Annotated[
    Annotated[Criterion, Tag("name")] | Annotated[dict[Criterion, Annotated[float, Field(gt=0)]], Tag("weighted")],
    Discriminator(lambda item: "name" if isinstance(item, str) else "weighted"),
]


def rank_weights(criteria: list[WeightedCriterion]) -> dict[Criterion, float]:
    """The weight of each criterion's ranks, in the order of the list; a bare name weighs 1."""
    weights: dict[Criterion, float] = {}
    for item in criteria:
        entry = {item: 1.0} if isinstance(item, str) else item
        if len(entry) != 1:
            raise ValueError("write each criterion as a list item of its own, `name` or `{name: weight}`")
        if entry.keys() & weights.keys():
            raise ValueError("one criterion is listed twice")
        weights |= entry
    return weights


def _checked(criteria: list[WeightedCriterion]) -> list[WeightedCriterion]:
    rank_weights(criteria)
    return criteria


Criteria = Annotated[list[WeightedCriterion], AfterValidator(_checked)]

# The rows of Table 2: each is Algorithm 1 with other criteria; none at all is a uniform draw.
METHODS: dict[str, Criteria] = {
    "metantk": ["meta_ntk_condition", "linear_regions"],
    "te-nas": ["ntk_condition", "linear_regions"],
    "linear-regions": ["linear_regions"],
    "random": [],
}

# Sources that are drawn or fetched; every other is a folder.
NAMED_SOURCES = ("glyphs", "cifar-fs", "fc100", "omniglot")

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DatasetOptions(Options):
    """Where the pictures come from and how large they are kept (stage prepare_dataset)."""

    source: str = Field(
        description="`glyphs` (drawn from fonts, needs nothing), `cifar-fs`, `fc100` or `omniglot` (fetched where "
        "they are missing), or a folder: of pictures, or of the files of miniImageNet, tieredImageNet, CIFAR-FS or "
        "FC100 as they circulate"
    )
    image_size: Annotated[int, Field(ge=8, le=1024)] | None = Field(
        None,
        description="height and width of the kept pictures, in pixels; null: the source's own, 28 for `glyphs` and "
        "`omniglot`, 84 for a folder of pictures",
    )
    images_per_class: int = Field(
        60, ge=2, description="pictures drawn per class, for `glyphs` only; all others give all they have"
    )
    ways: Count = Field(5, description="classes that each part must have at least; for a folder of pictures")
    seed: Seed = Field(0, description="of the drawing (`glyphs`) or of the split by class (an unsplit folder)")
    leave_out_unreadable: bool = Field(
        False,
        description="leave out files of a folder that are no readable pictures, and name them in manifest.json, "
        "instead of stopping",
    )
    rotations: bool = Field(
        False, description="`omniglot` only: each character turned by 90, 180 and 270 degrees is a class, too"
    )
    download_folder: str = Field(
        "data", description="where `cifar-fs`, `fc100` and `omniglot` are looked for, and downloaded to"
    )


class RunOptions(Options):
    """A depth and a width, used in the search and in training alike (paper, section 6.1)."""

    cells: int = Field(ge=2, description="stacked cells; those at 1/3 and 2/3 of the depth are reduction cells")
    channels: int = Field(ge=1, description="channels after the stem; each reduction cell doubles them")

    @property
    def name(self) -> str:
        return f"{self.cells}cells-{self.channels}ch"


class MetaNtkOptions(Options):
    """The kernel of Eqs. 10-11 and the tasks on which it is computed."""

    kernel: Literal["maml", "anil"] = Field(
        "maml", description="base kernel of the inner loop: the NTK (maml) or the last layer's NNGP (anil)"
    )
    time: Annotated[float, Field(gt=0)] | Literal["infinite"] = Field(
        "infinite", description="λτ, inner learning rate × training time, dimensionless"
    )
    ridge: float = Field(1.0e-3, ge=0, description="ρ, added to the diagonal of the inverted support kernel")
    tasks: Count = Field(3, description="few-shot tasks per kernel")
    ways: int = Field(5, ge=1, description="classes per task, and outputs of the fresh head")
    shots: Count = Field(1, description="support pictures per class")
    queries: Count = Field(1, description="query pictures per class")


class NtkOptions(Options):
    """The supervised kernel of TE-NAS."""

    pictures: int = Field(30, ge=2, description="pictures per kernel")


class LinearRegionsOptions(Options):
    """The count of ReLU patterns of the thin network (facts of TE-NAS, Definition 1)."""

    pictures: int = Field(3000, ge=2, description="inputs whose patterns are counted")
    batches: Count = Field(3, description="batches into which they are cut (batch normalisation sees one)")
    crop_size: int = Field(3, ge=1, description="height and width of an input, in pixels")

    @model_validator(mode="after")
    def _batches_have_pictures(self) -> "LinearRegionsOptions":
        if self.batches * 2 > self.pictures:
            raise ValueError(f"{self.pictures} pictures are too few for {self.batches} batches")
        return self


class CommonSearchOptions(Options):
    """What the search options of the configuration and of one method share."""

    space: Literal["few-shot", "darts"] = Field("few-shot", description="operations and nodes of a cell")
    repeat: Count = Field(3, description="draws of weights and pictures over which a score is averaged")
    draws: Literal["common", "independent"] = Field(
        "common",
        description="`common`: all candidates of a round share weights and pictures; "
        "`independent`: each candidate has its own, as in the published code",
    )
    initialisation: Literal["kaiming_normal", "pytorch"] = Field(
        "kaiming_normal", description="of the weights: fan-in Kaiming as the paper says, or PyTorch's default"
    )
    image_size: int = Field(32, ge=8, description="height and width of the pictures in the search, in pixels")
    precision: Literal["float32", "tf32", "float64"] = Field(
        "float32",
        description="of the supernet's arithmetic; `tf32` is faster on NVIDIA GPUs and the same elsewhere. "
        "Grams add up in float64 always",
    )

    meta_ntk: MetaNtkOptions = MetaNtkOptions()
    ntk: NtkOptions = NtkOptions()
    linear_regions: LinearRegionsOptions = LinearRegionsOptions()

    @model_validator(mode="after")
    def _crops_fit(self) -> "CommonSearchOptions":
        if self.linear_regions.crop_size > self.image_size:
            raise ValueError(f"linear_regions.crop_size is larger than image_size, {self.image_size}")
        return self


class SearchOptions(CommonSearchOptions):
    """One search (stage search_architecture)."""

    criteria: Criteria = Field(
        description="criteria whose ranks are summed, each a `name` or `{name: weight}`; none: a uniform draw"
    )

    @property
    def weights(self) -> dict[Criterion, float]:
        return rank_weights(self.criteria)


class SearchSection(CommonSearchOptions):
    """The search, for all methods (Algorithm 1)."""

    criteria: dict[Name, Criteria] = Field(
        default={},
        description="methods of your own: a name and the criteria whose ranks are summed, "
        "each a `name` or `{name: weight}`",
    )


class AugmentationOptions(Options):
    """Random changes of the training pictures (and of the support pictures' copies in the evaluation)."""

    padding: int = Field(8, ge=0, description="pixels added on each side before the random crop")
    jitter: float = Field(0.4, ge=0, le=1, description="strength of brightness, contrast and saturation changes")
    flip: bool = Field(True, description="mirror half of the pictures left to right")


class TrainingOptions(Options):
    """The RFS recipe (stage train_genotype): classification of all training classes."""

    epochs: Count = Field(100, description="passes over the training split")
    learning_rate: float = Field(0.02, gt=0, description="of SGD, before the first milestone")
    milestones: list[Count] = Field([60, 80], description="epochs after which the rate is multiplied by `decay`")
    decay: float = Field(0.1, gt=0, le=1, description="factor on the learning rate at each milestone")
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(5.0e-4, ge=0, description="on all parameters")
    batch_size: int = Field(64, ge=2, description="pictures per step; an incomplete last batch is dropped")
    drop_path: float = Field(0.2, ge=0, lt=1, description="drop-path rate reached at the last epoch")
    augmentation: AugmentationOptions = AugmentationOptions()

    @model_validator(mode="after")
    def _milestones_ascend(self) -> "TrainingOptions":
        if sorted(set(self.milestones)) != self.milestones:
            raise ValueError("milestones must ascend")
        return self


class EvaluationOptions(Options):
    """Few-shot episodes on the test split (stage evaluate_episodes)."""

    episodes: int = Field(1000, ge=2, description="episodes per number of shots")
    ways: int = Field(5, ge=2, description="classes per episode")
    shots: list[Count] = Field(
        [1, 5], min_length=1, description="support pictures per class, one table column each"
    )
    queries: Count = Field(15, description="query pictures per class (published code: 50)")
    copies: Count = Field(5, description="augmented copies of each support picture")
    classifier: Literal["logistic_regression", "svm"] = Field(
        "logistic_regression", description="fitted to the support features of each episode"
    )
    augmentation: AugmentationOptions = AugmentationOptions()
    seed: Seed = Field(0, description="of the episodes: the same for all methods and seeds of a data set")

    @field_validator("shots")
    @classmethod
    def _shots_differ(cls, shots: list[int]) -> list[int]:
        if len(set(shots)) < len(shots):
            raise ValueError("one is listed twice")
        return shots


class Config(Options):
    """The configuration of the workflow."""

    results: str = Field("results", min_length=1, description="folder of all outputs")
    datasets: dict[Name, DatasetOptions] = Field(min_length=1, description="name: source and options")
    runs: list[RunOptions] = Field(min_length=1, description="depths and widths")
    methods: list[str] = Field(min_length=1, description="built in: " + ", ".join(METHODS))
    seeds: list[Seed] = Field(min_length=1, description="independent searches and trainings per method")
    search: SearchSection = SearchSection()
    training: TrainingOptions = TrainingOptions()
    evaluation: EvaluationOptions = EvaluationOptions()
    theory: TheoryOptions = TheoryOptions()

    @model_validator(mode="after")
    def _check_names(self) -> "Config":
        known = METHODS | self.search.criteria
        for method in self.methods:
            if method not in known:
                raise ValueError(f"unknown method {method!r}: choose from {', '.join(known)}")
        for what, values in (
            ("methods", self.methods),
            ("seeds", self.seeds),
            ("runs", [run.name for run in self.runs]),
        ):
            if len(set(values)) < len(values):
                raise ValueError(f"{what}: one is listed twice")
        return self

    def search_options(self, method: str) -> SearchOptions:
        """The options of one method.

        Settings of criteria that it does not use stay at their defaults: changing them leaves its searches valid.
        """
        section = self.search
        criteria = (METHODS | section.criteria)[method]
        used = set(rank_weights(criteria))
        needed_by = {
            "meta_ntk": {"meta_ntk_condition"},
            "ntk": {"ntk_condition", "ntk_spectral_entropy"},
            "linear_regions": {"linear_regions"},
        }
        values = {
            name: getattr(section, name)
            for name in CommonSearchOptions.model_fields
            if name == "space" or used & needed_by.get(name, used)
        }
        return SearchOptions(criteria=criteria, **values)


T = TypeVar("T", bound=Options)


def parse(options: type[T], values: object, *, where: str) -> T:
    """Check `values` against an options class.

    Raises:
        InputError: one line that names `where`, each offending key and what is wrong with it.
    """
    try:
        return options.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_explain(problem) for problem in error.errors())
        raise InputError(f"{where}: {problems}") from None


def _explain(problem: dict) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{place}'"
    if problem["type"] == "missing":
        return f"'{place}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if not place:
        return message
    given = "" if problem["type"] == "value_error" else f" (found {problem['input']!r})"
    return f"'{place}': {message[0].lower()}{message[1:]}{given}"
