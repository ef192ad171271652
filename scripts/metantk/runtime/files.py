"""Files: atomic writes, JSON, checkpoints. Imports no torch."""

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

SCRIPTS = Path(__file__).resolve().parents[2]
# What writing to an open file fails with when the disk, not the caller, is at fault.
FULL = (errno.ENOSPC, errno.EDQUOT)
DISK_ERRORS = (*FULL, errno.EROFS, errno.EIO, errno.EFBIG)
LONGEST_LINE = 500  # characters of an error, whatever was given
MOST_TEXT = 256 << 20  # bytes of a text file; a search's trace has some MB
DEEPEST = 40  # objects and lists within each other, in a JSON file


class InputError(Exception):
    """Something that the user gave cannot be used. The message is one line: what, where, what to do."""


class DivergedError(InputError):
    """Numbers that are not finite: nothing of the work is of use, and none of it is kept."""


def shorten(text: str, length: int = LONGEST_LINE) -> str:
    """In one line, its middle left out where it is too long; what no terminal can show is written as an escape."""
    text = text if len(text) <= 4 * length else text[: 2 * length] + text[-2 * length :]
    text = " ".join(text.split())
    if not text.isprintable():
        text = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
    state = (length - 3) // 2
    return text if len(text) <= length else f"{text[:state]}...{text[-state:]}"


class WriteError(InputError):
    """A place cannot be written: rights, a full or a read-only disk. Unfinished work is kept."""

    def __init__(self, path: Path | str, error: OSError) -> None:
        advice = "; free some space and start again" if error.errno in FULL else ""
        super().__init__(f"{path}: cannot be written ({error.strerror or error}){advice}")


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on any error it is removed.

    Raises:
        WriteError: the folder cannot be written, a folder or a device has the file's name, or the disk became full
            on the way.
    """
    path = Path(path)
    if path.is_dir():
        raise WriteError(path, OSError(errno.EISDIR, os.strerror(errno.EISDIR)))
    if path.exists() and not path.is_file():
        raise WriteError(path, OSError(errno.EEXIST, "is no regular file, and would be replaced"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    except OSError as error:
        raise WriteError(path, error) from None
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise WriteError(path, error) from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def check_writable(directory: Path | str) -> None:
    """Fail before the work, not after it, where outputs cannot be written.

    Raises:
        InputError: the folder cannot be made or written to.
    """
    try:
        Path(directory).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise WriteError(directory, error) from None


@contextlib.contextmanager
def atomic_directory(path: Path | str) -> Iterator[Path]:
    """Yield a hidden folder beside `path`; on success its files move into `path`, on any error it is removed.

    Files are moved in sorted order, one rename each, except that `manifest.json` goes last: where it stands, all
    stand. What a killed process has left is removed by the next one.

    Raises:
        InputError: another process is writing the folder.
        WriteError: the folder cannot be written, or the disk became full on the way.
    """
    path = Path(path)
    unfinished = path.parent / f".{path.name}.unfinished"
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        # In the folder, so that it goes with it. The system frees it, however this process ends.
        lock = FileLock(unfinished / "lock", fallback_to_soft=False).acquire(blocking=False)
    except Timeout:
        raise InputError(f"{path}: is being written by another process; wait for it to end") from None
    except OSError as error:
        raise WriteError(path, error) from None
    with lock:
        try:
            shutil.rmtree(unfinished / "files", ignore_errors=True)
            (unfinished / "files").mkdir()
            yield unfinished / "files"
            _move_files(unfinished / "files", path)
        except OSError as error:
            if error.errno in DISK_ERRORS:
                raise WriteError(path, error) from None
            raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _move_files(source: Path, target: Path) -> None:
    try:
        target.mkdir(parents=True, exist_ok=True)
        (target / "manifest.json").unlink(missing_ok=True)
        files = [file for file in source.rglob("*") if file.is_file()]
        for file in sorted(files, key=lambda file: (file.name == "manifest.json", file)):
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            file.replace(place)
    except OSError as error:
        raise WriteError(target, error) from None


def canonical_json(value: object) -> str:
    """One line with sorted keys: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _short_hash(key: object) -> str:
    return hashlib.sha256(canonical_json(key).encode()).hexdigest()[:16]


def write_json(path: Path | str, value: object) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n")


def check_regular(path: Path | str, advice: str = "") -> None:
    """Refuse what is no file: a folder, and a pipe, a socket or a device, which would be waited for.

    Args:
        advice: the end of the message.

    Raises:
        InputError: it is none, or there is nothing of that name.
    """
    try:
        is_file = stat.S_ISREG(Path(path).stat().st_mode)
    except (OSError, ValueError) as error:  # a ValueError: the name has a null byte
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}){advice}") from None
    if not is_file:
        raise InputError(f"{path}: cannot be read (it is no file){advice}")


def read_text(path: Path | str) -> str:
    """The whole of a text file in UTF-8.

    Raises:
        InputError: it is missing, no file, too large, or no such text.
    """
    check_regular(path)
    if (size := Path(path).stat().st_size) > MOST_TEXT:
        raise InputError(f"{path}: cannot be read (it has {size >> 20} MiB, {MOST_TEXT >> 20} are the most)")
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read (byte {error.start} is no UTF-8)") from None


def parse_json(text: str) -> object:
    """JSON whose numbers are finite, whose keys stand once, and which is not nested deeper than any file of ours.

    Raises:
        ValueError: it is something else.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_object_of)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level for inner in _inner(outer)]
        if not level:
            return value
    raise ValueError("nested too deeply")


def _inner(value: object) -> Iterable[object]:
    """What lies one level below, as far as it can have something below itself."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (item for item in inner if isinstance(item, dict | list))


def _object_of(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} stands there twice")
    return found


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def read_json(path: Path | str) -> object:
    """Read a JSON file, as `parse_json` has it.

    Raises:
        InputError: the file is missing, is not JSON, is nested too deeply, or has numbers that are not finite or a
            key twice.
    """
    try:
        return parse_json(read_text(path))
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error})") from None


def sha256_of(path: Path | str) -> str:
    """The checksum of a file's contents.

    Raises:
        InputError: it cannot be read.
    """
    check_regular(path)
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def checkpoint_path(directory: Path | str, stage: str, key: object) -> Path:
    """Where a stage keeps its unfinished work: beside its outputs, named by a hash of all that determines them.

    Checkpoints of the same stage with another key are of no use to anybody; they are removed.
    """
    folder = Path(directory) / ".checkpoints"
    name = f"{stage}-{_short_hash(key)}"
    for stale in folder.glob(f"{stage}-*"):
        if stale.stem != name:
            stale.unlink()
    return folder / name


def remove_checkpoint(path: Path) -> None:
    """Remove a finished stage's checkpoint, and its folder when nothing else is in it."""
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # another stage's checkpoint is still there
        path.parent.rmdir()
