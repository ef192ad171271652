"""Kernels against fixtures, against slow implementations and against their definition."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import MixedNetwork, group_norm, kernels_by_loop
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn.functional import conv2d

from metantk.kernels import (
    condition_numbers,
    empirical_kernels,
    meta_ntk,
    sample_by_folding,
    sample_by_products,
    spectral_entropies,
)
from metantk.space.genotype import CELL_TYPES, SPACES, cell_types
from metantk.space.supernet import Convolution, Supernet, initialise

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").glob("metantk_*.npz"))


def test_fixtures_are_there():
    assert len(FIXTURES) == 6


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_meta_ntk_agrees_with_the_fixtures(path):
    data = np.load(path)
    cases = [name.removesuffix("_metantk") for name in data.files if name.endswith("_metantk")]
    assert len(cases) == 8
    for case in cases:
        kind, time, ridge = case.split("_")
        kernel = meta_ntk(
            data["ntk"],
            data["ntk"] if kind == "MAML" else data["nngp"],
            tasks=int(data["n_tasks"]),
            queries=int(data["n_queries"]),
            supports=int(data["n_support"]),
            time=math.inf if time == "tinf" else float(time.removeprefix("t")),
            ridge=float(ridge.removeprefix("reg")),
        )
        expected = data[f"{case}_metantk"]
        assert kernel.dtype == torch.float64
        assert np.abs(kernel.numpy() - expected).max() < 1e-8 * np.abs(expected).max()
        assert condition_numbers(kernel).item() == pytest.approx(float(data[f"{case}_cond"]), rel=1e-8)


def meta_ntk_by_blocks(ntk, base, tasks, queries, supports, time, ridge, *, last=lambda a: a.T):
    """Eqs. 10-11 block by block, term by term; `last` is what makes the fourth term of the third."""
    n = tasks * queries
    query = [range(i * queries, (i + 1) * queries) for i in range(tasks)]
    support = [range(n + i * supports, n + (i + 1) * supports) for i in range(tasks)]

    def block(kernel, rows, columns):
        return kernel[np.ix_(rows, columns)]

    adapt = []
    for q, s in zip(query, support, strict=True):
        inner = block(base, s, s)
        values, vectors = np.linalg.eigh(inner)
        decay = vectors @ np.diag(np.exp(-time * values)) @ vectors.T
        inverse = np.linalg.inv(inner + ridge * np.eye(supports))
        adapt.append(block(base, q, s) @ inverse @ (np.eye(supports) - decay))
    result = np.zeros((n, n))
    for i in range(tasks):
        for j in range(tasks):
            result[np.ix_(query[i], query[j])] = (
                block(ntk, query[i], query[j])
                + adapt[i] @ block(ntk, support[i], support[j]) @ adapt[j].T
                - adapt[i] @ block(ntk, support[i], query[j])
                - block(ntk, query[i], support[j]) @ last(adapt[j])
            )
    return result


@pytest.mark.parametrize(("tasks", "queries", "supports"), [(1, 1, 1), (1, 1, 4), (2, 3, 2), (4, 2, 3)])
@pytest.mark.parametrize("time", [0.3, 5.0])
def test_meta_ntk_agrees_block_by_block(tasks, queries, supports, time):
    rng = np.random.default_rng(tasks * 10 + supports)
    size = tasks * (queries + supports)
    jacobian, head = rng.normal(size=(size, 2 * size)), rng.normal(size=(size, 2 * size))
    ntk, base = jacobian @ jacobian.T / size, head @ head.T / size
    got = meta_ntk(ntk, base, tasks=tasks, queries=queries, supports=supports, time=time, ridge=0.01).numpy()
    expected = meta_ntk_by_blocks(ntk, base, tasks, queries, supports, time, 0.01)
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(got, got.T, atol=1e-12)


def test_meta_ntk_refuses_kernels_of_another_size():
    with pytest.raises(ValueError, match="expected"):
        meta_ntk(np.eye(7), np.eye(7), tasks=2, queries=2, supports=2, time=1.0, ridge=0.0)


def test_condition_numbers_of_unusable_matrices_are_infinite():
    good = torch.diag(torch.tensor([1.0, 4.0]))
    bad = [torch.zeros(2, 2), torch.diag(torch.tensor([-1.0, 2.0])), torch.full((2, 2), math.nan)]
    bad += [torch.tensor([[math.inf, 0.0], [0.0, 1.0]])]
    values = condition_numbers(torch.stack([good, *bad]))
    assert values.tolist() == [4.0] + [math.inf] * 4


def make_candidates(space, generator, count):
    """Random remaining operations, and candidates that lack one each, the last also a whole edge."""
    remaining = {}
    for kind in CELL_TYPES:
        mask = torch.rand(len(space.edges), len(space.operations), generator=generator) < 0.7
        mask[~mask.any(1), 0] = True
        remaining[kind] = mask
    masks = {kind: remaining[kind].repeat(count, 1, 1) for kind in CELL_TYPES}
    for index in range(1, count):
        kind = CELL_TYPES[index % 2]
        alive = masks[kind][index].nonzero()
        edge, operation = alive[int(torch.randint(len(alive), (), generator=generator))]
        masks[kind][index, edge, operation] = False
    masks["normal"][count - 1, 2] = False
    return remaining, masks


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space_name", "cells", "dtype", "tolerance"),
    [
        ("few-shot", 3, torch.float64, 1e-9),
        ("few-shot", 3, torch.float32, 1e-4),
        ("few-shot", 5, torch.float64, 1e-9),
        ("darts", 3, torch.float64, 1e-9),
    ],
)
def test_fused_supernet_has_the_kernels_of_plain_networks(space_name, cells, dtype, tolerance):
    space, generator = SPACES[space_name], torch.Generator().manual_seed(3)
    remaining, masks = make_candidates(space, generator, count=4)
    network = Supernet(space, remaining, cell_types(cells), 4, outputs=5).to(dtype)
    initialise(network, "kaiming_normal", generator)
    images = torch.randn(5, 3, 16, 16, generator=generator).to(dtype)
    ntk, nngp, _ = empirical_kernels(network, images, masks)
    for index in range(4):
        plain = MixedNetwork(network, space, {kind: masks[kind][index] for kind in masks}, norm=group_norm)
        expected_ntk, expected_nngp = kernels_by_loop(plain, images)
        assert (ntk[index] - expected_ntk).abs().max() < tolerance * expected_ntk.abs().max()
        assert (nngp[index] - expected_nngp).abs().max() < tolerance * expected_nngp.abs().max()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_ntk_of_a_supernet_agrees_with_torch_func(dtype, tolerance):
    """Per-sample gradients by vmap(grad) over the very same supernet, one candidate."""
    space, generator = SPACES["few-shot"], torch.Generator().manual_seed(5)
    remaining, masks = make_candidates(space, generator, count=1)
    network = Supernet(space, remaining, cell_types(4), 3, outputs=4).to(dtype)
    initialise(network, "kaiming_normal", generator)
    images = torch.randn(5, 3, 16, 16, generator=generator).to(dtype)
    single = {kind: mask[0] for kind, mask in masks.items()}
    plain = MixedNetwork(network, space, single, norm=group_norm)
    weights = dict(plain.named_parameters())

    def output(weights, image):
        return functional_call(plain, weights, (image[None],)).sum()

    gradients = vmap(grad(output), in_dims=(None, 0))(weights, images)
    rows = torch.cat([gradient.flatten(1) for gradient in gradients.values()], dim=1).double()
    expected = rows @ rows.T
    ntk, *_ = empirical_kernels(network, images, masks)
    assert (ntk[0] - expected).abs().max() < tolerance * expected.abs().max()


def test_kernel_does_not_depend_on_the_batch_a_candidate_is_in():
    space, generator = SPACES["few-shot"], torch.Generator().manual_seed(7)
    remaining, masks = make_candidates(space, generator, count=5)
    network = Supernet(space, remaining, cell_types(3), 4, outputs=5).double()
    initialise(network, "pytorch", generator)
    images = torch.randn(4, 3, 8, 8, generator=generator).double()
    together, *_ = empirical_kernels(network, images, masks)
    for index in range(5):
        alone, *_ = empirical_kernels(network, images, {k: m[index : index + 1] for k, m in masks.items()})
        torch.testing.assert_close(together[index], alone[0], rtol=1e-11, atol=1e-11)


def smooth_network(weights, x):
    """Fully connected, tanh, NTK parametrisation, one output; `weights` is a tuple of matrices."""
    for weight in weights[:-1]:
        x = torch.tanh(x @ weight.T / weight.shape[1] ** 0.5)
    return (x @ weights[-1].T / weights[-1].shape[1] ** 0.5)[:, 0]


def draw_weights(inputs, width, generator):
    sizes = [inputs, width, width, 1]
    return tuple(torch.randn(b, a, generator=generator, dtype=torch.float64) for a, b in pairwise(sizes))


def gram_of_jacobians(parts):
    rows = torch.cat([torch.cat([part.flatten(1) for part in jacobian], dim=1) for jacobian in parts])
    return rows @ rows.T


def meta_ntk_by_definition(weights, tasks, rate):
    """Eq. 4: Gram of the Jacobian of the meta-output (Eq. 1, one inner step), second order included."""

    def meta_output(weights, query, support, targets):
        def loss(weights):
            return 0.5 * ((smooth_network(weights, support) - targets) ** 2).sum()

        steps = grad(loss)(weights)
        adapted = tuple(weight - rate * step for weight, step in zip(weights, steps, strict=True))
        return smooth_network(adapted, query)

    return gram_of_jacobians([jacrev(meta_output)(weights, *task) for task in tasks])


def ntk_by_definition(weights, inputs):
    return gram_of_jacobians([jacrev(smooth_network)(weights, inputs)])


def error_at_width(width, seed, *, wrong_sign=False):
    """Relative distance between the MetaNTK by Eq. 4 and by Eq. 11 for one linearised inner step."""
    generator = torch.Generator().manual_seed(seed)
    weights = draw_weights(6, width, generator)
    draw = [torch.randn(3, 6, generator=generator, dtype=torch.float64) for _ in range(4)]
    targets = [torch.randn(3, generator=generator, dtype=torch.float64) for _ in range(2)]
    tasks = [(draw[0], draw[1], targets[0]), (draw[2], draw[3], targets[1])]
    rate = 0.1
    expected = meta_ntk_by_definition(weights, tasks, rate)
    ntk = ntk_by_definition(weights, torch.cat([draw[0], draw[2], draw[1], draw[3]]))
    # One step of rate λ is the first-order term of the flow: I - exp(-tK) becomes λK, so A_i = λ K_QiSi.
    adapt = torch.eye(6, 12, dtype=torch.float64)
    sign = 1 if wrong_sign else -1
    for i in range(2):
        q, s = slice(3 * i, 3 * i + 3), slice(6 + 3 * i, 9 + 3 * i)
        adapt[q, s] = sign * rate * ntk[q, s]
    formula = adapt @ ntk @ adapt.T
    return float((expected - formula).norm() / expected.norm())


def test_meta_ntk_formula_approaches_its_definition_with_width():
    widths = [64, 256, 1024]
    errors = [np.mean([error_at_width(width, seed) for seed in range(3)]) for width in widths]
    assert errors[0] > errors[1] > errors[2]
    # Lemma 3: the terms that Eq. 11 leaves out vanish at least like one over the root of the width.
    slope = np.polyfit(np.log(widths), np.log(errors), 1)[0]
    assert slope < -0.5
    assert error_at_width(1024, 0, wrong_sign=True) > 10 * errors[2]


def test_linearised_flow_of_meta_ntk_agrees_with_many_small_steps():
    """T = K⁻¹(I − exp(−tK)): the gradient flow of the linearised inner problem, against Euler steps."""
    rng = np.random.default_rng(1)
    jacobian = rng.normal(size=(6, 20)) / 4
    ntk = jacobian @ jacobian.T
    kernel = meta_ntk(ntk, ntk, tasks=1, queries=3, supports=3, time=2.0, ridge=0.0).numpy()
    steps = 20_000
    residual, applied = np.eye(3), np.zeros((3, 3))
    for _ in range(steps):
        applied += 2.0 / steps * residual
        residual = residual - 2.0 / steps * ntk[3:, 3:] @ residual
    adapt = np.hstack([np.eye(3), -ntk[:3, 3:] @ applied])
    np.testing.assert_allclose(kernel, adapt @ ntk @ adapt.T, rtol=1e-3)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "groups"), [((3, 3), 1), ((1, 5), 2), ((5, 1), 4), ((3, 3), 8)])
def test_both_ways_to_per_sample_gradients_agree(kernel, groups, stride):
    """The one for CPUs and the one for GPUs, against one backward pass per image."""
    generator = torch.Generator().manual_seed(0)
    layer = Convolution(8, 16, kernel, stride=stride, groups=groups).double()
    initialise(layer, "pytorch", generator)
    x = torch.randn(3, 8, 9, 9, dtype=torch.float64, generator=generator)
    options = {"stride": stride, "padding": layer.padding, "groups": groups}
    backprops = torch.randn(conv2d(x, layer.weight, **options).shape, dtype=torch.float64, generator=generator)
    expected = torch.stack(
        [
            torch.autograd.grad(conv2d(x[i : i + 1], layer.weight, **options), layer.weight, backprops[i : i + 1])[
                0
            ]
            for i in range(3)
        ]
    )
    for sample in (sample_by_products, sample_by_folding):
        torch.testing.assert_close(sample(layer, x, backprops), expected, rtol=1e-10, atol=1e-10)


def test_spectral_entropy_of_known_spectra():
    matrices = torch.stack([torch.eye(4), torch.diag(torch.tensor([1.0, 0, 0, 0])), torch.zeros(4, 4)])
    values = spectral_entropies(torch.cat([matrices, torch.full((1, 4, 4), math.nan)]))
    assert values[:2].tolist() == pytest.approx([math.log(4), 0.0], abs=1e-12)
    assert values[2:].tolist() == [-math.inf, -math.inf]
    shares = torch.tensor([0.5, 0.25, 0.25, 0.0])
    basis = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))[0].double()
    value = spectral_entropies(basis @ torch.diag(7 * shares.double()) @ basis.T)
    assert float(value) == pytest.approx(1.5 * math.log(2), rel=1e-7)
