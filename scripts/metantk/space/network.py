"""The network that a genotype describes: stem, stacked cells, global average pool, linear classifier."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from metantk.space.genotype import cell_types
from metantk.space.operations import FactorizedReduction, Norm, ReluConvNorm, drop_path, make_operation


class Cell(nn.Module):
    """One cell: two inputs, intermediate nodes that sum two operations each, all nodes concatenated.

    Args:
        nodes: the genotype's list for this type of cell.
        channels_before: channels of the outputs of the last cell but one, and of the last cell.
        channels: of each node.
        reduction: whether operations on the two inputs have stride 2.
        reduction_before: whether the last cell was a reduction (its output is half the size of the one before).
    """

    def __init__(
        self,
        nodes: list,
        channels_before: tuple[int, int],
        channels: int,
        *,
        reduction: bool,
        reduction_before: bool,
        norm: Norm,
    ) -> None:
        super().__init__()
        align = FactorizedReduction if reduction_before else ReluConvNorm
        self.preprocess = nn.ModuleList(
            [align(channels_before[0], channels, norm), ReluConvNorm(channels_before[1], channels, norm)]
        )
        self.inputs = [source for node in nodes for _, source in node]
        self.operations = nn.ModuleList(
            make_operation(name, channels, 2 if reduction and source < 2 else 1, norm)
            for node in nodes
            for name, source in node
        )

    def forward(self, before: Tensor, last: Tensor, rate: float = 0.0, draws: Tensor | None = None) -> Tensor:
        """The cell's output; `draws`, uniform `(operations, pictures)`, say what drop path drops."""
        states = [self.preprocess[0](before), self.preprocess[1](last)]
        for first in range(0, len(self.operations), 2):
            states.append(sum(self._output(k, states, rate, draws) for k in (first, first + 1)))
        return torch.cat(states[2:], dim=1)

    def _output(self, number: int, states: list, rate: float, draws: Tensor | None) -> Tensor:
        operation = self.operations[number]
        output = operation(states[self.inputs[number]])
        if draws is None or isinstance(operation, nn.Identity):
            return output
        return drop_path(output, rate, draws[number])


class Network(nn.Module):
    """A stack of cells for classification; `features` is the backbone of few-shot learning.

    Where `recompute` is set, a cell's inner activations are not kept for the backward pass but computed again: the
    same gradients, in about the memory of one cell, for about a third more time.

    Args:
        genotype: as in `metantk.space.genotype`.
        cells: cells in the stack.
        channels: after the stem; doubled by each reduction cell.
        classes: outputs of the classifier.
        norm: makes the normalisation of a number of channels.
    """

    def __init__(
        self, genotype: dict, *, cells: int, channels: int, classes: int, norm: Norm = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), norm(channels))
        before, last = channels, channels
        reduction_before = False
        self.cells = nn.ModuleList()
        for kind in cell_types(cells):
            reduction = kind == "reduce"
            channels *= 2 if reduction else 1
            self.cells.append(
                Cell(
                    genotype[kind],
                    (before, last),
                    channels,
                    reduction=reduction,
                    reduction_before=reduction_before,
                    norm=norm,
                )
            )
            before, last = last, channels * len(genotype[kind])
            reduction_before = reduction
        self.feature_dim = last
        self.classifier = nn.Linear(last, classes)
        self.recompute = False

    def features(self, images: Tensor, rate: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """`(pictures, 3, height, width)` to `(pictures, feature_dim)`; `rate` is the drop-path rate."""
        before = last = self.stem(images)
        for cell in self.cells:
            draws = None
            if generator is not None and rate:
                draws = torch.rand(len(cell.operations), len(images), generator=generator, device=images.device)
            before, last = last, self._output_of(cell, before, last, rate, draws)
        return last.mean((2, 3))

    def _output_of(self, cell: Cell, *inputs: Tensor | float | None) -> Tensor:
        if not (self.recompute and torch.is_grad_enabled()):
            return cell(*inputs)

        def contexts() -> tuple:
            return contextlib.nullcontext(), _statistics_kept(cell)

        # Draws come in from outside: the state of PyTorch's own generators does not matter.
        return checkpoint(cell, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)

    def forward(self, images: Tensor, rate: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """Logits, `(pictures, classes)`."""
        return self.classifier(self.features(images, rate, generator))


@contextlib.contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Within, running statistics of batches stay as they are: what passes has been counted before."""
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(network: Network, image_size: int) -> int:
    """Multiply-accumulates of the convolutions and the classifier for one picture."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        total += weight.numel() * output[0, 0].numel() if isinstance(module, nn.Conv2d) else weight.numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    was_training = network.training
    network.eval()
    with torch.no_grad():
        network(torch.zeros(1, 3, image_size, image_size, device=next(network.parameters()).device))
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return total
