"""Models that are trained on one data set and tested on another, from the configuration to the table."""

import json

import pandas as pd
import pytest

CHAIN = "conv4-2/fixed/seed0/none"


@pytest.fixture
def house(tiny_house):
    configuration = tiny_house.configuration
    small = configuration["datasets"]["glyphs"]
    configuration["datasets"] = {"small": small, "large": small | {"image_size": 20, "seed": 1}}
    configuration["rows"] = [{"backbone": "conv4-2", "learner": "none"}]
    configuration["evaluation"]["test_on"] = ["large"]
    tiny_house.configure(configuration)
    return tiny_house


@pytest.mark.slow
def test_models_are_tested_on_another_data_set(house):
    run = house.snakemake("--cores", 2)
    assert run.returncode == 0, run.stderr
    results = house.path / "results"
    table = pd.read_csv(results / "tables" / "transfer.csv")
    assert table["Trained on"].tolist() == ["large", "small"]
    assert list(table.filter(like="-shot")) == ["large, 1-shot", "large, 5-shot"]
    own, transferred = (json.loads((results / f"{place}/evaluation.json").read_text())
                        for place in (f"large/{CHAIN}", f"small/{CHAIN}/on-large"))  # fmt: skip
    assert table["large, 5-shot"].tolist() == pytest.approx(
        [each["shots"]["5"]["accuracy_mean"] for each in (own, transferred)], abs=0.01
    )
    assert transferred["data_sha256"] == own["data_sha256"]
    assert "large resized from 20 to 16 pixels" in table["Notes"][1]
    log = (results / f"logs/evaluate_episodes/small/{CHAIN}/on-large.log").read_text()
    assert "is another data set than the model was trained on (small)" in log
    assert "warning: images are resized from 20 to 16 pixels" in log

    assert house.planned() == set()
    configuration = house.configuration
    tables = {"aggregate_tables tables", "draw_results figures/large", "draw_results figures/small"}
    on_large = f"evaluate_episodes small/{CHAIN}/on-large"
    house.configure(configuration | {"evaluation": configuration["evaluation"] | {"test_on": ["large", "small"]}})
    assert house.planned() == tables | {f"evaluate_episodes large/{CHAIN}/on-small"}
    house.configure(configuration | {"evaluation": configuration["evaluation"] | {"test_on": []}})
    assert house.planned() == tables
    # Other images of one data set: its own jobs, and those that test on it.
    configuration["datasets"]["large"]["seed"] = 2
    house.configure(configuration)
    stages = {f"{stage} large/{CHAIN}" for stage in ("train_network", "evaluate_episodes")}
    prepared = {"prepare_dataset large/data", "inspect_dataset figures/large"}
    assert house.planned() == tables | stages | prepared | {
        "search_architecture large/conv4-2/fixed/seed0",
        on_large,
    }
