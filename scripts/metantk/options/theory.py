"""Options of the numerical checks of the theory (stage verify_theory). Imports no torch."""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from metantk.options.base import Count, Options


def network_name(kind: str, activation: str, depth: int) -> str:
    """What tables call a network, at every width."""
    return f"{kind.replace('_', ' ')}, {activation}, depth {depth}"


class TheoryNetworkOptions(Options):
    """Network of growing width in the checks of the theory; NTK parametrisation, no biases."""

    kind: Literal["fully_connected", "convolutional"] = Field(
        "fully_connected",
        description="Layers of the network: fully connected, or 3×3 convolutions and a global average pool",
    )
    activation: Literal["relu", "erf"] = Field(
        "relu", description="Activation function of the hidden layers; `erf` is smooth"
    )
    depth: Count = Field(2, description="Number of hidden layers")
    widths: list[Count] = Field(
        [16, 32, 64, 128],
        description="Units or channels per layer of the networks whose kernels are compared, ascending",
    )
    trained_widths: list[Count] = Field(
        [4, 16, 64, 128],
        description="Units or channels per layer of the networks that are meta-trained, ascending; `[]`: no "
        "training",
    )

    @property
    def name(self) -> str:
        return network_name(self.kind, self.activation, self.depth)

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
    """Comparison of Eq. 12's predictor with a trained fully connected ReLU network, on glyphs."""

    width: Count = Field(64, description="Units per hidden layer of the trained network")
    depth: Count = Field(2, description="Number of hidden layers")
    train_tasks: Count = Field(8, description="Number of training tasks")
    test_tasks: int = Field(32, ge=2, description="Number of test tasks, of test classes")
    ways: int = Field(3, ge=2, description="Classes of a task")
    shots: Count = Field(1, description="Support images of each class in a task")
    queries: Count = Field(2, description="Query images of each class in a task")
    meta_steps: Count = Field(40, description="Meta-steps of the trained network")


class TheoryOptions(Options):
    """Numerical checks of the theorems (stage verify_theory)."""

    networks: list[TheoryNetworkOptions] = Field(
        [
            TheoryNetworkOptions(),
            TheoryNetworkOptions(activation="erf", trained_widths=[]),
            TheoryNetworkOptions(kind="convolutional", widths=[4, 8, 16, 32], trained_widths=[]),
        ],
        min_length=1,
        description="Networks and their widths",
    )
    sources: list[Literal["glyphs", "gaussian"]] = Field(
        ["glyphs", "gaussian"],
        min_length=1,
        description="Sources of the tasks: pooled glyphs, Gaussian clouds around random means",
    )
    image_size: int = Field(6, ge=3, le=24, description="Height and width of the grey inputs, in pixels")
    ways: int = Field(2, ge=2, description="Classes of a task, and outputs of the networks")
    shots: Count = Field(
        2,
        description="Support images of each class in a task, and as many query images, which Eq. 11 requires",
    )
    train_tasks: int = Field(
        2, ge=2, description="Training tasks, between which kernels are computed and on which networks are trained"
    )
    test_tasks: Count = Field(2, description="Test tasks on which trained networks are compared with Eq. 12")
    inner_time: float = Field(
        1.0,
        gt=0,
        lt=2,
        description="Inner learning rate × training time λτ, in units of 1 / σ_max of the limiting support kernel",
    )
    inner_steps: Count = Field(2, description="Runge-Kutta steps of the inner loop's gradient flow")
    seeds: int = Field(4, ge=2, description="Number of random seeds of the weights for each width")
    meta_steps: Count = Field(40, description="Meta-steps of Theorem 1")
    meta_lr: float = Field(
        0.9, gt=0, lt=1, description="Meta-learning rate η of Theorems 1 and 2, in units of the largest rate η₀"
    )
    times: list[Count] = Field(
        [1, 4], min_length=1, description="Meta-training times t of Theorem 2, in meta-steps of learning rate η₀"
    )
    learner: TheoryLearnerOptions = TheoryLearnerOptions()

    @field_validator("networks", "sources", "times")
    @classmethod
    def _nothing_twice(cls, values: list) -> list:
        """What is listed twice would count its points twice and make intervals too narrow."""
        names = [value.name if isinstance(value, TheoryNetworkOptions) else value for value in values]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{repeated[0]} is listed twice")
        return values

    @model_validator(mode="after")
    def _something_trains(self) -> "TheoryOptions":
        if not any(network.trained_widths for network in self.networks):
            raise ValueError("networks: none has trained_widths; Theorems 1 and 2 need one")
        return self
