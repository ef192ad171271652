"""The fast engine against the literal search, with draws as the authors' program makes them."""

import numpy as np
import pytest
from literal import Networks, meta_ntk_condition, regions
from small_search import make_plan, nearly_a_genotype
from test_exactness import compare_ranks, rounds_of_a_search
from torch import Tensor

from metantk.criteria import inputs
from metantk.runtime.devices import generator
from metantk.searches import prune
from metantk.searches.plan import Plan
from metantk.searches.prune import Candidate
from metantk.space.supernet import initialise

pytestmark = pytest.mark.slow


def published_pair(
    plan: Plan, candidate: Candidate, masks: dict[str, Tensor], seed: int, index: int, repeat: int, place: int
) -> tuple[list[float], list[float]]:
    """C and R of the networks with and without a candidate, one after the other, as the authors' program draws.

    Body weights are the round's, thin weights a candidate's, images a pair's, and each network has its own head.
    """
    key = (seed, index, repeat, place)
    tasks = inputs.draw_tasks(plan.context, plan.criteria_options["meta_ntk_condition"], key)
    crops = inputs.draw_crops(plan.context, plan.criteria_options["linear_regions"], key)
    wide, thin = Networks(plan, (seed, index), masks), Networks(plan, (seed, index, place), masks)
    without = {cell: mask.clone() for cell, mask in masks.items()}
    without[candidate.cell][candidate.edge, candidate.operation] = False
    conditions, counts = [], []
    for side, mask in enumerate((masks, without)):
        initialise(wide.wide.head, plan.context.initialisation, generator("head", *key, side))
        conditions.append(meta_ntk_condition(plan, wide.plain(mask), tasks))
        counts.append(regions(thin.plain_thin(mask), crops))
    return conditions, counts


def test_published_draws_have_the_literal_values_ranks_and_choices():
    """Two repeats of three rounds, the last one of operations and two of edges, to the genotype."""
    plan = make_plan(random_numbers="published", repeats=2, initialisation="pytorch")
    seed = 1
    for state, rows in rounds_of_a_search(plan, seed, nearly_a_genotype(plan.space, seed), 3):
        this = prune.next_round(plan.space, state.masks)
        # (repeats, candidates, criteria, before and after the removal)
        literal = np.array(
            [
                [
                    published_pair(plan, candidate, state.masks, seed, state.rounds, repeat, place)
                    for place, candidate in enumerate(this.candidates)
                ]
                for repeat in range(2)
            ]
        )
        scores = {}
        for which, name in enumerate(("meta_ntk_condition", "linear_regions")):
            before, after = literal[:, :, which, 0], literal[:, :, which, 1]
            np.testing.assert_allclose([row[f"{name}_unpruned"] for row in rows], before.mean(0), rtol=1e-8)
            np.testing.assert_allclose([row[name] for row in rows], after.mean(0), rtol=1e-8)
            scores[name] = np.round((before - after) / before, 3).mean(0).tolist()
        assert len(set(literal[0, :, 0, 0])) == len(rows), "unpruned networks of two pairs are alike"
        compare_ranks(plan, rows, this, scores)
