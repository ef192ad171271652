"""The code behind an output, and the provenance that every output carries. Imports no torch.

A stage's code is its script, every module that it imports, and the modules of the kinds that it was asked for
(`metantk.plugins`), with what those import. It is hashed by its syntax trees without docstrings: comments,
formatting and documentation, of options too, change nothing.
"""

import ast
import functools
import hashlib
import importlib.metadata
import platform
from collections.abc import Iterator
from pathlib import Path

from metantk.storage import SCRIPTS

PACKAGES = ("numpy", "opacus", "pandas", "scikit-learn", "torch", "torchvision")


def local_modules(*files: Path | str) -> list[Path]:
    """`files` and every module under scripts/ that they import, directly or not, found without running them."""
    found: dict[Path, None] = {}
    pending = [Path(file).resolve() for file in files]
    while pending:
        path = pending.pop()
        if path not in found:
            found[path] = None
            pending.extend(_imported_files(path))
    return sorted(found)


def _imported_files(path: Path) -> Iterator[Path]:
    for name in _imported_names(path.read_text()):
        yield from _files_of_module(name)


@functools.cache
def _imported_names(text: str) -> list[str]:
    """Names that may be modules. Kept by text: the rules of a workflow ask for the same modules many times."""
    names = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            # `from package import module` names a module only where such a file exists.
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _files_of_module(name: str) -> Iterator[Path]:
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        stem = SCRIPTS.joinpath(*parts[:depth])
        for candidate in (stem.with_suffix(".py"), stem / "__init__.py"):
            if candidate.is_file():
                yield candidate


@functools.cache
def _tree_of(path: Path) -> bytes:
    """The syntax tree of a file as text, without docstrings and the descriptions of options.

    Kept, because many jobs share their modules.
    """
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Field":
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "description"]
    return ast.dump(tree).encode()


def code_hash(*files: Path | str) -> str:
    """Hash over the syntax trees of `files` and of all local modules behind them."""
    digest = hashlib.sha256()
    for path in local_modules(*files):
        name = path.relative_to(SCRIPTS).as_posix() if path.is_relative_to(SCRIPTS) else path.name
        digest.update(name.encode() + b"\0" + _tree_of(path) + b"\0")
    return digest.hexdigest()


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
