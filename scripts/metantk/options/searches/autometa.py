"""Options of the AutoMeta search. Imports no torch.

The paper's text leaves most of these open. What was not published follows PNAS (growth, predictor) and the settings
in which MetaNAS trained networks with Reptile; `FILLED` names it, and search.json says so.
"""

from typing import Annotated, Literal

from pydantic import Field

from metantk.options.base import Count, Need
from metantk.options.base import Options as Base

Rate = Annotated[float, Field(ge=0)]


class AutoMetaOptions(Base):
    """Cells that grow block by block; candidates are trained by Reptile, and a predictor chooses whom to train."""

    kind: Literal["autometa"] = Field("autometa", description="the search")
    space: Literal["few-shot", "darts"] = Field(
        "few-shot", description="what a cell can be made of; it has as many blocks as the space has nodes"
    )
    cells: Count | None = Field(None, description="cells of a candidate's network; null: as the backbone")
    channels: Count | None = Field(None, description="channels of a candidate's network; null: as the backbone")
    image_size: Count | None = Field(None, description="pixels; images are resized to it; null: left as they are")
    first_level: Count | None = Field(
        None, description="candidates of one block, drawn at random; null: all (105 of 7 operations)"
    )
    beam: Count = Field(256, description="candidates of each further number of blocks")
    ensemble: Count = Field(5, description="predictors whose mean chooses")
    predictor_steps: Count = Field(200, description="steps of each predictor's fit, each on all its data")
    ways: Annotated[int, Field(ge=2)] = Field(5, description="classes per task")
    shots: Count = Field(15, description="images per class of a training task")
    meta_steps: Count = Field(1000, description="meta-steps of a candidate's training")
    meta_batch_size: Count = Field(5, description="tasks per meta-step")
    inner_steps: Count = Field(8, description="steps per task")
    inner_batch_size: Count = Field(10, description="images per step, drawn with replacement from the task")
    inner_lr: Rate = Field(1e-3, description="Adam's rate of the weights within a task")
    weight_decay: Rate = Field(1e-4, description="L2 penalty of the weights")
    meta_lr: Rate = Field(1.0, description="Reptile's rate of the weights at the start; it falls to 0 as a cosine")
    validation_episodes: Count = Field(
        100, description="validation tasks whose mean accuracy is a candidate's score"
    )
    validation_shots: Count = Field(5, description="support images per class of a validation task")
    validation_queries: Count = Field(15, description="query images per class of a validation task")
    validation_inner_steps: int = Field(50, ge=0, description="steps on the support of a validation task")

    @property
    def needs(self) -> list[Need]:
        validation = self.validation_shots + self.validation_queries
        return [Need("train", self.ways, self.shots), Need("val", self.ways, validation)]


FILLED = tuple(name for name in AutoMetaOptions.model_fields if name not in ("kind", "image_size", "ways"))


Options = AutoMetaOptions
