"""Modules by family and kind: built-in ones by name, a user's by the path of a file. Imports no torch.

A kind is loaded only when it is asked for, so that a new one changes nothing for those that do not use it. Built-in
criteria share modules, which the catalogue names.
"""

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Literal

from metantk.options.base import Options, glance, refuse_former_name
from metantk.runtime.files import SCRIPTS, InputError

Family = Literal["backbones", "criteria", "searches", "learners"]
# What a user's module must hold, and what its Options must say.
HOLDS: dict[Family, tuple[str, ...]] = {
    "backbones": ("Options", "Architecture", "build"),
    "criteria": ("CRITERION",),
    "searches": ("Options", "find"),
    "learners": ("Options", "Learner", "outputs", "scores"),
}
SAYS: dict[Family, tuple[str, ...]] = {"backbones": ("searchable", "title", "architecture")}
_FILES: set[str] = set()  # of users, that have been run
OF_A_CRITERION = ("measure", "larger_is_better", "title", "section", "options")  # see metantk.criteria.base


def load(family: Family, kind: str) -> ModuleType:
    """The module of a kind; a file is run once, however often and by whichever path it is asked for.

    Args:
        family: the package of its built-in kinds, `metantk.<family>`.
        kind: a built-in name, where "-" stands for "_" of the module's, or the path of a Python file (`.py`).

    Raises:
        InputError: there is no such kind or file, or the file fails while it is imported.
    """
    path = module_file(family, kind)
    if not kind.endswith(".py"):
        return importlib.import_module(f"metantk.{family}.{path.stem}")
    path = path.resolve()
    name = _name_of(family, path)
    return sys.modules[name] if name in sys.modules else _run_file(path, name)


def module_file(family: Family, kind: str) -> Path:
    """The file behind a kind, which is not imported; a user's by the path given.

    Raises:
        InputError: there is no such kind or file.
    """
    if kind.endswith(".py"):
        path = Path(kind)
        if not path.is_file():
            raise InputError(f"{family}: {kind}: no such file")
        return path
    module = _family_of_criterion().get(kind) if family == "criteria" else kind.replace("-", "_")
    path = SCRIPTS / "metantk" / family / f"{module}.py"
    refuse_former_name(f"{family}: unknown kind {kind!r}", kind)
    if not re.fullmatch("[a-z0-9_-]{1,60}", kind) or path.stem == "__init__" or not path.is_file():
        raise InputError(
            f"{family}: unknown kind {kind!r}; there are {', '.join(kinds(family))}, or the path of a .py file"
        )
    return path


def _family_of_criterion() -> dict[str, str]:
    """The module of each built-in criterion, by name.

    Imported here and by name, so that the catalogue is no part of a stage's code: a new criterion reruns nothing.
    """
    return importlib.import_module("metantk.options.catalogue").FAMILIES


def module_files(family: Family, options: Options) -> list[Path]:
    """The files behind a kind and behind the other kinds that its options name."""
    return [module_file(family, options.kind), *(module_file(*dependency) for dependency in options.dependencies)]


def options_file(family: Family, kind: str) -> Path:
    """The file behind a kind's options alone; of a user's kind all is in one file.

    Raises:
        InputError: there is no such kind or file.
    """
    path = module_file(family, kind)
    return path if kind.endswith(".py") else SCRIPTS / "metantk" / "options" / family / path.name


def options_class(family: Family, kind: object) -> type[Options]:
    """The options of a kind; of a built-in one without loading its module.

    Raises:
        InputError: there is no such kind, or its module holds no options.
    """
    if not isinstance(kind, str):
        raise InputError(f"{family}: 'kind' is {glance(kind)}, no text")
    if not kind.endswith(".py"):
        return importlib.import_module(f"metantk.options.{family}.{module_file(family, kind).stem}").Options
    found = load_whole(family, kind).Options
    if not (isinstance(found, type) and issubclass(found, Options)):
        raise InputError(f"{family}: {kind}: its Options is no class of metantk.options.base.Options")
    lacking = [name for name in SAYS.get(family, ()) if not hasattr(found, name)]
    if lacking or "kind" not in found.model_fields:
        raise InputError(f"{family}: {kind}: its class Options has no '{[*lacking, 'kind'][0]}'")
    return found


