"""Supernets for a search without training: many candidates, one set of weights, one batch.

A candidate is a mask over the operations of both cell types. All candidates of a batch share weights, so they
differ only in how the operations' outputs are mixed. Tensors are `(candidates * images, ...)`, candidate by
candidate. Operations that read the same state are fused: one ReLU, one depthwise convolution over all edges,
one grouped 1×1 product. The mathematics is that of `metantk.space.operations` (a test compares the two).
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from metantk.runtime.devices import upload
from metantk.space.genotype import CELL_TYPES, Space

# (kernel, dilation) of the operations made of depthwise-separable blocks; `sep_` ones have a second block.
SEPARABLE = {
    "conv_3x3": (3, 1),
    "sep_conv_3x3": (3, 1),
    "sep_conv_5x5": (5, 1),
    "dil_conv_3x3": (3, 2),
    "dil_conv_5x5": (5, 2),
}
NORM_EPSILON = 1e-5
TINY_PIXELS = 16  # at most this many pixels: a convolution without gradient is a dense matrix product


class Slot(NamedTuple):
    """One operation of one edge; `edge` counts within the cell, `operation` within the space."""

    edge: int
    operation: int


class Norms(NamedTuple):
    """Normalisation without affine terms (they stay at 1 and 0 and take no part in any kernel).

    Attributes:
        kind: "group" (images do not mix: needed for per-sample gradients), "batch" (statistics over the
            images of one candidate) or "none" (x as it is, for synflow).
    """

    kind: str

    def __call__(self, x: Tensor, channels: int, candidates: int) -> Tensor:
        """Normalise `(candidates * images, copies * channels, height, width)`, each copy on its own."""
        if self.kind == "group":
            groups = x.shape[1] // channels * group_count(channels)
            return functional.group_norm(x, groups, eps=NORM_EPSILON)
        if self.kind == "none":
            return x
        if candidates == 1 and torch.is_grad_enabled():  # fused: keeps a third of the numbers for the backward pass
            return functional.batch_norm(x, None, None, training=True, eps=NORM_EPSILON)
        grouped = x.unflatten(0, (candidates, -1))
        variance, mean = torch.var_mean(grouped, dim=(1, 3, 4), correction=0, keepdim=True)
        return ((grouped - mean) * torch.rsqrt(variance + NORM_EPSILON)).flatten(0, 1)


def group_count(channels: int) -> int:
    """Groups of the GroupNorm that stands in for BatchNorm: min(16, channels), made to divide the channels."""
    return channels if channels <= 16 else math.gcd(16, channels)


class Convolution(nn.Module):
    """Convolution without bias whose weight takes part in the kernel.

    The forward pass uses the weight detached: autograd then computes no weight gradient summed over the batch,
    and the sampler in `metantk.kernels` computes the per-sample one from the same inputs and outputs.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: tuple[int, int] = (1, 1),
        *,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels_out, channels_in // groups, *kernel))
        self.stride, self.groups = stride, groups
        self.padding = tuple(size // 2 for size in kernel)

    @property
    def is_pointwise(self) -> bool:
        return self.weight.shape[2:] == (1, 1) and self.stride == 1

    def forward(self, x: Tensor) -> Tensor:
        if is_tiny(x):
            return self.as_products(x)
        weight = self.weight.detach()
        if self.is_pointwise:  # as a batched matrix product: two to three times faster than a grouped convolution
            matrices = weight.view(self.groups, -1, weight.shape[1])
            return torch.matmul(matrices, x.flatten(2).unflatten(1, (self.groups, -1))).view(
                len(x), -1, *x.shape[2:]
            )
        return functional.conv2d(x, weight, stride=self.stride, padding=self.padding, groups=self.groups)

    def as_products(self, x: Tensor, dilation: int = 1) -> Tensor:
        """The convolution of tiny images as one dense matrix per group (many times faster for 3×3 pixels)."""
        channels, pixels = self.weight.shape[1], x.shape[2] * x.shape[3]
        unit = torch.eye(channels * pixels, dtype=x.dtype, device=x.device).view(-1, channels, *x.shape[2:])
        answers = functional.conv2d(
            unit.repeat(1, self.groups, 1, 1),
            self.weight.detach(),
            stride=self.stride,
            padding=tuple(dilation * size for size in self.padding),
            dilation=dilation,
            groups=self.groups,
        )
        matrices = answers.flatten(2).unflatten(1, (self.groups, -1)).flatten(2).transpose(0, 1)
        rows = x.flatten(1).unflatten(1, (self.groups, -1)).transpose(0, 1)
        return torch.bmm(rows, matrices).transpose(0, 1).reshape(len(x), -1, *answers.shape[2:])


def is_tiny(x: Tensor) -> bool:
    return not torch.is_grad_enabled() and x.shape[2] * x.shape[3] <= TINY_PIXELS


class DilatedDepthwise(nn.Module):
    """A depthwise convolution of dilation 2: a plain one on images of every second pixel.

    CPU libraries are up to ten times slower at the gradients of dilated depthwise convolutions than of plain ones.
    """

    def __init__(self, channels: int, kernel: int, *, stride: int) -> None:
        super().__init__()
        self.stride, self.gap = stride, kernel // 2
        self.convolution = Convolution(channels, channels, (kernel, kernel), groups=channels)

    @property
    def weight(self) -> Tensor:
        return self.convolution.weight

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:
            return self.convolution(x[:, :, ::2, ::2].contiguous())
        if is_tiny(x):
            return self.convolution.as_products(x, dilation=2)
        return self._together(self.convolution(self._apart(x)), *x.shape[2:])

    def _apart(self, x: Tensor) -> Tensor:
        """The four images of every second pixel side by side, zeros between them where kernels overlap."""
        x = functional.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        parts = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 1, 3, 2, 5, 4)
        return functional.pad(parts, (0, self.gap, 0, 0, 0, self.gap)).flatten(4).flatten(2, 3)

    def _together(self, x: Tensor, height: int, width: int) -> Tensor:
        parts = x.unflatten(3, (2, -1)).unflatten(2, (2, -1))[:, :, :, : -self.gap, :, : -self.gap]
        return parts.permute(0, 1, 3, 2, 5, 4).flatten(4).flatten(2, 3)[:, :, :height, :width]


