"""Options that meta-learners and meta-learned searches share: one name, one unit and one description each."""

from typing import Annotated, Literal

from pydantic import Field

from metantk.options.base import Options

Ways = Annotated[int, Field(ge=2, description="Classes of a training task")]
TestWays = Annotated[int, Field(ge=2, description="Classes of a training task; test episodes must have as many")]
TaskImages = Annotated[int, Field(ge=1, description="Images of each class in a training task")]
SupportImages = Annotated[int, Field(ge=1, description="Support images of each class in a training task")]
QueryImages = Annotated[int, Field(ge=1, description="Query images of each class in a training task")]
Epochs = Annotated[
    int, Field(ge=0, description="Epochs of meta-training, of `steps_per_epoch` meta-steps; 0: untrained")
]
SearchEpochs = Annotated[int, Field(ge=1, description="Epochs of meta-training, of `steps_per_epoch` meta-steps")]
StepsPerEpoch = Annotated[int, Field(ge=1, description="Meta-steps per epoch")]
MetaBatchSize = Annotated[int, Field(ge=1, description="Training tasks per meta-step")]
InnerSteps = Annotated[int, Field(ge=1, description="Steps of the inner loop on a training task")]
InnerBatchSize = Annotated[
    int, Field(ge=1, description="Images per step of the inner loop, sampled with replacement from the task")
]
Rate = Annotated[float, Field(ge=0)]
ArchWeightDecay = Annotated[float, Field(ge=0, description="Weight decay (L2) of the architecture's parameters")]
WarmUpEpochs = Annotated[
    int,
    Field(
        ge=0,
        description="Epochs of `steps_per_epoch` meta-steps, from the first, that leave the architecture unchanged",
    ),
]
PruneEverySteps = Annotated[
    int, Field(ge=1, description="Meta-steps between two removals of operations whose weights are tiny")
]
TestSteps = Annotated[int, Field(ge=0, description="Steps of the inner loop on a test episode")]
MetaSchedule = Annotated[
    Literal["constant", "cosine"], Field(description="Schedule of the meta-learning rate over the epochs")
]
SearchCells = Annotated[
    int | None, Field(ge=1, description="Cells of the network of the search; null: as many as the backbone has")
]
SearchChannels = Annotated[
    int | None,
    Field(ge=1, description="Channels of the network of the search after the stem; null: those of the backbone"),
]
ResizedImages = Annotated[
    int | None,
    Field(
        ge=1,
        description="Height and width to which the search resizes images, in pixels; null: the data set's own size",
    ),
]
ValidationShots = Annotated[int, Field(ge=1, description="Support images of each class in a validation episode")]
ValidationQueries = Annotated[int, Field(ge=1, description="Query images of each class in a validation episode")]


def phases_of(options: Options) -> list[tuple[float, Options]]:
    """The parts of a training within which all steps compute alike, in their order.

    Returns:
        Of each part, its share of the epochs, and options of a training all of whose steps are like its own.
    """
    return getattr(options, "phases", [(1.0, options)])
