"""The search on a CUDA device: the CPU's values, no waiting within a round, and little memory."""

import numpy as np
import pytest
import torch
from small_search import make_setting

from metantk import criteria, devices, pruning
from metantk.criteria import CRITERIA
from metantk.kernels import empirical_kernels, sample_by_folding, sample_by_products
from metantk.space.genotype import SPACES, cell_types
from metantk.space.supernet import Convolution, Supernet, initialise

CUDA = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def first_batch(space) -> dict[str, torch.Tensor]:
    masks = pruning.first_state(space).masks
    return pruning.batch_masks(masks, pruning.next_round(space, masks).candidates[40:80])


def draw_on_cpu(monkeypatch) -> None:
    """Random crops and flips of both devices from the CPU's generators, so that values can be compared."""
    original = devices.generator

    def generator(*key, device="cpu"):
        return original(*key, device="cpu")

    monkeypatch.setattr(criteria, "generator", generator)
    transform = criteria.transforms.random_crop

    def random_crop(pictures, *rest, **more):
        return transform(pictures.cpu(), *rest, **more).to(pictures.device)

    monkeypatch.setattr(criteria.transforms, "random_crop", random_crop)


@pytest.mark.parametrize("name", list(CRITERIA))
def test_values_are_those_of_the_cpu(name, monkeypatch):
    draw_on_cpu(monkeypatch)
    values = {}
    for device in ("cpu", CUDA):
        setting = make_setting(device)
        values[device] = CRITERIA[name].measure(setting, (1, 0, 0), first_batch(setting.space)).values
    np.testing.assert_allclose(values[CUDA], values["cpu"], rtol=1e-8)


def test_kernels_in_float32_are_close_to_float64():
    devices.set_precision("float32")
    kernels = {}
    for precision in ("float32", "float64"):
        setting = make_setting(CUDA, precision=precision)
        pictures = criteria._draw_tasks(setting, (1, 0, 0))
        kernels[precision] = criteria._kernels(
            setting, (1, 0, 0), first_batch(setting.space), pictures, outputs=2
        ).ntk
    error = (kernels["float32"] - kernels["float64"]).abs().amax() / kernels["float64"].abs().amax()
    assert error < 1e-4


def test_nothing_waits_for_the_device_within_a_round():
    """PyTorch raises an error at any operation that synchronises."""
    setting = make_setting(CUDA, precision="float32")
    network = Supernet(setting.space, pruning.first_state(setting.space).masks, cell_types(3), 4, outputs=2)
    initialise(network, "kaiming_normal", torch.Generator().manual_seed(0))
    network.to(CUDA)
    pictures = criteria._draw_tasks(setting, (1, 0, 0))
    masks = {kind: mask.to(CUDA) for kind, mask in first_batch(setting.space).items()}
    empirical_kernels(network, pictures, masks)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        empirical_kernels(network, pictures, masks)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_little_memory_means_smaller_chunks_and_the_same_kernels(monkeypatch, caplog):
    setting = make_setting(CUDA)
    batch, pictures = first_batch(setting.space), criteria._draw_tasks(setting, (1, 0, 0))
    expected = criteria._kernels(setting, (1, 0, 0), batch, pictures, outputs=2).ntk
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    criteria._kernels(setting, (1, 0, 0), {kind: mask[:4] for kind, mask in batch.items()}, pictures, outputs=2)
    few = torch.cuda.max_memory_allocated()
    monkeypatch.setattr(criteria, "_chunk_size", lambda *_, **__: len(batch["normal"]))
    torch.cuda.set_per_process_memory_fraction(2 * few / torch.cuda.get_device_properties(0).total_memory)
    try:
        got = criteria._kernels(setting, (1, 0, 0), batch, pictures, outputs=2).ntk
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert "out of memory: going on with" in caplog.text


def test_whole_search_gives_the_genotype_of_the_cpu(monkeypatch):
    draw_on_cpu(monkeypatch)
    found = {}
    for device in ("cpu", CUDA):
        setting = make_setting(device)
        state = pruning.search(setting, 0, pruning.first_state(setting.space), lambda state: None)
        found[device] = pruning.to_genotype(setting.space, state.masks)
    assert found[CUDA] == found["cpu"]


@pytest.mark.parametrize("stride", [1, 2])
def test_both_samplers_agree(stride):
    layer = Convolution(8, 12, (5, 1), stride=stride, groups=2).double().to(CUDA)
    x = torch.randn(3, 8, 9, 9, dtype=torch.float64, device=CUDA)
    backprops = torch.randn_like(torch.nn.functional.conv2d(x, layer.weight, None, stride, layer.padding, 1, 2))
    torch.testing.assert_close(sample_by_products(layer, x, backprops), sample_by_folding(layer, x, backprops))


def test_both_spaces_run():
    for name in SPACES:
        setting = make_setting(CUDA, space=name)
        values = CRITERIA["meta_ntk_condition"].measure(setting, (0, 0, 0), first_batch(setting.space)).values
        assert np.isfinite(values).all()
