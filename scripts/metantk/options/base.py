"""What the options of all stages are made of: strict types, ranges, and errors of one line. Imports no torch."""

import re
import reprlib
from decimal import Decimal
from typing import Annotated, ClassVar, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from metantk.runtime.files import LONGEST_LINE, InputError, shorten

NAME = r"^[a-z0-9][a-z0-9_-]*$"
NAME_RULE = "names are small letters, digits, `-` and `_`, and begin with a letter or digit"
# A name is part of several files' names, of which a file system takes 255 bytes.
Name = Annotated[str, Field(pattern=NAME, max_length=100)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


def read_quantity(value: object) -> object:
    """A whole number from text such as `20k`, `1.5M` or `2G`; whatever else it is, pydantic judges.

    Raises:
        ValueError: it is text, but no such number.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)([kMG]?)", value, re.ASCII)
    number = Decimal(match[1]) * UNITS[match[2]] if match else Decimal("0.5")
    if number != int(number):
        raise ValueError(f"expected a whole number such as 20000, 20k, 1.5M or 2G (found {glance(value)})")
    return int(number)


Quantity = Annotated[int, BeforeValidator(read_quantity, json_schema_input_type=int | str), Field(ge=0, le=10**15)]
Space = Annotated[
    Literal["few-shot", "darts"], Field(description="Search space: operations and number of nodes of a cell")
]
Precision = Annotated[
    Literal["float32", "tf32"],
    Field(description="Arithmetic of the network; `tf32` is faster on NVIDIA GPUs and equals `float32` elsewhere"),
]
MixedPrecision = Annotated[
    Literal["float32", "tf32", "bfloat16"],
    Field(
        description="Arithmetic of the network; `tf32` is faster on NVIDIA GPUs and equals `float32` elsewhere. "
        "With `bfloat16`, convolutions and products have 16 bits, and weights stay in float32"
    ),
]
# What keys were called before version 0.1.0, and what they are called now: the first that the options have. A name
# that meant something else in one class has an entry of that class.
FORMER: dict[str, tuple[str, ...]] = {
    "alpha_decay": ("arch_weight_decay",),
    "alpha_rate": ("arch_inner_lr",),
    "answer": ("test_classifier",),
    "batch": ("inner_batch_size",),
    "block": ("samples_per_round",),
    "certificate": ("random_comparisons",),
    "clip": ("clip_grad_value",),
    "copies": ("support_copies",),
    "decay": ("lr_decay",),
    "draw": ("sampling",),
    "draws": ("random_numbers", "repeats"),
    "drop_path": ("drop_path_rate",),
    "first_sample": ("initial_samples",),
    "inner_rate": ("inner_lr",),
    "iterations": ("meta_steps",),
    "keep_together": ("split_by_group",),
    "learned_rates": ("learn_inner_lr",),
    "learning_rate": ("meta_lr", "lr"),
    "leave_out_unreadable": ("skip_unreadable",),
    "measurements": ("max_evaluations",),
    "meta_alpha_rate": ("arch_meta_lr",),
    "meta_rate": ("meta_lr",),
    "meta_weight_rate": ("meta_lr",),
    "minimum_temperature": ("min_temperature",),
    "multi_step_epochs": ("multi_step_loss_epochs",),
    "penalty": ("svm_c",),
    "pictures": ("images",),
    "pool": ("support_copy_pool",),
    "predictor_epochs": ("predictor_steps",),
    "prune_every": ("prune_every_steps",),
    "repeat": ("repeats",),
    "schedule": ("lr_schedule",),
    "short_training": ("short_training_epochs",),
    "side": ("image_size",),
    "step": ("noise_scale",),
    "step_norms": ("per_step_batch_norm",),
    "steps": ("steps_per_epoch", "inner_steps", "meta_steps"),
    "swap_pictures": ("swap_images",),
    "tasks": ("meta_batch_size",),
    "theta_decay": ("arch_weight_decay",),
    "theta_inner_rate": ("arch_inner_lr",),
    "theta_rate": ("arch_meta_lr",),
    "validation_steps": ("validation_inner_steps",),
    "validation_tasks": ("validation_episodes",),
    "weight_inner_rate": ("inner_lr",),
    "weight_rate": ("inner_lr",),
    "MetaNasOptions.steps": ("inner_steps",),
    "TNasOptions.steps": ("inner_steps",),
    "TNasOptions.weight_rate": ("meta_lr",),
    "TheoryOptions.rate": ("meta_lr",),
    "TheoryOptions.steps": ("meta_steps",),
}
# Names of searches and of their kinds.
FORMER_NAMES = {
    "fit": "bayesian-optimisation",
    "metantk-fit": "metantk-bo",
    "ntk-fit": "ntk-bo",
    "trained-fit": "short-training-bo",
}
# Keys whose numbers counted something else.
FORMER_UNITS = {
    "meta_epochs": "meta-steps are 'epochs' times 'steps_per_epoch' now",
    "tasks_per_epoch": "it is 'steps_per_epoch' now, in meta-steps of 'meta_batch_size' tasks each",
}


class Need(NamedTuple):
    """What a stage takes from a split, so that too little data is said before anything costs.

    Attributes:
        split: train, val or test.
        classes: least number of classes.
        each: least number of images of each class.
        images: least number of images of all classes together.
        side: least height and width of an image, in pixels.
    """

    split: str
    classes: int = 1
    each: int = 1
    images: int = 1
    side: int = 1


class Options(BaseModel):
    """Unknown keys and other types are refused, and so are numbers that are not finite."""

    uses_device: ClassVar[bool] = True  # of a kind: whether its stage computes anything on a GPU
    computes: ClassVar[bool] = True  # of a search: whether it looks at the problem, so that PyTorch is loaded
    frozen: ClassVar[bool] = False  # of a backbone: it comes with its weights, and nothing trains it
    only_backbones: ClassVar[
        tuple[str, ...]
    ] = ()  # of a learner: the only kinds that it can train, if there are such
    only_learners: ClassVar[tuple[str, ...]] = ()  # of a backbone: the only kinds that can train it, likewise
    only_own_ways: ClassVar[bool] = False  # of a learner: whether tests must have as many `ways` as its training

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _names_are_the_present_ones(cls, values: object) -> object:
        keys = values if isinstance(values, dict) else ()
        if former := [unknown_key(cls, key) for key in keys if key not in cls.model_fields and renamed(cls, key)]:
            raise ValueError("; ".join(former))
        return values

    @model_validator(mode="after")
    def _numbers_can_be_computed_with(self) -> "Options":
        for name, value in self:
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, int | float) and abs(number) >= LARGEST[isinstance(number, float)]:
                    raise ValueError(f"{name}: {number:.3g} is too large a number")
        return self

    @property
    def dependencies(self) -> list[tuple[str, str]]:
        """Other kinds that these options name, as (family, kind): their modules are part of the stage's code."""
        return []

    @property
    def uses_head(self) -> bool:
        """Of a learner: whether the network's own head answers test tasks, rather than be thrown away before."""
        return self.only_own_ways

    @property
    def files(self) -> list[str]:
        """Files, other than code, that these options name: one that is edited reruns what reads it."""
        return []

    @property
    def needs(self) -> list[Need]:
        """The least data that these options can be carried out with."""
        return []


def present_name(options: type[BaseModel], former: object) -> str | None:
    """What an option of a former name is called now; None if that was never its name."""
    names = FORMER.get(f"{options.__name__}.{former}") or FORMER.get(former, ())
    return next((name for name in names if name in options.model_fields), None)


def renamed(options: type[BaseModel], former: object) -> str:
    """How an option of a former name is written now, for an error; nothing if that was never its name."""
    if former in FORMER_UNITS and "steps_per_epoch" in options.model_fields:
        return f": {FORMER_UNITS[former]}"
    present = present_name(options, former)
    return f": it is called {present!r} now" if present else ""


def unknown_key(options: type[BaseModel], key: object) -> str:
    """An error of one line, which gives the present name of a key that had another one."""
    return f"unknown key {shorten(str(key), LONGEST_VALUE)!r}{renamed(options, key)}"


def refuse_former_name(where: str, name: object) -> None:
    """Raise an InputError if a search or a kind of another name is meant."""
    if isinstance(name, str) and name in FORMER_NAMES:
        raise InputError(f"{where}: it is called {FORMER_NAMES[name]!r} now")


T = TypeVar("T", bound=Options)
LARGEST = (2**31, 1e38)  # of whole numbers, as counts and seeds are; of others, in single precision
LONGEST_VALUE = 60  # characters of a value that an error shows
# Looks into a value only as far as is shown: it may be huge.
_glance = reprlib.Repr()
_glance.maxlevel, _glance.maxstring, _glance.maxother, _glance.maxlong = (3, *[LONGEST_VALUE] * 3)


def parse(options: type[T], values: object, *, where: str) -> T:
    """Check `values` against an options class.

    Raises:
        InputError: one line that names `where`, each offending key and what is wrong with it.
    """
    try:
        return options.model_validate(values)
    except ValidationError as error:
        raise InputError(shorten(f"{where}: {explain_all(error.errors())}", LONGEST_LINE)) from None
    except Exception as error:  # the checks of user-defined options may raise anything
        raise InputError(f"{where}: their check fails ({type(error).__name__}: {error})") from error


def parse_part(options: type[Options], values: dict, *, where: str) -> None:
    """Check values that others will be added to: what is missing may still come.

    Raises:
        InputError: as of `parse`.
    """
    try:
        options.model_validate(values)
    except ValidationError as error:
        if problems := [problem for problem in error.errors() if problem["type"] != "missing"]:
            raise InputError(shorten(f"{where}: {explain_all(problems)}", LONGEST_LINE)) from None


def explain_all(problems: list[dict]) -> str:
    """As many problems as fit in a line, and the number of the others."""
    told, room = [], LONGEST_LINE - 100  # for what stands before, and the number
    for number, problem in enumerate(problems):
        text = explain(problem)
        if told and len(text) > room:
            return "; ".join([*told, f"and {len(problems) - number} more"])
        told.append(text)
        room -= len(text)
    return "; ".join(told)


def explain(problem: dict) -> str:
    place = ".".join(shorten(str(split), LONGEST_VALUE) for split in problem["loc"]).removesuffix(".[key]")
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{place}'"
    if problem["type"] == "missing":
        return f"'{place}' is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if not place:
        return message
    if problem["type"] == "string_pattern_mismatch" and problem["ctx"]["pattern"] == NAME:
        return f"'{place}': {NAME_RULE}"
    given = "" if problem["type"] == "value_error" else f" (found {glance(problem['input'])})"
    return f"'{place}': {message[0].lower()}{message[1:]}{given}"


def glance(value: object) -> str:
    """A value in an error; of a huge one, or one that refers to itself, no more is looked at than is shown."""
    return shorten(_glance.repr(value), LONGEST_VALUE)
