"""A genotype that is known beforehand: a file of one's own, or a published cell by name."""

from metantk.options.searches.given import Options
from metantk.searches.base import Checkpoint, Found, Problem
from metantk.space.genotype import read_named


def find(problem: Problem, options: Options, seed: int, checkpoint: Checkpoint) -> Found:
    """The genotype of this seed.

    Raises:
        InputError: there is none by that name, or the file holds no genotype.
    """
    chosen = options.genotypes[seed % len(options.genotypes)]
    return Found(read_named(chosen), facts={"genotype": chosen})
