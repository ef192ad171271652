"""Splits of classes by a seed: whole classes, or whole groups of classes, go to one split."""

from pathlib import Path

import numpy as np

from metantk.runtime.files import InputError

VALIDATION_SHARE, TEST_SHARE = 0.16, 0.20  # of the classes, as in miniImageNet and in Omniglot's usual split


def split_classes(
    names: list[str], *, source: Path | str, seed: int, ways: int, split_by_group: bool
) -> dict[str, list[str]]:
    """Training, validation and test classes by a seed; with `split_by_group`, those of a group `group/class` alike.

    Raises:
        InputError: too few classes or groups.
    """
    shares = {"val": VALIDATION_SHARE, "test": TEST_SHARE}
    return _divide(names, shares, source=source, seed=seed, ways=ways, split_by_group=split_by_group)


def hold_out_validation(
    names: list[str], *, source: Path | str, seed: int, ways: int, split_by_group: bool
) -> dict[str, list[str]]:
    """Training and validation classes by a seed, of a source that has test classes of its own.

    Raises:
        InputError: too few classes or groups.
    """
    shares = {"val": VALIDATION_SHARE / (1 - TEST_SHARE)}
    return _divide(names, shares, source=source, seed=seed, ways=ways, split_by_group=split_by_group)


def _divide(
    names: list[str], shares: dict[str, float], *, source: Path | str, seed: int, ways: int, split_by_group: bool
) -> dict[str, list[str]]:
    """Each split its share of the classes, or `ways` if that is more; the rest to train. In order of name."""
    splits = ["train", *shares]
    if len(names) < len(splits) * ways:
        raise InputError(
            f"{source}: has {len(names)} class folders; {len(splits) * ways} are needed, "
            f"{ways} ways in each of {', '.join(splits[:-1])} and {splits[-1]}"
        )
    wanted = {split: max(ways, round(share * len(names))) for split, share in shares.items()}
    if split_by_group:
        return _divide_groups(names, wanted, source, seed, ways)
    order = np.random.default_rng(seed).permutation(len(names))
    counts = [len(names) - sum(wanted.values()), *wanted.values()]
    chosen = np.split(order, np.cumsum(counts)[:-1])
    return {
        split: [names[index] for index in sorted(indices)] for split, indices in zip(splits, chosen, strict=True)
    }


def _divide_groups(names: list[str], wanted: dict[str, int], source: Path | str, seed: int, ways: int) -> dict:
    """Whole groups, in a random order, to the last split and those before it until each has the classes wanted."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition("/")[0] or name, []).append(name)
    order = list(groups)
    np.random.default_rng(seed).shuffle(order)
    chosen: dict[str, list[str]] = {split: [] for split in ("train", *wanted)}
    for group in order:
        lacking = [split for split, count in wanted.items() if len(chosen[split]) < count]
        chosen[lacking[-1] if lacking else "train"] += groups[group]
    for split, found in chosen.items():
        if len(found) < ways:
            raise InputError(
                f"{source}: kept together, its {len(groups)} groups of classes leave {len(found)} classes for "
                f"{split}; {ways} are needed: leave out split_by_group, or split into train/, val/, test/ yourself"
            )
    return {split: sorted(found) for split, found in chosen.items()}
