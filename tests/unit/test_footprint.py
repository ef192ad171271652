"""Footprints: bytes against PyTorch's profiler, operations and calls against what is known, the meta device's."""

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from metantk import gpu_campaign, gpu_steps
from metantk.backbones import resnet12
from metantk.criteria.chunks import kept_numbers
from metantk.data.manifest import SplitEntry, Splits
from metantk.footprint import Call, Footprint, Gpu, seconds_on
from metantk.gpu_steps import (
    CHUNKS,
    GPUS,
    LAUNCH,
    KernelSearch,
    features,
    images_at_once,
    kernel_search,
    training_step,
)
from metantk.kernels import empirical_kernels
from metantk.options.base import parse
from metantk.options.config import parse_config
from metantk.options.evaluation import EvaluationOptions
from metantk.options.learners.maml import MamlOptions
from metantk.options.searches.prune import PruneOptions
from metantk.runtime import plugins
from metantk.space.genotype import SPACES, cell_types
from metantk.space.supernet import Supernet, full_masks

SIZES = {"widths": [8, 16, 32, 64], "pool": "average", "image_size": 32, "block_size": 5}


def make_step(device: str):
    """A training step of a small ResNet-12 whose optimiser has its state, and the tensors that it finds."""
    network = resnet12.build({"kind": "resnet12", **SIZES}, 10).to(device)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    images = torch.zeros(16, 3, 32, 32, device=device)
    labels = torch.zeros(16, dtype=torch.int64, device=device)

    def step() -> None:
        nn.functional.cross_entropy(network(images), labels).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    step()
    state = [values["momentum_buffer"] for values in optimiser.state.values()]
    return step, [*network.parameters(), *network.buffers(), *state, images, labels]


def footprint_of_step(device: str) -> tuple[Footprint, int]:
    """Of the second step, and the bytes of what was there before."""
    with Footprint(torch.device(device)) as footprint:
        step, there = make_step(device)
        footprint.reset()
        step()
        before = sum(tensor.untyped_storage().nbytes() for tensor in there)
        assert footprint.live == before  # the step leaves nothing behind
    return footprint, before


def profiled_peak() -> int:
    """Bytes that a step on the CPU has at most beside what was there before, by PyTorch's profiler."""
    step, _ = make_step("cpu")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        step()
    live = peak = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    return peak


def test_bytes_of_a_step_without_memory_are_those_that_the_profiler_sees():
    """The profiler sees the inner memory of a convolution too, some percent here."""
    footprint, there = footprint_of_step("meta")
    assert footprint.peak - there == pytest.approx(profiled_peak(), rel=0.03)


def test_the_meta_device_counts_what_the_cpu_does():
    (meta, _), (cpu, _) = footprint_of_step("meta"), footprint_of_step("cpu")
    assert meta.peak == cpu.peak
    assert meta.calls == cpu.calls


def test_operations_bytes_and_calls_of_a_product():
    left, right = torch.empty(3, 5, device="meta"), torch.empty(5, 7, device="meta")
    with Footprint(torch.device("meta")) as footprint:
        (left @ right).view(-1).expand(2, -1).relu()
    product, relu = footprint.calls
    assert product == Call("aten::mm", 2 * 3 * 5 * 7, 4 * (3 * 5 + 5 * 7 + 3 * 7), torch.float32)
    assert relu == Call("aten::relu", 0, 4 * (3 * 7 + 2 * 3 * 7), torch.float32)  # what is expanded is read once
    assert footprint.peak == 4 * (3 * 7 + 2 * 3 * 7)
    assert footprint.live == 0


def test_each_call_takes_the_longest_of_launch_arithmetic_and_traffic():
    gpu = Gpu("small", memory=1e9, bandwidth=1e9, float32=1e12, float64=5e11)
    calls = [
        Call("launch", 1, 1, torch.float32),
        Call("arithmetic", 10**10, 1, torch.float32),
        Call("arithmetic", 10**10, 1, torch.float64),
        Call("traffic", 1, 10**6, torch.float32),
    ]
    seconds = seconds_on(gpu, calls, share=0.5, launch=1e-5)
    assert seconds == pytest.approx(1e-5 + 2e-2 + 4e-2 + 2e-3)


