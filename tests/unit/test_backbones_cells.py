"""Genotypes and the networks they describe."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from metantk import backbones
from metantk.backbones.cells import Cell, stack
from metantk.backbones.counting import count_macs, count_parameters
from metantk.backbones.drop import Drop
from metantk.runtime.devices import generator
from metantk.runtime.files import InputError
from metantk.searches.sample import random_genotype
from metantk.space.genotype import (
    OPERATIONS,
    SPACES,
    cell_types,
    check_genotype,
    is_reduction,
    parse_genotype,
    read_named,
)
from metantk.space.operations import FactorizedReduction, drop_path, make_operation

FIXTURES = Path(__file__).parents[1] / "fixtures"
PUBLISHED = json.loads((FIXTURES / "published_genotypes.json").read_text())["architectures"]
RIVALS = json.loads((FIXTURES / "nas-rivals" / "cases.json").read_text())
GENOTYPES = Path(__file__).parents[2] / "config" / "genotypes"
GENOTYPE = check_genotype(PUBLISHED[0]["genotype"])


@pytest.mark.parametrize("entry", [e for e in PUBLISHED if e.get("parameters")], ids=lambda e: e["name"])
def test_published_architectures_have_the_published_parameters(entry):
    expected = entry["parameters"]
    network = stack(
        check_genotype(entry["genotype"]),
        cells=entry["cells"],
        channels=expected["channels"],
        classes=expected["classes"],
    )
    assert count_parameters(network) == expected["total"]
    assert count_parameters(network) - count_parameters(network.head) == expected["backbone"]


def test_mean_of_the_five_cell_architectures_is_that_of_table_1():
    chosen = [e for e in PUBLISHED if e["name"].startswith("mini_5cell")]
    sizes = [
        count_parameters(stack(check_genotype(e["genotype"]), cells=5, channels=48, classes=64)) for e in chosen
    ]
    assert len(sizes) == 3
    assert int(np.mean(sizes) / 1e4) / 100 == 1.77


TRAINED = [case for case in RIVALS["metanas"]["discrete_params"] if case["feature_scale_rate"] == 2]


@pytest.mark.parametrize("case", TRAINED, ids=lambda case: f"{case['cells']} cells, {case['classes']} classes")
def test_metanas_retrained_has_the_sizes_of_table_1(case):
    architecture = {"kind": "cells", "genotype": read_named(case["genotype"])}
    sizes = {"cells": case["cells"], "channels": case["init_channels"]}
    network = backbones.build({**architecture, **sizes}, case["classes"])
    assert count_parameters(network) == case["params"]


def count_elsewhere(genotype, stem, channels_before, plan, classes, *, pool_norms=True):
    """Parameters where our cells stand in another network; `stem` of its stem, `plan` of (kind, channels)."""
    total, before, last, reduction_before = stem, channels_before, channels_before, False
    for kind, channels in plan:
        reduction = kind == "reduce"
        cell = Cell(
            genotype[kind],
            (before, last),
            channels,
            reduction=reduction,
            reduction_before=reduction_before,
            norm=nn.BatchNorm2d,
        )
        pools = sum("pool" in operation for node in genotype[kind] for operation, _ in node)
        total += count_parameters(cell) - (0 if pool_norms else pools * 2 * channels)
        before, last, reduction_before = last, channels * len(genotype[kind]), reduction
    return total + (last + 1) * classes


@pytest.mark.parametrize(
    "case",
    [
        *(case for case in RIVALS["metanas"]["discrete_params"] if case["feature_scale_rate"] == 1),
        {**RIVALS["autometa"]["discrete_params"][0], "genotype": "autometa"},
    ],
    ids=lambda case: f"{case['genotype']}, {case['cells']} cells",
)
def test_published_cells_have_the_sizes_of_metanas_networks(case):
    """MetaNAS never widens its network and has three times the channels after the stem."""
    channels = case["init_channels"]
    kinds = ["reduce" if cell in case["reduction_cells"] else "normal" for cell in range(case["cells"])]
    stem = 3 * 9 * 3 * channels + 2 * 3 * channels
    plan = [(kind, channels) for kind in kinds]
    found = count_elsewhere(read_named(case["genotype"]), stem, 3 * channels, plan, case["classes"])
    assert found == case["params"]


@pytest.mark.parametrize(
    ("name", "channels", "parameters"),
    [("auto_maml_2", 16, 23_213), ("auto_maml_2", 8, 6_905), ("auto_maml_3", 16, 26_061)],
)
def test_published_cells_have_the_sizes_of_tnas_networks(name, channels, parameters):
    """T-NAS: a stem of two convolutions, a normal and a reduction cell, no norms behind pools."""
    half, full = 3 * channels // 2, 3 * channels
    stem = 9 * 3 * half + 2 * half + 9 * half * full + 2 * full
    plan = [("normal", channels), ("reduce", 2 * channels)]
    assert count_elsewhere(read_named(name), stem, full, plan, 5, pool_norms=False) == parameters


@pytest.mark.parametrize("path", sorted(GENOTYPES.glob("*.json")), ids=lambda path: path.stem)
def test_published_cells_are_known_by_name_and_run(path):
    genotype = read_named(path.stem)
    assert genotype == read_named(path)
    network = stack(genotype, cells=3, channels=4, classes=2)
    assert network(torch.randn(2, 3, 12, 12)).shape == (2, 2)
    assert f"`{path.stem}`" in (GENOTYPES / "README.md").read_text() or path.stem.startswith("metantk_")


def test_published_cells_are_those_of_the_fixtures():
    for entry in PUBLISHED:
        name = re.sub(r"(mini|tiered)_(\d)cell \((\d)\)", r"metantk_\1_\2cell_\3", entry["name"])
        assert read_named(name) == check_genotype(entry["genotype"])
    autometa = RIVALS["autometa"]["genotype_as_transcribed_by_metanas_authors"]
    assert read_named("autometa") == check_genotype(autometa)
    assert read_named("auto_maml_2") == check_genotype(RIVALS["tnas"]["genotypes"]["AUTO_MAML_2"])


def test_an_unknown_name_is_refused_with_those_that_there_are():
    with pytest.raises(InputError, match=r"metanas_v3: is neither a file nor.*metanas_v1"):
        read_named("metanas_v3")


def test_drop_path_follows_the_training():
    """Dropped at rate × progress, from draws of one row per operation, cell by cell."""
    genotype = read_named("metanas_in_v2")
    network = stack(genotype, cells=3, channels=4, classes=2).train()
    images = torch.randn(5, 3, 8, 8)
    found = network.features(images, Drop(0.8, 0.25, 7, generator("drop")))
    draws = generator("drop")
    before = last = network.stem(images)
    for cell in network.cells:
        rows = torch.rand(6, 5, generator=draws)
        before, last = last, cell(before.relu(), last.relu(), 0.2, rows)
    assert torch.equal(found, last.mean((2, 3)))
    assert not torch.equal(found, network.features(images))


def test_initial_weights_are_drawn_in_the_order_of_the_modules():
    network = stack(GENOTYPE, cells=3, channels=4, classes=3)
    network.initialise_(generator("initial weights", 7))
    draws = generator("initial weights", 7)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound = module.weight[0].numel() ** -0.5
            for parameter in module.parameters():
                expected = torch.empty(parameter.shape).uniform_(-bound, bound, generator=draws)
                assert torch.equal(parameter, expected)


@pytest.mark.parametrize(
    ("cells", "reductions"), [(3, [1, 2]), (4, [1, 2]), (5, [1, 3]), (6, [2, 4]), (8, [2, 5]), (20, [6, 13])]
)
def test_reductions_stand_at_one_and_two_thirds(cells, reductions):
    assert [k for k in range(cells) if is_reduction(k, cells)] == reductions
    assert [k for k, kind in enumerate(cell_types(cells)) if kind == "reduce"] == reductions


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [8, 7])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_keep_channels_and_divide_the_size(name, size, stride):
    operation = make_operation(name, 6, stride, nn.BatchNorm2d)
    assert operation(torch.randn(2, 6, size, size)).shape == (2, 6, -(-size // stride), -(-size // stride))


def test_factorised_reduction_reads_every_pixel():
    reduction = FactorizedReduction(1, 2, lambda channels: nn.Identity())
    nn.init.ones_(reduction.even.weight)
    nn.init.ones_(reduction.odd.weight)
    image = torch.arange(1.0, 17.0).view(1, 1, 4, 4)
    even, odd = reduction(image)[0]
    assert even.tolist() == [[1, 3], [9, 11]]
    assert odd.tolist() == [[6, 8], [14, 16]]


def test_macs_of_a_network_counted_by_hand():
    genotype = parse_genotype(
        "Genotype(normal=[('skip_connect', 0), ('skip_connect', 1)] * 1, normal_concat=[2],"
        " reduce=[('skip_connect', 0), ('skip_connect', 1)], reduce_concat=[2])".replace(" * 1", "")
    )
    network = stack(genotype, cells=3, channels=2, classes=5)
    stem, first = 3 * 9 * 2 * 64, 2 * (2 * 2) * 64
    second = 2 * (2 * 4) * 64 + 2 * (4 * 4) * 16  # aligning both inputs at 8×8, two reductions to 4×4
    third = (2 * 8) * 16 + (4 * 8) * 16 + 2 * (8 * 8) * 4  # the older input is 8×8: a factorised reduction
    assert count_macs(network, 8) == stem + first + second + third + 8 * 5


def test_genotypes_are_read_in_all_published_forms():
    flat = [tuple(pair) for node in GENOTYPE["normal"] for pair in node]
    reduce = [tuple(pair) for node in GENOTYPE["reduce"] for pair in node]
    text = f"Genotype(normal={flat}, normal_concat=range(2, 5), reduce={reduce}, reduce_concat=[2, 3, 4])"
    assert parse_genotype(text) == GENOTYPE
    assert parse_genotype(text.replace("max_pool_3x3", "max_pool_3x3BN")) == GENOTYPE
    assert parse_genotype(json.dumps(GENOTYPE)) == GENOTYPE


def broken(**changes):
    return json.dumps({**GENOTYPE, **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (broken(normal=GENOTYPE["normal"][:2]), "node missing"),
        (
            broken(normal=[*GENOTYPE["normal"][:2], [["conv_9x9", 0], ["conv_3x3", 1]]]),
            "unknown operation 'conv_9x9'",
        ),
        (broken(normal=[[["conv_3x3", 0], ["conv_3x3", 2]], *GENOTYPE["normal"][1:]]), "input 2"),
        (broken(normal=[[["conv_3x3", 0]], *GENOTYPE["normal"][1:]]), "expected 2"),
        (broken(normal=[[["conv_3x3", True], ["conv_3x3", 1]], *GENOTYPE["normal"][1:]]), "input True"),
        (broken(extra=1), "'extra' is unknown"),
        (json.dumps({k: v for k, v in GENOTYPE.items() if k != "reduce"}), "'reduce' is missing"),
        ("[1, 2]", "expected an object"),
        ("no genotype", "neither JSON"),
        ("Genotype(normal=__import__('os').system('true'))", "not a Genotype"),
        ("Genotype(normal=range(10**9))", "not a Genotype"),
    ],
)
def test_bad_genotypes_are_refused_with_the_reason(text, message):
    with pytest.raises(InputError, match=message):
        parse_genotype(text)


def test_drop_path_drops_whole_images_and_keeps_the_mean():
    draws = torch.rand(4000, generator=torch.Generator().manual_seed(0))
    dropped = drop_path(torch.ones(4000, 2, 1, 1), 0.25, draws)
    values = dropped.flatten(1)
    assert values.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(values[:, 0], values[:, 1])
    assert values.mean() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("seed", range(5))
def test_random_genotypes_of_both_spaces_run(seed):
    for space in SPACES.values():
        network = stack(random_genotype(space, seed), cells=5, channels=4, classes=3)
        assert network(torch.randn(2, 3, 12, 12)).shape == (2, 3)
        assert network.feature_dim == 4 * 4 * space.nodes
