"""What a few-shot classifier says of its own predictions: probabilities, and images that are out of distribution.

Both are calibrated on tasks of classes that the network was not trained on, the validation classes, with as many
classes and examples as the task at hand: a temperature, by which the classifier's scores are multiplied before the
softmax (Guo et al., 2017), and the closeness that all but `FALSE_POSITIVE_RATE` of the images of a task's classes
reach. Images below it are called out of distribution. How many images of other classes are is measured on the same
tasks.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from metantk.runtime.devices import numpy_generator
from metantk.runtime.files import InputError
from metantk.runtime.typed_files import Record

FALSE_POSITIVE_RATE = 0.05  # of the images of a task's classes
TEMPERATURES = torch.logspace(-1, 3, 81, dtype=torch.float64)
TASKS = 60
QUERIES = 8  # of each class of a task, and as many of classes that are none of it


class Calibration(Record):
    """What was found on validation tasks.

    Attributes:
        ways, shots: classes and examples of each, of those tasks.
        temperature: factor of the scores before the softmax.
        threshold: closeness below which an image is called out of distribution.
        accuracy: percent of images of known classes that got their class.
        false_positive_rate: percent of images of the task's classes that are called out of distribution.
        true_positive_rate: percent of images of other classes that are called out of distribution.
        auroc: area under the ROC curve of both, in percent; 50 is chance.
    """

    ways: int = Field(ge=2)
    shots: int = Field(ge=1)
    temperature: float = Field(gt=0)
    threshold: float = Field(ge=-1.001, le=1.001)  # a cosine, and its rounding
    accuracy: float = Field(ge=0, le=100)
    false_positive_rate: float = Field(ge=0, le=100)
    true_positive_rate: float = Field(ge=0, le=100)
    auroc: float = Field(ge=0, le=100)


def closeness(support: Tensor, labels: Tensor, query: Tensor, *, ways: int) -> Tensor:
    """How close each query is to the class that it is closest to, `(queries,)`.

    The cosine between a query's features and the mean of a class's supports, all of length 1.

    Args:
        support, query: features `(supports, features)`, `(queries, features)`.
        labels: int64 `(supports,)`.
    """
    return (functional.normalize(query, dim=1) @ directions(support, labels, ways=ways).mT).amax(1)


def directions(support: Tensor, labels: Tensor, *, ways: int) -> Tensor:
    """Means of each class's supports, all of length 1, `(ways, features)`; arguments are those of `closeness`."""
    support = functional.normalize(support, dim=1)
    means = torch.stack([support[labels == way].mean(0) for way in range(ways)])
    return functional.normalize(means, dim=1)


def probabilities(scores: Tensor, temperature: float) -> Tensor:
    """`(queries, ways)`; each row sums to 1."""
    return torch.softmax(scores.double() * temperature, dim=-1)


class TooFewError(InputError):
    """Fewer classes than a calibration takes: answers can be given without one."""


Answer = Callable[[np.ndarray, Tensor, np.ndarray, int], Tensor]