def test_the_estimate_of_a_search_chunk_covers_what_is_counted():
    """The kernels of one more candidate; a network of two cells, one of them a reduction."""
    space, peaks = SPACES["few-shot"], []
    masks = full_masks(space)
    for candidates in (2, 3):
        with Footprint(torch.device("meta")) as footprint:
            network = Supernet(space, masks, cell_types(2), 8, outputs=2).to("meta")
            images = torch.empty(4, 3, 16, 16, device="meta")
            chunk = {kind: mask.repeat(candidates, 1, 1).to("meta") for kind, mask in masks.items()}
            empirical_kernels(network, images, chunk)
        peaks.append(footprint.peak)
    operations = {kind: int(mask.sum()) for kind, mask in masks.items()}
    estimate = 4 * kept_numbers(operations, 2, numbers=4 * 16 * 16 * 8)
    assert 1 < estimate / (peaks[1] - peaks[0]) < 1.6


def counted(kind: str, **options):
    parsed = parse(plugins.options_class("learners", kind), {"kind": kind, **options}, where="test")
    architecture = parse(
        plugins.options_class("backbones", "conv4"), {"kind": "conv4", "channels": 4}, where="test"
    )
    return training_step(parsed, architecture.architecture(20, None), classes=8, per_class=30, size=20)


