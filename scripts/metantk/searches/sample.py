"""A uniform sample of an architecture, of the space or of a budget: the row "Random Cell" of Table 2."""

import torch

from metantk.options.searches.sample import Options
from metantk.runtime.devices import numpy_generator
from metantk.searches.base import Checkpoint, Found, Problem
from metantk.searches.budget import budget_of
from metantk.space import paths
from metantk.space.genotype import CELL_TYPES, KEPT_EDGES, SPACES, Space, to_genotype


def find(problem: Problem, options: Options, seed: int, checkpoint: Checkpoint) -> Found:
    index = seed % options.distinct if options.distinct else seed
    space = SPACES[options.space]
    budget, _ = budget_of(problem, options, checkpoint)
    if budget is None:
        return Found(random_genotype(space, index))
    (row,) = budget.sample(1, numpy_generator("random genotype within a budget", index))
    genotype = paths.genotype_of(space, row)
    return Found(genotype, facts={"budget": budget.facts(genotype)})


def random_genotype(space: Space, seed: int) -> dict:
    """A uniform sample: an operation for each edge, two inputs for each node."""
    rng = numpy_generator("random genotype", seed)
    masks = {cell: torch.zeros(len(space.edges), len(space.operations), dtype=torch.bool) for cell in CELL_TYPES}
    for cell in CELL_TYPES:
        for node in range(2, 2 + space.nodes):
            for source in rng.choice(node, KEPT_EDGES, replace=False):
                edge = space.edges.index((int(source), node))
                masks[cell][edge, rng.integers(len(space.operations))] = True
    return to_genotype(space, masks)