def load_whole(family: Family, kind: str) -> ModuleType:
    """As `load`, of a module that holds all that its family asks for.

    Raises:
        InputError: something is missing.
    """
    module = load(family, kind)
    lacking = [name for name in HOLDS[family] if not hasattr(module, name)]
    if lacking:
        raise InputError(f"{family}: {kind}: holds no '{lacking[0]}'")
    if family == "criteria":
        _check_criterion(module.CRITERION, f"{family}: {kind}")
    return module


def _check_criterion(criterion: object, where: str) -> None:
    if not all(hasattr(criterion, part) for part in OF_A_CRITERION):
        raise InputError(f"{where}: its CRITERION is no metantk.criteria.base.Criterion")
    expect(callable(criterion.measure), where, "CRITERION.measure", criterion.measure, "a function")
    expect(isinstance(criterion.title, str), where, "CRITERION.title", criterion.title, "text")
    larger, options = criterion.larger_is_better, criterion.options
    expect(isinstance(larger, bool), where, "CRITERION.larger_is_better", larger, "true or false")
    is_class = isinstance(options, type) and issubclass(options, Options)
    expect(
        options is None or is_class, where, "CRITERION.options", options, "a class of metantk.options.base.Options"
    )


def expect(fits: bool, where: str, function: str, came: object, expected: str) -> None:
    """Refuse what a function of a user's file gives.

    Raises:
        InputError: it does not fit: the file (`where`), the function, what came and what was expected.
    """
    if not fits:
        raise InputError(f"{where}: {function} gives {_describe(came)}; expected {expected}")


def _describe(value: object) -> str:
    """A value in an error; arrays and tensors by their type and shape."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{type(value).__name__} {value.dtype} {tuple(value.shape)}"
    return (
        glance(value) if isinstance(value, int | float | str | None) else f"{type(value).__name__} {glance(value)}"
    )


def file_of(kind: type) -> str:
    """The file in which a class stands."""
    return getattr(sys.modules.get(kind.__module__), "__file__", None) or kind.__module__


def explain_failure(error: BaseException) -> str | None:
    """An exception that went through a user's file, in one line: with the file's own lines, and no others.

    Returns:
        None where no line of a user's file was on the way.
    """
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in _FILES]
    if not frames:
        return None
    lines = ", ".join(f"line {frame.lineno} in {frame.name}" for frame in frames[-3:])
    return f"{frames[-1].filename}: {type(error).__name__}: {_text_of(error)} ({lines}: {frames[-1].line})"


def _text_of(error: BaseException) -> str:
    """What an exception says; one of a user's may fail at that, too."""
    try:
        return str(error)
    except Exception as failure:
        return f"its text fails with {type(failure).__name__}"


def kinds(family: Family) -> list[str]:
    """Names of the built-in kinds, sorted."""
    if family == "criteria":
        return sorted(_family_of_criterion())
    return [module.replace("_", "-") for module in _modules_with_options(family)]


def options_by_module(family: Family) -> dict[str, type[Options]]:
    """The options of each built-in module of a family that has some."""
    return {
        module: importlib.import_module(f"metantk.options.{family}.{module}").Options
        for module in _modules_with_options(family)
    }


def _modules_with_options(family: Family) -> list[str]:
    """Names of modules, sorted; one without options only helps others."""
    folders = SCRIPTS / "metantk" / family, SCRIPTS / "metantk" / "options" / family
    modules, options = ({path.stem for path in folder.glob("[!_]*.py")} for folder in folders)
    return sorted(modules & options)


def _name_of(family: str, path: Path) -> str:
    """The name of a user's module in sys.modules, which no other module can have."""
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    return f"metantk_{family}_{re.sub(r'[^A-Za-z0-9_]', '_', path.stem)}_{digest}"


def _run_file(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    _FILES.add(str(path))
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # for modules beside it; last, so that they take nobody's place
    sys.modules[name] = module  # before it runs: classes of the file look themselves up by it
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        problem = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{path}: cannot be imported ({problem})") from error
    return module
