"""Peak memory and speed of preparing tieredImageNet, in both of its forms, at two sizes: memory must not grow.

Images are noise (84 × 84), which neither PNG nor zip makes smaller, as photographs hardly are: the second size
is a tenth of tieredImageNet's training split. Each preparation runs in a process of its own.

Example:
    python tests/benchmarks/bench_preparation.py --images 11000 44000
"""

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

SCRIPTS = Path(__file__).parents[2] / "scripts"
FORMS = ("npz", "png")
SIDE, CLASSES, HELD_OUT = 84, 10, 20  # pixels, classes of each split, images of val and of test
SPLIT_MARKS = {"train": 1, "val": 2, "test": 3}  # first pixels: no image stands in two splits

CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from metantk.options.dataset import DatasetOptions
from metantk.data import published
from metantk.data.sources import open_source
from metantk.data.store import SPLITS, write_dataset
source, output, images, classes, held_out = sys.argv[2], sys.argv[3], *map(int, sys.argv[4:])
published.PUBLISHED["tiered-imagenet"] = published.PUBLISHED["tiered-imagenet"]._replace(
    classes=dict.fromkeys(SPLITS, classes), images={"train": images, "val": held_out, "test": held_out}
)
def peak_kib():  # ru_maxrss would count the process that started this one, too
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])
before = peak_kib()
write_dataset(Path(output), open_source(DatasetOptions(source=source)), name="tiered", source=source)
print(before / 1024, peak_kib() / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs=2, type=int, default=[11_000, 44_000], help="of the training split")
    sizes = parser.parse_args().images
    for form in FORMS:
        for images in sizes:
            print(json.dumps(measure(form, images)))


def measure(form: str, images: int) -> dict:
    """Prepare `images` training images; megabytes (MiB) that the preparation took beyond its imports."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        make_source(source, form, images)
        began = time.perf_counter()
        command = [sys.executable, "-c", CHILD, SCRIPTS, source, Path(folder) / "data", images, CLASSES, HELD_OUT]
        printed = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
        before, peak = map(float, printed.split())
        return {
            "form": form,
            "images": images,
            "source_mb": round(sum(path.stat().st_size for path in source.iterdir()) / 2**20),
            "peak_mb": round(peak - before, 1),
            "seconds": round(time.perf_counter() - began, 1),
        }


def make_source(source: Path, form: str, train_images: int) -> None:
    source.mkdir()
    for part, count in (("train", train_images), ("val", HELD_OUT), ("test", HELD_OUT)):
        rng = np.random.default_rng(count)
        labels = np.arange(count) % CLASSES
        key = "labels" if form == "npz" else "label_specific"
        (source / f"{part}_labels.pkl").write_bytes(pickle.dumps({key: labels}))
        images = rng.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
        images[:, 0, 0] = SPLIT_MARKS[part]
        if form == "npz":
            np.savez(source / f"{part}_images.npz", images=images)
        else:
            # Protocol 4 keeps the bytes of an array as they are, like Python 2's pickles.
            with (source / f"{part}_images_png.pkl").open("wb") as file:
                pickle.dump([_png(image) for image in images], file, protocol=4)


def _png(image: np.ndarray) -> np.ndarray:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "png", compress_level=1)
    return np.frombuffer(buffer.getvalue(), np.uint8)


if __name__ == "__main__":
    main()
