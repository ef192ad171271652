"""Fetch a named source where it is missing: `cifar-fs`, `fc100` (both are CIFAR-100) or `omniglot`.

A stage of its own, so that it can run where the network is: prepare_dataset.py then finds everything in place.
Archives come from torchvision's addresses, are checked by their MD5 and unpacked in the download folder. Processes
side by side fetch each archive once.

Writes DIR/files.json: where the source lies, and its provenance.

Example:
    python scripts/download_dataset.py --source omniglot --download-folder data --output results/omniglot/download

Time: that of the download (CIFAR-100 161 MB, Omniglot 13 MB); a few seconds where everything is there.
"""

from pathlib import Path

from metantk.data.sources import fetch_source
from metantk.options.dataset import DatasetOptions
from metantk.runtime.command_line import make_parser, parse_options, run
from metantk.runtime.files import check_writable, write_json
from metantk.runtime.provenance import provenance


def main() -> None:
    parser = make_parser(__doc__, DatasetOptions)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder of files.json")
    arguments = parser.parse_args()
    options = parse_options(DatasetOptions, arguments)
    check_writable(arguments.output)
    files = [str(path) for path in fetch_source(options)]
    about = provenance(__file__, options=options.model_dump())
    write_json(arguments.output / "files.json", {"files": files, "provenance": about})


if __name__ == "__main__":
    run(main)
