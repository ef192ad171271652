"""Who may import whom under scripts/: the map of docs/architecture.md, package by package."""

import ast
import re
from graphlib import TopologicalSorter

import pytest
from conftest import REPOSITORY

SCRIPTS = REPOSITORY / "scripts"
LIBRARY = SCRIPTS / "metantk"

# `options` and `runtime` are the ground: options name files by their errors, command lines are made of options.
GROUND = {"options", "runtime"}
AXES = {"backbones", "data", "space"} | GROUND
ALLOWED = {
    "options": {"runtime"},
    "runtime": {"options"},
    "statistics": set(),
    "data": GROUND,
    "space": GROUND,
    "flops": set(),
    "footprint": {"flops"},
    "kernels": {"flops", "space"},
    "backbones": {"data", "flops", "space"} | GROUND,
    "meta_learning": {"data", "space"} | GROUND,
    "criteria": {"flops", "kernels"} | AXES,
    "models": AXES,
    "searches": {"criteria", "flops", "meta_learning", "statistics"} | AXES,
    "learners": {"meta_learning", "models"} | AXES,
    "training": {"data", "learners"} | GROUND,
    "gpu_steps": {"criteria", "data", "footprint", "kernels", "models", "searches", "training"} | AXES,
    "gpu_campaign": {"data", "gpu_steps", "results"} | GROUND,
    "evaluation": {"data", "learners", "models"} | GROUND,
    "results": {"criteria", "data", "searches", "space", "statistics"} | GROUND,
    "benchmark": {"searches", "space"} | GROUND,
    "deployment": {"data", "learners", "models"} | GROUND,
    "theory": {"data", "kernels", "results", "statistics"} | GROUND,
}
# TODO: arrows that still point the wrong way. Remove an entry together with its imports.
KNOWN = {
    ("options", "space"),  # the check of a genotype, which needs no torch
}


def imported(path) -> set[str]:
    """Dotted names of all imports of a file, those within functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def package_of(path) -> str:
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def arrows() -> dict[tuple[str, str], str]:
    """(who, whom) for each two packages of the library, with the first file that imports so."""
    found = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        for name in imported(path):
            if name.startswith("metantk.") and (whom := name.split(".")[1]) != package_of(path):
                found.setdefault((package_of(path), whom), path.relative_to(SCRIPTS).as_posix())
    return found


ARROWS = arrows()


def test_each_package_has_its_place_on_the_map():
    packages = {package_of(path) for path in LIBRARY.rglob("*.py")} - {"__init__"}
    assert packages <= set(ALLOWED)


def test_the_map_has_no_circle_above_the_ground():
    above = {who: whom - GROUND for who, whom in ALLOWED.items() if who not in GROUND}
    assert set(TopologicalSorter(above).static_order()) == set(above)


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_it_may(package):
    wrong = {
        whom: file
        for (who, whom), file in ARROWS.items()
        if who == package and whom not in ALLOWED[who] and (who, whom) not in KNOWN
    }
    assert wrong == {}


@pytest.mark.parametrize("arrow", sorted(KNOWN), ids=" to ".join)
def test_a_known_wrong_arrow_is_still_there(arrow):
    assert arrow in ARROWS, "it is gone: remove it from KNOWN"
    assert arrow[1] not in ALLOWED[arrow[0]]


def test_no_script_imports_another_and_the_library_knows_neither_scripts_nor_snakemake():
    scripts = {path.stem for path in SCRIPTS.glob("*.py")}
    for path in SCRIPTS.rglob("*.py"):
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & (scripts - {path.stem}), path
        assert "snakemake" not in roots or not path.is_relative_to(LIBRARY), path


def test_the_architecture_page_has_the_same_map():
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \|([^|]*)\|$", page, re.M)
    printed = {package: set(re.findall(r"`(\w+)`", whom)) for package, whom in rows}
    assert printed == ALLOWED
