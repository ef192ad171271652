"""Linear regions and the thin supernet against plain networks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from reference import MixedNetwork, batch_norm
from test_kernels import make_candidates
from torch import nn

from metantk.criteria.formulas import linear_regions as count_regions
from metantk.criteria.linear_regions import regions_of_candidates
from metantk.flops import macs_of_calls
from metantk.space.genotype import CELL_TYPES, SPACES
from metantk.space.supernet import Supernet, initialise, mixing_weights

FIXTURES = sorted((Path(__file__).parents[1] / "fixtures").glob("lr_*.npz"))


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_count_regions_agrees_with_the_fixtures(path):
    data = np.load(path)
    assert count_regions(data["activations"]) == int(data["exact_unique"])


def test_there_are_two_fixtures():
    assert len(FIXTURES) == 2


@pytest.mark.parametrize(("inputs", "units"), [(1, 1), (5000, 7), (3000, 64), (200, 65)])
def test_count_regions_is_exact(inputs, units):
    values = np.random.default_rng(units).normal(size=(inputs, units))
    values[np.abs(values) < 0.3] = 0  # zero is off
    assert count_regions(values) == len({tuple(row) for row in values > 0})
    assert count_regions(torch.from_numpy(values)) == count_regions(values)


def thin_network(space, remaining, generator):
    network = Supernet(space, remaining, list(CELL_TYPES), 1, outputs=None, norm="batch", inputs=1, stem=False)
    initialise(network, "kaiming_normal", generator)
    return network


def regions_by_hooks(network: nn.Module, batches: list[torch.Tensor]) -> int:
    """R_N of one plain network: every ReLU's output through a forward hook."""
    rows = []
    for batch in batches:
        patterns: list[torch.Tensor] = []
        hooks = [
            module.register_forward_hook(lambda m, i, output, keep=patterns: keep.append(output.flatten(1) > 0))
            for module in network.modules()
            if isinstance(module, nn.ReLU)
        ]
        with torch.no_grad():
            network(batch)
        for hook in hooks:
            hook.remove()
        rows.append(torch.cat(patterns, dim=1))
    return len({tuple(row) for row in torch.cat(rows).tolist()})


@pytest.mark.slow
@pytest.mark.parametrize("space_name", ["few-shot", "darts"])
@pytest.mark.parametrize("size", [3, 5])
def test_regions_of_fused_candidates_agree_with_plain_networks(space_name, size):
    """3×3 pixels take the path of dense products, 5×5 that of convolutions."""
    space, generator = SPACES[space_name], torch.Generator().manual_seed(11)
    remaining, masks = make_candidates(space, generator, count=4)
    network = thin_network(space, remaining, generator)
    batches = [torch.randn(150, 1, size, size, generator=generator) for _ in range(2)]
    got = regions_of_candidates(network, batches, masks)
    for index in range(4):
        plain = MixedNetwork(network, space, {kind: masks[kind][index] for kind in masks}, norm=batch_norm)
        assert got[index] == regions_by_hooks(plain, batches)
    assert 1 < got.min() <= got.max() <= 300


@pytest.mark.parametrize("space_name", ["few-shot", "darts"])
@pytest.mark.parametrize("size", [3, 6])
def test_counted_operations_are_those_of_the_plain_network(space_name, size):
    """One for each weight and each place that it is applied at."""
    space, generator = SPACES[space_name], torch.Generator().manual_seed(11)
    remaining, _ = make_candidates(space, generator, count=1)
    network = thin_network(space, remaining, generator)
    images = torch.randn(7, 1, size, size, generator=generator)
    with macs_of_calls((layer.shown, layer.module) for layer in network.layers().values()) as counted:
        regions_of_candidates(network, [images, images], {kind: mask[None] for kind, mask in remaining.items()})
    plain = MixedNetwork(network, space, remaining, norm=batch_norm)
    by_hand = []
    for module in plain.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda m, _, output: by_hand.append(output.numel() * m.weight[0].numel()))
    with torch.no_grad():
        plain(images)
    assert sum(counted) == 2 * sum(by_hand) > 0
    before = len(counted)
    network(images, {kind: mask[None] for kind, mask in remaining.items()})
    assert len(counted) == before


def test_outputs_agree_with_plain_networks_on_odd_sizes():
    space, generator = SPACES["few-shot"], torch.Generator().manual_seed(2)
    remaining, masks = make_candidates(space, generator, count=3)
    network = thin_network(space, remaining, generator).double()
    images = torch.randn(20, 1, 5, 5, generator=generator).double()
    with torch.no_grad():
        got = network(images, masks).unflatten(0, (3, -1))
        for index in range(3):
            plain = MixedNetwork(network, space, {kind: masks[kind][index] for kind in masks}, norm=batch_norm)
            torch.testing.assert_close(got[index], plain(images), rtol=1e-10, atol=1e-12)


def test_mixing_weights_are_one_over_the_remaining_operations():
    masks = torch.tensor([[[True, True, False], [False, False, False], [True, True, True]]])
    weights = mixing_weights(masks, torch.float64)
    assert weights.tolist() == [[[0.5, 0.5, 0], [0, 0, 0], [1 / 3, 1 / 3, 1 / 3]]]


def test_initialisation_follows_the_scheme_and_the_generator():
    space = SPACES["few-shot"]
    remaining, _ = make_candidates(space, torch.Generator().manual_seed(0), count=1)
    network = Supernet(space, remaining, ["normal", "reduce"], 16, outputs=5)
    weight = network.cells[0].preprocess[0].convolution.weight
    initialise(network, "kaiming_normal", torch.Generator().manual_seed(1))
    first = weight.detach().clone()
    assert first.std() == pytest.approx((2 / 16) ** 0.5, rel=0.15)
    initialise(network, "kaiming_normal", torch.Generator().manual_seed(1))
    assert torch.equal(weight, first)
    initialise(network, "pytorch", torch.Generator().manual_seed(1))
    assert weight.abs().max() <= 0.25
