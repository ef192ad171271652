"""Rows whose networks come with their weights, from the configuration to the table."""

import json

import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save_file
from small_graph import means_graph

NAME = "test_resnet.r160_in1k"


@pytest.fixture
def house(tiny_house):
    configuration = tiny_house.configuration
    configuration["rows"] = [{"backbone": ["pixels", "conv4-2", "theirs", "means"], "learner": "none"}]
    configuration["backbones"] |= {
        "theirs": {"kind": "timm", "name": NAME, "weights": "theirs.safetensors", "input_size": 32},
        "means": {"kind": "onnx", "file": "means.onnx"},
    }
    save_file(timm.create_model(NAME).state_dict(), tiny_house.path / "theirs.safetensors")
    means_graph(tiny_house.path / "means.onnx")
    tiny_house.configure(configuration)
    return tiny_house


@pytest.mark.slow
def test_any_backbone_is_a_row(house):
    run = house.snakemake("--cores", 2)
    assert run.returncode == 0, run.stderr
    results = house.path / "results"
    table = pd.read_csv(results / "tables" / "table1.csv")
    ours = table[table["Source"] != "paper"]
    assert ours["Model"].tolist() == ["Not trained", "Not trained", "Pretrained (theirs)", "Pretrained (means)"]
    assert ours["Arch."].tolist() == ["Raw pixels", "Conv4", f"{NAME} (timm)", "means (ONNX)"]
    assert ours["Params"].tolist()[0] == "0"  # raw pixels
    assert (ours["1-shot"].astype(float) > 0).all()
    model = json.loads((results / "glyphs/theirs/fixed/seed0/none/model.json").read_text())
    assert (model["mean"], model["std"]) == ([0.5] * 3, [0.5] * 3)
    assert model["initial_weights"]["file"] == "theirs.safetensors"
    assert len(model["initial_weights"]["sha256"]) == 64

    means = json.loads((results / "glyphs/means/fixed/seed0/none/model.json").read_text())
    assert means["parameters"] == 3 + 2  # without a head
    assert means["initial_weights"]["file"] == "means.onnx"
    assert means["latency_ms"] is None  # its operations are its own
    conv4 = json.loads((results / "glyphs/conv4-2/fixed/seed0/none/model.json").read_text())
    assert conv4["latency_ms"] > 0

    assert house.planned() == set()
    torch.manual_seed(1)
    save_file(timm.create_model(NAME).state_dict(), house.path / "theirs.safetensors")
    stages = ("search_architecture", "train_network", "evaluate_episodes")
    folders = ("theirs/fixed/seed0", *["theirs/fixed/seed0/none"] * 2)
    of_row = {f"{stage} glyphs/{folder}" for stage, folder in zip(stages, folders, strict=True)}
    assert house.planned() == of_row | {"aggregate_tables tables", "draw_results figures/glyphs"}
