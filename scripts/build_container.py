"""Build the container image that the workflow's rules name, containers/metantk-VERSION.sif, as any user.

The wheels of the pins are downloaded out here, by this machine's pip with its settings, so that the image needs no
network and learns no index, certificate or password. About 15 GB of disk are needed while it runs; APPTAINER_TMPDIR
says where, if not in /tmp.

Example:
    python scripts/build_container.py
    python scripts/build_container.py --definition containers/metantk-registry.def
"""

import logging
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

from metantk.runtime.command_line import make_parser, run
from metantk.runtime.container import FOLDER, REPOSITORY, REQUIREMENTS, image_name, version
from metantk.runtime.files import InputError, atomic_write

# The Python of both definitions' base systems.
PYTHON = "3.11"
PLATFORM = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0", "sys_platform": "linux"}
# Level 1 packs several times as fast as the default and makes the image little larger.
PACKING = "-comp zstd -Xcompression-level 1"

log = logging.getLogger("metantk")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument(
        "--definition",
        type=Path,
        default=REPOSITORY / FOLDER / "metantk.def",
        help="metantk.def (debootstrap; the default) or metantk-registry.def (container registry)",
    )
    parser.add_argument("--mirror", help="Debian mirror for debootstrap [where this machine's apt finds Debian]")
    arguments = parser.parse_args()
    name = image_name()
    image = REPOSITORY / name
    if image.exists():
        log.info("%s is there already", name)
        return
    build(arguments.definition.resolve(), image, arguments.mirror)
    log.info("%s is built: %.2f GB", name, image.stat().st_size / 1e9)


def build(definition: Path, image: Path, mirror: str | None) -> None:
    """Build `image` and run its %test; there is none where anything fails.

    Raises:
        InputError: a program is missing, no mirror is known, the download or the build fails.
    """
    build_arguments = {"version": version()}
    if "{{ mirror }}" in _read(definition):
        build_arguments["mirror"] = mirror or debian_mirror()
    apptainer = _program("apptainer", "install Apptainer 1.1 or newer")
    with tempfile.TemporaryDirectory(dir=image.parent, prefix=".wheels-") as wheels:
        download_wheels(Path(wheels))
        with atomic_write(image) as temporary:
            options = [word for key, value in build_arguments.items() for word in ("--build-arg", f"{key}={value}")]
            options += ["--bind", f"{wheels}:/mnt:ro", "--mksquashfs-args", PACKING, "--force"]
            _run([apptainer, "build", *options, temporary, definition], f"{definition}: the image cannot be built")


def debian_mirror() -> str:
    """The mirror from which this machine gets its own packages, if it is a Debian.

    Raises:
        InputError: it is not.
    """
    query = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "LABEL: Debian", "COMPONENT: main"]
    found = (
        subprocess.run(query, capture_output=True, text=True, check=False).stdout if shutil.which("apt-get") else ""
    )
    if not found.strip():
        raise InputError("no Debian mirror is known to this machine: name one with --mirror (make: MIRROR=)")
    return found.split()[0].rstrip("/")


def download_wheels(folder: Path) -> None:
    """The wheels of all pins, for the image's Python rather than for the one that runs this.

    Raises:
        InputError: pip cannot get one.
    """
    log.info("downloading the pinned packages")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--prefer-binary"]
    target = ["--python-version", PYTHON, "--implementation", "cp", "--dest", folder]
    _run(
        [sys.executable, "-m", "pip", "download", *options, *target, *pins_for_image()],
        "the pins cannot be downloaded",
    )


def pins_for_image() -> list[str]:
    """The pins whose conditions hold in the image. pip would ask them of the Python that runs it."""
    lines = [
        line for line in _read(REQUIREMENTS).splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    requirements = [Requirement(line) for line in lines]
    return [f"{r.name}{r.specifier}" for r in requirements if r.marker is None or r.marker.evaluate(PLATFORM)]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def _program(name: str, remedy: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise InputError(f"{name} is not on the PATH: {remedy}")
    return path


def _run(command: list[object], problem: str) -> None:
    finished = subprocess.run(
        [str(word) for word in command], cwd=REPOSITORY, stdin=subprocess.DEVNULL, check=False
    )
    if finished.returncode:
        raise InputError(f"{problem}; see the messages above (exit code {finished.returncode})")


if __name__ == "__main__":
    run(main)
