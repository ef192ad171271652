"""The search by experiment: its architectures as rows, its model, and that it finds what is there to find."""

import itertools
import json
import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import check_grad
from small_meta_search import assert_resumes, make_problem
from small_search import SECTIONS, make_plan

from metantk.options.searches.bayesian_optimisation import BayesianOptimisationOptions
from metantk.results.figures.effects import draw_effects
from metantk.runtime.files import InputError
from metantk.searches import bayesian_optimisation, surrogate
from metantk.searches.base import Checkpoint
from metantk.searches.sample import random_genotype
from metantk.searches.surrogate import Function, Posterior, minimum
from metantk.space import paths
from metantk.space.genotype import SPACES

SPACE = SPACES["few-shot"]
CHOICES = len(paths.choices(SPACE))

# A criterion that adds up the effects of an architecture's choices, with noise; it builds no network.
ADDITIVE = """
import numpy as np
from metantk.criteria.base import Criterion, Measured
from metantk.runtime.devices import numpy_generator

def measure(setting, options, draws, masks):
    effects = numpy_generator("truth").normal(size=126)
    parts = [masks[cell].numpy().reshape(len(masks[cell]), -1) for cell in ("normal", "reduce")]
    rows = np.concatenate(parts, axis=1)
    shared = numpy_generator("block", *draws.weights).normal()
    noise = numpy_generator("noise", *draws.weights, *rows[0].nonzero()[0]).normal()
    return Measured(rows @ effects + {noise} * noise + 3 * shared, operations=7)

CRITERION = Criterion(measure, larger_is_better={larger}, title="sum of effects", change="difference")
"""


def truth() -> np.ndarray:
    return bayesian_optimisation.numpy_generator("truth").normal(size=CHOICES)


def own_criterion(folder: Path, *, noise: float = 1.0, larger: bool = False, name: str = "additive") -> str:
    path = folder / f"{name}.py"
    path.write_text(ADDITIVE.replace("{noise}", str(noise)).replace("{larger}", str(larger)))
    return str(path)


class Forgetful(Checkpoint):
    state = None

    def save(self, state: dict) -> None:
        pass


@pytest.mark.parametrize("name", SPACES)
def test_genotypes_are_rows_and_rows_are_genotypes(name):
    space = SPACES[name]
    for seed in range(20):
        genotype = random_genotype(space, seed)
        row = paths.row_of(space, genotype)
        assert row.sum() == 2 * 2 * space.nodes
        again = paths.genotype_of(space, row)
        assert all(
            sorted(map(tuple, one)) == sorted(map(tuple, other))
            for cell in ("normal", "reduce")
            for one, other in zip(genotype[cell], again[cell], strict=True)
        )


@pytest.mark.parametrize(("one", "other"), [("few-shot", "darts"), ("darts", "few-shot")])
def test_a_genotype_of_another_space_has_no_row(one, other):
    with pytest.raises(InputError, match=r"its normal cell has \d nodes, cells of the space"):
        paths.row_of(SPACES[one], random_genotype(SPACES[other], 0))
    genotype = random_genotype(SPACES[one], 0)
    foreign = next(name for name in SPACES[other].operations if name not in SPACES[one].operations)
    genotype["reduce"][0][0][0] = foreign
    with pytest.raises(InputError, match=f"its reduce cell has {foreign}, which is not of the space"):
        paths.row_of(SPACES[one], genotype)


@pytest.mark.parametrize("name", SPACES)
def test_balanced_sample_is_balanced(name):
    space = SPACES[name]
    rows = paths.balanced_sample(space, 210, np.random.default_rng(0))
    for row in rows:
        paths.row_of(space, paths.genotype_of(space, row))  # two edges for each node, one operation on each
    frequency = rows.sum(0).reshape(-1, len(space.operations))
    assert (np.ptp(frequency, axis=1) <= 1).all()
    for pairs in paths.contents(space):
        inside = Counter(tuple(np.flatnonzero(row[np.unique(pairs)])) for row in rows)
        assert all(len(content) == 2 for content in inside)


