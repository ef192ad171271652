"""Options of Algorithm 1, the pruning of a supernet by criteria."""

from typing import Literal

from pydantic import Field

from metantk.options.base import Count
from metantk.options.searches.measuring import MeasuringOptions


class PruneOptions(MeasuringOptions):
    """Algorithm 1: prune a supernet by the sum of the ranks of its operations (search `prune`)."""

    kind: Literal["prune"] = "prune"
    repeat: Count = Field(3, description="draws of weights and pictures over which a score is averaged")
    draws: Literal["common", "independent", "published"] = Field(
        "common",
        description="`common`: all candidates of a round share weights and pictures; `independent`: each has its "
        "own; `published`: as the authors' program draws, the body's weights fixed for a round, pictures per "
        "candidate and draw, a fresh head for each network",
    )


Options = PruneOptions
