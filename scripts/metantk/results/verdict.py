"""What a run on one's own images has come to: accuracies, whether training was worth it, and how to go on."""

import shlex
from collections.abc import Iterator

import numpy as np
import pandas as pd

from metantk.results.baselines import PIXELS, UNTRAINED
from metantk.results.tables import Chain, notes, to_markdown
from metantk.statistics import confidence_95

Groups = dict[tuple, list[Chain]]


def describe(groups: Groups) -> Iterator[str]:
    """The lines, of the rows of one data set."""
    chains = next(iter(groups.values()))
    evaluation, shots = chains[0].evaluation, sorted(chains[0].evaluation.options.shots)
    yield f"Accuracy in % on classes that no training has seen, {evaluation.ways} at a time:\n"
    yield to_markdown(_tabulate(groups, shots))
    seeds = f"mean of {len(chains)} seeds" if len(chains) > 1 else "one seed: another training may differ more"
    yield f"±: 95 % interval over {evaluation.episodes} episodes; {seeds}.\n"
    trained = {key: members for key, members in groups.items() if key[3] != UNTRAINED}
    for key, members in trained.items():
        yield from _judge(key, groups, max(shots))
        if note := notes(members):
            yield f"Note: {_name(key)}: {note}"
    if not trained:
        return
    best = max(trained.values(), key=lambda members: np.mean([chain.accuracies(max(shots)) for chain in members]))
    model = shlex.quote(str(best[0].folder))
    yield f"\nModel:  {best[0].folder}"
    yield "Next, with a folder of examples per class in my_examples, and any images in my_images:\n"
    yield f"    .venv/bin/python scripts/classify_images.py --model {model} \\"
    yield "        --support my_examples --query my_images --output classes.csv\n"


def _tabulate(groups: Groups, shots: list[int]) -> pd.DataFrame:
    rows = []
    for key, members in groups.items():
        row = {"Row": _name(key)}
        for count in shots:
            accuracies = np.stack([member.accuracies(count) for member in members])
            row[f"{count}-shot"] = f"{accuracies.mean():.1f} ± {confidence_95(accuracies.mean(0)):.1f}"
        rows.append(row)
    return pd.DataFrame(rows)


def _name(key: tuple) -> str:
    _, backbone, search, learner = key
    if (backbone, learner) == (PIXELS, UNTRAINED):
        return "raw pixels"
    searched = "" if search == "fixed" else f", cells by {search}"
    return f"{backbone}{searched}, " + ("untrained" if learner == UNTRAINED else f"trained by {learner}")


def _judge(key: tuple, groups: Groups, shots: int) -> Iterator[str]:
    """How far a trained row is above each baseline, over the episodes that they share."""
    dataset, backbone, search, _ = key
    baselines = {
        "raw pixels": (dataset, PIXELS, "fixed", UNTRAINED),
        "the same network untrained": (dataset, backbone, search, UNTRAINED),
    }
    own, is_above, told = _by_episode(groups[key], shots), True, []
    for name, other in baselines.items():
        if other in groups:
            differences = own - _by_episode(groups[other], shots)
            mean, interval = differences.mean(), confidence_95(differences)
            is_above &= mean > interval
            told.append(f"{abs(mean):.1f} ± {interval:.1f} points {'above' if mean > 0 else 'below'} {name}")
    if told:
        worth = "worth it" if is_above else "not worth it yet: train longer, on more classes, or at another lr"
        yield f"{_name(key)}, {shots}-shot: {', '.join(told)}; training was {worth}."


def _by_episode(chains: list[Chain], shots: int) -> np.ndarray:
    """Percent `(episodes,)`, the mean over seeds."""
    return np.mean([chain.accuracies(shots) for chain in chains], axis=0)
