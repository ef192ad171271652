"""A user-defined backbone, criterion, search and learner: one .py file each, outside of the repository."""

import importlib
import json
import re
import signal

import numpy as np
import pandas as pd
import pytest
from conftest import tiny_configuration

from metantk.data.store import Source, Split, stream_split, write_dataset
from metantk.options.config import parse_config
from metantk.runtime.command_line import run
from metantk.runtime.files import InputError

BACKBONE = '''
"""One convolution and a mean over the image."""

from typing import ClassVar

from torch import nn

from metantk.options import base


class Architecture(base.Options):
    kind: str
    width: int


class Options(base.Options):
    searchable: ClassVar[bool] = False
    title: ClassVar[str] = "One convolution"

    kind: str
    width: int = 4

    def architecture(self, image_size, genotype=None):
        return self.model_dump()


class Network(nn.Module):
    def __init__(self, width, outputs):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width)
        self.head, self.feature_dim = nn.Linear(width, outputs), width

    def features(self, images, drop=None):
        return self.norm(self.conv(images)).relu().mean((2, 3))

    def forward(self, images, drop=None):
        return self.head(self.features(images, drop))

    def initialise_(self, generator):
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.kaiming_normal_(parameter, generator=generator)


def build(architecture, outputs):
    return Network(architecture["width"], outputs)
'''
CRITERION = '''
"""How many operations have parameters; fewer are better. `weight` multiplies it, to see that it arrives."""

import numpy as np

from metantk.criteria.base import Criterion, Measured
from metantk.options import base


class CheapOptions(base.Options):
    weight: float = 1.0


def measure(setting, options, draws, masks):
    costly = np.array(["conv" in name for name in setting.operations.operations])
    counts = sum(mask.cpu().numpy()[:, :, costly].sum((1, 2)) for mask in masks.values())
    return Measured(options.weight * counts.astype(float), operations=0)


CRITERION = Criterion(
    measure,
    larger_is_better=False,
    title="operations with parameters",
    change="difference",
    options=CheapOptions)
'''
SEARCH = '''
"""The same operation everywhere."""

from typing import ClassVar

from metantk.options import base
from metantk.searches.base import Found


class Options(base.Options):
    uses_device: ClassVar[bool] = False

    kind: str
    operation: str = "skip_connect"


def find(problem, options, seed, checkpoint):
    cell = [[[options.operation, 0], [options.operation, 1]] for _ in range(3)]
    concat = [2, 3, 4]
    genotype = {"normal": cell, "normal_concat": concat, "reduce": cell, "reduce_concat": concat}
    return Found(genotype, facts={"images_seen": len(problem.train.labels)})
'''
LEARNER = '''
"""Trained as RFS; a query belongs to the class with the nearest mean of supports."""

from torch import nn

from metantk.learners.rfs import Learner as Learner
from metantk.learners.rfs import outputs as outputs
from metantk.options.learners.rfs import RfsOptions


class Options(RfsOptions):
    kind: str


def scores(model, tasks):
    support = tasks.support_features()
    members = nn.functional.one_hot(tasks.labels, tasks.ways).to(support).T
    centroids = members @ support / members.sum(1, keepdim=True)
    return -(tasks.query_features()[:, :, None] - centroids[:, None]).square().sum(-1)
'''
OWN = {"net": BACKBONE, "cheap": CRITERION, "same": SEARCH, "centroids": LEARNER}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The four files in a folder named `own`, below the working folder."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name, text in OWN.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    return folder


def own_configuration(folder="own") -> dict:
    tiny = tiny_configuration()
    return tiny | {
        "rows": [
            {"backbone": "3cells-2ch", "search": ["same", "cheapest"], "learner": "centroids"},
            {"backbone": "net", "learner": ["centroids", "rfs"]},
        ],
        "backbones": {"net": {"kind": f"{folder}/net.py", "width": 5}},
        "searches": {
            "same": {"kind": f"{folder}/same.py", "operation": "avg_pool_3x3"},
            "cheapest": {"kind": "prune", "criteria": [f"{folder}/cheap.py"], "repeats": 1, "image_size": 8},
        },
        "criteria": {"cheap": {"weight": 2.0}},
        "learners": {"centroids": {"kind": f"{folder}/centroids.py", "epochs": 1}, "rfs": {"epochs": 1}},
    }


