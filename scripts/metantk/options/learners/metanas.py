"""Options of MetaNAS as a learner: meta-training of weights and architecture, adapted to each task."""

from typing import ClassVar, Literal

from metantk.options.base import Precision
from metantk.options.meta_learning import Epochs
from metantk.options.searches.metanas import Adaptation, TaskLearning


class MetaNasLearnerOptions(TaskLearning):
    """Meta-learning of weights and architecture, both adapted to each task (MetaNAS), on the backbone `mixed`."""

    only_own_ways: ClassVar[bool] = True
    only_backbones: ClassVar[tuple[str, ...]] = ("mixed",)

    kind: Literal["metanas"] = "metanas"
    epochs: Epochs = 30
    adaptation: Adaptation = Adaptation()
    precision: Precision = "float32"


Options = MetaNasLearnerOptions
