"""Check, inside the image, that it holds the pins and nothing else, and that they work. The image's %test runs it.

Example:
    python check_image.py requirements.txt
"""

import importlib
import importlib.metadata
import sys
from pathlib import Path

from packaging.requirements import Requirement

# What `venv` brings, beside the pins.
OF_VENV = {"pip"}
# The packages that have libraries of other packages behind them.
IMPORTED = (
    "matplotlib.pyplot",
    "numpy",
    "opacus",
    "pandas",
    "PIL.Image",
    "safetensors.torch",
    "sklearn",
    "torchvision",
)


def main() -> None:
    problems = version_problems(Path(sys.argv[1]).read_text())
    if problems:
        sys.exit("\n".join(problems))
    for name in IMPORTED:
        importlib.import_module(name)
    print(f"the image holds its pins, on Python {sys.version.split()[0]}")


def version_problems(requirements: str) -> list[str]:
    """One line for each package whose version is not the pinned one, is missing or is not pinned."""
    pinned = dict(pins(requirements))
    found = {normalise(package.name): package.version for package in importlib.metadata.distributions()}
    names = sorted((pinned.keys() | found.keys()) - OF_VENV)
    return [
        f"{name}: pinned {pinned.get(name)}, installed {found.get(name)}"
        for name in names
        if pinned.get(name) != found.get(name)
    ]


def pins(requirements: str):
    """Name and version of each pin that is meant for this Python and this system."""
    lines = [line.strip() for line in requirements.splitlines()]
    for requirement in [Requirement(line) for line in lines if line and line[0] != "#"]:
        if requirement.marker is None or requirement.marker.evaluate():
            yield normalise(requirement.name), str(requirement.specifier).removeprefix("==")


def normalise(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


if __name__ == "__main__":
    main()
