"""What a finished chain leaves, made up, for tests of tables, costs, figures and records."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from metantk.options import catalogue

GENOTYPE = {
    "normal": [[["conv_3x3", 0], ["conv_3x3", 1]]] * 3,
    "normal_concat": [2, 3, 4],
    "reduce": [[["skip_connect", 0], ["conv_3x3", 1]]] * 3,
    "reduce_concat": [2, 3, 4],
}
EPISODES = 40
ASKED = {"episodes": EPISODES, "ways": 5, "shots": [1, 5], "queries": 15, "seed": 0}


def write_chain(
    root: Path,
    search: str,
    seed: int,
    *,
    dataset: str = "glyphs",
    backbone: str = "5cells-48ch",
    learner: str = "rfs",
    shift: float = 0.0,
    asked: dict | None = None,
    search_options: dict | None = None,
    search_folder: str | None = None,
) -> Path:
    """Files of a chain whose accuracies are about 50 + shots + seed + `shift`; returns its folder."""
    folder = root / dataset / backbone / (search_folder or search) / f"seed{seed}" / learner
    folder.mkdir(parents=True)
    options = catalogue.NAMED["searches"].get(search, {}) if search_options is None else search_options
    found = search != "fixed"
    origin = {"dataset": dataset, "backbone": backbone, "search": search, "seed": seed}
    architecture = {
        "kind": "cells" if found else "resnet12",
        **({"genotype": GENOTYPE, "cells": int(backbone[0]), "channels": 48} if found else {}),
        "origin": origin | {"backbone_title": "Cells, 48 channels" if found else "ResNet-12"},
    }
    write(folder.parent / "architecture.json", architecture)
    cost = {"seconds": 100.0 + seed, "floating_point_operations": 2_500_000_000_000 + seed, "device": "cpu"}
    write(folder.parent / "search.json", cost | {"options": options, **origin})
    model = {
        "architecture": architecture,
        "learner": {"kind": learner},
        "learner_name": learner,
        "parameters": 1_000_000 + seed,
        "weights_sha256": weights_of(seed, search),
        "device": "cpu",
    }
    write(folder / "model.json", model)
    write_evaluation(folder, seed, shift, search, asked or ASKED)
    return folder


def weights_of(seed: int, search: str) -> str:
    return f"weights of {search}, seed {seed}"


def write_evaluation(folder: Path, seed: int, shift: float, search: str, asked: dict) -> None:
    rng = np.random.default_rng([seed, len(search)])
    rows = [
        {"shots": shots, "episode": number, "accuracy": 50 + shots + shift + seed + rng.uniform(-1, 1)}
        for shots in asked["shots"]
        for number in range(asked["episodes"])
    ]
    table = pd.DataFrame(rows)
    table.to_csv(folder / "episodes.csv", index=False)
    means = table.groupby("shots")["accuracy"].mean()
    results = {str(shots): {"accuracy_mean": mean, "ci95": 0.2} for shots, mean in means.items()}
    evaluation = {
        "ways": asked["ways"],
        "episodes": asked["episodes"],
        "weights_sha256": weights_of(seed, search),
        "shots": results,
        "options": asked,
    }
    write(folder / "evaluation.json", evaluation)


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def change(path: Path, **values: object) -> None:
    """Write a JSON file anew with these values."""
    write(path, json.loads(path.read_text()) | values)
