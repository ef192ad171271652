"""Read an untrusted pickle: arrays, strings, numbers and containers come out, and nothing of it runs.

The standard library's unpickler, restricted. Only instructions that build plain data are left, and only the six
names below can be called; each leads to a function of this module that checks its arguments. Lengths are compared
with what is left of the file, and arrays with their bytes, so nothing is allocated that the file does not hold.

It is the unpickler's Python form, as PyTorch and dill use it: the C form cannot be told which instructions to
refuse, and keeps one or two copies of every string, gigabytes for tieredImageNet. Here, long strings stay in the
mapped file, and arrays are read-only views of it.
"""

import math
import mmap
import pickle
import pickletools
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from metantk.runtime.files import InputError

MAPPED_BYTES = 4096  # bytes and strings of Python 2 that are at least this long stay in the file
RELEASE_BYTES = 64 << 20  # the mapped memory is given back after reading so much
MOST_OBJECTS = 50_000_000  # containers and remembered values
DEEPEST_NESTING = 50  # containers in containers; the published files have 3
ITEM_TYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|[SU][1-9]\d{0,4})")
ATTACK = "it may be an attack, nothing was run"

# All that plain data need; classes, persistent ids, extension codes, sets and out-of-band buffers are left out.
PLAIN_INSTRUCTIONS = """
    PROTO FRAME STOP POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8
    BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 GET BINGET LONG_BINGET GLOBAL STACK_GLOBAL
    APPEND APPENDS SETITEM SETITEMS BUILD
"""
# They make something that takes memory, 200 bytes for one of the file.
COUNTED_INSTRUCTIONS = """
    MARK TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 LIST EMPTY_LIST DICT EMPTY_DICT
    PUT BINPUT LONG_BINPUT MEMOIZE REDUCE
"""


class PickleFile:
    """What a pickle holds.

    Attributes:
        value: None, bool, int, float, str, bytes, list, dict and read-only numpy arrays of numbers or strings.
            Tuples come out as lists. Bytes of `MAPPED_BYTES` or more, and as long strings of Python 2 (shorter
            ones are read as latin-1), are memoryviews of the file.

    Raises:
        InputError: the file is missing, is no pickle, is cut off, or holds anything but plain data.
    """

    def __init__(self, path: Path | str) -> None:
        try:
            with Path(path).open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
        except ValueError:
            raise InputError(f"{path}: is empty; expected a pickle, download it again") from None
        if self._map[:512].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
            raise InputError(f"{path}: is a web page, not a pickle; the download went wrong, repeat it")
        mapped = _MappedFile(self._map)
        try:
            self.value = _finished(_PlainUnpickler(mapped).load())
        except _RefusedError as error:
            raise InputError(f"{path}: {error}") from None
        except Exception:  # of any kind: damaged files make the unpickler fail anywhere
            where = f"damaged near byte {mapped.position}"
            raise InputError(f"{path}: is no whole pickle ({where}); download it again") from None

    def release(self) -> None:
        """Give back the memory into which reading has brought parts of the file; they are read again on demand."""
        self._map.madvise(mmap.MADV_DONTNEED)


class _RefusedError(Exception):
    """Why a pickle is not read, as a clause after its path."""


