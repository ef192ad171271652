"""Bring a data set into the format that all other stages read.

Sources: `glyphs`, an embedded mini-Omniglot drawn from the fonts that matplotlib ships (64/16/20 classes), or a
folder of pictures: train/, val/ and test/ with a folder per class in each, or one folder of class folders, which
is split by class.

Writes DIR/{train,val,test}/{images,labels}.npy and DIR/manifest.json, all or nothing.

Example:
    python scripts/prepare_dataset.py --name glyphs --source glyphs --image-size 28 --output results/glyphs/data

Time: glyphs with 60 pictures per class take about 5 s on one core.
"""

import logging
from pathlib import Path

from metantk.command_line import make_parser, parse_options, run
from metantk.config import DatasetOptions
from metantk.datasets.folder import read_folder
from metantk.datasets.glyphs import make_glyphs
from metantk.datasets.store import Split, write_dataset

log = logging.getLogger("metantk")
GLYPHS_LICENCE = (
    "pictures: CC0; fonts: DejaVu (Bitstream Vera licence), STIX (SIL OFL), Computer Modern (Knuth/BaKoMa)"
)


def main() -> None:
    parser = make_parser(__doc__, DatasetOptions)
    parser.add_argument("--name", required=True, help="name of the data set")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write")
    arguments = parser.parse_args()
    options = parse_options(DatasetOptions, arguments)
    splits, licence = read_source(options)
    write_dataset(arguments.output, splits, name=arguments.name, source=options.source, licence=licence)
    for part, split in splits.items():
        log.info("%s: %d pictures of %d classes", part, len(split.labels), len(split.class_names))


def read_source(options: DatasetOptions) -> tuple[dict[str, Split], str]:
    """The splits of a source and its licence."""
    if options.source == "glyphs":
        splits = make_glyphs(
            image_size=options.image_size, images_per_class=options.images_per_class, seed=options.seed
        )
        return splits, GLYPHS_LICENCE
    splits = read_folder(Path(options.source), image_size=options.image_size, seed=options.seed, ways=options.ways)
    return splits, "unknown: the pictures are yours"


if __name__ == "__main__":
    run(main)
