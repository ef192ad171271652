"""Options of Algorithm 1, the pruning of a supernet by criteria."""

from typing import Literal

from pydantic import Field

from metantk.options.base import Count
from metantk.options.budget import Budgeted
from metantk.options.searches.measuring import MeasuringOptions


class PruneOptions(Budgeted, MeasuringOptions):
    """Algorithm 1: pruning of a supernet by the sum of the ranks of its operations under each criterion."""

    kind: Literal["prune"] = "prune"
    repeats: Count = Field(3, description="Repeats with fresh weights and images, over which a score is averaged")
    random_numbers: Literal["common", "independent", "published"] = Field(
        "common",
        description="Random numbers behind weights and images. `common`: all candidates of a round share them; "
        "`independent`: each candidate has its own. `published`: those of the authors' code, with body weights "
        "per round, images per candidate and repeat, and heads per network",
    )


Options = PruneOptions
