"""What a finished chain leaves, made up, for tests of tables, costs, figures and records."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from metantk.options import catalogue
from metantk.statistics import confidence_95

GENOTYPE = {
    "normal": [[["conv_3x3", 0], ["conv_3x3", 1]]] * 3,
    "normal_concat": [2, 3, 4],
    "reduce": [[["skip_connect", 0], ["conv_3x3", 1]]] * 3,
    "reduce_concat": [2, 3, 4],
}
EPISODES = 40
DATA, WEIGHTS = "checksum of the arrays", "checksum of the weights"
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
    found, cells = search != "fixed", int(backbone[0]) if backbone[0].isdigit() else 5
    origin = {"dataset": dataset, "backbone": backbone, "search": search, "seed": seed}
    architecture = {
        "kind": "cells" if found else "resnet12",
        **({"genotype": GENOTYPE, "cells": cells, "channels": 48} if found else {}),
        "origin": origin | {"backbone_title": "Cells, 48 channels" if found else "ResNet-12"},
    }
    write(folder.parent / "architecture.json", architecture)
    cost = {"seconds": 100.0 + seed, "floating_point_operations": 2_500_000_000_000 + seed, "device": "cpu"}
    write(folder.parent / "search.json", cost | {"options": options, **origin})
    model = {
        "architecture": architecture,
        "image_size": 32,
        "learner": {"kind": learner},
        "learner_name": learner,
        "parameters": 1_064_000 + seed,
        "parameters_in_tests": 1_000_000 + seed,
        "macs": 5_006_400 + seed,
        "latency_ms": 1.25 + seed,
        "feature_dim": 100,
        "outputs": 64,
        "weights_sha256": WEIGHTS,
        "data_sha256": DATA,
        "device": "cpu",
    }
    write(folder / "model.json", model)
    write_evaluation(folder, seed, shift, len(search), asked or ASKED)
    return folder


def write_evaluation(folder: Path, seed: int, shift: float, salt: int, asked: dict) -> None:
    rng = np.random.default_rng([seed, salt])
    rows = [
        {"shots": shots, "episode": index, "accuracy": 50 + shots + shift + seed + rng.uniform(-1, 1)}
        for shots in asked["shots"]
        for index in range(asked["episodes"])
    ]
    table = pd.DataFrame(rows)
    table.to_csv(folder / "episodes.csv", index=False)
    results = {
        str(shots): {"accuracy_mean": values.mean(), "ci95": confidence_95(values)}
        for shots, values in table.groupby("shots")["accuracy"]
    }
    evaluation = {
        "ways": asked["ways"],
        "episodes": asked["episodes"],
        "split": "test",
        "weights_sha256": WEIGHTS,
        "parameters": 1_064_000 + seed,
        "data_sha256": DATA,
        "shots": results,
        "options": asked,
    }
    write(folder / "evaluation.json", evaluation)


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def change(path: Path, **values: object) -> None:
    """Write a JSON file anew with these values."""
    write(path, json.loads(path.read_text()) | values)
