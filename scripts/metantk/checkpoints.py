"""Unfinished work of a stage, in one file beside its outputs."""

import io
from pathlib import Path

import torch

from metantk.storage import InputError, atomic_write, checkpoint_path, remove_checkpoint


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
        self.kept = thaw(self.path.read_bytes(), where=self.path) if self.path.exists() else None

    def keep(self, state: dict) -> None:
        self.write(freeze(state))

    def write(self, contents: bytes) -> None:
        with atomic_write(self.path) as temporary:
            temporary.write_bytes(contents)

    def remove(self) -> None:
        remove_checkpoint(self.path)


def freeze(state: dict) -> bytes:
    """The contents of a checkpoint. Not written by PyTorch itself, which does not say so where a disk is full."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def thaw(contents: bytes, *, where: Path | str = "checkpoint") -> dict:
    """The state in a checkpoint's contents; nothing in them is executed.

    Raises:
        InputError: they are damaged.
    """
    try:
        state = torch.load(io.BytesIO(contents), map_location="cpu", weights_only=True)
    except Exception:  # of any kind: damaged bytes mean anything to an unpickler
        state = None
    if not isinstance(state, dict):
        raise InputError(f"{where}: is damaged; remove it to begin this stage anew")
    return state