def test_a_training_on_a_gpu_is_its_steps_times_the_time_of_one():
    step = counted("rfs", epochs=3, batch_size=64)
    assert step.steps == 3 * (8 * 30 // 64)
    times = [step.seconds(gpu) for gpu in GPUS]
    assert times == sorted(times, reverse=True)
    assert times[-1] >= LAUNCH * len(step.calls)
    assert counted("rfs", epochs=3, batch_size=128).peak > step.peak > 0


def search_of(criteria: list[str], **options) -> KernelSearch | None:
    given = {"criteria": criteria, "image_size": 8, "repeats": 1, "criteria_options": {"ntk": {"images": 4}}}
    return kernel_search(PruneOptions(**given | options), cells=2, channels=2, classes=3)


@pytest.mark.slow
def test_a_search_on_a_gpu_is_its_rounds():
    """Each takes as many kernels as it has networks, of what is left of the supernet."""
    search, gpu = search_of(["ntk_condition", "linear_regions"]), GPUS[0]
    (chunk,) = search.chunks
    by_hand = sum(chunk.seconds(gpu, 1 + left * each) * each / 7 for each in range(7, 1, -1) for left in [18])
    # Both cells, nodes of three and four inputs, one operation on each edge that is left.
    by_hand += sum(chunk.seconds(gpu, 1 + n) * left / 126 for n, left in ((3, 18), (4, 17), (3, 15), (4, 14)))
    assert search.seconds_of_job(gpu) == pytest.approx(by_hand)
    assert search_of(["ntk_condition"], repeats=3).seconds_of_job(gpu) == pytest.approx(3 * by_hand)
    assert search_of(["ntk_condition"], random_numbers="published").seconds_of_job(gpu) > 10 * by_hand
    assert search_of(["linear_regions"]) is None


def test_chunks_grow_evenly_and_fill_the_gpu():
    (chunk,) = search_of(["ntk_condition"]).chunks
    gpu = GPUS[0]._replace(memory=chunk.bytes_fixed + 3.5 * chunk.bytes_each)
    assert chunk.fitting(gpu.memory) == 3
    assert chunk.calls(CHUNKS[1]) == chunk.many.calls
    assert chunk.seconds(gpu, 9) == pytest.approx(3 * chunk.seconds(gpu, 3))
    small = GPUS[0]._replace(memory=0)
    assert chunk.seconds(small, 9) == pytest.approx(9 * chunk.seconds(small, 1))


def test_features_are_counted_by_chunks():
    options = parse(plugins.options_class("backbones", "conv4"), {"kind": "conv4", "channels": 4}, where="test")
    found = features(options.architecture(20, None), 3 * images_at_once(20) - 1, classes=8, size=20)
    assert found.steps == 3
    assert found.seconds_of_job(GPUS[0]) == pytest.approx(3 * found.seconds(GPUS[0]))


def test_bfloat16_is_counted_as_float32():
    assert counted("rfs", precision="bfloat16") == counted("rfs")


def test_steps_that_read_numbers_back_are_not_counted():
    few = {"ways": 2, "shots": 2, "queries": 2}
    assert counted("metaoptnet", head="svm", **few) is None
    assert counted("metaoptnet", head="ridge", **few).steps > 0


def entry(classes: int) -> SplitEntry:
    names = [f"class {index}" for index in range(classes)]
    sums = dict.fromkeys(("images.npy", "labels.npy"), "0" * 64)
    return SplitEntry(
        images=20 * classes,
        shape=[16, 16, 3],
        classes=names,
        smallest_class=20,
        smallest_class_name=None,
        sha256=sums,
    )


def test_a_training_in_bfloat16_is_counted_and_named_as_one_in_float32():
    rows = [{"backbone": "conv4-2", "learner": ["rfs", "short"]}]
    config = parse_config(
        {
            "datasets": {"glyphs": {"source": "glyphs", "image_size": 16}},
            "rows": rows,
            "backbones": {"conv4-2": {"kind": "conv4", "channels": 2}},
            "learners": {"short": {"kind": "rfs", "precision": "bfloat16"}},
        }
    )
    splits = Splits(train=entry(6), val=entry(5), test=entry(5))
    architecture = config.backbone("conv4-2").architecture(16, None)
    lines = list(gpu_campaign.lines(config, "glyphs", {"glyphs": splits}, {"conv4-2": architecture}))
    trainings = [line for line in lines if line.startswith("training")]
    assert [line[:50].strip() for line in trainings] == [
        "training conv4-2 rfs",
        "training conv4-2 short, as float32",
    ]
    assert trainings[0][50:] == trainings[1][50:]


def test_a_training_is_counted_by_its_phases():
    """MAML++: first order in its first epochs, a loss after each step in some, second order in the others."""
    sizes = {"classes": 6, "per_class": 20, "size": 16}
    architecture = {"kind": "conv4", "channels": 2, "image_size": 16}
    plain = {"kind": "maml", "epochs": 8, "steps_per_epoch": 3, "shots": 1, "queries": 2, "inner_steps": 2}
    options = {
        "first": {"first_order": True},
        "second": {},
        "both": {"first_order_epochs": 2},
        "losses": {"first_order_epochs": 2, "multi_step_loss_epochs": 5},
    }
    found = {
        name: gpu_steps.training(parse(MamlOptions, plain | each, where="test"), architecture, **sizes)
        for name, each in options.items()
    }
    seconds = {name: counted.seconds_of_job(GPUS[0]) for name, counted in found.items()}
    assert seconds["both"] == pytest.approx(seconds["first"] / 4 + seconds["second"] * 3 / 4)
    assert seconds["losses"] > seconds["both"]
    assert [phase.steps for phase in found["losses"].phases] == [6, 9, 9]
    assert found["both"].peak == found["second"].peak > found["first"].peak


class Elsewhere(nn.Module):
    """Makes a tensor on the CPU, or reads its features back."""

    def __init__(self, spoil) -> None:
        super().__init__()
        self.spoil, self.head, self.recompute = spoil, nn.Linear(3, 5), False

    def features(self, images):
        return self.spoil(images.mean((2, 3)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
        lambda x: torch.from_numpy(x.numpy()),
        lambda x: x * x.sum().item(),
    ],
)
def test_networks_that_the_meta_device_cannot_run_are_not_counted(monkeypatch, spoil):
    monkeypatch.setattr(gpu_steps.backbones, "build", lambda architecture, outputs: Elsewhere(spoil))
    assert gpu_steps.features({}, 10, classes=5, size=16) is None


def test_evaluations_on_other_data_sets_are_counted():
    datasets = {name: {"source": "glyphs", "image_size": 16} for name in ("glyphs", "others")}
    config = parse_config(
        {
            "datasets": datasets,
            "rows": [{"backbone": "conv4-2", "learner": "none"}],
            "backbones": {"conv4-2": {"kind": "conv4", "channels": 2}},
            "evaluation": {"test_on": ["others"]},
        }
    )
    architecture = config.backbone("conv4-2").architecture(16, None)
    splits = {"glyphs": Splits(train=entry(6), val=entry(5), test=entry(5))}
    splits["others"] = Splits(train=entry(6), val=entry(5), test=entry(10))
    lines = {name: list(gpu_campaign.lines(config, name, splits, {"conv4-2": architecture})) for name in datasets}
    names = [line[:50].strip() for line in lines["glyphs"] if line.startswith("evaluation")]
    assert names == ["evaluation conv4-2 none", "evaluation conv4-2 none on others"]
    assert sum(line.startswith("evaluation") for line in lines["others"]) == 1


@pytest.mark.parametrize(
    ("changes", "images"),
    [
        ({"support_copies": 1}, 70),
        ({"support_copies": 5, "support_copy_pool": 10}, 700),
        ({"support_copies": 5, "support_copy_pool": 2}, 350),
        ({"support_copies": 5, "support_copy_pool": None}, 1000 * 5 * 5 * 5),
    ],
)
def test_copies_of_supports_are_shared_or_each_episodes_own(changes, images):
    options = EvaluationOptions(episodes=1000, shots=[1, 5], **changes)
    assert gpu_campaign.count_support_images(options, 70) == images
