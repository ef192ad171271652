"""The mixed network that trains: each edge holds all its operations, added up by weights that are learned.

The weights of the mixture come in from outside as plain tensors (`Mixture`), so the network knows nothing of how
a search parametrises or anneals them.
"""

from itertools import combinations
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metantk.runtime.files import DivergedError
from metantk.space.channels_last import concatenate
from metantk.space.genotype import Space
from metantk.space.layouts import Layout
from metantk.space.operations import FactorizedReduction, ReluConvNorm, drop_path, make_operation, make_stem

NONE = "none"  # the operation whose output is zero: it can outweigh the others, but is never decoded

# The published order of operations of both methods; that of MetaNAS is the paper's space.
METANAS_SPACE = Space(
    (
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "conv_1x5_5x1",
        "conv_3x3",
        "sep_conv_3x3",
        "dil_conv_3x3",
    ),
    nodes=3,
)
T_NAS_SPACE = Space(
    (
        NONE,
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
    ),
    nodes=4,
)


class Mixture(NamedTuple):
    """How a type of cell adds up what its edges can do.

    Attributes:
        operations: `(edges, operations)`, each row of sum one.
        inputs: `(edges,)`, the factor of each edge in its node; zero leaves the edge out.
    """

    operations: Tensor
    inputs: Tensor


Arch = dict[str, Mixture]  # by type of cell


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """With the statistics of the batch, always: these methods never leave training mode, so nothing is tracked."""
    return nn.BatchNorm2d(channels, track_running_stats=False)


def plain_batch_norm(channels: int) -> nn.BatchNorm2d:
    """Without scale and shift, which would blur the weights of the mixture (DARTS)."""
    return nn.BatchNorm2d(channels, affine=False, track_running_stats=False)


def softmax_mixture(logits: Tensor, space: Space) -> Mixture:
    """A node is the plain sum over all earlier states (T-NAS).

    Args:
        logits: `(edges, operations)`.
    """
    return Mixture(logits.softmax(-1), logits.new_ones(len(space.edges)))


def pairs_of(space: Space) -> list[list[tuple[int, int]]]:
    """By node, the pairs of inputs in the published (lexicographic) order."""
    return [list(combinations(range(node), 2)) for node in range(2, 2 + space.nodes)]


def pair_weights(logits: Tensor, space: Space, temperature: float) -> Tensor:
    """Softmax over the pairs of each node; both `(pairs,)`, node by node."""
    parts = (logits / temperature).split([len(pairs) for pairs in pairs_of(space)])
    return torch.cat([part.softmax(0) for part in parts])


def pairwise_mixture(
    operation_logits: Tensor, pair_logits: Tensor, space: Space, *, temperature: float, threshold: float = 0.0
) -> Mixture:
    """A node is the weighted sum over pairs of inputs, so an input's factor is the sum over its pairs (MetaNAS).

    Args:
        operation_logits: `(edges, operations)`.
        pair_logits: `(pairs,)`.
        temperature: of both softmaxes.
        threshold: pairs of this weight or less are left out; what is left is not scaled up.
    """
    pairs = pair_weights(pair_logits, space, temperature)
    kept = pairs * (pairs > threshold)
    inputs = _incidence(space).to(kept) @ kept
    return Mixture((operation_logits / temperature).softmax(-1), inputs)


def _incidence(space: Space) -> Tensor:
    """`(edges, pairs)`: one where the edge is in the pair of its node."""
    columns = [(node, pair) for node, pairs in enumerate(pairs_of(space), start=2) for pair in pairs]
    return torch.tensor(
        [[float(edge.node == node and edge.input in pair) for node, pair in columns] for edge in space.edges]
    )


def surviving(mixture: Mixture, threshold: float) -> list[list[int]]:
    """Numbers of the operations of each edge that are computed: weights above `threshold`, on edges that count."""
    weights, inputs = mixture.operations.tolist(), mixture.inputs.tolist()
    return [
        [index for index, weight in enumerate(row) if weight > threshold] if factor else []
        for row, factor in zip(weights, inputs, strict=True)
    ]


def check_survivors(space: Space, computed: list[list[int]], kind: str) -> None:
    """Raises `DivergedError` where a node is left without any operation, as by weights that are not finite."""
    fed = {
        edge.node
        for edge, indices in zip(space.edges, computed, strict=True)
        if any(space.operations[index] != NONE for index in indices)
    }
    if len(fed) < space.nodes:
        raise DivergedError(
            f"mixture of {kind} cells: a node is left without an operation: the architecture's weights diverged or "
            "fell below the threshold; use lower rates or a higher min_temperature"
        )