class _MappedFile:
    """The file as the unpickler reads it: long reads are views of the mapped memory."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.view = data, memoryview(data)
        self.position = self.released = 0

    def read(self, length: int) -> bytes | memoryview:
        start, stop = self.position, self.position + length
        if stop > len(self.data):
            raise _RefusedError(f"is cut off or damaged at byte {start}: {length} more bytes are announced")
        self.position = stop
        if stop - self.released > RELEASE_BYTES:
            self.data.madvise(mmap.MADV_DONTNEED)
            self.released = stop
        return self.view[start:stop] if length >= MAPPED_BYTES else self.data[start:stop]

    def readline(self) -> bytes:
        stop = self.data.find(b"\n", self.position) + 1
        if not stop:
            raise _RefusedError(f"is no pickle, or cut off (a line without end at byte {self.position})")
        line, self.position = self.data[self.position : stop], stop
        return line.removesuffix(b"\r\n") + b"\n" if line.endswith(b"\r\n") else line


class _Dtype:
    """A dtype in the making: its item type, and its byte order once the pickle has told it."""

    def __init__(self, code: object, _align: object, _copy: object) -> None:
        if not isinstance(code, str) or not ITEM_TYPE.fullmatch(code):
            raise _RefusedError(f"holds an array of {_short(code)}; only numbers and strings are read")
        self.dtype = np.dtype(code)

    def set_state(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[2:5] != (None, None, None):
            raise _RefusedError("holds an array of records; only numbers and strings are read")
        if state[1] not in ("<", ">", "|", "="):
            raise _RefusedError(f"holds an array with the unknown byte order {_short(state[1])}")
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array in the making; `array` once the pickle has told its shape and bytes."""

    array: np.ndarray | None = None

    def __init__(self, kind: object, shape: object, _code: object) -> None:
        # The shape is told again with the bytes; one that is not empty would be filled with nothing.
        if kind is not _ARRAY_TYPE or shape != (0,):
            raise _RefusedError(f"makes an array of shape {_short(shape)} out of nothing; it is not read")

    def set_state(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _RefusedError("holds an array without shape and bytes")
        _, shape, dtype, fortran, data = state
        self.array = _from_buffer(data, dtype, shape, "F" if fortran == 1 else "C")


def _from_buffer(data: object, dtype: object, shape: object, order: object) -> np.ndarray:
    """A read-only view of `data`, after all has been checked."""
    if not isinstance(dtype, _Dtype):
        raise _RefusedError("holds an array without an item type")
    if not (isinstance(shape, tuple) and len(shape) <= 8 and all(type(n) is int and 0 <= n < 2**40 for n in shape)):
        raise _RefusedError(f"holds an array of the impossible shape {_short(shape)}")
    if isinstance(data, str):  # as Python 2 wrote it
        data = data.encode("latin-1")
    if not isinstance(data, bytes | memoryview):
        raise _RefusedError(f"holds an array made of a {type(data).__name__}, not of bytes")
    expected = math.prod(shape) * dtype.dtype.itemsize
    if len(data) != expected:
        raise _RefusedError(f"holds an array that claims {expected} bytes (shape {shape}) and has {len(data)}")
    # An empty array needs no buffer, and numpy takes none; what else its shape says means nothing.
    order = "F" if order == "F" else "C"
    array = np.ndarray(shape, dtype.dtype, data, order=order) if expected else np.empty(0, dtype.dtype)
    array.flags.writeable = False
    return array


def _scalar(dtype: object, data: object) -> object:
    return _from_buffer(data, dtype, (), "C").item()


def _empty_bytes() -> bytes:
    """How Python 3 writes b"" for Python 2."""
    return b""


_ARRAY_TYPE = object()  # stands for numpy.ndarray, which is never called


class _PlainUnpickler(pickle._Unpickler):
    """Of the standard library, with nothing left that could call or change anything but this module's functions."""

    def __init__(self, file: _MappedFile) -> None:
        super().__init__(file)
        self.file, self.objects, self.copied, self.most_copied = file, 0, 0, 4 * len(file.data) + (1 << 20)
        self.names: dict[str, object] = {
            "numpy.ndarray": _ARRAY_TYPE,
            "numpy.dtype": _Dtype,
            "_codecs.encode": self.encode,
            "__builtin__.bytes": _empty_bytes,
            "builtins.bytes": _empty_bytes,
        }
        for core in ("numpy.core", "numpy._core"):
            self.names |= {f"{core}.multiarray._reconstruct": _Array, f"{core}.multiarray.scalar": _scalar}
            self.names[f"{core}.numeric._frombuffer"] = _from_buffer

    def find_class(self, module: str, name: str) -> object:
        place = f"{module}.{name}"
        if place not in self.names:
            raise _RefusedError(f"wants to call {place[:80]!a}, which no data set needs: {ATTACK}")
        return self.names[place]

    def encode(self, text: str, encoding: object) -> bytes:
        """How Python 3 writes bytes for Python 2. A pickle can ask for the same copy again and again."""
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise _RefusedError("holds bytes in an unknown encoding")
        self.copied += len(text)
        if self.copied > self.most_copied:
            raise _RefusedError("unfolds to far more than its size; it is not read")
        return text.encode("latin-1")

    def _decode_string(self, value: bytes | memoryview) -> str | memoryview:
        return value if isinstance(value, memoryview) else value.decode("latin-1")

    def _load_frame(self) -> None:
        self.read(8)  # a frame's length: a hint for readers of streams

    def _load_bytearray(self) -> None:
        self.append(self.read(struct.unpack("<Q", self.read(8))[0]))

    def _load_reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not any(function is known for known in self.names.values()) or not isinstance(arguments, tuple):
            raise _RefusedError("wants to call something that has no name; nothing was run")
        self.append(function(*arguments))

    def _load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if not isinstance(target, _Array | _Dtype):
            raise _RefusedError("wants to change the state of what is no array; nothing was run")
        target.set_state(state)

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set_items(items)

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def _load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def _set_items(self, items: list) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise _RefusedError("is no whole pickle (sets items of what is no dictionary)")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Hashing nested keys could exhaust the interpreter's stack.
            if key is not None and not isinstance(key, str | bytes | int | float):
                raise _RefusedError(f"has a key that is a {type(key).__name__}; only text and numbers are read")
            target[key] = value

    def _load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _load_append(self) -> None:
        self._extend([self.stack.pop()])

    def _extend(self, items: list) -> None:
        if not isinstance(self.stack[-1], list):
            raise _RefusedError("is no whole pickle (appends to what is no list)")
        self.stack[-1].extend(items)


def _counted(action: Callable[[_PlainUnpickler], None]) -> Callable[[_PlainUnpickler], None]:
    """An instruction that makes an object, of which there is a limit."""

    def act(unpickler: _PlainUnpickler) -> None:
        unpickler.objects += 1
        if unpickler.objects > MOST_OBJECTS:
            raise _RefusedError(f"makes more than {MOST_OBJECTS} lists, tuples and the like; it is not read")
        action(unpickler)

    return act


def _refusal(opcode: pickletools.OpcodeInfo) -> Callable[[_PlainUnpickler], None]:
    def refuse(unpickler: _PlainUnpickler) -> None:
        if unpickler.file.position == 1:
            raise _RefusedError("is no pickle; download it again")
        raise _RefusedError(f"holds more than plain data ({opcode.name}): {ATTACK}")

    return refuse


def _dispatch() -> dict[int, Callable[[_PlainUnpickler], None]]:
    """By the byte of each instruction; bytes that are no instruction are missing."""
    own = {"FRAME": "frame", "BYTEARRAY8": "bytearray"}
    own |= {name: name.lower() for name in ("REDUCE", "BUILD", "DICT", "SETITEM", "SETITEMS", "APPEND", "APPENDS")}
    actions = {}
    for opcode in pickletools.opcodes:
        code = ord(opcode.code)
        action = pickle._Unpickler.dispatch[code]
        if opcode.name in own:
            action = getattr(_PlainUnpickler, f"_load_{own[opcode.name]}")
        if opcode.name in COUNTED_INSTRUCTIONS.split():
            actions[code] = _counted(action)
        else:
            actions[code] = action if opcode.name in PLAIN_INSTRUCTIONS.split() else _refusal(opcode)
    return actions


_PlainUnpickler.dispatch = _dispatch()


def _short(value: object) -> str:
    """A value in a few characters. Containers are named only: their text could be endless."""
    if isinstance(value, tuple) and len(value) <= 8 and all(isinstance(size, int) for size in value):
        return str(value) if all(abs(size) < 1 << 64 for size in value) else "huge"
    return repr(value[:40]) if isinstance(value, str | bytes) else f"a {type(value).__name__}"


def _finished(value: object) -> object:
    """Put arrays in their places, level by level: what is nested deep must not recurse.

    Tuples cannot be changed in place; they become lists, each once, however often the pickle refers to it.
    """
    root = [value]
    lists: dict[int, tuple[tuple, list]] = {}
    seen = {id(root)}
    level: list = [root]
    for _ in range(DEEPEST_NESTING):
        level = [inner for container in level for inner in _finish_items(container, lists, seen)]
        if not level:
            return root[0]
    raise _RefusedError(f"has containers nested deeper than {DEEPEST_NESTING}; no data set does")


def _finish_items(container: list | dict, lists: dict[int, tuple[tuple, list]], seen: set[int]) -> list:
    """Finish the items of one container; the containers among them that were not met before."""
    pending = []
    for key, item in list(container.items() if isinstance(container, dict) else enumerate(container)):
        if isinstance(item, tuple):
            item = container[key] = lists.setdefault(id(item), (item, list(item)))[1]
        elif isinstance(item, _Array):
            if item.array is None:
                raise _RefusedError("is no whole pickle (an array without bytes)")
            container[key] = item.array
        elif isinstance(item, _Dtype) or callable(item) or item is _ARRAY_TYPE:
            raise _RefusedError("holds a type where data are expected")
        if isinstance(item, list | dict) and id(item) not in seen:
            seen.add(id(item))
            pending.append(item)
    return pending