class Context(NamedTuple):
    """What a forward pass hands down: the batch's candidates, the norm, and who wants to see the ReLUs.

    Attributes:
        weights: mixing weights per cell type, `(candidates, edges, operations)`; 0 where removed.
        norms: the normalisation.
        watch: called with each ReLU's input `(candidates * images, copies, ...)` and with
            `(candidates, copies)`: how many remaining operations read the copy, each through a ReLU of its own in
            the published networks.
        watch_norms: the same for the inputs of norms.
    """

    weights: dict[str, Tensor]
    norms: Norms
    watch: Callable[[Tensor, Tensor], None] | None
    watch_norms: Callable[[Tensor, Tensor], None] | None = None

    @property
    def candidates(self) -> int:
        return len(self.weights["normal"])

    def relu(self, x: Tensor, used: Tensor | None = None) -> Tensor:
        """ReLU; `used` is `(candidates, copies)`, as `watch` sees it; left out where `x` is one copy, read once."""
        if self.watch is not None:
            self._show(self.watch, x, used)
        return functional.relu(x)

    def norm(self, x: Tensor, channels: int, used: Tensor | None = None) -> Tensor:
        """The normalisation of each copy of `channels`; `used` as of `relu`."""
        if self.watch_norms is not None:
            self._show(self.watch_norms, x, used)
        return self.norms(x, channels, self.candidates)

    def _show(self, watch: Callable[[Tensor, Tensor], None], x: Tensor, used: Tensor | None) -> None:
        used = torch.ones(self.candidates, 1, dtype=torch.long, device=x.device) if used is None else used
        watch(x.unflatten(1, (used.shape[1], -1)), used)


