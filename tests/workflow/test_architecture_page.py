"""The rule graph and the examples of docs/architecture.md: those that Snakemake plans, and code that runs."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY, run_program
from small_search import make_plan

from metantk.criteria.base import RandomKeys, load_criterion, measure_all
from metantk.space.genotype import SPACES
from metantk.space.supernet import full_masks

PAGE = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
SEARCH = {"kind": "prune", "criteria": ["convolutions.py"], "repeats": 1, "image_size": 8}
LEARNER = {"kind": "centroids.py", "epochs": 1, "batch_size": 16}


def edges(graph: str) -> set[tuple[str, str]]:
    """Pairs of rules of a graph in mermaid's language."""
    names = dict(re.findall(r"^\s*(id\d+)\[(\w+)\]$", graph, re.M))
    return {(names[a], names[b]) for a, b in re.findall(r"^\s*(id\d+) --> (id\d+)$", graph, re.M)}


def test_the_rule_graph_is_the_one_that_snakemake_prints(tmp_path):
    command = ("all", "study", "theory", "--rulegraph", "mermaid-js")
    places = ("--snakefile", REPOSITORY / "Snakefile", "--directory", tmp_path)
    configuration = ("--configfile", REPOSITORY / "config" / "paper" / "cifar-fs-5cells.yaml")
    run = run_program(sys.executable, "-m", "snakemake", *command, *places, *configuration)
    assert run.returncode == 0, run.stderr
    assert f"snakemake {' '.join(command[:3])} --configfile config/paper/cifar-fs-5cells.yaml" in PAGE
    assert edges(PAGE) == edges(run.stdout) != set()


def write_examples(folder: Path) -> None:
    for name, text in re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE, re.M | re.S):
        (folder / name).write_text(text)


def test_the_criterion_of_untrained_networks_measures_each_candidate(tmp_path):
    write_examples(tmp_path)
    criterion = load_criterion(str(tmp_path / "activation.py"))
    full = full_masks(SPACES["few-shot"])
    masks = {kind: mask.repeat(3, 1, 1) for kind, mask in full.items()}
    masks["normal"][1, 0, 0] = masks["reduce"][2, 4, 1] = False

    def measure(masks: dict) -> np.ndarray:
        return measure_all({"own": criterion}, make_plan().context, {}, RandomKeys.of((1,)), masks)["own"].values

    together = measure(masks)
    assert len(set(together)) == 3
    assert together.min() > 0
    # A network that all candidates have in common, for its weights, and the candidate.
    pairs = [{kind: mask[[0, index]] for kind, mask in masks.items()} for index in range(3)]
    np.testing.assert_allclose(together, [measure(pair)[1] for pair in pairs], rtol=1e-5)


@pytest.mark.slow
def test_the_criterion_and_the_learner_of_the_page_run(tmp_path):
    write_examples(tmp_path)

    def program(script: str, **flags: object) -> None:
        words = [word for flag, value in flags.items() for word in (f"--{flag.replace('_', '-')}", value)]
        run = run_program(sys.executable, REPOSITORY / "scripts" / f"{script}.py", *words, folder=tmp_path)
        assert run.returncode == 0, run.stderr

    program("prepare_dataset", name="g", source="glyphs", image_size=16, images_per_class=24, output="data")
    cells = {"backbone": "cells", "cells": 3, "channels": 2}
    program("search_architecture", data="data", **cells, search=json.dumps(SEARCH), output="found")
    genotype = json.loads((tmp_path / "found" / "architecture.json").read_text())["genotype"]
    assert "conv" not in json.dumps([genotype["normal"], genotype["reduce"]])
    network = {"data": "data", "architecture": "found/architecture.json"}
    program("train_network", **network, learner=json.dumps(LEARNER), output="model")
    program("evaluate_episodes", data="data", model="model", options='{"episodes": 20}', output="model")
    accuracy = pd.read_csv(tmp_path / "model" / "episodes.csv").groupby("shots")["accuracy"].mean()
    assert accuracy[5] > 22  # chance is 20: without convolutions there is little to learn
