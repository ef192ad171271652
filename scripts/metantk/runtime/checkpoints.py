"""Unfinished work of a stage, in one file beside its outputs.

A file ends with a checksum of its name and contents: what was damaged, edited, or kept by another job is refused
before anything is made of it.
"""

import hashlib
import io
from pathlib import Path

from metantk.runtime.files import InputError, atomic_write, check_regular, checkpoint_path, remove_checkpoint

SEAL_BYTES = 32  # of SHA-256


class CheckpointFile:
    """What a stage keeps so that, ended and started again, it goes on. Holds plain values and tensors.

    Attributes:
        kept: the state that an earlier run of the same work has kept last, or None.
    """

    def __init__(self, directory: Path, stage: str, key: object) -> None:
        """`key` holds all that determines the outputs: with another one, earlier work is of no use.

        Raises:
            InputError: the file is damaged.
        """
        self.path = checkpoint_path(directory, stage, key)
        self.state = thaw(self._read(), where=self.path) if self.path.exists() else None

    def _read(self) -> bytes:
        check_regular(self.path)
        try:
            contents = self.path.read_bytes()
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror})") from None
        contents, seal = contents[:-SEAL_BYTES], contents[-SEAL_BYTES:]
        if seal != self._seal(contents):
            raise InputError(_damaged(self.path))
        return contents

    def _seal(self, contents: bytes) -> bytes:
        return hashlib.sha256(self.path.name.encode() + b"\0" + contents).digest()

    def save(self, state: dict) -> None:
        self.write(freeze(state))

    def write(self, contents: bytes) -> None:
        with atomic_write(self.path) as temporary:
            temporary.write_bytes(contents + self._seal(contents))

    def remove(self) -> None:
        remove_checkpoint(self.path)


def freeze(state: dict) -> bytes:
    """The contents of a checkpoint. Not written by PyTorch itself, which does not say so where a disk is full."""
    # Imported here: stages that have nothing to save do without.
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def thaw(contents: bytes, *, where: Path | str = "checkpoint") -> dict:
    """The state in a checkpoint's contents; nothing in them is executed.

    Raises:
        InputError: they are damaged.
    """
    import torch

    try:
        state = torch.load(io.BytesIO(contents), map_location="cpu", weights_only=True)
    except Exception:  # of any kind: damaged bytes mean anything to an unpickler
        state = None
    if not isinstance(state, dict):
        raise InputError(_damaged(where))
    return state


def _damaged(where: Path | str) -> str:
    return f"{where}: is damaged; remove it to begin this stage anew"
