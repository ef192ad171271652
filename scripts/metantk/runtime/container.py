"""The container image: its version and where it lies. Imports no torch."""

import hashlib
from pathlib import Path

from metantk.runtime.files import SCRIPTS, InputError

REPOSITORY = SCRIPTS.parent
FOLDER = "containers"
REQUIREMENTS = REPOSITORY / "envs" / "requirements.txt"
# All that decides what is in the image. The definitions differ in where the base system comes from, no more.
INGREDIENTS = (
    REQUIREMENTS,
    REPOSITORY / FOLDER / "check_image.py",
    REPOSITORY / FOLDER / "metantk.def",
    REPOSITORY / FOLDER / "metantk-registry.def",
)


def version() -> str:
    """Twelve digits that change with the pins and the definitions.

    Snakemake knows an image by its path alone: a changed one under the same name would rerun nothing.
    """
    digest = hashlib.sha256()
    for path in INGREDIENTS:
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def image_name() -> Path:
    """Where the image of this version lies, from the repository's root."""
    return Path(FOLDER) / f"metantk-{version()}.sif"


def check_image(path: Path | str) -> None:
    """Complain before the first job does.

    Raises:
        InputError: the image is not there.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: is missing; build it with `make container`, or leave out --sdm apptainer")
