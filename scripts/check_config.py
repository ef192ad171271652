"""Check that a configuration's file can be read, before Snakemake reads it; `make` calls this first.

Snakemake itself would run code that a configuration may hold (`__use_yte__`), and shows a traceback where a file is
missing, no text or no YAML. What the values mean is checked when the workflow is planned. A second folder of own
images (IMAGES) is refused where its results would take the place of the first one's.

Example:
    python scripts/check_config.py --configfile config/config.yaml --cores 8
"""

import os
import shlex
from pathlib import Path

from metantk.data.manifest import Manifest
from metantk.options.config import read_yaml, with_own
from metantk.runtime.command_line import make_parser, run
from metantk.runtime.files import InputError
from metantk.runtime.typed_files import read_record


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--configfile", type=Path, required=True, metavar="FILE")
    parser.add_argument("--cores", default="1", help="of this machine, or `all`")
    arguments = parser.parse_args()
    cores = arguments.cores
    if cores != "all" and not (cores.isascii() and cores.isdigit() and int(cores) > 0):
        raise InputError(f"CORES={cores}: give a number above 0, or `all`")
    images = os.environ.get("METANTK_IMAGES")
    if images and not Path(images).expanduser().is_dir():
        raise InputError(f"IMAGES={images}: no such folder")
    values = with_own(read_yaml(arguments.configfile))
    if images:
        _check_same_images(Path(str(values.get("results", "results"))), images)


def _check_same_images(results: Path, images: str) -> None:
    """Refuse results of another folder of images: its model would be overwritten.

    Raises:
        InputError: naming both folders.
    """
    manifest = results / "images" / "data" / "manifest.json"
    if not manifest.is_file():
        return
    found = read_record(manifest, Manifest, stage="prepare_dataset").source
    if Path(found).expanduser().resolve() != Path(images).expanduser().resolve():
        raise InputError(
            f"IMAGES={images}: {results} holds a model of {found}, which would be overwritten: keep both, by "
            f"`make own IMAGES={shlex.quote(images)} NAME=second`, or remove {results}"
        )


if __name__ == "__main__":
    run(main)