def calibrate(
    features: Tensor, labels: np.ndarray, answer: Answer, *, ways: int, shots: int | Sequence[int], seed: int
) -> Calibration:
    """Calibrate for tasks of `ways` classes with `shots` examples, or the nearest that the images suffice for.

    Args:
        features: of the images of the validation classes, `(images, features)`.
        labels: int64 `(images,)`, numbers of classes.
        shots: supports of a class, or of each class where they are unequal in number.
        answer: from numbers of supports, their labels, numbers of queries and ways to scores `(queries, ways)`.

    Raises:
        TooFewError: there are fewer than 4 classes of 2 images.
    """
    # Imported here: it takes time, and features need none of it.
    from sklearn.metrics import roc_auc_score

    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    members = [indices for indices in members if len(indices) > 1]
    if len(members) < 4:
        raise TooFewError("calibration takes 4 validation classes of 2 images or more")
    ways = min(ways, len(members) // 2)
    most = min(map(len, members)) - 1
    counts = np.minimum(_counts_for(ways, np.atleast_1d(shots)), most)
    shots = int(np.median(counts))
    known, correct, close, other = [], [], [], []
    for index in range(TASKS):
        draws = numpy_generator("calibration", seed, index)
        order = draws.permutation(len(members))
        shuffled = [draws.permutation(members[place]) for place in order]
        support = np.concatenate([indices[:n] for indices, n in zip(shuffled[:ways], counts, strict=True)])
        first = counts.max()
        queries = [indices[first : first + QUERIES] for indices in shuffled[:ways]]
        targets = torch.from_numpy(np.repeat(np.arange(ways), [len(indices) for indices in queries]))
        others = draws.permutation(np.concatenate(shuffled[ways:]))[: len(targets)]
        query = np.concatenate(queries)
        own = torch.arange(ways).repeat_interleave(torch.from_numpy(counts))
        known.append(answer(support, own, query, ways).double().cpu())
        correct.append(targets)
        both = closeness(features[support], own, features[np.concatenate([query, others])], ways=ways)
        close.append(both[: len(query)].cpu())
        other.append(both[len(query) :].cpu())
    scores, targets = torch.cat(known), torch.cat(correct)
    close, other = torch.cat(close).double(), torch.cat(other).double()
    losses = [functional.cross_entropy(scores * factor, targets).item() for factor in TEMPERATURES]
    is_other = np.repeat([False, True], [len(close), len(other)])
    threshold = torch.quantile(close, FALSE_POSITIVE_RATE).item()
    return Calibration(
        ways=ways,
        shots=shots,
        temperature=TEMPERATURES[int(np.argmin(losses))].item(),
        threshold=threshold,
        accuracy=_percent(scores.argmax(1) == targets),
        false_positive_rate=_percent(close < threshold),
        true_positive_rate=_percent(other < threshold),
        auroc=round(100 * roc_auc_score(is_other, -torch.cat([close, other])), 1),
    )


def _counts_for(ways: int, shots: np.ndarray) -> np.ndarray:
    """Numbers of examples of as many classes, evenly from the smallest to the largest of those given."""
    if len(shots) <= ways:
        return np.resize(shots, ways)
    return np.sort(shots)[np.linspace(0, len(shots) - 1, ways).round().astype(int)]


def expected_accuracy(calibration: Calibration, ways: int) -> float:
    """Percent of images that get their class among `ways`, estimated from the calibration's task.

    As if the scores of the right and of each wrong class were independent and normal, of one standard deviation
    (m-alternative forced choice of signal detection): chance stays chance.
    """
    low, high = 0.0, 8.0  # distance of the right class's mean, in standard deviations
    for _ in range(40):
        middle = (low + high) / 2
        is_below = _share_correct(middle, calibration.ways) < calibration.accuracy / 100
        low, high = (middle, high) if is_below else (low, middle)
    return 100 * _share_correct(low, ways)


def _share_correct(distance: float, ways: int) -> float:
    """How often a normal score around `distance` is above `ways` - 1 others around 0."""
    scores = torch.linspace(-8, 16, 2401, dtype=torch.float64)
    normal = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
    return torch.trapezoid(
        normal.log_prob(scores - distance).exp() * normal.cdf(scores) ** (ways - 1), scores
    ).item()


def describe_task(calibration: Calibration, supports: Sequence[int]) -> str:
    """For which task a calibration was made where the one at hand is another, and what to expect of that one.

    Args:
        supports: number of support images of each class; their median counts.
    """
    ways, shots = len(supports), int(np.median(supports))
    if (calibration.ways, calibration.shots) == (ways, shots):
        return ""
    middle = "" if len(set(supports)) == 1 else " (median)"
    made = f"made for {calibration.ways} classes with {calibration.shots} examples each{middle}"
    given = f"Yours has {ways} classes with {shots} examples each{middle}, the calibration was {made}"
    if ways > calibration.ways:
        expected = f"{expected_accuracy(calibration, ways):.0f} % (guessing: {100 / ways:.0f} %)"
        if shots > calibration.shots:
            return f"{given}: more classes are harder, more examples easier; with as few, expect about {expected}."
        return f"{given}: more classes are harder, expect at most about {expected}."
    if shots < calibration.shots:
        return f"{given}: fewer examples are harder, expect less."
    return f"{given}: expect no less."


def _percent(true: Tensor) -> float:
    return round(100 * true.double().mean().item(), 1)


def nearest(entries: list[Calibration], *, ways: int, shots: int) -> Calibration | None:
    """The one of an exported file's calibrations for a task like this one; none where there are none."""
    return min(entries, key=lambda e: (abs(e.ways - ways), abs(e.shots - shots)), default=None)
