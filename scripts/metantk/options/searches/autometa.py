"""Options of the AutoMeta search. Imports no torch.

The paper's text leaves most of these open. What was not published follows PNAS (growth, predictor) and the settings
in which MetaNAS trained networks with Reptile; `FILLED` names it, and search.json says so.
"""

from typing import Literal

from pydantic import Field

from metantk.options.base import Count, Need, Space
from metantk.options.base import Options as Base
from metantk.options.meta_learning import (
    InnerBatchSize,
    InnerSteps,
    MetaBatchSize,
    Rate,
    ResizedImages,
    SearchCells,
    SearchChannels,
    TaskImages,
    ValidationQueries,
    ValidationShots,
    Ways,
)


class AutoMetaOptions(Base):
    """Growth of cells block by block; a predictor chooses candidates, and Reptile trains them (AutoMeta)."""

    kind: Literal["autometa"] = "autometa"
    space: Space = Field(
        "few-shot",
        description="Search space: operations and number of nodes of a cell; a cell has one block per node",
    )
    cells: SearchCells = None
    channels: SearchChannels = None
    image_size: ResizedImages = None
    first_level: Count | None = Field(
        None, description="Random candidates of one block; null: all (105 of 7 operations)"
    )
    beam: Count = Field(256, description="Candidates of each further number of blocks (beam width)")
    ensemble: Count = Field(5, description="Predictors in the ensemble, whose mean prediction ranks candidates")
    predictor_steps: Count = Field(200, description="Training steps of each predictor, on all its data")
    ways: Ways = 5
    shots: TaskImages = 15
    meta_steps: Count = Field(1000, description="Meta-steps of the training of a candidate")
    meta_batch_size: MetaBatchSize = 5
    inner_steps: InnerSteps = 8
    inner_batch_size: InnerBatchSize = 10
    inner_lr: Rate = Field(1e-3, description="Learning rate of Adam for the weights in the inner loop")
    weight_decay: Rate = Field(1e-4, description="Weight decay (L2) of the weights in the inner loop")
    meta_lr: Rate = Field(
        1.0,
        description="Share of the way to the adapted weights that the first meta-step goes; a cosine schedule "
        "lowers it to 0",
    )
    validation_episodes: Count = Field(
        100,
        description="Validation episodes whose mean accuracy is the score of a candidate",
    )
    validation_shots: ValidationShots = 5
    validation_queries: ValidationQueries = 15
    validation_inner_steps: int = Field(
        50, ge=0, description="Steps of the inner loop on the support set of a validation episode"
    )

    @property
    def needs(self) -> list[Need]:
        validation = self.validation_shots + self.validation_queries
        return [Need("train", self.ways, self.shots), Need("val", self.ways, validation)]


FILLED = tuple(name for name in AutoMetaOptions.model_fields if name not in ("kind", "image_size", "ways"))


Options = AutoMetaOptions