@pytest.mark.slow
def test_a_strangers_files_run_and_stand_in_the_tables(tiny_house, files):
    tiny_house.configure(own_configuration(files))
    run = tiny_house.snakemake("--cores", 2)
    logs = "\n".join(path.read_text() for path in sorted(tiny_house.path.glob("results/logs/**/*.log")))
    assert run.returncode == 0, run.stderr + logs
    results = tiny_house.path / "results"
    summary = pd.read_csv(results / "tables" / "summary.csv")
    rows = {
        ("3cells-2ch", "same", "centroids"): "same",
        ("3cells-2ch", "cheapest", "centroids"): "cheapest",
        ("net", "fixed", "centroids"): "centroids",
        ("net", "fixed", "rfs"): "RFS",
    }
    found = summary[summary["shots"] == 5].set_index(["backbone", "search", "learner"])
    assert found["model"].to_dict() == rows
    assert found["accuracy_mean"].between(0, 100).all()
    assert "One convolution" in (results / "tables" / "table1.csv").read_text()

    same = json.loads((results / "glyphs/3cells-2ch/same/seed0/architecture.json").read_text())
    assert {operation for node in same["genotype"]["normal"] for operation, _ in node} == {"avg_pool_3x3"}
    trace = pd.read_csv(results / "glyphs/3cells-2ch/cheapest/seed0/search.csv")
    assert trace["cheap_unpruned"].iloc[0] == 2.0 * 18 * 4  # weight × edges × operations with parameters
    cheapest = json.loads((results / "glyphs/3cells-2ch/cheapest/seed0/architecture.json").read_text())
    nodes = [*cheapest["genotype"]["normal"], *cheapest["genotype"]["reduce"]]
    assert not [operation for node in nodes for operation, _ in node if "conv" in operation]
    model = json.loads((results / "glyphs/net/fixed/seed0/centroids/model.json").read_text())
    assert (model["architecture"]["width"], model["feature_dim"]) == (5, 5)

    _check_reruns(tiny_house, files)


def _check_reruns(house, files):
    """An edit of one of the files reruns what uses it, and no more; a comment nothing."""
    assert house.planned() == set()
    for name, text in OWN.items():
        (files / f"{name}.py").write_text(f"# A comment.\n{text}\n")
    assert house.planned() == set()
    (files / "centroids.py").write_text(LEARNER + "\nedited = 1\n")
    chains = [
        f"glyphs/{chain}/seed0/centroids" for chain in ("3cells-2ch/same", "3cells-2ch/cheapest", "net/fixed")
    ]
    learned = {f"{stage} {chain}" for stage in ("train_network", "evaluate_episodes") for chain in chains}
    tables = {"aggregate_tables tables", "draw_results figures/glyphs"}
    assert house.planned() == learned | tables
    (files / "centroids.py").write_text(LEARNER)
    (files / "cheap.py").write_text(CRITERION + "\nedited = 1\n")
    assert house.planned() == tables | {
        "search_architecture glyphs/3cells-2ch/cheapest/seed0",
        "draw_searches figures/glyphs/3cells-2ch/cheapest",
        "train_network glyphs/3cells-2ch/cheapest/seed0/centroids",
        "evaluate_episodes glyphs/3cells-2ch/cheapest/seed0/centroids",
    }


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: (folder / "same.py").unlink(), ["searches: ", "own/same.py: no such file"]),
        (
            lambda folder: (folder / "net.py").write_text("import no_such_module\n"),
            ["own/net.py: cannot be imported (ModuleNotFoundError: No module named 'no_such_module')"],
        ),
        (
            lambda folder: (folder / "centroids.py").write_text("Learner = outputs = scores = None\n"),
            ["learners: ", "own/centroids.py: holds no 'Options'"],
        ),
        (
            lambda folder: (folder / "cheap.py").rename(folder / "linear_regions.py"),
            ["criteria: ", "own/linear_regions.py: linear_regions is built in; choose another name"],
        ),
    ],
    ids=["no file", "import error", "no Options", "name of a built-in"],
)
def test_mistakes_stop_the_workflow_in_one_line(tiny_house, files, damage, named):
    configuration = own_configuration(files)
    damage(files)
    if not (files / "cheap.py").exists():
        configuration["searches"]["cheapest"]["criteria"] = [str(files / "linear_regions.py")]
    tiny_house.configure(configuration)
    run = tiny_house.snakemake("--cores", 1)
    assert run.returncode == 2
    (line,) = run.stderr.splitlines()
    assert line.startswith("error: configuration: ")
    assert len(line) <= 500
    for part in named:
        assert part in line
    assert not (tiny_house.path / "results").exists()


