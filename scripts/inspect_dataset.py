"""Show what a prepared data set holds: counts, sizes, warnings, and a contact sheet of a few images per class.

Prints a table to stdout and writes contact_sheet.png. All arrays are compared with their checksums.

Example:
    python scripts/inspect_dataset.py results/glyphs/data --output my_figures
"""

from pathlib import Path

import numpy as np

from metantk.data.contact_sheet import draw_contact_sheet, save
from metantk.data.store import SPLITS, Split, check_statistics, load_split, read_manifest
from metantk.runtime.command_line import make_parser, run
from metantk.runtime.files import check_writable


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("data", type=Path, metavar="DIR", help="prepared data set")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", default=Path(), help="folder of contact_sheet.png [the current one]"
    )
    arguments = parser.parse_args()
    manifest = read_manifest(arguments.data)
    splits = {part: load_split(arguments.data, part, thoroughly=True) for part in SPLITS}
    check_statistics(arguments.data, splits["train"])
    check_writable(arguments.output)
    title = str(manifest.get("name", arguments.data))
    print("\n".join(describe(title, manifest, splits)))
    save(draw_contact_sheet(splits, title), arguments.output / "contact_sheet.png")


def describe(title: str, manifest: dict, splits: dict[str, Split]) -> list[str]:
    lines = [f"{title}, from {manifest.get('source')}; {manifest.get('licence')}"]
    for part, split in splits.items():
        counts = np.bincount(split.labels)
        height, width = split.images.shape[1:3]
        lines.append(
            f"{part:5}  {len(split.labels):7} images of {height} × {width}, {len(split.class_names):4} classes "
            f"of {counts.min()} to {counts.max()}"
        )
    mean, std = (", ".join(f"{value:.4f}" for value in manifest[key]) for key in ("mean", "std"))
    lines.append(f"train: mean {mean}; deviation {std} (red, green, blue; 0 to 1)")
    return lines + [f"warning: {warning}" for warning in manifest.get("warnings", [])]


if __name__ == "__main__":
    run(main)
