"""Modules by family and kind: built in, and user-defined files."""

import subprocess
import sys
from pathlib import Path

import pytest

from metantk.runtime import plugins
from metantk.runtime.files import SCRIPTS, InputError

COUNTING = """
import dataclasses

@dataclasses.dataclass
class Part:
    name: "str"

runs = []
runs.append(1)
"""


def test_built_in_kinds_are_modules_of_their_family():
    assert plugins.load("backbones", "conv4").__name__ == "metantk.backbones.conv4"
    assert plugins.module_file("backbones", "conv4") == SCRIPTS / "metantk" / "backbones" / "conv4.py"
    assert plugins.kinds("backbones") == ["cells", "conv4", "mixed", "onnx", "pixels", "resnet12", "timm"]


@pytest.mark.parametrize("family", ["backbones", "searches", "learners"])
def test_built_in_modules_hold_what_users_files_hold_and_their_own_options(family):
    for kind in plugins.kinds(family):
        assert plugins.load_whole(family, kind).Options is plugins.options_class(family, kind)


def test_a_hyphen_in_a_kind_is_an_underscore_in_its_module(monkeypatch, tmp_path):
    folder = tmp_path / "metantk" / "searches"
    folder.mkdir(parents=True)
    (folder / "linear_regions.py").touch()
    monkeypatch.setattr(plugins, "SCRIPTS", tmp_path)
    assert plugins.module_file("searches", "linear-regions") == folder / "linear_regions.py"


@pytest.mark.parametrize("kind", ["conv5", "", "Conv4", "__init__", "../plugins", "conv4.pyc", "a" * 300])
def test_unknown_kinds_are_refused_with_those_that_there_are(kind):
    for ask in (plugins.load, plugins.module_file):
        with pytest.raises(InputError, match="there are cells, conv4, mixed, onnx, pixels, resnet12, timm"):
            ask("backbones", kind)


def test_a_user_defined_file_is_run_once(tmp_path, monkeypatch):
    path = tmp_path / "my-own net.v2.py"
    path.write_text(COUNTING)
    monkeypatch.chdir(tmp_path)
    module = plugins.load("learners", str(path))
    assert plugins.load("learners", path.name) is module
    assert module.runs == [1]
    assert module.Part("x").name == "x"
    assert sys.modules[module.__name__] is module
    assert module.__name__.isidentifier()


def test_files_of_one_name_are_different_modules(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "json.py").write_text(f"place = {folder!r}")
    places = [plugins.load("criteria", str(tmp_path / folder / "json.py")).place for folder in ("a", "b")]
    assert places == ["a", "b"]
    assert "place" not in vars(sys.modules["json"])


def test_a_file_may_import_one_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "helper_of_the_test.py").write_text("VALUE = 3")
    (tmp_path / "mine.py").write_text("from helper_of_the_test import VALUE")
    assert plugins.load("searches", str(tmp_path / "mine.py")).VALUE == 3
    assert sys.path[-1] == str(tmp_path)  # takes nobody's place


def test_an_exception_that_cannot_be_printed_is_named(tmp_path):
    (tmp_path / "mine.py").write_text(
        "class Odd(Exception):\n    def __str__(self): raise KeyError\ndef find(): raise Odd\n"
    )
    module = plugins.load("searches", str(tmp_path / "mine.py"))
    with pytest.raises(Exception) as caught:  # noqa: PT011
        module.find()
    assert "mine.py: Odd: its text fails with KeyError (line 3 in find" in plugins.explain_failure(caught.value)


def test_a_missing_file_is_named():
    for ask in (plugins.load, plugins.module_file):
        with pytest.raises(InputError, match=r"searches: no/such\.py: no such file"):
            ask("searches", "no/such.py")


@pytest.mark.parametrize(
    "text",
    ["import no_such_module", "1 / 0", "def broken(:", "raise ValueError('two\\nlines')", "raise SystemExit(0)"],
)
def test_a_file_that_fails_is_named_in_one_line(tmp_path, text):
    path = tmp_path / "broken.py"
    path.write_text(text)
    for _ in range(2):  # nothing half made is left behind
        with pytest.raises(InputError, match=r"broken\.py: cannot be imported \(\w+: ") as error:
            plugins.load("backbones", str(path))
        assert "\n" not in str(error.value)
    path.write_text("mended = True")
    assert plugins.load("backbones", str(path)).mended


def test_a_criterion_that_is_none_is_named(tmp_path):
    path = tmp_path / "five.py"
    path.write_text("CRITERION = 5")
    with pytest.raises(InputError, match=r"five\.py: its CRITERION is no metantk\.criteria\.base\.Criterion"):
        plugins.load_whole("criteria", str(path))


def test_naming_a_file_imports_nothing(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("1 / 0")
    assert plugins.module_file("backbones", str(path)) == Path(path)


def test_options_and_plugins_need_no_torch():
    code = (
        "import sys; from metantk.runtime import plugins; import metantk.options.backbones.cells,"
        " metantk.options.backbones.conv4, metantk.options.backbones.resnet12;"
        " plugins.module_file('backbones', 'cells'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(SCRIPTS)}, check=True)


@pytest.mark.parametrize("kind", ["fixed", "given"])
def test_a_search_that_computes_nothing_needs_no_torch(kind):
    """It takes seconds to load; without it such a job is done sooner than one begins with it."""
    program = (
        "import sys; import search_architecture; from metantk.runtime import plugins;"
        f" assert not plugins.options_class('searches', '{kind}').computes;"
        f" plugins.load('searches', '{kind}'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": str(SCRIPTS)}, check=True)