class Layer(NamedTuple):
    """A convolution or the head, and whose weights it has.

    Attributes:
        module: with `weight`, whose first dimension holds the operations' parts one after the other.
        shown: the module whose output has the layer's own pixels (a `DilatedDepthwise` computes on others).
        kind: type of the cell; None for what is part of every candidate.
        slots: the operations, one per part; None for a single part of every candidate.
    """

    module: nn.Module
    shown: nn.Module
    kind: str | None
    slots: list[Slot] | None

    @property
    def copies(self) -> int:
        return 1 if self.slots is None else len(self.slots)

    def used(self, masks: dict[str, Tensor]) -> Tensor:
        """`(candidates, copies)` bool: whether each candidate has the operation."""
        if self.slots is None:
            return torch.ones(len(masks["normal"]), 1, dtype=torch.bool)
        mask = masks[self.kind].cpu()
        return torch.stack([mask[:, slot.edge, slot.operation] for slot in self.slots], dim=1)


class Align(nn.Module):
    """Brings an input of a cell to the cell's channels: ReLU, 1×1 convolution, norm."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.convolution = Convolution(channels_in, channels)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return context.norm(self.convolution(context.relu(x)), self.channels)


class Reductions(nn.Module):
    """`copies` factorised reductions of one input that has passed its ReLU."""

    def __init__(self, channels_in: int, channels: int, copies: int = 1) -> None:
        super().__init__()
        half = channels // 2
        self.channels, self.copies = channels, copies
        self.even = Convolution(channels_in, copies * half) if half else None
        self.odd = Convolution(channels_in, copies * (channels - half))

    def forward(self, activated: Tensor, context: Context, used: Tensor | None = None) -> Tensor:
        shifted = functional.pad(activated, (0, 1, 0, 1))[:, :, 1::2, 1::2]
        halves = [self.odd(shifted.contiguous())]
        if self.even is not None:
            halves.insert(0, self.even(activated[:, :, ::2, ::2].contiguous()))
        joined = torch.cat([half.unflatten(1, (self.copies, -1)) for half in halves], dim=2).flatten(1, 2)
        return context.norm(joined, self.channels, used)


class AlignReduced(nn.Module):
    """Brings an input of twice the resolution to the cell's resolution and channels."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.reduction = Reductions(channels_in, channels)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return self.reduction(context.relu(x), context)


