"""The mixed network that trains: its size, its sums, and that a one-hot mixture is the discrete network."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from metantk.backbones.cells import Network
from metantk.backbones.counting import count_parameters
from metantk.backbones.initial import uniform_
from metantk.runtime.devices import generator
from metantk.searches.decoding import decode_edges, decode_pairs, to_genotype
from metantk.space.genotype import CELL_TYPES, SPACES, Space
from metantk.space.layouts import Layout, few_shot_layout, metanas_layout, t_nas_layout
from metantk.space.mixed import (
    METANAS_SPACE,
    NONE,
    T_NAS_SPACE,
    MixedNetwork,
    Mixture,
    batch_norm,
    pair_weights,
    pairs_of,
    pairwise_mixture,
    softmax_mixture,
    surviving,
)

CASES = json.loads((Path(__file__).parents[1] / "fixtures" / "nas-rivals" / "cases.json").read_text())
METANAS, TNAS, AUTOMETA = CASES["metanas"], CASES["tnas"], CASES["autometa"]


def random_arch(space: Space, seed: int, *, threshold: float = 0.0, scale: float = 1.0) -> dict[str, Mixture]:
    draws = torch.Generator().manual_seed(seed)
    pairs = sum(len(pairs) for pairs in pairs_of(space))
    return {
        kind: pairwise_mixture(
            scale * torch.randn(len(space.edges), len(space.operations), generator=draws, dtype=torch.float64),
            scale * torch.randn(pairs, generator=draws, dtype=torch.float64),
            space,
            temperature=1.0,
            threshold=threshold,
        )
        for kind in CELL_TYPES
    }


def make_mixed(space: Space, layout: Layout) -> MixedNetwork:
    network = MixedNetwork(space, layout, 3)
    uniform_(network, generator("initial weights", 0))
    return network.double()


def random_images(size: int = 12) -> torch.Tensor:
    return torch.randn(6, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


LAYOUTS = {
    "few-shot": few_shot_layout(3, 4),
    "metanas": metanas_layout(4, 4, (1, 3)),
    "t-nas": t_nas_layout(4),
}


@pytest.mark.parametrize("case", METANAS["supernet_params"], ids=lambda c: f"C{c['init_channels']}-{c['classes']}")
def test_mixed_network_of_metanas_has_the_published_parameters(case):
    channels = case["init_channels"]
    layout = metanas_layout(channels, case["cells"], tuple(case["reduction_cells"]))
    network = MixedNetwork(METANAS_SPACE, layout, case["classes"])
    # Images have three channels here; one channel fewer is 3×3 weights less per output of the stem.
    saved = (3 - case["in_channels"]) * 9 * 3 * channels
    assert count_parameters(network) - saved == case["weight_params"]
    edges, pairs = len(METANAS_SPACE.edges), sum(len(pairs) for pairs in pairs_of(METANAS_SPACE))
    assert 2 * (edges * len(METANAS_SPACE.operations) + pairs) == case["alpha_params"]


@pytest.mark.parametrize("case", TNAS["supernet_params"], ids=lambda c: f"C{c['init_channels']}")
def test_mixed_network_of_t_nas_has_the_published_parameters(case):
    network = MixedNetwork(T_NAS_SPACE, t_nas_layout(case["init_channels"]), case["classes"])
    assert count_parameters(network) == case["weight_params"]
    assert [[len(T_NAS_SPACE.edges), len(T_NAS_SPACE.operations)]] * 2 == case["theta_shapes"]


def test_network_has_no_state_but_its_parameters():
    """Statistics of batches are never kept, so what is restored between tasks is all there is."""
    assert not list(MixedNetwork(T_NAS_SPACE, t_nas_layout(4), 3).buffers())


def test_order_of_operations_is_the_published_one():
    assert list(METANAS_SPACE.operations) == METANAS["op_order"]
    assert set(METANAS_SPACE.operations) == set(SPACES["few-shot"].operations)
    assert set(T_NAS_SPACE.operations) - {NONE} == set(SPACES["darts"].operations)


def layout_of(case: dict) -> Layout:
    channels, reductions = case["init_channels"], tuple(case["reduction_cells"])
    if (case["stem_multiplier"], case["feature_scale_rate"]) == (3, 1):
        return metanas_layout(channels, case["cells"], reductions)
    layout = few_shot_layout(case["cells"], channels)
    assert [index for index, kind in enumerate(layout.kinds) if kind == "reduce"] == list(reductions)
    return layout


DISCRETE = [(METANAS["genotypes"][case["genotype"]], case) for case in METANAS["discrete_params"]] + [
    (AUTOMETA["genotype_as_transcribed_by_metanas_authors"], case) for case in AUTOMETA["discrete_params"]
]


@pytest.mark.parametrize(("genotype", "case"), DISCRETE, ids=lambda v: str(v.get("params", "")))
def test_discrete_networks_of_metanas_and_autometa_have_the_published_parameters(genotype, case):
    network = Network(genotype, layout_of(case), classes=case["classes"])
    assert count_parameters(network) == case["params"]


@pytest.mark.parametrize("case", TNAS["discrete_params"], ids=lambda c: str(c["params"]))
def test_discrete_networks_of_t_nas_have_the_published_parameters(case):
    layout = t_nas_layout(case["init_channels"])
    layout = layout._replace(kinds=layout.kinds[-case["cells"] :], channels=layout.channels[-case["cells"] :])
    genotype = TNAS["genotypes"][case["genotype"]]
    network = Network(genotype, layout, classes=case["classes"])
    assert count_parameters(network) == case["params"]


def one_hot(nodes: list, space: Space) -> Mixture:
    operations = torch.zeros(len(space.edges), len(space.operations), dtype=torch.float64)
    operations[:, 0] = 1  # of edges that are left out anyway
    inputs = torch.zeros(len(space.edges), dtype=torch.float64)
    for index, node in enumerate(nodes, start=2):
        for name, source in node:
            edge = space.edges.index((source, index))
            operations[edge] = 0
            operations[edge, space.operations.index(name)] = 1
            inputs[edge] = 1
    return Mixture(operations, inputs)


@pytest.mark.parametrize(
    "case", METANAS["pruned_supernet_params"], ids=lambda c: f"{c['genotype']}-C{c['init_channels']}"
)
def test_fully_pruned_network_has_the_published_parameters(case):
    layout = metanas_layout(case["init_channels"], case["cells"], tuple(case["reduction_cells"]))
    network = MixedNetwork(METANAS_SPACE, layout, case["classes"])
    genotype = METANAS["genotypes"][case["genotype"]]
    arch = {kind: one_hot(genotype[kind], METANAS_SPACE) for kind in CELL_TYPES}
    assert network.count_surviving(arch, case["threshold"]) == case["params"]


def test_nothing_is_pruned_at_threshold_zero():
    network = MixedNetwork(METANAS_SPACE, metanas_layout(28, 4, (1, 3)), 5)
    assert network.count_surviving(random_arch(METANAS_SPACE, 0), 0.0) == 462509
    assert network.count_surviving(random_arch(METANAS_SPACE, 0, scale=3, threshold=0.05), 0.05) < 462509


@pytest.mark.parametrize("case", METANAS["pairwise_input_coefficients"], ids=lambda c: str(c["logits"]))
def test_factors_of_inputs_are_those_of_the_published_code(case):
    space = SPACES["few-shot"]
    logits = torch.tensor([0.0, *case["logits"], *[0.0] * 6], dtype=torch.float64)
    operations = torch.zeros(len(space.edges), len(space.operations), dtype=torch.float64)
    mixture = pairwise_mixture(operations, logits, space, temperature=1.0)
    found = [f for f, edge in zip(mixture.inputs.tolist(), space.edges, strict=True) if edge.node == 3]
    np.testing.assert_allclose(found, case["coefficient_per_input"], atol=1e-9)
    uniform = mixture.inputs[[edge.node == 4 for edge in space.edges]]
    np.testing.assert_allclose(uniform, 2 / 4)  # each of 4 inputs


@pytest.mark.parametrize("temperature", [1.0, 0.325])
@pytest.mark.parametrize("space", [SPACES["few-shot"], SPACES["darts"]], ids=["few-shot", "darts"])
def test_softmaxes_sum_to_one(space, temperature):
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(sum(len(pairs) for pairs in pairs_of(space)), generator=draws)
    for part in pair_weights(logits, space, temperature).split([len(pairs) for pairs in pairs_of(space)]):
        assert part.sum().item() == pytest.approx(1)
    operations = torch.randn(len(space.edges), len(space.operations), generator=draws)
    mixture = pairwise_mixture(operations, logits, space, temperature=temperature)
    torch.testing.assert_close(mixture.operations.sum(1), torch.ones(len(space.edges)))
    for node in range(2, 2 + space.nodes):  # a pair counts two inputs
        assert mixture.inputs[[edge.node == node for edge in space.edges]].sum().item() == pytest.approx(2)


def slow_node(cell, states, node: int, operations, pairs, threshold: float) -> torch.Tensor:
    """The sum over pairs as it is written, nothing shared between them."""
    total = 0
    for (a, b), weight in zip(pairs_of(cell.space)[node - 2], pairs, strict=True):
        if weight <= threshold:
            continue
        for source in (a, b):
            edge = cell.space.edges.index((source, node))
            for name, probability in zip(cell.space.operations, operations[edge], strict=True):
                if probability > threshold:
                    total = total + weight * probability * cell.edges[edge][name](states[source])
    return total


@pytest.mark.parametrize("threshold", [0.0, 0.1])
@pytest.mark.parametrize("reduction", [False, True])
def test_cell_is_the_sum_over_pairs(reduction, threshold):
    space = SPACES["few-shot"]
    network = make_mixed(space, few_shot_layout(3, 4))
    cell = network.cells[1 if reduction else 0]
    draws = torch.Generator().manual_seed(3)
    logits = torch.randn(len(space.edges), len(space.operations), generator=draws, dtype=torch.float64)
    pair_logits = 2 * torch.randn(10, generator=draws, dtype=torch.float64)
    pairs = pair_weights(pair_logits, space, 0.5).split([1, 3, 6])
    assert any((part <= 0.1).any() for part in pairs)
    before = torch.randn(6, 4, 12, 12, generator=draws, dtype=torch.float64)
    last = torch.cat([before] * 3, dim=1) if reduction else before
    states = [cell.preprocess[0](before), cell.preprocess[1](last)]
    for node in (2, 3, 4):
        states.append(slow_node(cell, states, node, (logits / 0.5).softmax(1), pairs[node - 2], threshold))
    mixture = pairwise_mixture(logits, pair_logits, space, temperature=0.5, threshold=threshold)
    found = cell(before, last, mixture, surviving(mixture, threshold))
    torch.testing.assert_close(found, torch.cat(states[2:], dim=1))


def test_skipped_operations_are_not_computed():
    space = SPACES["few-shot"]
    network = make_mixed(space, few_shot_layout(2, 4))
    arch = random_arch(space, 5, threshold=0.05, scale=2)
    calls = []
    for kind, cell in zip(network.layout.kinds, network.cells, strict=True):
        for index, edge in enumerate(cell.edges):
            for name, operation in edge.items():
                key = (kind, index, name)
                operation.register_forward_hook(lambda *_, key=key: calls.append(key))
    network(random_images(), arch, threshold=0.05)
    expected = {
        (kind, index, space.operations[k])
        for kind in network.layout.kinds
        for index in range(len(space.edges))
        for k in range(len(space.operations))
        if arch[kind].operations[index, k] > 0.05 and arch[kind].inputs[index] > 0
    }
    assert set(calls) == expected
    assert len(expected) < 2 * 9 * 7


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("space", [SPACES["few-shot"], SPACES["darts"]], ids=["few-shot", "darts"])
def test_gradient_of_the_architecture_is_that_of_finite_differences(space, name):
    network = make_mixed(space, LAYOUTS[name])
    draws = torch.Generator().manual_seed(0)
    count = sum(len(pairs) for pairs in pairs_of(space))
    alphas = {
        kind: [
            torch.randn(len(space.edges), len(space.operations), generator=draws, dtype=torch.float64),
            torch.randn(count, generator=draws, dtype=torch.float64),
        ]
        for kind in CELL_TYPES
    }
    images, labels = random_images(), torch.arange(6) % 3

    def loss() -> torch.Tensor:
        arch = {kind: pairwise_mixture(*pair, space, temperature=0.7) for kind, pair in alphas.items()}
        return functional.cross_entropy(network(images, arch), labels)

    tensors = [tensor.requires_grad_() for kind in CELL_TYPES for tensor in alphas[kind]]
    for tensor, gradient in zip(tensors, torch.autograd.grad(loss(), tensors), strict=True):
        for index in (0, 3, tensor.numel() - 1):
            values = []
            for step in (1e-6, -1e-6):
                with torch.no_grad():
                    tensor.view(-1)[index] += step
                    values.append(loss().item())
                    tensor.view(-1)[index] -= step
            expected = (values[0] - values[1]) / 2e-6
            # Kinks of the ReLUs are left to the tolerance.
            assert gradient.view(-1)[index].item() == pytest.approx(expected, rel=1e-3, abs=1e-6)
        if tensor.dim() == 2:
            torch.testing.assert_close(gradient.sum(1), torch.zeros(len(space.edges), dtype=torch.float64))


def copy_weights(mixed: MixedNetwork, discrete: nn.Module, genotype: dict) -> None:
    """Stem, inputs, the genotype's operations and the head; norms of the discrete cells keep scale 1, shift 0."""
    discrete.stem.load_state_dict(mixed.stem.state_dict())
    discrete.head.load_state_dict(mixed.head.state_dict())
    for kind, cell, target in zip(mixed.layout.kinds, mixed.cells, discrete.cells, strict=True):
        target.preprocess.load_state_dict(cell.preprocess.state_dict(), strict=False)
        numbered = [(node, *pair) for node, pairs in enumerate(genotype[kind], start=2) for pair in pairs]
        for (node, name, source), operation in zip(numbered, target.operations, strict=True):
            edge = mixed.space.edges.index((source, node))
            missing = operation.load_state_dict(cell.edges[edge][name].state_dict(), strict=False)
            assert not missing.unexpected_keys


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", LAYOUTS)
def test_one_hot_mixture_of_pairs_is_the_decoded_network(name, seed):
    space, layout = METANAS_SPACE, LAYOUTS[name]
    draws = np.random.default_rng(seed)
    logits = {kind: (draws.normal(size=(9, 7)), draws.normal(size=10)) for kind in CELL_TYPES}
    genotype = to_genotype({kind: decode_pairs(*logits[kind], space) for kind in CELL_TYPES}, space)
    mixed = make_mixed(space, layout)
    discrete = Network(genotype, layout._replace(pools_are_normed=True), classes=3, norm=batch_norm).double()
    copy_weights(mixed, discrete, genotype)
    # So sharp that the softmaxes are one and zero to the last digit.
    arch = {
        kind: pairwise_mixture(*map(torch.from_numpy, logits[kind]), space, temperature=1e-6) for kind in CELL_TYPES
    }
    torch.testing.assert_close(mixed(random_images(), arch), discrete(random_images()))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", ["few-shot", "t-nas"])
