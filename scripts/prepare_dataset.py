"""Bring a data set into the format that all other stages read.

A source is one of (docs/data.md has all layouts):
- `glyphs`: 100 characters drawn from the fonts that matplotlib ships, 64/16/20 classes;
- `cifar-fs`, `fc100`, `omniglot`, `torchvision:NAME`: downloaded where they are missing;
- a folder of images, split by class unless it has train/, val/ and test/;
- a folder of the published files of miniImageNet, tieredImageNet, CIFAR-FS or FC100. No pickle runs code.

Writes DIR/{train,val,test}/{images,labels}.npy and DIR/manifest.json, all or nothing. Images pass as a stream:
memory does not grow with their number. A preparation that is killed begins anew.

Example:
    python scripts/prepare_dataset.py --name glyphs --source glyphs --image-size 28 --output results/glyphs/data

Time: glyphs with 60 images per class take about 5 s on one core.
"""

import logging
from pathlib import Path

from metantk.data.needs import check_needs, counts_of_splits, needs_from_json
from metantk.data.sources import open_source
from metantk.data.store import SPLITS, check_splits, write_dataset
from metantk.options.dataset import DatasetOptions, check_outside
from metantk.runtime.command_line import file_name, make_parser, parse_options, progress, run

log = logging.getLogger("metantk")


def main() -> None:
    parser = make_parser(__doc__, DatasetOptions)
    parser.add_argument("--name", required=True, type=file_name, metavar="NAME", help="name of the data set")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write")
    parser.add_argument("--needs", default="[]", metavar="JSON", help="from the workflow: refuse too little data")
    arguments = parser.parse_args()
    options = parse_options(DatasetOptions, arguments)
    needs = needs_from_json(arguments.needs)
    check_outside(arguments.output, options.source)
    dataset = open_source(options)
    check_splits(dataset.splits, source=options.source)
    check_needs(counts_of_splits(dataset.splits), needs, where=options.source)
    total = sum(len(split.labels) for split in dataset.splits.values())
    with progress(None, total=total, what="preparation", unit="image") as bar:
        manifest = write_dataset(
            arguments.output,
            dataset,
            name=arguments.name,
            source=options.source,
            options=options.model_dump(),
            advance=bar.update,
        )
    for warning in manifest["warnings"]:
        log.warning("warning: %s", warning)
    for part in SPLITS:
        entry = manifest["splits"][part]
        log.info("%s: %d images of %d classes", part, entry["images"], len(entry["classes"]))


if __name__ == "__main__":
    run(main)
