"""Options of the theory in numbers (stage verify_theory). Imports no torch."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from metantk.options.base import Count, Options


class TheoryNetworkOptions(Options):
    """A network whose width grows in the checks of the theory; NTK parametrisation, no biases."""

    kind: Literal["fully_connected", "convolutional"] = Field(
        "fully_connected", description="or 3×3 convolutions and a global average pool"
    )
    activation: Literal["relu", "erf"] = Field("relu", description="of the hidden layers; erf is the smooth one")
    depth: Count = Field(2, description="hidden layers")
    widths: list[Count] = Field(
        [16, 32, 64, 128], description="units or channels per layer where kernels are compared, ascending"
    )
    trained_widths: list[Count] = Field(
        [4, 16, 64, 128], description="the same where networks are meta-trained; none: not trained"
    )

    @field_validator("widths", "trained_widths")
    @classmethod
    def _widths_ascend(cls, widths: list[int]) -> list[int]:
        if sorted(set(widths)) != widths:
            raise ValueError("widths must ascend")
        if 0 < len(widths) < 3:
            raise ValueError("a slope against the width takes at least three widths")
        return widths

    @field_validator("widths")
    @classmethod
    def _some_widths(cls, widths: list[int]) -> list[int]:
        if not widths:
            raise ValueError("needs at least three widths")
        return widths


class TheoryLearnerOptions(Options):
    """The predictor of Eq. 12 and a trained network as few-shot learners (glyphs; fully connected ReLU)."""

    width: Count = Field(64, description="units per hidden layer of the finite network")
    depth: Count = Field(2, description="hidden layers")
    train_tasks: Count = Field(8, description="training tasks")
    test_tasks: int = Field(32, ge=2, description="test tasks, of test classes")
    ways: int = Field(3, ge=2, description="classes per task")
    shots: Count = Field(1, description="support images per class")
    queries: Count = Field(2, description="query images per class")
    steps: Count = Field(40, description="meta-training steps of the trained network")


class TheoryOptions(Options):
    """The theorems in numbers (stage verify_theory)."""

    networks: list[TheoryNetworkOptions] = Field(
        [
            TheoryNetworkOptions(),
            TheoryNetworkOptions(activation="erf", trained_widths=[]),
            TheoryNetworkOptions(kind="convolutional", widths=[4, 8, 16, 32], trained_widths=[]),
        ],
        min_length=1,
        description="networks and their widths",
    )
    sources: list[Literal["glyphs", "gaussian"]] = Field(
        ["glyphs", "gaussian"], min_length=1, description="tasks: pooled glyphs, clouds around random means"
    )
    image_size: int = Field(6, ge=3, le=24, description="height and width of the grey inputs, in pixels")
    ways: int = Field(2, ge=2, description="classes per task, and outputs of the networks")
    shots: Count = Field(
        2, description="support images per class, and as many queries: else the printed Eq. 11 has no shape"
    )
    train_tasks: int = Field(2, ge=2, description="tasks between which kernels stand and on which networks train")
    test_tasks: Count = Field(2, description="tasks on which trained networks are compared with Eq. 12")
    inner_time: float = Field(
        1.0, gt=0, lt=2, description="λτ (λ of a single step), in units of 1 / σ_max of the limit's support kernel"
    )
    inner_steps: Count = Field(2, description="Runge-Kutta steps of the inner gradient flow")
    seeds: int = Field(4, ge=2, description="draws of the weights per width")
    steps: Count = Field(40, description="meta-training steps of Theorem 1")
    lr: float = Field(0.9, gt=0, lt=1, description="η of Theorem 1 and of Theorem 2's finite rates, in η₀")
    times: list[Count] = Field(
        [1, 4], min_length=1, description="t of Theorem 2, in steps of rate η₀ (the flow runs as long)"
    )
    learner: TheoryLearnerOptions = TheoryLearnerOptions()

    @model_validator(mode="after")
    def _something_trains(self) -> "TheoryOptions":
        if not any(network.trained_widths for network in self.networks):
            raise ValueError("networks: none has trained_widths; Theorems 1 and 2 need one")
        return self
