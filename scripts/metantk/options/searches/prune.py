"""Options of Algorithm 1, the pruning of a supernet by criteria."""

from typing import Literal

from pydantic import Field

from metantk.options.base import Count
from metantk.options.searches.measuring import MeasuringOptions


class PruneOptions(MeasuringOptions):
    """Algorithm 1: prune a supernet by the sum of the ranks of its operations (search `prune`)."""

    kind: Literal["prune"] = "prune"
    repeats: Count = Field(3, description="draws of weights and images over which a score is averaged")
    random_numbers: Literal["common", "independent", "published"] = Field(
        "common",
        description="`common`: all candidates of a round share weights and images; `independent`: each has its "
        "own; `published`: as the authors' program draws, the body's weights fixed for a round, images per "
        "candidate and draw, a fresh head for each network",
    )


Options = PruneOptions
