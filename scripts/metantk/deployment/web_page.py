"""A classifier as one web page, which needs neither a server nor a network: model and onnxruntime-web are in it.

The runtime is a package of the npm registry. `make web` fetches it; here its checksum is compared, and nothing is
ever downloaded.
"""

import base64
import gzip
import hashlib
import html
import io
import json
import re
import tarfile
from pathlib import Path
from typing import NamedTuple

from metantk.deployment.classifier import ClassifierFile
from metantk.deployment.own_images import describe
from metantk.runtime.files import SCRIPTS, InputError

VERSION = "1.30.0"
PACKAGE = SCRIPTS.parent / "web" / f"onnxruntime-web-{VERSION}.tgz"
# As npm writes it: `npm view onnxruntime-web@VERSION dist.integrity`.
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
TEMPLATE = Path(__file__).with_name("web_page.html")


class Runtime(NamedTuple):
    """Files of onnxruntime-web."""

    module: bytes
    wasm: bytes


def read_runtime(package: Path = PACKAGE) -> Runtime:
    """The runtime from its package.

    Raises:
        InputError: it is missing, or not the one that is expected.
    """
    try:
        content = package.read_bytes()
    except OSError as error:
        raise InputError(f"{package}: cannot be read ({error.strerror}); `make web` fetches it, with npm") from None
    if f"sha512-{base64.b64encode(hashlib.sha512(content).digest()).decode()}" != INTEGRITY:
        raise InputError(f"{package}: is damaged, or another file; remove it, and `make web` fetches it again")
    names = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return Runtime(*(archive.extractfile(f"package/dist/{name}").read() for name in names))


def write_page(path: Path, classifier: Path, runtime: Runtime, *, title: str) -> None:
    """Write the page of an exported classifier."""
    opened = ClassifierFile(classifier)
    calibration = opened.calibration
    facts = {
        "image_size": opened.image_size,
        "class_names": opened.class_names,
        "threshold": calibration.threshold if calibration else None,
    }
    parts = {
        "TITLE": html.escape(title),
        "NOTE": html.escape(describe(calibration, opened.supports)),
        "VERSION": VERSION,
        "FACTS": json.dumps(facts).replace("<", "\\u003c"),  # no name ends the script
        "RUNTIME": _packed(runtime.module),
        "WASM": _packed(runtime.wasm),
        "MODEL": _packed(classifier.read_bytes()),
    }
    # In one go: what is filled in may look like a mark itself.
    page = re.sub("@@([A-Z]+)@@", lambda mark: parts[mark[1]], TEMPLATE.read_text(encoding="utf-8"))
    path.write_text(page, encoding="utf-8")


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()
