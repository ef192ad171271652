"""The search on a CUDA device: the CPU's values, no waiting within a round, and little memory."""

import numpy as np
import pytest
import torch
from small_search import CRITERIA, make_plan, measure

from metantk.criteria import chunks, inputs
from metantk.criteria.base import RandomKeys
from metantk.kernels import empirical_kernels, sample_by_folding, sample_by_products
from metantk.runtime import devices
from metantk.searches import prune
from metantk.searches.plan import Plan
from metantk.space.genotype import SPACES, cell_types, to_genotype
from metantk.space.supernet import Convolution, Supernet, initialise

CUDA = "cuda"
KEY = (1, 0, 0)
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def first_batch(plan: Plan) -> dict[str, torch.Tensor]:
    masks = prune.first_state(plan.space).masks
    return prune.batch_masks(masks, prune.next_round(plan.space, masks).candidates[40:80])


def draw_tasks(plan: Plan) -> torch.Tensor:
    return inputs.draw_tasks(plan.context, plan.criteria_options["meta_ntk_condition"], KEY)


def ntk(plan: Plan, masks: dict[str, torch.Tensor], tasks: torch.Tensor) -> torch.Tensor:
    return chunks.kernels_of_candidates(plan.context, RandomKeys.of(KEY), masks, tasks, outputs=2).ntk


@pytest.mark.parametrize(
    "draws", [RandomKeys.of(KEY), RandomKeys(KEY, (2,), head=(3,))], ids=["common", "own heads"]
)
@pytest.mark.parametrize("name", CRITERIA)
def test_values_are_those_of_the_cpu(name, draws):
    """All draws are made on the CPU, whatever the device."""
    values = {}
    for device in ("cpu", CUDA):
        plan = make_plan(device)
        values[device] = measure(plan, name, first_batch(plan), draws)
    np.testing.assert_allclose(values[CUDA], values["cpu"], rtol=1e-8)


def test_kernels_in_float32_are_close_to_float64():
    """Two channels a cell: norms over few pixels magnify rounding (on a CPU to 1e-3); TF32's would be all."""
    devices.set_precision("float32")
    kernels = {}
    tasks = draw_tasks(make_plan(CUDA))
    for precision in ("float32", "float64"):
        plan = make_plan(CUDA, precision=precision)
        kernels[precision] = ntk(plan, first_batch(plan), tasks.to(plan.context.dtype))
    error = (kernels["float32"] - kernels["float64"]).abs().amax() / kernels["float64"].abs().amax()
    assert error < 1e-2


def test_nothing_waits_for_the_device_within_a_round():
    """PyTorch raises an error at any operation that synchronises."""
    plan = make_plan(CUDA, precision="float32")
    network = Supernet(plan.space, prune.first_state(plan.space).masks, cell_types(3), 4, outputs=2)
    initialise(network, "kaiming_normal", torch.Generator().manual_seed(0))
    network.to(CUDA)
    tasks = draw_tasks(plan)
    masks = {kind: mask.to(CUDA) for kind, mask in first_batch(plan).items()}
    empirical_kernels(network, tasks, masks)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        empirical_kernels(network, tasks, masks)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_little_memory_means_smaller_chunks_and_the_same_kernels(monkeypatch, caplog):
    plan = make_plan(CUDA)
    batch, tasks = first_batch(plan), draw_tasks(plan)
    expected = ntk(plan, batch, tasks)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    ntk(plan, {kind: mask[:4] for kind, mask in batch.items()}, tasks)
    few = torch.cuda.max_memory_allocated()
    monkeypatch.setattr(chunks, "_chunk_size", lambda *_, **__: len(batch["normal"]))
    torch.cuda.set_per_process_memory_fraction(2 * few / torch.cuda.get_device_properties(0).total_memory)
    try:
        got = ntk(plan, batch, tasks)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert "out of memory: going on with" in caplog.text


@pytest.mark.parametrize("draws", ["common", "published"])
def test_whole_search_gives_the_genotype_of_the_cpu(draws):
    found = {}
    for device in ("cpu", CUDA):
        plan = make_plan(device, random_numbers=draws)
        state = prune.first_state(plan.space)
        for mask in state.masks.values():  # two operations on each edge: some rounds are enough
            mask[:, 2:] = False
        state = prune.search(plan, 0, state, lambda state: None)
        found[device] = to_genotype(plan.space, state.masks)
    assert found[CUDA] == found["cpu"]


@pytest.mark.parametrize("stride", [1, 2])
def test_both_samplers_agree(stride):
    layer = Convolution(8, 12, (5, 1), stride=stride, groups=2).double().to(CUDA)
    x = torch.randn(3, 8, 9, 9, dtype=torch.float64, device=CUDA)
    backprops = torch.randn_like(torch.nn.functional.conv2d(x, layer.weight, None, stride, layer.padding, 1, 2))
    torch.testing.assert_close(sample_by_products(layer, x, backprops), sample_by_folding(layer, x, backprops))


def test_both_spaces_run():
    for name in SPACES:
        plan = make_plan(CUDA, space=name)
        values = measure(plan, "meta_ntk_condition", first_batch(plan), RandomKeys.of((0, 0, 0)))
        assert np.isfinite(values).all()