def test_one_hot_mixture_of_edges_is_the_decoded_network(name, seed):
    space, layout = T_NAS_SPACE, LAYOUTS[name]
    draws = np.random.default_rng(seed)
    nodes = {kind: decode_edges(draws.random((14, 8)), space, excluded=NONE) for kind in CELL_TYPES}
    genotype = to_genotype(nodes, space)
    mixed = make_mixed(space, layout)
    # The mixed network's poolings have norms in every layout.
    discrete = Network(genotype, layout._replace(pools_are_normed=True), classes=3, norm=batch_norm).double()
    copy_weights(mixed, discrete, genotype)
    arch = {kind: one_hot(nodes[kind], space) for kind in CELL_TYPES}
    torch.testing.assert_close(mixed(random_images(), arch), discrete(random_images()))


def test_plain_sum_counts_every_input_once():
    space = T_NAS_SPACE
    mixture = softmax_mixture(torch.zeros(14, 8), space)
    torch.testing.assert_close(mixture.operations, torch.full((14, 8), 1 / 8))
    assert mixture.inputs.tolist() == [1.0] * 14


def test_none_adds_nothing():
    """What an edge gives is smaller by the weight of none, and nothing is scaled up in its place."""
    network = make_mixed(T_NAS_SPACE, Layout((4,), ("normal",), (4,)))
    weights = torch.zeros(14, 8, dtype=torch.float64)
    weights[:, T_NAS_SPACE.operations.index("skip_connect")] = 1
    halved = 0.5 * weights
    halved[:, 0] = 0.5
    ones = torch.ones(14, dtype=torch.float64)
    whole, half = (
        network.features(random_images(), {"normal": Mixture(w, ones)}).view(6, 4, 4) for w in (weights, halved)
    )
    torch.testing.assert_close(half[:, 0], 0.5 * whole[:, 0])  # the first node reads only the cell's inputs


