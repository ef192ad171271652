"""A fuzzer of our own: every typed file and every option, wrong in many ways, in this process.

Whatever is given, a script ends well, or with exit code 2 and one line of at most 500 characters; it raises
nothing, writes nothing and waits for nothing. Mutations are a table: the same in every run.
"""

import copy
import io
import json
import os
import runpy
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from metantk.options import catalogue
from metantk.options.base import parse
from metantk.options.config import parse_config
from metantk.options.dataset import DatasetOptions
from metantk.options.evaluation import EvaluationOptions
from metantk.options.theory import TheoryOptions
from metantk.runtime.files import SCRIPTS, InputError, canonical_json, sha256_of, shorten

DATA, SEARCH, PRUNING = "glyphs/data", "glyphs/cells/random/seed0", "glyphs/cells/pruned/seed0"
CHAIN = f"{SEARCH}/rfs"
MOST_SECONDS = 20
LONGEST = 500 + len("describe_architecture.py: error: ")
EVALUATION = json.dumps({"episodes": 2, "queries": 1, "support_copies": 1, "shots": [1, 2], "ways": 2})
LINEAR_REGIONS = {
    "kind": "prune",
    "criteria": ["linear_regions"],
    "image_size": 8,
    "repeats": 1,
    "criteria_options": {"linear_regions": {"images": 4, "batches": 1}},
}


def run(script: str, *arguments: object, capsys, monkeypatch) -> tuple[object, str]:
    """Exit code and standard error of a script that runs in this process; a pipe that it waits for is a failure."""
    monkeypatch.setenv("METANTK_DEVICE", "cpu")
    monkeypatch.setattr(sys, "argv", [str(part) for part in (SCRIPTS / script, *arguments)])
    handlers = {index: signal.getsignal(index) for index in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)}
    signal.signal(signal.SIGALRM, _waited_too_long)
    signal.alarm(6 * MOST_SECONDS)  # the machine may have more to do than this test
    capsys.readouterr()
    began, code = time.process_time(), 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code
    finally:
        signal.alarm(0)
        for index, handler in handlers.items():
            signal.signal(index, handler)
    assert time.process_time() - began < MOST_SECONDS
    return code, capsys.readouterr().err