class SeparableBlocks(nn.Module):
    """`copies` pairs of depthwise and 1×1 convolution with norm, each copy with weights of its own."""

    def __init__(self, channels: int, copies: int, kernel: int, dilation: int, stride: int) -> None:
        super().__init__()
        width = copies * channels
        self.channels, self.width = channels, width
        if dilation == 2:
            self.depthwise = DilatedDepthwise(width, kernel, stride=stride)
        else:
            self.depthwise = Convolution(width, width, (kernel, kernel), stride=stride, groups=width)
        self.pointwise = Convolution(width, width, groups=copies)

    def forward(self, activated: Tensor, used: Tensor, context: Context) -> Tensor:
        """`activated` has the channels of all copies, or of one input that all copies read."""
        if activated.shape[1] < self.width:
            activated = activated.repeat(1, self.width // activated.shape[1], 1, 1)
        mixed = self.pointwise(self.depthwise(activated))
        return context.norm(mixed, self.channels, used)


class SeparableOperations(nn.Module):
    """All operations of one (kernel, dilation): single blocks first, then those with a second block."""

    def __init__(self, channels: int, single: int, double: int, kernel: int, dilation: int, stride: int) -> None:
        super().__init__()
        self.split = single * channels
        self.first = SeparableBlocks(channels, single + double, kernel, dilation, stride)
        self.second = SeparableBlocks(channels, double, kernel, dilation, 1) if double else None

    def forward(self, activated: Tensor, used: Tensor, used_twice: Tensor, context: Context) -> Tensor:
        once = self.first(activated, used, context)
        if self.second is None:
            return once
        single, double = once[:, : self.split], once[:, self.split :].contiguous()
        double = self.second(context.relu(double, used_twice), used_twice, context)
        return torch.cat([single, double], dim=1) if self.split else double


class CrossedOperations(nn.Module):
    """`copies` of the 1×5 followed by the 5×1 convolution."""

    def __init__(self, channels: int, copies: int, stride: int) -> None:
        super().__init__()
        width = copies * channels
        self.channels = channels
        self.row = Convolution(channels, width, (1, 5), stride=stride)
        self.column = Convolution(width, width, (5, 1), groups=copies)

    def forward(self, activated: Tensor, used: Tensor, context: Context) -> Tensor:
        return context.norm(self.column(self.row(activated)), self.channels, used)


def average_pool(x: Tensor, stride: int) -> Tensor:
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return functional.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
    # As a depthwise convolution: seven times faster than the pooling of a CPU's library.
    ones = x.new_ones(1, 1, 3, 3)
    counts = functional.conv2d(x.new_ones(1, 1, *x.shape[2:]), ones, stride=stride, padding=1)
    sums = functional.conv2d(x, ones.expand(x.shape[1], 1, 3, 3), stride=stride, padding=1, groups=x.shape[1])
    return sums / counts


def max_pool(x: Tensor, stride: int) -> Tensor:
    # Channels last: four to ten times faster on a CPU, copies included.
    return functional.max_pool2d(x.contiguous(memory_format=torch.channels_last), 3, stride, 1).contiguous()


POOLS = {"avg_pool_3x3": average_pool, "max_pool_3x3": max_pool}


class Mixing(nn.Module):
    """Where the output of some operations goes: to which edges of a fan, with which weights.

    Args:
        slots: one per copy in the output; all of them where the copies are `shared`, that is, one and the same.
        edges: number within the cell of each edge of the fan.
    """

    def __init__(self, slots: list[Slot], edges: list[int], *, shared: bool) -> None:
        super().__init__()
        self.shared = shared
        # Tensors, moved with the network, so that a forward pass copies nothing to the device.
        self.register_buffer("edge", torch.tensor([slot.edge for slot in slots], dtype=torch.long))
        self.register_buffer("operation", torch.tensor([slot.operation for slot in slots], dtype=torch.long))
        goes = [[slot.edge == edge for slot in slots] for edge in edges]
        self.register_buffer("goes", torch.tensor(goes, dtype=torch.float32))

    def used(self, weights: Tensor) -> Tensor:
        """`(candidates, slots)`: 1 where a candidate has the operation, else 0."""
        return (weights[:, self.edge, self.operation] > 0).long()

    def forward(self, output: Tensor, weights: Tensor) -> Tensor:
        """The output's part in each edge, `(candidates, images, edges, channels * height * width)`."""
        mixing = self.goes * weights[:, None, self.edge, self.operation]
        if self.shared:
            mixing = mixing.sum(2, keepdim=True)
        stacked = output.unflatten(0, (len(weights), -1)).flatten(2)
        return torch.matmul(mixing[:, None], stacked.unflatten(2, (mixing.shape[2], -1)))


class Fan(nn.Module):
    """All operations of all edges that leave one state of a cell.

    Args:
        space: the search space.
        edges: number within the cell of each edge that leaves the state.
        remaining: `(edges of the cell, operations)`, the operations that any candidate may use.
    """

    def __init__(self, space: Space, edges: list[int], remaining: Tensor, channels: int, stride: int) -> None:
        super().__init__()
        self.space, self.edges, self.channels, self.stride = space, edges, channels, stride
        slots: dict[str, list[Slot]] = {}
        for operation, name in enumerate(space.operations):
            slots[name] = [Slot(edge, operation) for edge in edges if remaining[edge, operation]]
        self.slots = slots
        self.separable = nn.ModuleDict()
        self.separable_slots: dict[str, tuple[list[Slot], list[Slot]]] = {}
        for kernel, dilation in dict.fromkeys(SEPARABLE.values()):
            names = [name for name in space.operations if SEPARABLE.get(name) == (kernel, dilation)]
            single = [slot for name in names if not name.startswith("sep_") for slot in slots[name]]
            double = [slot for name in names if name.startswith("sep_") for slot in slots[name]]
            if single or double:
                key = f"{kernel}x{kernel}, dilation {dilation}"
                self.separable_slots[key] = (single, double)
                self.separable[key] = SeparableOperations(
                    channels, len(single), len(double), kernel, dilation, stride
                )
        crossed = len(slots.get("conv_1x5_5x1", []))
        self.crossed = CrossedOperations(channels, crossed, stride) if crossed else None
        skips = len(slots["skip_connect"])
        self.reductions = Reductions(channels, channels, skips) if stride == 2 and skips else None
        self.mixing = nn.ModuleDict()
        for key, (single, double) in self.separable_slots.items():
            self.mixing[key] = Mixing(single + double, edges, shared=False)
            self.mixing[f"{key}, twice"] = Mixing(double, edges, shared=False)
        for name in ("skip_connect", "avg_pool_3x3", "max_pool_3x3", "conv_1x5_5x1"):
            if slots.get(name):
                self.mixing[name] = Mixing(slots[name], edges, shared=self._is_shared(name))
        activated = [slot for name in slots if not self._is_shared(name) for slot in slots[name]]
        self.mixing["activated"] = Mixing(activated, edges, shared=False)

    def weighted(self) -> Iterator[tuple[nn.Module, list[Slot]]]:
        """Modules with weights, and the operations that the equal parts of their weights belong to, in order."""
        for key, (single, double) in self.separable_slots.items():
            yield self.separable[key].first, single + double
            if double:
                yield self.separable[key].second, double
        if self.crossed is not None:
            yield self.crossed, self.slots["conv_1x5_5x1"]
        if self.reductions is not None:
            yield self.reductions, self.slots["skip_connect"]

    def _is_shared(self, name: str) -> bool:
        """Whether an operation has no weights, and so the same output on every edge; it has no ReLU either."""
        return name in POOLS or (name == "skip_connect" and self.stride == 1)

    def forward(self, x: Tensor, weights: Tensor, context: Context) -> Tensor | None:
        """What each edge adds to its node, `(candidates, images, edges, channels * height * width)`.

        Args:
            x: the state, `(candidates * images, channels, height, width)`.
            weights: mixing weights of the cell, `(candidates, edges of the cell, operations)`.
        """
        total = None
        for output, mixing in self._branches(x, weights, context):
            part = mixing(output, weights)
            total = part if total is None else total + part
        return total

    def _branches(self, x: Tensor, weights: Tensor, context: Context) -> Iterator[tuple[Tensor, Mixing]]:
        """Outputs of operations that are computed together, and where they go."""
        for name, pool in POOLS.items():
            if self.slots[name]:
                mixing = self.mixing[name]
                used = mixing.used(weights).sum(1, keepdim=True)
                yield context.norm(pool(x, self.stride), self.channels, used), mixing
        if self.slots["skip_connect"] and self.stride == 1:
            yield x, self.mixing["skip_connect"]
        used = self.mixing["activated"].used(weights)
        if not used.shape[1]:
            return
        activated = context.relu(x, used.sum(1, keepdim=True))
        if self.reductions is not None:
            mixing = self.mixing["skip_connect"]
            yield self.reductions(activated, context, mixing.used(weights)), mixing
        for key, operations in self.separable.items():
            mixing, used_twice = self.mixing[key], self.mixing[f"{key}, twice"].used(weights)
            yield operations(activated, mixing.used(weights), used_twice, context), mixing
        if self.crossed is not None:
            mixing = self.mixing["conv_1x5_5x1"]
            yield self.crossed(activated, mixing.used(weights), context), mixing


class SuperCell(nn.Module):
    """One cell of the supernet; arguments as of `metantk.backbones.cells.Cell`, and the remaining operations."""

    def __init__(
        self,
        space: Space,
        kind: str,
        remaining: Tensor,
        channels_before: tuple[int, int],
        channels: int,
        *,
        reduction_before: bool,
    ) -> None:
        super().__init__()
        self.space, self.kind, self.channels = space, kind, channels
        align = AlignReduced if reduction_before else Align
        self.preprocess = nn.ModuleList([align(channels_before[0], channels), Align(channels_before[1], channels)])
        self.fans = nn.ModuleList()
        for source in range(1 + space.nodes):
            edges = [index for index, edge in enumerate(space.edges) if edge.input == source]
            stride = 2 if kind == "reduce" and source < 2 else 1
            self.fans.append(Fan(space, edges, remaining, channels, stride))

    def forward(self, before: Tensor, last: Tensor, context: Context) -> Tensor:
        states = [self.preprocess[0](before, context), self.preprocess[1](last, context)]
        weights = context.weights[self.kind]
        sums: dict[int, Tensor] = {}
        for source in range(1 + self.space.nodes):
            if source >= 2:
                states.append(self._state(sums.get(source), states))
            parts = self.fans[source](states[source], weights, context)
            if parts is not None:
                for position, edge in enumerate(self.fans[source].edges):
                    node = self.space.edges[edge].node
                    sums[node] = parts[:, :, position] + sums[node] if node in sums else parts[:, :, position]
        states.append(self._state(sums.get(1 + self.space.nodes), states))
        return torch.cat(states[2:], dim=1)

    def _state(self, total: Tensor | None, states: list[Tensor]) -> Tensor:
        """An intermediate node as `(candidates * images, channels, height, width)`; zero without inputs."""
        images, channels, height, width = states[0].shape
        if self.kind == "reduce":
            height, width = (height + 1) // 2, (width + 1) // 2
        shape = (images, channels, height, width)
        return states[0].new_zeros(shape) if total is None else total.reshape(shape)


class Supernet(nn.Module):
    """A stack of cells with all remaining operations.

    Args:
        space: the search space.
        remaining: for each cell type, `(edges, operations)` bool: what the unpruned network has.
        kinds: type of each cell of the stack.
        channels: after the stem; each reduction cell doubles them.
        inputs: channels of the images; the stem is left out (`channels` must equal `inputs`) if `stem` is False.
        outputs: of the linear head; None for no head.
        norm: "group", "batch" or "none".
    """

    def __init__(
        self,
        space: Space,
        remaining: dict[str, Tensor],
        kinds: list[str],
        channels: int,
        *,
        outputs: int | None,
        norm: str = "group",
        inputs: int = 3,
        stem: bool = True,
    ) -> None:
        super().__init__()
        self.arguments = {
            "space": space,
            "kinds": kinds,
            "channels": channels,
            "outputs": outputs,
            "norm": norm,
            "inputs": inputs,
            "stem": stem,
        }
        self.norms = Norms(norm)
        self.stem = Convolution(inputs, channels, (3, 3)) if stem else None
        before, last = channels, channels
        reduction_before = False
        self.cells = nn.ModuleList()
        for kind in kinds:
            channels *= 2 if kind == "reduce" else 1
            self.cells.append(
                SuperCell(space, kind, remaining[kind], (before, last), channels, reduction_before=reduction_before)
            )
            before, last = last, channels * space.nodes
            reduction_before = kind == "reduce"
        self.feature_dim = last
        self.head = nn.Linear(last, outputs, bias=False) if outputs else None

    def forward(self, images: Tensor, masks: dict[str, Tensor], watch: Callable | None = None) -> Tensor:
        """Outputs of every candidate on every image.

        Args:
            images: `(images, channels, height, width)`, the same for all candidates.
            masks: for each cell type, `(candidates, edges, operations)` bool; on the CPU unless gradients are on.
            watch: sees every ReLU, as in `Context`; of a single candidate as long as all are alike.

        Returns:
            `(candidates * images, outputs)`, or the pooled features if there is no head.
        """
        features = self.features(images, masks, watch).mean((2, 3))
        if len(features) < len(images) * len(masks["normal"]):
            features = features.repeat(len(masks["normal"]), 1)
        return features if self.head is None else self.head(features)

    def features(
        self,
        images: Tensor,
        masks: dict[str, Tensor],
        watch: Callable | None = None,
        watch_norms: Callable | None = None,
    ) -> Tensor:
        """Features before pooling, `(candidates * images, feature_dim, height, width)`; arguments of `forward`.

        Without gradients, those of one candidate, `(images, ...)`, where all are alike.
        """
        weights = {kind: mixing_weights(upload(masks[kind], images.device), images.dtype) for kind in CELL_TYPES}
        every = Context(weights, self.norms, watch, watch_norms)
        first = every._replace(weights={kind: weight[:1] for kind, weight in weights.items()})
        # Up to the first cell in which candidates differ, one stands for all; not where per-sample gradients are
        # wanted, which differ in every layer.
        context = every if torch.is_grad_enabled() else first
        x = images.repeat(context.candidates, 1, 1, 1)
        if self.stem is not None:
            x = context.norm(self.stem(x), self.stem.weight.shape[0])
        before = last = x
        for cell in self.cells:
            if context is first and _differ(masks[cell.kind]):
                before, last = (state.repeat(every.candidates, 1, 1, 1) for state in (before, last))
                context = every
            before, last = last, cell(before, last, context)
        return context.relu(context.norm(last, last.shape[1]))

    def layers(self) -> dict[str, Layer]:
        """All convolutions and the head, by the name of the module, in the order of the modules."""
        owners: dict[nn.Module, tuple[str, list[Slot]]] = {}
        for cell in self.cells:
            for fan in cell.fans:
                for module, slots in fan.weighted():
                    owners |= dict.fromkeys(module.modules(), (cell.kind, slots))
        shown = {m.convolution: m for m in self.modules() if isinstance(m, DilatedDepthwise)}
        return {
            name: Layer(module, shown.get(module, module), *owners.get(module, (None, None)))
            for name, module in self.named_modules()
            if isinstance(module, Convolution | nn.Linear)
        }

    @torch.no_grad()
    def restricted(self, remaining: dict[str, Tensor]) -> "Supernet":
        """A network of `remaining` operations alone, which are some of this one's, with the same weights."""
        own = next(self.parameters())
        smaller = Supernet(remaining=remaining, **self.arguments).to(own.device, own.dtype)
        ours = self.layers()
        for name, layer in smaller.layers().items():
            weight = ours[name].module.weight
            if layer.slots is not None:
                copies = [ours[name].slots.index(slot) for slot in layer.slots]
                weight = weight.unflatten(0, (len(ours[name].slots), -1))[copies].flatten(0, 1)
            layer.module.weight.copy_(weight)
        return smaller


def _differ(masks: Tensor) -> bool:
    """Whether not all candidates have the same operations (masks are on the CPU: nothing waits for a device)."""
    return bool((masks != masks[:1]).any())


def mixing_weights(masks: Tensor, dtype: torch.dtype) -> Tensor:
    """Each remaining operation of an edge weighs one over their number; a removed edge adds nothing."""
    return masks.to(dtype) / masks.sum(-1, keepdim=True).clamp(min=1)


def full_masks(space: Space) -> dict[str, Tensor]:
    """Every operation on every edge of both cell types."""
    return {kind: torch.ones(len(space.edges), len(space.operations), dtype=torch.bool) for kind in CELL_TYPES}


@torch.no_grad()
def initialise(network: nn.Module, scheme: str, generator: torch.Generator) -> None:
    """Draw all weights anew, in the order of the modules.

    Args:
        scheme: "kaiming_normal" (fan-in, gain √2), "pytorch" (uniform within ±1/√fan-in, its default) or
            "normal" (standard deviation 1, for Zen-NAS).
        generator: on the CPU, so that every device sees the same weights.
    """
    for parameter in network.parameters():
        fan_in = parameter[0].numel()
        draw = torch.empty(parameter.shape, dtype=torch.float32)
        if scheme == "kaiming_normal":
            draw.normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator)
        elif scheme == "normal":
            draw.normal_(0.0, 1.0, generator=generator)
        else:
            bound = 1.0 / math.sqrt(fan_in)
            draw.uniform_(-bound, bound, generator=generator)
        parameter.copy_(draw)
