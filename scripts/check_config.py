"""Check that a configuration's file can be read, before Snakemake reads it; `make` calls this first.

Snakemake itself would run code that a configuration may hold (`__use_yte__`), and shows a traceback where a file is
missing, no text or no YAML. What the values mean is checked when the workflow is planned.

Example:
    python scripts/check_config.py --configfile config/config.yaml --cores 8
"""

import os
from pathlib import Path

from metantk.options.config import read_yaml
from metantk.runtime.command_line import make_parser, run
from metantk.runtime.files import InputError


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
    read_yaml(arguments.configfile)


if __name__ == "__main__":
    run(main)