def _waited_too_long(*_: object) -> None:
    raise AssertionError("it waits")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Two chains with all their files, as small as they come; nothing is trained."""
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        own = {"capsys": _Quiet(), "monkeypatch": patch}
        data, cells = root / DATA, ("--data", root / DATA, "--cells", 2, "--channels", 1)
        drawn = ("--name", "glyphs", "--source", "glyphs", "--image-size", 16, "--images-per-class", 6)
        assert run("prepare_dataset.py", *drawn, "--output", data, **own)[0] == 0
        searches = {SEARCH: ("sample", "random"), PRUNING: (json.dumps(LINEAR_REGIONS), "pruned")}
        for folder, (search, name) in searches.items():
            found, chain = root / folder, root / folder / "rfs"
            words = (*cells, "--search", search, "--search-name", name, "--output", found)
            assert run("search_architecture.py", *words, **own)[0] == 0
            words = ("--data", data, "--architecture", found / "architecture.json", "--learner", "none")
            assert run("train_network.py", *words, "--learner-name", "rfs", "--output", chain, **own)[0] == 0
            words = ("--data", data, "--model", chain, "--options", EVALUATION, "--output", chain)
            assert run("evaluate_episodes.py", *words, **own)[0] == 0
        chains = (root / CHAIN, root / PRUNING / "rfs")
        assert run("aggregate_tables.py", *chains, "--output", root / "tables", **own)[0] == 0
    return root


class _Quiet:
    """In the place of `capsys`, which a fixture of a module cannot have."""

    def readouterr(self) -> object:
        return type("Nothing", (), {"err": ""})


def arguments_of(script: str, root: Path, output: Path) -> list[object]:
    """The words with which a script reads the files below `root`."""
    data = ["--data", root / DATA]
    architecture = root / SEARCH / "architecture.json"
    chains = [root / CHAIN, root / PRUNING / "rfs"]
    words = {
        "inspect_dataset.py": [root / DATA],
        "search_architecture.py": [*data, "--cells", 2, "--channels", 1, "--search", "sample"],
        "train_network.py": [*data, "--architecture", architecture, "--learner", "none"],
        "evaluate_episodes.py": [*data, "--model", root / CHAIN, "--options", EVALUATION],
        "aggregate_tables.py": chains,
        "draw_results.py": [*chains, "--tables", root / "tables"],
        "draw_searches.py": [root / PRUNING, root / SEARCH],
        "describe_architecture.py": [architecture, "--image-size", 16],
    }[script]
    return words if script == "describe_architecture.py" else [*words, "--output", output]


class Mutation(NamedTuple):
    """A wrong file.

    Attributes:
        title: for messages.
        make: does it to a path.
        is_wrong: whether it must be refused; else it may be what the reader does not look at.
    """

    title: str
    make: Callable[[Path], object]
    is_wrong: bool = True


class Literal(str):
    """Text that stands in JSON as it is."""


DEEP = Literal("[" * 10**5 + "]" * 10**5)
# Wrong wherever a number, a text, a list or an object is asked for.
ALWAYS_WRONG = (Literal("NaN"), Literal("1e400"), DEEP)
# Wrong for most keys that are read.
WRONG = (None, [], {}, "", "x" * 10**6, -1, 1.5, 10**30, True, [1, [2]], {"a": 1}, "a\nb", "$\\frac$", "../../x")
KINDS_OF_FILES = (
    Mutation("missing", Path.unlink),
    Mutation("a folder", lambda path: (path.unlink(), path.mkdir())),
    Mutation("a pipe", lambda path: (path.unlink(), os.mkfifo(path))),
    Mutation("a link to nowhere", lambda path: (path.unlink(), path.symlink_to("nowhere"))),
    Mutation("a link to itself", lambda path: (path.unlink(), path.symlink_to(path.name))),
    Mutation("a device", lambda path: (path.unlink(), path.symlink_to("/dev/zero"))),
    *(
        Mutation(f"contents {contents[:8]}", lambda path, contents=contents: path.write_bytes(contents))
        for contents in (b"", b"\0" * 99, b"\xff\xfe", b"[" * 10**5, b'{"a":' * 10**5, b"null", b"[]", b"3")
    ),
    Mutation("half of it", lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])),
)


def spell(value: object) -> str:
    """JSON with `Literal` texts as they are."""
    literals: list[str] = []

    def walk(part: object) -> object:
        if isinstance(part, Literal):
            literals.append(part)
            return f"<{len(literals) - 1}>"
        if isinstance(part, dict):
            return {key: walk(inner) for key, inner in part.items()}
        return [walk(inner) for inner in part] if isinstance(part, list) else part

    text = json.dumps(walk(value))
    for index, literal in enumerate(literals):
        text = text.replace(f'"<{index}>"', literal)
    return text


def replaced(value: object, path: tuple, new: object) -> object:
    value = copy.deepcopy(value)
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = new
    return value


def write_replaced(file: Path, path: tuple, new: object) -> None:
    file.write_text(spell(replaced(json.loads(file.read_text()), path, new)))


def remove_key(file: Path, path: tuple) -> None:
    value = json.loads(file.read_text())
    inner = value
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    file.write_text(json.dumps(value))


# By file: the keys that each reader looks at, and values out of their ranges.
JSON_FILES: dict[str, tuple[str, dict[tuple, tuple]]] = {
    f"{DATA}/manifest.json": (
        "inspect_dataset.py",
        {
            ("name",): ("a\nb",),
            ("mean",): ([0.5, 0.5], [2, 0, 0]),
            ("std",): ([0, 0.1, 0.1], [-1, 1, 1]),
            ("splits",): ({"train": {}},),
            ("splits", "train", "images"): (0, -1, 10**7, 10**30, 1.5),
            ("splits", "train", "shape"): ([16, 16], [16, 16, 4], [10**6, 10**6, 3], [0, 16, 3], [8, 8, 3]),
            ("splits", "val", "classes"): (["a", "a"], [""], [1]),
            ("splits", "test", "smallest_class"): (10**6, 0),
            ("splits", "test", "sha256"): ({"images.npy": "0" * 64, "labels.npy": "0" * 64}, {"images.npy": "x"}),
        },
    ),
    f"{SEARCH}/architecture.json": (
        "train_network.py",
        {
            ("kind",): ("vgg", "../conv4", "conv4", "none.py"),
            ("genotype",): ({"normal": []},),
            ("genotype", "normal"): ([[["skip_connect", 0], ["skip_connect", 9]]] * 3, [["skip_connect", 0]] * 999),
            ("cells",): (1, 101, 10**7),
            ("channels",): (0, 4097, 10**7),
            ("layout",): ("else",),
            ("origin", "search"): ("../../x", "/x", ".x"),
            ("origin", "seed"): (-1, 2**31),
        },
    ),
    f"{CHAIN}/model.json": (
        "evaluate_episodes.py",
        {
            ("architecture",): ({"kind": "conv4", "image_size": 10**6}, {"kind": "conv4", "channels": 10**7}),
            ("learner",): ({"kind": "sgd"}, {"kind": "none.py"}, {"kind": "none", "epoch": 1}),
            ("outputs",): (0, 10**7, 63),
            ("image_size",): (0, 17, 10**6),
            ("mean",): ([0.5], [-1, 0, 0]),
            ("std",): ([0, 1, 1], [9, 1, 1]),
            ("weights_sha256",): ("0" * 64,),
        },
    ),
    f"{SEARCH}/search.json": ("aggregate_tables.py", {("seconds",): (-1,), ("device",): (), ("options",): ()}),
    f"{PRUNING}/search.json": (
        "draw_searches.py",
        {("seconds",): (-1,), ("criteria",): ({"other": {"title": "x"}}, {"linear_regions": {}})},
    ),
    f"{CHAIN}/evaluation.json": (
        "aggregate_tables.py",
        {
            ("ways",): (1, 3),
            ("episodes",): (1, 3, 10**7),
            ("shots",): ({"0": {"accuracy_mean": 50, "ci95": 1}}, {"1": {"accuracy_mean": 50, "ci95": 1}}),
            ("shots", "1", "accuracy_mean"): (101, -1, 49.999),
            ("shots", "1", "ci95"): (-1,),
            ("options",): ({"seed": 1},),
        },
    ),
}


HAVE_DEFAULTS = ("layout", "criteria")


def json_mutations(keys: dict[tuple, tuple]) -> Iterator[Mutation]:
    for index, (path, values) in enumerate(keys.items()):
        is_needed = path[-1] not in HAVE_DEFAULTS
        yield Mutation(f"{path} removed", lambda file, path=path: remove_key(file, path), is_needed)
        for value, is_wrong in [(v, True) for v in (*values, *ALWAYS_WRONG)] + [
            (v, False) for v in WRONG[index % 2 :: 2]
        ]:
            yield Mutation(
                f"{path} is {str(value)[:30]!r}",
                lambda file, path=path, value=value: write_replaced(file, path, value),
                is_wrong,
            )


# By file: its reader, and the columns of numbers, which may have no other thing.
TABLES: dict[str, tuple[str, tuple[str, ...]]] = {
    f"{CHAIN}/episodes.csv": ("aggregate_tables.py", ("shots", "episode", "accuracy")),
    f"{CHAIN}/training.csv": ("draw_results.py", ()),
    f"{PRUNING}/search.csv": ("draw_searches.py", ("round", "edge", "input", "node")),
    "tables/summary.csv": (
        "draw_results.py",
        ("seeds", "params", "multiply_accumulates", "shots", "accuracy_mean"),
    ),
    "tables/seeds.csv": ("draw_results.py", ("seed", "params", "shots", "accuracy")),
}


def write_field(file: Path, column: str, text: str) -> None:
    names, first, *others = [line.split(",") for line in file.read_text().splitlines()]
    first[names.index(column)] = text
    file.write_text("\n".join(map(",".join, [names, first, *others])) + "\n")


def remove_column(file: Path, column: str) -> None:
    rows = [line.split(",") for line in file.read_text().splitlines()]
    place = rows[0].index(column)
    file.write_text("".join(",".join(row[:place] + row[place + 1 :]) + "\n" for row in rows))


def table_mutations(columns: tuple[str, ...]) -> Iterator[Mutation]:
    for column in columns:
        yield Mutation(f"{column} removed", lambda file, column=column: remove_column(file, column))
        yield Mutation(f"{column} twice", lambda file, column=column: write_field(file, column, "1,1"))
        beyond = "100.5" if column.startswith("accuracy") else "1.5"  # percent, or whole numbers
        for text in ("", "x", "inf", "-1", "1e400", beyond, "0x10", "x" * 10**4):
            yield Mutation(
                f"{column} is {text[:10]!r}", lambda file, column=column, text=text: write_field(file, column, text)
            )


def save_array(array: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    return lambda path: np.save(path, array(np.load(path)), allow_pickle=True)


ARRAYS = (
    Mutation("black", save_array(np.zeros_like)),
    Mutation("backwards", save_array(lambda array: array[::-1])),
    Mutation("shorter", save_array(lambda array: array[:-1])),
    Mutation("other numbers", save_array(lambda array: array + 1)),
    Mutation("floats", save_array(lambda array: array.astype(float))),
    Mutation("objects", save_array(lambda array: np.array([print], object))),
    Mutation("of another split", lambda path: shutil.copy(path.parents[1] / "val" / path.name, path)),
    Mutation("a huge header", lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535)),
    Mutation("an archive", lambda path: np.savez(path.open("wb"), a=np.zeros(3))),
)


def _rewrite(path: Path, edit: Callable[[dict], dict]) -> None:
    """Other weights, with the checksum that model.json has of them."""
    path.write_bytes(save(edit(load_file(path))))
    write_replaced(path.with_name("model.json"), ("weights_sha256",), sha256_of(path))


def _edit_first(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def edit(tensors: dict) -> dict:
        name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
        return tensors | {name: change(tensors[name])}

    return lambda path: _rewrite(path, edit)


WEIGHTS = (
    Mutation("not finite", _edit_first(lambda tensor: tensor / 0)),
    Mutation("of another shape", _edit_first(lambda tensor: tensor[None])),
    Mutation("of another type", _edit_first(torch.Tensor.double)),
    Mutation("one too few", lambda path: _rewrite(path, lambda tensors: dict(list(tensors.items())[1:]))),
    Mutation("one too many", lambda path: _rewrite(path, lambda tensors: tensors | {"x": torch.zeros(1)})),
    Mutation("a byte more", lambda path: path.write_bytes(path.read_bytes() + b"x")),
)

CASES: dict[str, tuple[str, list[Mutation]]] = {
    **{file: (reader, [*KINDS_OF_FILES, *json_mutations(keys)]) for file, (reader, keys) in JSON_FILES.items()},
    **{file: (reader, [*KINDS_OF_FILES, *table_mutations(columns)]) for file, (reader, columns) in TABLES.items()},
    f"{DATA}/train/images.npy": ("train_network.py", [*KINDS_OF_FILES, *ARRAYS]),
    f"{DATA}/train/labels.npy": ("train_network.py", [*KINDS_OF_FILES, *ARRAYS]),
    f"{DATA}/test/labels.npy": ("evaluate_episodes.py", [*KINDS_OF_FILES, *ARRAYS]),
    f"{CHAIN}/model.safetensors": ("evaluate_episodes.py", [*KINDS_OF_FILES, *WEIGHTS]),
}


def test_there_are_enough_mutations():
    assert sum(len(mutations) for _, mutations in CASES.values()) >= 300


@pytest.mark.slow
@pytest.mark.parametrize("file", CASES)
def test_a_wrong_file_is_refused_in_one_line(whole, tmp_path, capsys, monkeypatch, file):
    reader, mutations = CASES[file]
    for index, mutation in enumerate(mutations):
        root = tmp_path / str(index)
        shutil.copytree(whole, root)
        mutation.make(root / file)
        code, errors = run(
            reader, *arguments_of(reader, root, root / "out"), capsys=capsys, monkeypatch=monkeypatch
        )
        case = f"{file}: {mutation.title}: {code} {errors[-600:]}"
        assert code == 2 or (code == 0 and not mutation.is_wrong), case
        if code == 2:
            assert_refused(errors, case)
            assert not list(root.glob("out/**/*.*")), case
        shutil.rmtree(root)


def assert_refused(errors: str, case: str) -> None:
    lines = [line for line in errors.splitlines() if "error: " in line]
    assert len(lines) == 1, case
    assert len(lines[0]) <= LONGEST, case
    assert lines[0].isprintable(), case
    assert "Traceback" not in errors, case
    assert "Warning" not in errors, case


# --- Options -----------------------------------------------------------------------------------------------

LEAST = {
    "cells": {"cells": 3, "channels": 2},
    "prune": {"criteria": ["ntk_condition"]},
    "bayesian-optimisation": {"criteria": ["ntk_condition"]},
    "best-of": {"criteria": ["ntk_condition"]},
    "timm": {"name": "resnet18"},
    "onnx": {"file": "x.onnx"},
    "given": {"genotypes": ["x"]},
}
CLASSES = {
    "dataset": (DatasetOptions, {"source": "glyphs"}),
    "evaluation": (EvaluationOptions, {}),
    "theory": (TheoryOptions, {}),
    **{
        f"{family}.{kind}": (options, {"kind": kind} | LEAST.get(kind, {}))
        for family, kinds in catalogue.KINDS.items()
        for kind, options in kinds.items()
    },
    **{f"criteria.{section}": (options, {}) for section, options in catalogue.SECTIONS.items()},
}
NUMBERS = (float("nan"), float("inf"), -float("inf"), -1, 10**30, -(10**30))
NESTED: list = []
for _ in range(300):
    NESTED = [NESTED]


@pytest.mark.parametrize("name", CLASSES)
def test_a_wrong_option_is_refused_in_one_line(name):
    options, least = CLASSES[name]
    assert parse(options, least, where=name)
    for key in options.model_fields:
        for wrong in (*NUMBERS, *WRONG, NESTED, {"a": NESTED}, object()):
            found, message = attempt(lambda key=key, wrong=wrong: parse(options, least | {key: wrong}, where=name))
            assert shorten(message) == message, (key, wrong)
            if found:
                canonical_json(found.model_dump())  # raises where a number is not finite


def attempt(call: Callable[[], object]) -> tuple[object, str]:
    """What comes of it, or the message with which it is refused."""
    try:
        return call(), ""
    except InputError as error:
        return None, str(error)


@pytest.mark.parametrize("index", [10**30, 2**31, 1e38, 1e308])
def test_numbers_that_nothing_can_be_computed_with_are_refused(index):
    for name, (options, least) in CLASSES.items():
        for key, value in parse(options, least, where=name).model_dump().items():
            if type(value) is type(index):
                with pytest.raises(InputError):
                    parse(options, least | {key: index}, where=name)


def test_numbers_that_are_not_finite_are_refused_in_every_place_of_an_option():
    for name, (options, least) in CLASSES.items():
        for path, value in list(leaves(parse(options, least, where=name).model_dump())):
            for wrong in NUMBERS[:3] if isinstance(value, float | int) and not isinstance(value, bool) else ():
                with pytest.raises(InputError):
                    parse(
                        options, replaced(parse(options, least, where=name).model_dump(), path, wrong), where=name
                    )


def leaves(value: object, path: tuple = ()) -> Iterator[tuple[tuple, object]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inner is None:
        yield path, value
    for key, part in inner or ():
        yield from leaves(part, (*path, key))


@pytest.mark.parametrize(
    "key",
    [
        "results",
        "datasets",
        "rows",
        "seeds",
        "backbones",
        "searches",
        "criteria",
        "learners",
        "evaluation",
        "theory",
    ],
)
def test_a_wrong_section_is_refused_in_one_line(key):
    whole = {"datasets": {"a": {"source": "glyphs"}}, "rows": [{"backbone": "conv4"}], "seeds": [0]}
    parse_config(whole)
    for wrong in (*NUMBERS, *WRONG, NESTED, {"a": NESTED}, [NESTED], {"x" * 10**6: {}}, {"a": {"b" * 10**6: 1}}):
        _, message = attempt(lambda wrong=wrong: parse_config(whole | {key: wrong}))
        assert len(message) <= 500, (key, str(wrong)[:50])


# A billion values that YAML's references make of a few lines.
BOMB: object = "x"
for _ in range(9):
    BOMB = [BOMB] * 10
DICT_BOMB: object = 1
for _ in range(15):
    DICT_BOMB = dict.fromkeys("abcd", DICT_BOMB)


@pytest.mark.parametrize("bomb", [BOMB, DICT_BOMB], ids=["lists", "objects"])
@pytest.mark.parametrize(
    "path",
    [
        *(("results",), ("datasets",), ("datasets", "b"), ("datasets", "b", "source"), ("rows",), ("seeds",)),
        *(("backbones",), ("backbones", "x"), ("backbones", "x", "kind"), ("learners", "rfs", "milestones")),
        *(("searches", "prune", "settings"), ("searches", "metantk", "space")),
        *(("criteria", "ntk"), ("criteria", "x"), ("evaluation", "classifier"), ("theory", "networks"), ("x",)),
    ],
    ids=".".join,
)
def test_a_bomb_of_references_is_refused_at_once(path, bomb):
    whole = {"datasets": {"a": {"source": "glyphs"}}, "rows": [{"backbone": "conv4"}], "seeds": [0]}
    inner = whole
    for key in path[:-1]:
        inner = inner.setdefault(key, {})
    inner[path[-1]] = bomb
    began = time.process_time()
    with pytest.raises(InputError) as refused:
        parse_config(whole)
    assert len(str(refused.value)) <= 500
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "results", ["a{b}", "-x", "~", "~/x", "..", ".", "/", "a\nb", "a\\b", "", "x" * 300, "a\x00b", "x/.."]
)
def test_a_results_folder_that_no_shell_or_rule_can_name(results):
    whole = {"datasets": {"a": {"source": "glyphs"}}, "rows": [{"backbone": "conv4"}], "seeds": [0]}
    with pytest.raises(InputError, match="'results'"):
        parse_config(whole | {"results": results})


def test_a_long_line_is_shortened_and_shows_no_control_characters():
    assert len(shorten("x" * 10**7)) <= 500
    assert shorten("a\x1b[31mb\udcff\n c") == "a\\x1b[31mb\\udcff c"
    assert io.StringIO(shorten("ü é 日本")).read() == "ü é 日本"
