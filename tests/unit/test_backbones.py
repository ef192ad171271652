"""What all backbones have in common: building, dropping, recomputing, the layout of memory, bad architectures."""

import copy

import pytest
import torch
from torch import nn

from metantk import backbones
from metantk.backbones.cells import Options as CellsOptions
from metantk.backbones.conv4 import Options as Conv4Options
from metantk.backbones.counting import count_parameters
from metantk.backbones.drop import Drop
from metantk.backbones.mixed import Options as MixedOptions
from metantk.backbones.resnet12 import Options as ResNet12Options
from metantk.options.base import parse
from metantk.runtime.devices import generator
from metantk.runtime.files import InputError
from metantk.space.genotype import read_named

GENOTYPE = read_named("metanas_in_v2")
IMAGE_SIZE = 32
ARCHITECTURES = {
    "cells": CellsOptions(cells=3, channels=8).architecture(IMAGE_SIZE, GENOTYPE),
    "conv4": Conv4Options(channels=8).architecture(IMAGE_SIZE, None),
    "resnet12": ResNet12Options(widths=[4, 6, 8, 12]).architecture(IMAGE_SIZE, None),
    "resnet12, no pool": ResNet12Options(widths=[4, 6, 8, 12], pool="none").architecture(IMAGE_SIZE, None),
}
DROPPING = [name for name in ARCHITECTURES if name != "conv4"]
every_kind = pytest.mark.parametrize("name", ARCHITECTURES)


def make(name, *, dtype=torch.float64):
    network = backbones.build(ARCHITECTURES[name], 5)
    network.initialise_(generator("weights", 0))
    return network.to(dtype)


def make_images(*, dtype=torch.float64, count=4):
    return torch.randn(count, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator("pictures"), dtype=dtype)


def drop(rate=0.3, *, progress=1.0, step=50_000, seed=0):
    return Drop(rate, progress, step, generator("drop", seed))


def train_step(network, images, **drops):
    """Gradients and buffers, by name, of one step in training mode."""
    network.train()
    network.zero_grad()
    outputs = network(images, drop(**drops) if drops else None)
    nn.functional.cross_entropy(outputs, torch.arange(len(images)) % 5).backward()
    gradients = {key: parameter.grad.clone() for key, parameter in network.named_parameters()}
    return gradients | {key: buffer.clone() for key, buffer in network.named_buffers()}


@every_kind
def test_outputs_are_the_heads_on_features(name):
    network, images = make(name).eval(), make_images()
    features = network.features(images)
    assert features.shape == (4, network.feature_dim)
    assert torch.equal(network(images), features @ network.head.weight.T + network.head.bias)
    assert network(images).shape == (4, 5)


@every_kind
def test_recomputing_changes_neither_gradients_nor_statistics(name):
    expected = train_step(make(name), make_images(), rate=0.3)
    saving = make(name)
    saving.recompute = True
    found = train_step(saving, make_images(), rate=0.3)
    assert found.keys() == expected.keys()
    assert any(key.endswith("running_var") for key in found)
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


@every_kind
def test_recomputing_keeps_less(name):
    network = make(name)
    kept = {}
    for recompute in (False, True):
        network.recompute = recompute
        kept[recompute] = bytes_kept(network)
    assert kept[True] < kept[False] / 2


def bytes_kept(network) -> int:
    """Of the activations that a forward pass keeps for the backward pass."""
    storages = {}

    def keep(tensor):
        storages[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    images = make_images()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(images)
    own = {tensor.data_ptr() for tensor in [images, *network.parameters()]}
    return sum(size for pointer, size in storages.items() if pointer not in own)


@every_kind
def test_the_layout_of_memory_changes_nothing(name):
    network, images = make(name), make_images()
    other = copy.deepcopy(network).to(memory_format=torch.channels_last)
    expected = train_step(network, images, rate=0.3)
    found = train_step(other, images.contiguous(memory_format=torch.channels_last), rate=0.3)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-8, atol=1e-10)