PLACES = {
    "net": ("backbones", "net", "kind"),
    "same": ("searches", "same", "kind"),
    "centroids": ("learners", "centroids", "kind"),
    "cheap": ("searches", "cheapest", "criteria"),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("1 / 0", r"cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("def broken(:", r"cannot be imported \(SyntaxError: .*"),
        ("x = 1", "holds no '(Options|CRITERION)'"),
    ],
    ids=["no file", "error", "syntax", "empty"],
)
def test_each_kind_of_file_is_checked(files, name, text, message):
    path = files / f"{name}.py"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(InputError, match=rf"{name}\.py: {message}") as caught:
        parse_config(own_configuration())
    assert "\n" not in str(caught.value)


def test_the_files_as_they_are_make_a_configuration(files):
    config = parse_config(own_configuration())
    assert config.backbone("net").width == 5
    assert config.search("cheapest").criteria_options == {"cheap": {"weight": 2.0}}


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("net", "searchable: ClassVar[bool] = False", "", "its class Options has no 'searchable'"),
        ("net", "def build", "def make", "holds no 'build'"),
        ("same", "class Options(base.Options)", "class Options", "is no class of metantk.options.base.Options"),
        ("same", "    kind: str\n", "", "its class Options has no 'kind'"),
        ("same", "def find", "def seek", "holds no 'find'"),
        ("centroids", "def scores", "def answer", "holds no 'scores'"),
        ("cheap", "options=CheapOptions)", 'options=CheapOptions, section="ntk")', "its section 'ntk' is built in"),
    ],
)
def test_what_a_file_lacks_is_named(files, name, old, new, message):
    text = OWN[name]
    assert text.count(old) == 1
    (files / f"{name}.py").write_text(text.replace(old, new))
    with pytest.raises(InputError, match=f"own/{name}.py: .*{message}"):
        parse_config(own_configuration())


@pytest.mark.parametrize(
    ("family", "name", "message"),
    [
        ("backbones", "conv4", "is built in"),
        ("backbones", "5cells-48ch", "is built in"),
        ("searches", "metantk", "is built in with kind 'prune'"),
        ("searches", "prune", "is the name of a kind"),
        ("learners", "rfs", "is built in with kind 'rfs'"),
    ],
)
def test_a_name_that_is_built_in_is_refused(files, family, name, message):
    configuration = own_configuration()
    own = {"backbones": "net", "searches": "same", "learners": "centroids"}[family]
    configuration[family][name] = {"kind": f"own/{own}.py"}
    with pytest.raises(InputError, match=f"{family}.{name}: {message}.*choose another name"):
        parse_config(configuration)


def test_unknown_options_of_ones_own_are_named(files):
    for family, name, key in (
        ("backbones", "net", "wide"),
        ("searches", "same", "op"),
        ("learners", "centroids", "x"),
    ):
        configuration = own_configuration()
        configuration[family][name][key] = 1
        with pytest.raises(InputError, match=f"{family}.{name}: unknown key '{key}'"):
            parse_config(configuration)
    configuration = own_configuration()
    configuration["criteria"]["cheap"]["heavy"] = 1
    with pytest.raises(InputError, match=r"criteria\.cheap: unknown key 'heavy'"):
        parse_config(configuration)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    streams = {}
    for index, part in enumerate(("train", "val", "test")):
        images = np.random.default_rng(index).integers(256, size=(24, 8, 8, 3), dtype=np.uint8)
        names = [f"{part} {letter}" for letter in "abcd"]
        streams[part] = stream_split(Split(images, np.repeat(np.arange(4), 6), names))
    folder = tmp_path_factory.mktemp("own") / "data"
    write_dataset(folder, Source(streams, "free", [], [], False), name="n", source="s")
    return folder


@pytest.fixture
def stages(files, data, monkeypatch, capsys):
    """The stages that run the four files, in turn; the line and the exit code of the one that fails."""
    monkeypatch.setenv("METANTK_DEVICE", "cpu")
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def call(program, *words):
        monkeypatch.setattr("sys.argv", [f"{program}.py", "--data", str(data), *map(str, words)])
        run(importlib.import_module(program).main)

    def all_stages(name):
        cheapest = {"kind": "prune", "criteria": ["own/cheap.py"], "image_size": 8, "repeats": 1}
        search = {"cheap": json.dumps(cheapest), "same": "own/same.py"}.get(name)
        if search:
            call("search_architecture", "--cells", 2, "--channels", 1, "--search", search, "--output", "a")
            return
        call("search_architecture", "--backbone", "own/net.py", "--search", "fixed", "--output", "a")
        rfs = ["--epochs", 1, "--batch-size", 12, "--augmentation.padding", 1]
        call(
            "train_network",
            "--architecture",
            "a/architecture.json",
            "--learner",
            LEARNERS[name],
            *rfs,
            "--output",
            "m",
        )
        few = ["--ways", 2, "--shots", "[1]", "--queries", 1, "--episodes", 4]
        call("evaluate_episodes", "--model", "m", *few, "--output", "e")

    def refuse(name):
        with pytest.raises(SystemExit) as ended:
            all_stages(name)
        assert ended.value.code == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert "Traceback" not in error
        return error

    return refuse