def test_drop_path_spares_the_identity():
    space, images = SPACES["few-shot"], random_images()
    network = make_mixed(space, Layout((4,), ("normal", "normal"), (4, 4)))
    arch = random_arch(space, 0)
    only_skip = {
        kind: Mixture(
            mixture.operations * (torch.arange(7) == space.operations.index("skip_connect")), mixture.inputs
        )
        for kind, mixture in arch.items()
    }
    dropped = network.features(images, arch, rate=1 - 1e-9, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(dropped, network.features(images, only_skip))


def test_drop_path_draws_for_each_operation_and_image():
    space, rate = SPACES["few-shot"], 0.4
    cell = make_mixed(space, Layout((4,), ("normal",), (4,))).cells[0]
    mixture = random_arch(space, 0)["normal"]
    before = torch.randn(6, 4, 12, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    draws = torch.rand(9, 7, 6, generator=torch.Generator().manual_seed(0))
    states = [cell.preprocess[0](before), cell.preprocess[1](before)]
    expected = 0
    for edge in (0, 1):  # of the first node
        for k, name in enumerate(space.operations):
            output = cell.edges[edge][name](states[edge])
            if name != "skip_connect":
                output = output * (draws[edge, k] >= rate).view(-1, 1, 1, 1) / (1 - rate)
            expected = expected + mixture.inputs[edge] * mixture.operations[edge, k] * output
    found = cell(before, before, mixture, surviving(mixture, 0.0), rate, draws)
    torch.testing.assert_close(found[:, :4], expected)


def test_drop_path_is_seeded():
    network = make_mixed(SPACES["few-shot"], LAYOUTS["few-shot"])

    def run(seed: int) -> torch.Tensor:
        draws = torch.Generator().manual_seed(seed)
        return network(random_images(), random_arch(network.space, 0), rate=0.2, generator=draws)

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))