class MixedCell(nn.Module):
    """A cell with every operation of the space on every edge; inputs as in `metantk.backbones.cells.Cell`."""

    def __init__(
        self,
        space: Space,
        channels_before: tuple[int, int],
        channels: int,
        *,
        reduction: bool,
        reduction_before: bool,
    ) -> None:
        super().__init__()
        norm = plain_batch_norm
        align = FactorizedReduction if reduction_before else ReluConvNorm
        self.space = space
        self.preprocess = nn.ModuleList(
            [align(channels_before[0], channels, norm), ReluConvNorm(channels_before[1], channels, norm)]
        )
        self.edges = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: make_operation(name, channels, 2 if reduction and edge.input < 2 else 1, norm)
                    for name in space.operations
                    if name != NONE
                }
            )
            for edge in space.edges
        )

    def forward(
        self,
        before: Tensor,
        last: Tensor,
        mixture: Mixture,
        computed: list[list[int]],
        rate: float = 0.0,
        draws: Tensor | None = None,
    ) -> Tensor:
        """All nodes concatenated.

        Args:
            computed: `surviving(...)`; the other operations are skipped.
            rate, draws: of drop path; draws are uniform, `(edges, operations, images)`.
        """
        states = [self.preprocess[0](before), self.preprocess[1](last)]
        weights = [row.unbind() for row in (mixture.inputs[:, None] * mixture.operations).unbind()]
        nodes: list[list[Tensor]] = [[] for _ in range(self.space.nodes)]
        for index, edge in enumerate(self.space.edges):
            if edge.input == 0 and edge.node > 2:
                states.append(sum(nodes[edge.node - 3]))
            for k in computed[index]:
                name = self.space.operations[k]
                if name == NONE:
                    continue
                operation = self.edges[index][name]
                output = operation(states[edge.input])
                if draws is not None and not isinstance(operation, nn.Identity):
                    output = drop_path(output, rate, draws[index, k])
                nodes[edge.node - 2].append(weights[index][k] * output)
        return concatenate([*states[2:], sum(nodes[-1])])


class MixedNetwork(nn.Module):
    """Stem, mixed cells, global average pool, linear head.

    Args:
        space: of the cells.
        layout: of the stack.
        classes: outputs of the head.
    """

    def __init__(self, space: Space, layout: Layout, classes: int) -> None:
        super().__init__()
        self.space, self.layout = space, layout
        self.stem = make_stem(layout, batch_norm)
        before = last = layout.stem_channels[-1]
        reduction_before = False
        self.cells = nn.ModuleList()
        for kind, channels in zip(layout.kinds, layout.channels, strict=True):
            reduction = kind == "reduce"
            self.cells.append(
                MixedCell(space, (before, last), channels, reduction=reduction, reduction_before=reduction_before)
            )
            before, last = last, channels * space.nodes
            reduction_before = reduction
        self.feature_dim = last
        self.head = nn.Linear(last, classes)

    def features(
        self,
        images: Tensor,
        arch: Arch,
        *,
        threshold: float = 0.0,
        rate: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """`(images, 3, height, width)` to `(images, feature_dim)`.

        Args:
            threshold: operations of this weight or less are skipped.
            rate: of drop path, with draws from `generator`, which is on the images' device.
        """
        computed = {kind: surviving(mixture, threshold) for kind, mixture in arch.items()}
        for kind in set(self.layout.kinds):
            check_survivors(self.space, computed[kind], kind)
        before = last = self.stem(images)
        for kind, cell in zip(self.layout.kinds, self.cells, strict=True):
            draws = None
            if rate:
                shape = (*arch[kind].operations.shape, len(images))
                draws = torch.rand(shape, generator=generator, device=images.device)
            before, last = last, cell(before, last, arch[kind], computed[kind], rate, draws)
        return last.mean((2, 3))

    def forward(self, images: Tensor, arch: Arch, **options: Any) -> Tensor:
        """Logits, `(images, classes)`; arguments as of `features`."""
        return self.head(self.features(images, arch, **options))

    def count_surviving(self, arch: Arch, threshold: float) -> int:
        """Parameters of the network without what is skipped: its size in MetaNAS's sense."""
        computed = {kind: surviving(mixture, threshold) for kind, mixture in arch.items()}
        skipped = 0
        for kind, cell in zip(self.layout.kinds, self.cells, strict=True):
            for kept, edge in zip(computed[kind], cell.edges, strict=True):
                names = {self.space.operations[index] for index in kept}
                left_out = [operation for name, operation in edge.items() if name not in names]
                skipped += sum(p.numel() for operation in left_out for p in operation.parameters())
        return sum(p.numel() for p in self.parameters()) - skipped
