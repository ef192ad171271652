"""Options of MetaNAS as a learner: meta-training of weights and architecture, adapted to each task."""

from typing import ClassVar, Literal

from pydantic import model_validator

from metantk.options.base import Precision
from metantk.options.meta_learning import Epochs
from metantk.options.searches.metanas import Adaptation, TaskLearning, check_warm_up


class MetaNasLearnerOptions(TaskLearning):
    """Meta-learning of weights and architecture, both adapted to each task (MetaNAS), on the backbone `mixed`."""

    only_own_ways: ClassVar[bool] = True
    only_backbones: ClassVar[tuple[str, ...]] = ("mixed",)

    kind: Literal["metanas"] = "metanas"
    epochs: Epochs = 30
    adaptation: Adaptation = Adaptation()
    precision: Precision = "float32"
    transductive: ClassVar[bool] = True  # the published protocol knows no other

    @model_validator(mode="after")
    def _warm_up_ends(self) -> "MetaNasLearnerOptions":
        check_warm_up(self.warm_up_epochs, self.epochs)
        return self


Options = MetaNasLearnerOptions
