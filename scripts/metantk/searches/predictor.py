"""What predicts the score of a cell from its description: an ensemble of LSTMs, as in PNAS (Liu et al. 2018)."""

import numpy as np
import torch
from torch import Tensor, nn

from metantk.runtime.devices import generator, numpy_generator
from metantk.searches.progressive import Cell

HIDDEN = 100
RATES = (0.01, 0.002)  # Adam's, of the first fit and of later ones
CHUNK = 4096  # cells that are predicted at once


class CellReader(nn.Module):
    """Reads a cell token by token (input, operation, input, operation, next block) and says a score in 0..1."""

    def __init__(self, inputs: int, operations: int, rng: torch.Generator) -> None:
        super().__init__()
        self.inputs = nn.Embedding(inputs, HIDDEN)
        self.operations = nn.Embedding(operations, HIDDEN)
        self.lstm = nn.LSTM(HIDDEN, HIDDEN, batch_first=True)
        self.score = nn.Linear(HIDDEN, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.uniform_(-0.1, 0.1, generator=rng)

    def forward(self, cells: Tensor) -> Tensor:
        """`(cells, halves, 2)` numbers to `(cells,)` scores."""
        tokens = torch.stack([self.inputs(cells[..., 0]), self.operations(cells[..., 1])], dim=2)
        outputs, _ = self.lstm(tokens.flatten(1, 2))
        return self.score(outputs[:, -1]).sigmoid().squeeze(1)


class Ensemble:
    """Each member is fitted without a share of the data of its own; the prediction is the members' mean.

    Later fits go on from the weights of earlier ones, on the new level's scores (PNAS).

    Args:
        blocks: of the largest cells.
        members: of the ensemble; one alone is fitted on all data.
        epochs: passes over the data per fit, a step each.
    """

    def __init__(self, *, blocks: int, operations: int, members: int, epochs: int, seed: int) -> None:
        self.members = [
            CellReader(blocks + 1, operations, generator("predictor", seed, index)) for index in range(members)
        ]
        self.epochs, self.seed, self.fits = epochs, seed, 0

    def fit(self, cells: list[Cell], scores: list[float]) -> None:
        order = numpy_generator("predictor folds", self.seed, self.fits).permutation(len(cells))
        data, targets = _to_tensor(cells), torch.tensor(scores, dtype=torch.float32)
        for index, member in enumerate(self.members):
            chosen = order[np.arange(len(order)) % len(self.members) != index]
            chosen = torch.from_numpy(chosen if len(chosen) else order)
            optimiser = torch.optim.Adam(member.parameters(), lr=RATES[min(self.fits, 1)])
            for _ in range(self.epochs):
                loss = (member(data[chosen]) - targets[chosen]).abs().mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
        self.fits += 1

    @torch.no_grad()
    def predict(self, cells: list[Cell]) -> list[float]:
        chunks = _to_tensor(cells).split(CHUNK)
        return (
            torch.cat([sum(member(chunk) for member in self.members) for chunk in chunks])
            .div(len(self.members))
            .tolist()
        )


def _to_tensor(cells: list[Cell]) -> Tensor:
    """Cells of one number of blocks, `(cells, 2 * blocks, 2)`."""
    return torch.tensor([[half for block in cell for half in block] for cell in cells])
