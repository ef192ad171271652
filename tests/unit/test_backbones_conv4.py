"""Conv4 against published parameter counts and a network computed elsewhere (fixtures' README: rivals)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from metantk.backbones.conv4 import Network
from metantk.backbones.counting import count_macs, count_parameters
from metantk.runtime.devices import generator

MAML = np.load(Path(__file__).parents[1] / "fixtures" / "rivals" / "maml_seed0.npz")


@pytest.mark.parametrize(
    ("channels", "image_size", "outputs", "parameters"),
    [
        (32, 84, 5, 32_901),
        (64, 84, 5, 121_093),
        (32, 84, 64, 80_160),
        (32, 84, 351, 310_047),
        (64, 84, 64, 215_552),
        (64, 84, 351, 675_039),
        (32, 32, 5, 29_541),
    ],
)
def test_parameters_are_the_published_ones(channels, image_size, outputs, parameters):
    network = Network(channels=channels, image_size=image_size, outputs=outputs)
    assert count_parameters(network) == parameters
    assert count_parameters(network) - count_parameters(network.head) == {32: 28_896, 64: 113_088}[channels]


def test_macs_counted_by_hand():
    network = Network(channels=2, image_size=36, outputs=3)
    assert network.feature_dim == 2 * 2 * 2  # 36, 18, 9, 4, 2
    assert count_macs(network, 36) == 9 * 2 * (3 * 36**2 + 2 * (18**2 + 9**2 + 4**2)) + 8 * 3


def test_forward_is_that_of_the_fixture():
    prefix = "param/"
    weights = {
        name.removeprefix(prefix): torch.from_numpy(MAML[name]).double() for name in MAML if name.startswith(prefix)
    }
    network = Network(channels=4, image_size=28, outputs=3).double()
    network.load_state_dict(network.state_dict() | weights)  # the fixture has no running statistics
    network.train()
    support = torch.from_numpy(MAML["support"]).double()
    features = network.features(support)
    np.testing.assert_allclose(features.detach(), MAML["forward/support_features_eps1e-5"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        network(support).detach(), MAML["forward/support_logits_eps1e-5"], rtol=0, atol=1e-12
    )


def test_initial_weights_are_glorots():
    network = Network(channels=64, image_size=32, outputs=40)
    nn.init.constant_(network.block1.bn.weight, 3)
    network.initialise_(generator("weights"))
    for module in network.requires_grad_(False).modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            outputs, inputs = module.weight.shape[:2]
            area = module.weight[0, 0].numel()
            bound = (6 / (area * (inputs + outputs))) ** 0.5
            assert module.weight.abs().max() <= bound
            assert module.weight.abs().max() > 0.98 * bound
            assert module.weight.std() == pytest.approx(bound / 3**0.5, rel=0.05)
            assert not module.bias.any()
        elif isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()


RFS = {"channels": 64, "poolings": 3, "pool": "average", "initialisation": "kaiming_normal"}


@pytest.mark.parametrize("image_size", [32, 84])
def test_the_conv4_of_rfs_is_counted_exactly(image_size):
    """models/convnet.py: 3×3 convolutions with bias, batch norms, 64 features whatever the size of the images."""
    network = Network(**RFS, image_size=image_size, outputs=64)
    convolutions = (3 * 9 + 1) * 64 + 3 * (64 * 9 + 1) * 64
    assert convolutions == 112_576
    assert count_parameters(network) == convolutions + 4 * 2 * 64 + (64 + 1) * 64
    assert network.feature_dim == 64


def test_the_conv4_of_rfs_computes_what_the_published_one_does():
    """Written out as models/convnet.py has it: convolution, norm, ReLU, pooling; no pooling in the last block."""
    network = Network(**RFS, image_size=32, outputs=7).double().eval()
    network.initialise_(generator("weights"))
    x = images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    for index, block in enumerate([network.block1, network.block2, network.block3, network.block4]):
        x = torch.relu(block.bn(block.conv(x)))
        x = torch.max_pool2d(x, 2) if index < 3 else x
    assert x.shape == (3, 64, 4, 4)
    expected = torch.nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)
    torch.testing.assert_close(network.features(images), expected)


def test_initial_weights_of_rfs_are_kaimings_by_fan_out():
    network = Network(**RFS, image_size=32, outputs=40)
    network.initialise_(generator("weights"))
    for block in (network.block1, network.block2, network.block3, network.block4):
        assert block.conv.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