@every_kind
def test_no_1x1_convolution_has_a_stride(name):
    """Their backward pass writes past its memory in channels_last order (oneDNN issue 6035)."""
    for module in make(name).modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            assert module.stride == (1, 1)


@every_kind
def test_nothing_is_dropped_in_evaluation_or_at_rate_zero(name):
    network, images = make(name), make_images()
    network.eval()
    assert torch.equal(network.features(images, drop(0.5)), network.features(images))
    network.train()
    assert torch.equal(network.features(images, drop(0.0)), network.features(images))


@pytest.mark.parametrize("name", DROPPING)
def test_dropping_follows_its_generator(name):
    network, images = make(name).train(), make_images()
    plain, first, again, other = (network.features(images, each) for each in (None, drop(), drop(), drop(seed=1)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, plain)


def test_conv4_drops_nothing():
    network, images = make("conv4").train(), make_images()
    assert torch.equal(network.features(images, drop(0.5)), network.features(images))


@every_kind
def test_initial_weights_follow_their_generator_only(name):
    first = make(name).state_dict()
    torch.rand(3)
    second = make(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    other = backbones.build(ARCHITECTURES[name], 5)
    other.initialise_(generator("weights", 1))
    assert not torch.equal(other.head.weight.double(), first["head.weight"])


def test_the_origin_of_an_architecture_is_ignored():
    architecture = {**ARCHITECTURES["conv4"], "origin": {"search": "fixed"}}
    assert backbones.build(architecture, 3).head.out_features == 3


def changed(name, **changes):
    return {**ARCHITECTURES[name], **changes}


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ([], "here: expected an object with 'kind'"),
        ({"cells": 5}, "here: expected an object with 'kind'"),
        ({"kind": "resnet-13"}, "unknown kind 'resnet-13'; there are cells, conv4, mixed, onnx, .*, timm, "),
        ({"kind": "drop"}, "here: 'drop' is no backbone"),
        ({"kind": "../backbones/cells"}, "unknown kind"),
        ({"kind": "cells", "cells": 5, "channels": 48}, "'genotype' is missing"),
        (changed("cells", genotype={**GENOTYPE, "normal_concat": [2]}), "normal_concat"),
        (changed("cells", cells=101), "'cells'.*100"),
        (changed("cells", cells="5"), "'cells'"),
        (changed("cells", channels=10**6), "'channels'.*4096"),
        (changed("conv4", channels=0), "'channels'"),
        (changed("conv4", image_size=12), "'image_size'.*16"),
        (changed("conv4", image_size=5000), "'image_size'.*1024"),
        (changed("conv4", widths=[1]), "unknown key 'widths'"),
        (changed("resnet12", widths=[64, 160, 320]), "'widths'.*4"),
        (changed("resnet12", widths=[64, 160, 320, 10**5]), "'widths.3'.*8192"),
        (changed("resnet12", pool="max"), "'pool'"),
        (changed("resnet12", block_size=None), "'block_size'"),
        (changed("resnet12", image_size=8), "'image_size'.*16"),
    ],
)
def test_bad_architectures_are_refused_in_one_line(architecture, message):
    with pytest.raises(InputError, match=message) as error:
        backbones.build(architecture, 5, where="here")
    assert "\n" not in str(error.value)


def test_options_say_what_tables_and_searches_ask():
    cells, conv4, resnet12 = CellsOptions(cells=5, channels=48), Conv4Options(), ResNet12Options()
    assert [options.title for options in (cells, conv4, resnet12)] == ["Cells, 48 channels", "Conv4", "ResNet-12"]
    assert [options.searchable for options in (cells, conv4, resnet12)] == [True, False, False]
    expected = {"kind": "cells", "genotype": GENOTYPE, "cells": 5, "channels": 48, "layout": "few-shot"}
    assert cells.architecture(84, GENOTYPE) == expected
    assert conv4.architecture(84, None) == {
        "kind": "conv4",
        "channels": 32,
        "poolings": 4,
        "pool": "none",
        "initialisation": "xavier_uniform",
        "image_size": 84,
    }
    assert resnet12.architecture(84, None) == {
        "kind": "resnet12",
        "widths": [64, 160, 320, 640],
        "pool": "average",
        "image_size": 84,
        "block_size": 5,
    }


