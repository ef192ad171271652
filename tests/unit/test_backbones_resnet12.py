"""ResNet-12 and its dropping against the published code's numbers (fixtures' README: rivals)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from metantk.backbones.counting import count_parameters
from metantk.backbones.drop import Drop
from metantk.backbones.resnet12 import (
    Network,
    drop_block,
    dropout,
    keep_mask,
    keep_share,
    scale_of,
    seed_probability,
)
from metantk.runtime.devices import generator

RIVALS = Path(__file__).parents[1] / "fixtures" / "rivals"
RESNET12 = np.load(RIVALS / "resnet12_seed0.npz")
DROPBLOCK = np.load(RIVALS / "dropblock_seed0.npz")
CASES = sorted({name.split("/")[0] for name in DROPBLOCK if name.startswith("case")})
WIDTHS = [64, 160, 320, 640]


def fixture_network(image_size, pool="average"):
    network = Network(widths=[4, 10, 20, 40], pool=pool, image_size=image_size, block_size=2, outputs=7).double()
    prefix = "param/"
    weights = {
        name.removeprefix(prefix): torch.from_numpy(RESNET12[name]).double()
        for name in RESNET12
        if name.startswith(prefix)
    }
    if pool == "none":  # the fixture's head reads pooled features
        weights |= {name: value for name, value in network.state_dict().items() if name.startswith("head.")}
    network.load_state_dict(weights)
    return network


def fixture_images(size):
    return torch.from_numpy(RESNET12[f"input{size}"]).double()


def assert_near(found, expected):
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    ("outputs", "parameters"),
    [(5, 12_427_525), (60, 12_462_780), (64, 12_465_344), (80, 12_475_600), (351, 12_649_311), (448, 12_711_488)],
)
def test_parameters_are_the_published_ones(outputs, parameters):
    network = Network(widths=WIDTHS, pool="average", image_size=84, block_size=5, outputs=outputs)
    assert count_parameters(network) == parameters
    blocks = [network.block1, network.block2, network.block3, network.block4]
    assert [count_parameters(block) for block in blocks] == [76_160, 564_480, 2_357_760, 9_425_920]


@pytest.mark.parametrize(("image_size", "features"), [(84, 16_000), (32, 2_560)])
def test_features_without_pooling_are_all_pixels(image_size, features):
    network = Network(widths=WIDTHS, pool="none", image_size=image_size, block_size=2, outputs=5)
    assert network.feature_dim == network.head.in_features == features


@pytest.mark.parametrize("size", [84, 32])
def test_evaluation_equals_the_published_networks(size):
    network = fixture_network(size).eval()
    images = fixture_images(size)
    assert_near(network.features(images), RESNET12[f"eval{size}/features_pooled"])
    assert_near(network(images), RESNET12[f"eval{size}/logits"])
    flat = fixture_network(size, pool="none").eval()
    assert_near(flat.features(images), RESNET12[f"eval{size}/features_flat"])
    x = images
    for index, block in enumerate((network.block1, network.block2, network.block3, network.block4), start=1):
        x = block(x)
        assert list(x.shape) == RESNET12[f"eval{size}/stage{index}_shape"].tolist()
        assert_near(x.mean((2, 3)), RESNET12[f"eval{size}/stage{index}_channel_means"])


def test_a_training_step_equals_the_published_networks():
    network = fixture_network(32).train()
    logits = network(fixture_images(32))
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(RESNET12["train32/labels"]))
    loss.backward()
    assert_near(logits, RESNET12["train32/logits"])
    assert_near(loss, RESNET12["train32/loss"])
    for name, parameter in network.named_parameters():
        assert_near(parameter.grad.norm(), RESNET12[f"train32/gradnorm/{name}"])
    assert_near(network.head.weight.grad, RESNET12["train32/grad/head.weight"])
    # The fixture's statistics are those after two passes over the batch, though its README says one.
    network(fixture_images(32))
    compared = 0
    for name, buffer in network.named_buffers():
        layer, _, kind = name.rpartition(".")
        if f"train32/{kind}_after/{layer}" in RESNET12:
            assert_near(buffer, RESNET12[f"train32/{kind}_after/{layer}"])
            compared += 1
    assert compared == 6


@pytest.mark.parametrize("case", CASES)
def test_each_seed_zeroes_its_whole_block(case):
    side, block_size, count = DROPBLOCK[f"{case}/feat_block_count"]
    seeds = torch.from_numpy(DROPBLOCK[f"{case}/seed_mask"]).double()
    assert seeds.sum() == count
    mask = keep_mask(seeds, int(block_size))
    assert mask.shape[-1] == side
    np.testing.assert_array_equal(mask, DROPBLOCK[f"{case}/full_block_keep_mask"])
    if np.gcd(count, block_size**2) == 1:  # elsewhere the published code zeroes parts of blocks
        np.testing.assert_allclose(scale_of(mask), DROPBLOCK[f"{case}/published_scale"], rtol=1e-6)
        np.testing.assert_array_equal(mask, DROPBLOCK[f"{case}/published_keep_mask"])


def test_the_schedule_is_the_published_one():
    for side, block_size, count, keep, probability in DROPBLOCK["gamma_table_feat_block_counter_keep_gamma"]:
        assert keep_share(0.1, int(count)) == pytest.approx(keep, abs=1e-12)
        assert seed_probability(keep, int(block_size), int(side)) == pytest.approx(probability, abs=1e-12)


def drop_block_by_loop(x, draws, probability, block_size):
    """One pixel after the other, from the same draws."""
    mask = torch.ones_like(x)
    for n, c, i, j in np.ndindex(*draws.shape):
        if draws[n, c, i, j] < probability:
            mask[n, c, i : i + block_size, j : j + block_size] = 0
    return x * mask * mask.numel() / mask.sum()


@pytest.mark.parametrize(("side", "block_size"), [(10, 5), (5, 5), (4, 2), (7, 3), (3, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_drop_block_equals_one_that_goes_through_all_places(side, block_size, dtype):
    x = torch.randn(3, 8, side, side, generator=generator("x"), dtype=dtype)
    draws = torch.rand(3, 8, *[side - block_size + 1] * 2, generator=generator("seeds"))
    expected = drop_block_by_loop(x, draws, seed_probability(0.7, block_size, side), block_size)
    found = drop_block(x, 0.7, block_size, generator("seeds"))
    assert (expected == 0).any()
    torch.testing.assert_close(found, expected)


def test_blocks_are_no_larger_than_the_map():
    x = torch.ones(50, 40, 2, 2)
    dropped = drop_block(x, 0.9, 5, generator("seeds")).flatten(2)
    assert (dropped == dropped[..., :1]).all()  # whole maps
    assert (dropped[..., 0] == 0).double().mean() == pytest.approx(0.1, abs=0.02)
    assert dropped.mean() == pytest.approx(1)


def test_a_batch_that_is_dropped_whole_is_zero():
    mask = torch.zeros(1, 1, 2, 2)
    assert (torch.ones(1, 1, 2, 2) * mask * scale_of(mask) == 0).all()


def test_dropout_keeps_the_mean():
    x = torch.ones(100, 10, 4, 4)
    dropped = dropout(x, 0.25, generator("dropout"))
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert dropped.mean() == pytest.approx(1, abs=0.02)


def zeros_before(block, step):
    """Share of zeros in what a block reads, where the first two stages drop half and the others ramp up to it."""
    network = Network(widths=[4, 4, 4, 4], pool="average", image_size=32, block_size=2, outputs=2).train()
    network.initialise_(generator("weights"))
    images = torch.rand(8, 3, 32, 32, generator=generator("pictures"))
    shares = []
    getattr(network, block).register_forward_pre_hook(
        lambda module, inputs: shares.append((inputs[0] == 0).double().mean().item())
    )
    network.features(images, Drop(0.5, 0.01, step, generator("drop")))
    return shares[0]


@pytest.mark.parametrize("step", [0, 40_000])
def test_the_first_stages_drop_from_the_first_step_on(step):
    assert zeros_before("block2", step) == pytest.approx(0.5, abs=0.05)
    assert zeros_before("block3", step) == pytest.approx(0.5, abs=0.1)


def test_the_other_stages_drop_more_from_step_to_step():
    assert zeros_before("block4", 0) == 0
    assert 0 < zeros_before("block4", 10_000) < zeros_before("block4", 40_000)


def test_initial_weights_are_hes_by_fan_out():
    network = Network(widths=[32, 48, 64, 96], pool="average", image_size=32, block_size=2, outputs=50)
    network.initialise_(generator("weights"))
    for module in network.requires_grad_(False).modules():
        if isinstance(module, nn.Conv2d):
            deviation = (2 / (module.kernel_size[0] ** 2 * module.out_channels)) ** 0.5
            assert module.weight.std() == pytest.approx(deviation, rel=0.1)
            assert module.weight.abs().max() > 2.2 * deviation  # normal, not uniform
    for parameter in network.head.parameters():
        assert parameter.abs().max() <= 96**-0.5
        assert parameter.abs().max() > 0.9 * 96**-0.5
