"""The search as the published code does it: one network at a time, built for its mask, with Opacus' own samplers.

Slow and literal. Tests compare the engine's values with it; tests/benchmarks compares the time. For comparison,
weights and images may be handed in; the published order of operations stays.
"""

from collections.abc import Iterator

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule
from PIL import Image
from plain_cells import made_plain
from reference import MixedNetwork, batch_norm, group_norm
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from metantk.criteria import inputs as engine
from metantk.runtime.devices import generator
from metantk.searches.plan import Plan
from metantk.searches.prune import Candidate, batch_masks
from metantk.space.genotype import CELL_TYPES, cell_types
from metantk.space.supernet import Supernet, initialise


def kernels(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """NTK and NNGP of the sum of the outputs: all per-sample gradients side by side, then one product."""
    module = GradSampleModule(network, loss_reduction="sum")
    # Contiguous: Opacus 1.6 unfolds channels-last images wrongly. With a gradient: its hooks want one.
    module(images.detach().contiguous().requires_grad_()).sum().backward()
    rows = torch.cat([p.grad_sample.flatten(1) for p in module.parameters() if p.grad_sample is not None], dim=1)
    head = network.head.weight.grad_sample.flatten(1)
    module.remove_hooks()
    for parameter in network.parameters():
        del parameter.grad_sample
    return rows @ rows.T, head @ head.T


def meta_ntk(ntk: Tensor, base: Tensor, *, tasks: int, queries: int, supports: int, ridge: float) -> Tensor:
    """The MetaNTK for infinite time, block by block, in the order of the published code."""
    count = tasks * queries
    rows = []
    for i in range(tasks):
        query = slice(i * queries, (i + 1) * queries)
        support = slice(count + i * supports, count + (i + 1) * supports)
        row = []
        for j in range(tasks):
            other_query = slice(j * queries, (j + 1) * queries)
            other_support = slice(count + j * supports, count + (j + 1) * supports)
            adapt = base[query, support] @ _inverse(base[support, support], ridge)
            other = base[other_query, other_support] @ _inverse(base[other_support, other_support], ridge)
            row.append(
                ntk[query, other_query]
                - adapt @ ntk[support, other_query]
                - ntk[query, other_support] @ other.T
                + adapt @ ntk[support, other_support] @ other.T
            )
        rows.append(torch.cat(row, dim=1))
    return torch.cat(rows)


def _inverse(kernel: Tensor, ridge: float) -> Tensor:
    return torch.linalg.inv(kernel + ridge * torch.eye(len(kernel), dtype=kernel.dtype))


def condition(matrix: Tensor) -> float:
    values = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    return float(values[-1] / values[0])


def regions(network: nn.Module, batches: list[Tensor], dtype: torch.dtype = torch.float32) -> int:
    """Distinct patterns of all ReLUs, by products of patterns with their complements.

    The published code multiplies in float16, which is slow on a CPU and counts large clusters wrongly.
    """
    patterns = _patterns(network, batches).to(dtype)
    differ = patterns @ (1 - patterns).T
    differ = differ + differ.T
    return round(float((1 / (differ == 0).sum(1).double()).sum()))


@torch.no_grad()
def _patterns(network: nn.Module, batches: list[Tensor]) -> Tensor:
    """`(images, units)`, 1.0 where a unit is on."""
    seen: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.flatten(1)))
        for module in network.modules()
        if isinstance(module, nn.ReLU)
    ]
    parts = []
    for batch in batches:
        seen.clear()
        network(batch)
        parts.append((torch.cat(seen, dim=1) > 0).float())
    for hook in hooks:
        hook.remove()
    return torch.cat(parts)


class CropsThroughPillow(Dataset):
    """One channel of a random crop of a resized image, image by image, as the published loader makes them."""

    def __init__(self, plan: Plan) -> None:
        size = plan.context.image_size
        self.images = plan.context.train.images
        self.transform = transforms.Compose(
            [
                transforms.Resize((size, size)),
                transforms.RandomCrop(plan.criteria_options["linear_regions"].crop_size),
                transforms.ToTensor(),
                transforms.Normalize(engine.REGIONS_MEAN, engine.REGIONS_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image = self.transform(Image.fromarray(self.images[index]))
        channel = torch.randint(3, ())
        return image[channel : channel + 1]


def crops(plan: Plan) -> list[Tensor]:
    """The batches of one count of regions, each image through Pillow."""
    options = plan.criteria_options["linear_regions"]
    indices = torch.randint(len(plan.context.train.images), (options.images,)).tolist()
    loader = DataLoader(CropsThroughPillow(plan), batch_size=options.images // options.batches, sampler=indices)
    return list(loader)


class Networks:
    """Weights for all networks of a draw: the engine's supernet and thin net, from which plain ones are cut."""

    def __init__(self, plan: Plan, key: tuple[int, ...], masks: dict[str, Tensor]) -> None:
        context = plan.context
        self.space, self.dtype = context.operations, context.dtype
        outputs = plan.criteria_options["meta_ntk_condition"].ways
        self.wide = Supernet(self.space, masks, cell_types(context.cells), context.channels, outputs=outputs)
        initialise(self.wide, context.initialisation, generator("weights", *key))
        self.wide.to(self.dtype)
        self.thin = Supernet(
            self.space, masks, list(CELL_TYPES), 1, outputs=None, norm="batch", inputs=1, stem=False
        )
        initialise(self.thin, context.initialisation, generator("thin weights", *key))
        self.thin.to(self.dtype)

    def plain(self, masks: dict[str, Tensor]) -> MixedNetwork:
        return made_plain(MixedNetwork(self.wide, self.space, masks, norm=group_norm)).to(self.dtype)

    def plain_thin(self, masks: dict[str, Tensor]) -> MixedNetwork:
        return made_plain(MixedNetwork(self.thin, self.space, masks, norm=batch_norm)).to(self.dtype)


def meta_ntk_condition(plan: Plan, network: MixedNetwork, images: Tensor) -> float:
    options = plan.criteria_options["meta_ntk_condition"]
    ntk, nngp = (kernel.double() for kernel in kernels(network, images))
    kernel = meta_ntk(
        ntk,
        ntk if options.kernel == "maml" else nngp,
        tasks=options.tasks,
        queries=options.ways * options.queries,
        supports=options.ways * options.shots,
        ridge=options.ridge,
    )
    return condition(kernel)


def measure_round(
    plan: Plan, candidates: list[Candidate], masks: dict[str, Tensor], key: tuple[int, ...]
) -> Iterator[tuple[float, float]]:
    """C and R of the unpruned network, then of each candidate, from the engine's weights and images."""
    networks = Networks(plan, key, masks)
    images = engine.draw_tasks(plan.context, plan.criteria_options["meta_ntk_condition"], key)
    batches = engine.draw_crops(plan.context, plan.criteria_options["linear_regions"], key)
    batch = batch_masks(masks, candidates)
    for index in range(1 + len(candidates)):
        mask = {kind: batch[kind][index] for kind in CELL_TYPES}
        yield (
            meta_ntk_condition(plan, networks.plain(mask), images),
            regions(networks.plain_thin(mask), batches),
        )


def changes(values: list[float]) -> list[float]:
    """Relative change of each candidate against the first value, the unpruned network's."""
    return np.round((values[0] - np.array(values[1:])) / values[0], 3).tolist()