@pytest.mark.parametrize(
    ("image_size", "given", "block_size"), [(84, None, 5), (64, None, 5), (63, None, 2), (32, 3, 3)]
)
def test_the_size_of_dropped_blocks_is_decided_once(image_size, given, block_size):
    assert ResNet12Options(block_size=given).architecture(image_size, None)["block_size"] == block_size


def test_options_name_what_cannot_be_built():
    with pytest.raises(InputError, match="needs a genotype"):
        CellsOptions(cells=5, channels=4).architecture(84, None)
    with pytest.raises(InputError, match="backbone conv4: 'image_size'"):
        Conv4Options().architecture(12, None)


def test_a_user_defined_backbone_is_built_from_its_file(tmp_path):
    path = tmp_path / "flat net.py"
    path.write_text(
        """
from typing import ClassVar

from torch import nn

from metantk.options.base import Options as Base


class Architecture(Base):
    kind: str
    width: int


class Options(Base):
    searchable: ClassVar[bool] = False


class Flat(nn.Module):
    def __init__(self, width, outputs):
        super().__init__()
        self.feature_dim, self.head = width, nn.Linear(width, outputs)

    def features(self, images, drop=None):
        return images.flatten(1)[:, : self.feature_dim]

    def forward(self, images, drop=None):
        return self.head(self.features(images))

    def initialise_(self, generator):
        pass


def build(architecture, outputs):
    return Flat(architecture["width"], outputs)
"""
    )
    network = backbones.build({"kind": str(path), "width": 7}, 2)
    assert (network.head.in_features, network.head.out_features) == (7, 2)
    with pytest.raises(InputError, match="'width' is missing"):
        backbones.build({"kind": str(path)}, 2)


LAYOUTS = [  # published networks of these cells: name, layout, cells, channels, outputs, parameters
    ("metanas_in_v2", "few-shot", 5, 48, 64, 2_005_216),
    ("metanas_in_v2", "metanas", 5, 96, 5, 1_160_741),
    ("auto_maml_2", "t-nas", 2, 16, 5, 23_213),
    ("auto_maml_3", "t-nas", 2, 16, 5, 26_061),
]


@pytest.mark.parametrize(("name", "layout", "cells", "channels", "outputs", "parameters"), LAYOUTS)
def test_cells_stack_in_the_layouts_in_which_they_were_published(
    name, layout, cells, channels, outputs, parameters
):
    options = CellsOptions(cells=cells, channels=channels, layout=layout)
    network = backbones.build(options.architecture(84, read_named(name)), outputs)
    assert count_parameters(network) == parameters
    assert ("layout" in options.title) == (layout != "few-shot")


def test_a_layout_refuses_a_depth_that_it_does_not_have():
    with pytest.raises(InputError, match="layout t-nas has 2 cells, not 5"):
        parse(CellsOptions, {"cells": 5, "channels": 16, "layout": "t-nas"}, where="backbone")


@pytest.mark.parametrize(
    ("options", "more"), [(CellsOptions, {"cells": 5, "layout": "metanas"}), (MixedOptions, {})]
)
def test_one_channel_cannot_be_halved(options, more):
    """Each part of a reduction gives half of them."""
    parse(options, {"channels": 2, **more}, where="backbone")
    with pytest.raises(InputError, match=r"channels.* 2|2 channels"):
        parse(options, {"channels": 1, **more}, where="backbone")


def test_the_mixed_network_of_metanas_has_the_published_size():
    options = MixedOptions()
    assert count_parameters(backbones.build(options.architecture(84), 5)) == 462_509
    with pytest.raises(InputError, match="reductions"):
        backbones.build(options.architecture(84) | {"reductions": [7]}, 5)