LEARNERS = {"net": "rfs", "centroids": "own/centroids.py"}
STEP = """
class Learner(Learner):
    def {name}(self, *arguments):
        {body}
"""


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("same", "return Found(", "return dict(", "find gives dict .*; expected metantk.searches.base.Found"),
        ("same", "[options.operation, 1]]", "['tuna', 1]]", "own/same.py: find's genotype.*tuna"),
        (
            "same",
            '{"images_seen"',
            '{"x": float("nan"), "images_seen"',
            "own/same.py: find's facts cannot be written",
        ),
        ("same", "cell = [[", "1 / 0; cell = [[", r"own/same.py: ZeroDivisionError.*line \d+ in find: 1 / 0"),
        ("same", "cell = [[", "raise SystemExit(0); cell = [[", "own/same.py: SystemExit: 0"),
        (
            "cheap",
            "return Measured(",
            "None and Measured(",
            "own/cheap.py: measure gives None; expected metantk.criteria",
        ),
        (
            "cheap",
            "counts.astype(float)",
            "counts[:2].astype(float)",
            r"measure's values gives ndarray float64 \(2,\)",
        ),
        ("cheap", "counts.astype(float)", "(counts + np.nan)", r"measure gives '\d+ values of \d+ that are NaN'"),
        ("cheap", "counts.astype(float)", "counts.nothing", "own/cheap.py: AttributeError.* in measure"),
        (
            "net",
            "return self.model_dump()",
            "return None",
            "own/net.py: architecture gives None; expected an object",
        ),
        ("net", "return self.model_dump()", "return {'kind': self.kind}", "architecture: 'width' is missing"),
        ("net", "return Network(", "return (", "own/net.py: build gives tuple"),
        ("net", ", width\n\n    def features", ", None\n\n    def features", "feature_dim gives None"),
        ("net", "nn.Linear(width, outputs)", "nn.Linear(width, 3)", "head.out_features gives 3; expected 4"),
        ("net", ".mean((2, 3))", ".mean((2, 3))[:, :2]", "own/net.py: features gives Tensor torch.float32 .2, 2."),
        ("net", ".mean((2, 3))", ".mean((2, 3)) * float('nan')", "features gives 'numbers that are not finite'"),
        ("net", "return self.norm(", "return self.nothing(", "own/net.py: AttributeError.* in features"),
        ("centroids", "return -(", "return None and -(", "own/centroids.py: scores gives None"),
        (
            "centroids",
            ".square().sum(-1)",
            ".square().sum(-1)[..., :1]",
            r"scores gives Tensor .*\(4, 2, 1\); expected",
        ),
        ("centroids", ".square().sum(-1)", ".square().sum(-1)[:, :1]", r"expected a tensor \(4, 2, 2\)"),
        (
            "centroids",
            "def scores",
            "outputs = lambda *_: None\n\n\ndef scores",
            "centroids.py: outputs gives None",
        ),
        (
            "centroids",
            "def scores",
            STEP.format(name="step", body="return 0.1") + "def scores",
            "Learner.step gives 0.1",
        ),
        (
            "centroids",
            "def scores",
            STEP.format(name="lr", body="return None") + "def scores",
            "Learner.lr gives None",
        ),
        (
            "centroids",
            "def scores",
            STEP.format(name="indices", body="return []") + "def scores",
            "gives '0 batches'",
        ),
        (
            "centroids",
            "def scores",
            "Learner = lambda *_: 5\n\n\ndef scores",
            r"Learner\(...\).network gives 'no network'",
        ),
    ],
)
def test_what_a_file_gives_is_checked(stages, files, name, old, new, message):
    """Each stage says in one line which file and function, what came and what was expected."""
    assert OWN[name].count(old) == 1
    (files / f"{name}.py").write_text(OWN[name].replace(old, new))
    assert re.search(message, stages(name))


@pytest.mark.parametrize("body", ["return None", "return [5]", "return [base.Need('tests')]", "1 / 0"])
def test_needs_that_are_none_are_named(files, body):
    own = f"    @property\n    def needs(self):\n        {body}\n\n    def architecture"
    (files / "net.py").write_text(BACKBONE.replace("    def architecture", own))
    with pytest.raises(InputError, match=r"backbones\.net: (its )?needs"):
        parse_config(own_configuration())
