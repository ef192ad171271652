"""The code behind an output, and the provenance that every output carries. Imports no torch.

A stage's code is its script, every module that it imports, and the modules of the kinds that it was asked for
(`metantk.runtime.plugins`), with what those import. It is hashed by its syntax trees without docstrings: comments,
formatting and documentation, of options too, change nothing.

What a file's text says is kept in a file beside Python's own compiled modules, by the checksum of the text: to read
the syntax trees of all modules takes a second, in each planning and each job.
"""

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError

from metantk.runtime.files import SCRIPTS, InputError, read_json, write_json

CODE = Path(".snakemake", "code")  # below Snakemake's working folder
KEPT = Path(SCRIPTS, "__pycache__", f"syntax.{sys.implementation.cache_tag}.json")
MOST_KEPT = 1000  # texts
PACKAGES = ("numpy", "opacus", "pandas", "scikit-learn", "torch", "torchvision")


def local_modules(*files: Path | str) -> list[Path]:
    """`files` and every module that they import, directly or not, found without running them.

    Looked for is under scripts/ and, for a file from elsewhere, beside it.

    Raises:
        InputError: a file that is no Python.
    """
    found: dict[Path, None] = {}
    pending = [Path(file).resolve() for file in files]
    while pending:
        path = pending.pop()
        if path not in found:
            found[path] = None
            pending.extend(_imported_files(path))
    return sorted(found)


def _imported_files(path: Path) -> Iterator[Path]:
    folders = [SCRIPTS] if path.is_relative_to(SCRIPTS) else [SCRIPTS, path.parent]
    for name in _parse(path).names:
        for folder in folders:
            yield from _files_of_module(folder, name)


class Parsed(NamedTuple):
    """What counts of a file.

    Attributes:
        names: what it imports that may be modules.
        tree: checksum of its syntax tree, without docstrings, descriptions of options and the version.
    """

    names: list[str]
    tree: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def _parse(path: Path) -> Parsed:
    try:
        text = importlib.util.decode_source(path.read_bytes())  # as Python reads it, in the encoding that it names
        key, kept = hashlib.sha256(f"{_reader()}{text}".encode()).hexdigest(), _kept()
        if key not in kept:
            kept[key] = _parse_anew(text)
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{path}: is no Python: {error}") from error
    return kept[key]


@functools.cache
def _reader() -> str:
    """This file's own text: another version of it may read others otherwise."""
    return Path(__file__).read_text()


@functools.cache
def _kept() -> dict[str, Parsed]:
    """By the checksum of a text, of this and earlier processes; of these nothing where the file is damaged."""
    try:
        return TypeAdapter(dict[str, Parsed]).validate_python(read_json(KEPT))
    except (InputError, ValidationError):
        return {}


def _keep() -> None:
    """For later processes, unless Python keeps none of its modules either, or they cannot be written."""
    if not sys.dont_write_bytecode:
        with contextlib.suppress(OSError, InputError):
            write_json(KEPT, dict(list(_kept().items())[-MOST_KEPT:]))


def _parse_anew(text: str) -> Parsed:
    names, tree = [], ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            # `from package import module` names a module only where such a file exists.
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
            node.body = [statement for statement in node.body if not _is_version(statement)]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Field":
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "description"]
    return Parsed(names, hashlib.sha256(ast.dump(tree).encode()).hexdigest())


def _is_version(statement: ast.stmt) -> bool:
    """The release's number: a new one changes no results."""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return any(isinstance(target, ast.Name) and target.id == "__version__" for target in targets)


@functools.cache
def _files_of_module(folder: Path, name: str) -> list[Path]:
    """Kept: each look costs a question to the disk, and most names are asked for by many modules."""
    parts = name.split(".")
    stems = [folder.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1)]
    candidates = [path for stem in stems for path in (stem.with_suffix(".py"), stem / "__init__.py")]
    return [path for path in candidates if path.is_file()]


def code_hash(*files: Path | str) -> str:
    """Checksum of the syntax trees of `files` and of all local modules behind them."""
    digest, before = hashlib.sha256(), len(_kept())
    for name, tree in _trees(*files):
        digest.update(f"{name}\0{tree}\0".encode())
    if len(_kept()) > before:
        _keep()
    return digest.hexdigest()


def _trees(*files: Path | str) -> list[tuple[str, str]]:
    """Each module's name, which those from elsewhere may share, and the checksum of its syntax tree."""
    return [(_module_name(path), _parse(path).tree) for path in local_modules(*files)]


def record_code(*files: Path | str) -> str:
    """`code_hash`, with a file of that name in `CODE` for `make why`: the hash of each module."""
    total = code_hash(*files)
    path = CODE / f"{total}.json"
    with contextlib.suppress(OSError, InputError):  # a help, which no run depends on
        if not path.exists():
            modules: dict[str, str] = {}
            for name, tree in _trees(*files):
                modules[name] = f"{modules[name]} {tree[:16]}" if name in modules else tree[:16]
            write_json(path, modules)
    return total


def _module_name(path: Path) -> str:
    return path.relative_to(SCRIPTS).as_posix() if path.is_relative_to(SCRIPTS) else path.name


def provenance(*files: Path | str, options: dict, seed: int | None = None, device: str = "cpu") -> dict:
    """How an output came about: script, code hash, options, seed, device and versions. No times.

    Args:
        files: the script, then the modules of the kinds that it was asked for.
    """
    versions = {name: importlib.metadata.version(name) for name in PACKAGES if _installed(name)}
    return {
        "script": Path(files[0]).name,
        "code": code_hash(*files),
        "options": options,
        "seed": seed,
        "device": device,
        "versions": {"python": platform.python_version(), **versions},
    }


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