def test_contents_of_a_node_are_all_its_pairs():
    counted = [len(pairs) for pairs in paths.contents(SPACE)]
    assert counted == 2 * [1 * 49, 3 * 49, 6 * 49]
    assert all(len({tuple(pair) for pair in pairs}) == len(pairs) for pairs in paths.contents(SPACE))


def measured(count: int = 60, *, pairs: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray, Function]:
    draws = np.random.default_rng(3)
    half = np.triu(draws.normal(0, pairs, (CHOICES, CHOICES)), 1) / 2
    true = Function(draws.normal(size=CHOICES), half + half.T)
    rows = paths.balanced_sample(SPACE, count, draws)
    blocks = np.arange(count) * 3 // count
    values = true(rows) + draws.normal(0, 0.5, count) + draws.normal(0, 2, 3)[blocks]
    return rows, values, blocks, true


def test_expected_function_is_the_textbook_one():
    rows, values, blocks, _ = measured()
    posterior = Posterior(rows, values, blocks)
    new = paths.balanced_sample(SPACE, 30, np.random.default_rng(9))
    variances = posterior.variances

    def prior(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Covariance by its definition: over every choice and every pair of choices."""
        table = np.zeros((len(one), len(other)))
        for (i, a), (j, b) in itertools.product(enumerate(one), enumerate(other)):
            shared = a * b
            twos = sum(shared[p] * shared[q] for p, q in itertools.combinations(np.flatnonzero(shared), 2))
            table[i, j] = variances.choices * shared.sum() + variances.pairs * twos
        return table

    centred = values - values.mean()
    noise = variances.noise * np.eye(60) + variances.blocks * (blocks[:, None] == blocks)
    covariance = prior(rows, rows) + noise + surrogate.CONSTANT * centred.var()
    expected = prior(new, rows) @ np.linalg.solve(covariance, centred)
    assert np.allclose(posterior.expected()(new), expected, rtol=1e-8)

    draws = np.random.default_rng(1)
    sampled = np.array([posterior.sample(draws)(new) for _ in range(1000)])
    spread = prior(new, new) - prior(new, rows) @ np.linalg.solve(covariance, prior(rows, new))
    deviation = np.sqrt(spread.diagonal())
    assert np.abs((sampled.mean(0) - expected) / deviation).max() < 5 / np.sqrt(1000)
    assert np.allclose(np.cov(sampled.T), spread, atol=0.25 * spread.diagonal().max())


def test_slopes_of_the_evidence_are_right(monkeypatch):
    rows, values, blocks, _ = measured()
    asked = {}

    def watch(loss, start, **options):
        asked["loss"], asked["start"] = loss, start
        return type("Found", (), {"x": start})

    monkeypatch.setattr(surrogate.optimize, "minimize", watch)
    surrogate._most_likely(surrogate.kernels(rows, blocks), values - values.mean())
    error = check_grad(lambda x: asked["loss"](x)[0], lambda x: asked["loss"](x)[1], asked["start"])
    assert error < 1e-4 * np.linalg.norm(asked["loss"](asked["start"])[1])


def test_evidence_tells_effects_from_interactions_and_noise():
    rows, values, blocks, _ = measured(400, pairs=0.0)
    alone = Posterior(rows, values, blocks).variances
    rows, values, blocks, _ = measured(400, pairs=0.5)
    together = Posterior(rows, values, blocks).variances
    assert together.pairs > 5 * alone.pairs
    pure_noise = Posterior(rows, np.random.default_rng(0).normal(size=400), blocks)
    assert 12 * pure_noise.variances.choices < 0.2


def test_minimum_without_pairs_is_that_of_each_node():
    _, _, _, true = measured(pairs=0.0)
    best = minimum(true, SPACE, np.random.default_rng(0))
    least = sum(min(true.linear[list(pair)].sum() for pair in pairs) for pairs in paths.contents(SPACE))
    assert np.isclose(true(best), least)


def test_minimum_with_pairs_is_below_all_neighbours_and_random_ones():
    _, _, _, true = measured()
    best = minimum(true, SPACE, np.random.default_rng(0))
    for pairs in paths.contents(SPACE):
        for pair in pairs:
            other = best.copy()
            other[pairs.ravel()] = 0
            other[pair] = 1
            assert true(best) <= true(other) + 1e-9
    assert true(best) < true(paths.balanced_sample(SPACE, 20000, np.random.default_rng(1))).min()


@pytest.mark.parametrize(
    ("values", "better_than", "finite"),
    [
        ([2.0, 3.0, 1.0, 4.0, 5.0], 75, [1.0, -1.0, 2.0, 3.0]),
        ([2.0, 3.0, math.nan, 4.0, 5.0], 100, [1.0, 2.0, 3.0]),  # one random architecture is singular
        ([2.0, math.nan, math.nan, 4.0, 5.0], 100, [2.0, 3.0]),
        ([2.0, *[math.nan] * 4], 100, []),
        ([math.nan, 3.0, math.nan, 4.0, 5.0], 0, []),  # the result is
    ],
)
def test_values_that_are_missing_count_as_worse_and_have_no_size(monkeypatch, values, better_than, finite):
    plan = make_plan(criteria=["ntk_condition"])._replace(
        options=BayesianOptimisationOptions(criteria=["ntk_condition"], random_comparisons=4)
    )
    measured = np.array(values)
    monkeypatch.setattr(bayesian_optimisation, "measure", lambda *arguments: {"ntk_condition": measured})
    monkeypatch.setattr(bayesian_optimisation, "badness", lambda criterion, found, name: found)
    candidates = SimpleNamespace(sample=lambda count, rng: np.zeros((count, 126)))
    found = bayesian_optimisation.compare_with_random(plan, np.zeros(126), 0, {}, candidates)["ntk_condition"]
    assert found["better_than"] == better_than
    expected = np.mean(finite) / np.std(finite, ddof=1) if finite else None
    assert found["standard_deviations"] == (expected and pytest.approx(expected))
    json.dumps(found, allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize("larger", [False, True])
def test_it_finds_the_optimum_of_a_noisy_sum(tmp_path, larger):
    """Noise as large as a choice's effect; 220 measurements of 126 unknowns."""
    criterion = own_criterion(tmp_path, larger=larger, name=f"additive_{larger}")
    options = BayesianOptimisationOptions(
        criteria=[criterion], initial_samples=160, max_evaluations=220, tolerance=0.0, random_comparisons=40
    )
    found = bayesian_optimisation.find(make_problem(), options, 0, Forgetful())
    sign = -1 if larger else 1
    value = sign * paths.row_of(SPACE, found.genotype) @ truth()
    random = sign * paths.balanced_sample(SPACE, 2000, np.random.default_rng(0)) @ truth()
    best = sum(min((sign * truth())[list(pair)].sum() for pair in pairs) for pairs in paths.contents(SPACE))
    assert (value - best) / random.std() < 1.0  # of about six deviations between the mean and the optimum
    assert value < random.min()
    (comparison,) = found.facts["random_comparison"].values()
    assert comparison["better_than"] == 100
    assert comparison["architectures"] == 40
    assert comparison["better_than_low"] < 100
    assert comparison["standard_deviations"] > 3
    state = [row for row in found.facts["effects"] if row["kept"]]
    assert len(state) == 12
    assert all(0 <= row["certainty"] <= 1 for row in state)
    assert found.costs[Path(criterion).stem].evaluations == 220 == len(found.trace)
    assert found.costs[Path(criterion).stem].operations == 220 * 7
    figure = draw_effects(
        bayesian_optimisation.pd.DataFrame(found.facts["effects"]), found.trace, "title", found.facts["criteria"]
    )
    assert len(figure.axes) == 1 + 2 * len(SPACE.edges)


def test_it_ends_when_the_choice_is_settled(tmp_path):
    criterion = own_criterion(tmp_path, noise=0.0, name="exact")
    found = bayesian_optimisation.find(
        make_problem(), BayesianOptimisationOptions(criteria=[criterion], random_comparisons=0), 0, Forgetful()
    )
    best = sum(min(truth()[list(pair)].sum() for pair in pairs) for pairs in paths.contents(SPACE))
    assert np.isclose(paths.row_of(SPACE, found.genotype) @ truth(), best)
    assert 200 <= found.facts["measured"] <= 400 < bayesian_optimisation.cost_of_pruning(SPACE)


@pytest.mark.slow
def test_a_criterion_of_noise_alone_has_no_say(tmp_path):
    real = own_criterion(tmp_path, noise=0.3, name="real")
    noise = Path(own_criterion(tmp_path, noise=1.0, name="noise"))
    noise.write_text(noise.read_text().replace("rows @ effects", "0 * rows[:, 0]"))
    options = {"initial_samples": 200, "max_evaluations": 240, "tolerance": 0.0, "random_comparisons": 0}
    alone = bayesian_optimisation.find(
        make_problem(), BayesianOptimisationOptions(criteria=[real], **options), 0, Forgetful()
    )
    both = bayesian_optimisation.find(
        make_problem(), BayesianOptimisationOptions(criteria=[real, str(noise)], **options), 0, Forgetful()
    )
    values = [paths.row_of(SPACE, found.genotype) @ truth() for found in (alone, both)]
    assert values[1] - values[0] < 0.5 * np.abs(truth()).mean()


@pytest.mark.slow
def test_a_killed_search_goes_on_to_the_same_result(tmp_path):
    options = BayesianOptimisationOptions(
        criteria=[own_criterion(tmp_path, name="killed")],
        initial_samples=60,
        samples_per_round=20,
        max_evaluations=110,
        tolerance=0.0,
        random_comparisons=20,
    )
    whole = bayesian_optimisation.find(make_problem(), options, 0, Forgetful())
    whole.costs.pop("model")
    assert_resumes(bayesian_optimisation, options, whole, kills_at=[2, 2])


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_value(threads):
    criteria_options = {"ntk": SECTIONS["ntk"]}
    options = BayesianOptimisationOptions(
        criteria=["ntk_condition"], image_size=8, precision="float64", criteria_options=criteria_options
    )
    plan = bayesian_optimisation.plan_of(make_problem(), options)
    rows = paths.balanced_sample(SPACE, 5, np.random.default_rng(0))
    before = torch.get_num_threads()
    try:
        values = []
        for count in (1, threads):
            torch.set_num_threads(count)
            values.append(bayesian_optimisation.measure(plan, rows, (0, 0), {}, lambda done: None)["ntk_condition"])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    assert np.allclose(values[0], values[1], rtol=1e-9)
    assert len(set(values[0])) == 5


def test_a_criterion_without_any_value_is_one_line(tmp_path):
    broken = Path(own_criterion(tmp_path, name="broken"))
    broken.write_text(broken.read_text().replace("rows @ effects", "np.inf + rows[:, 0]"))
    with pytest.raises(InputError, match="broken is not finite for any architecture"):
        bayesian_optimisation.find(
            make_problem(), BayesianOptimisationOptions(criteria=[str(broken)]), 0, Forgetful()
        )


def test_a_criterion_that_tells_nothing_apart_is_one_line(tmp_path):
    flat = Path(own_criterion(tmp_path, noise=0.0, name="flat"))
    flat.write_text(flat.read_text().replace("rows @ effects", "0 * rows[:, 0]").replace("3 * shared", "0"))
    with pytest.raises(InputError, match=r"no criterion tells the first \d+ architectures apart"):
        bayesian_optimisation.find(
            make_problem(), BayesianOptimisationOptions(criteria=[str(flat)]), 0, Forgetful()
        )
