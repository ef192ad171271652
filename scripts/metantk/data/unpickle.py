"""Read a pickle that nobody vouches for: arrays, strings, numbers and containers come out, and nothing runs.

A pickle is a program for a small stack machine, and Python's own unpickler lets that program call what it likes.
This one knows the instructions that build plain data and refuses all others. Five names are understood (numpy's
array, dtype, scalar and buffer constructors, and the codec by which Python 3 writes bytes for Python 2), and even
those are never called: their arguments are checked and the value is built here.

Nothing is allocated that the file does not hold. Long strings stay in the file, which is mapped into memory, and
arrays are read-only views of it; every length is compared with what is left of the file, every array with its
bytes. Strings of Python 2 are read as latin-1, which keeps every byte.
"""

import codecs
import math
import mmap
import pickletools
import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from metantk.runtime.files import InputError

MAPPED_BYTES = 256  # strings of Python 2 and bytes at least this long may be arrays, and stay in the file
LONGEST_NUMBER = 32  # bytes or digits
RELEASE_BYTES = 64 << 20  # read on through so much of the file, then let go of the memory it was mapped into
DEEPEST_NESTING = 50  # containers in containers; the published files have 3
MOST_CONTAINERS = 20_000_000  # lists, tuples, ...: one byte of a file can make one of 200 bytes
ITEM_TYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|[SU][1-9]\d{0,4})")

_NAMES: dict[str, str] = {
    "numpy.ndarray": "array type",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",
    **{f"numpy.{core}.multiarray._reconstruct": "reconstruct" for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray.scalar": "scalar" for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": "from buffer" for core in ("core", "_core")},
    "__builtin__.bytes": "bytes",  # how Python 3 writes b"" for Python 2
    "builtins.bytes": "bytes",
}


class PickleFile:
    """What a pickle holds.

    Attributes:
        value: of None, bool, int, float, str, bytes, list (tuples, too, come out as lists), dict and
            read-only numpy arrays of numbers or strings.

    Raises:
        InputError: the file is missing, is no pickle, is cut off, or asks for anything but plain data.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
        except ValueError:
            raise InputError(f"{path}: is empty; expected a pickle, download it again") from None
        self._check_start()
        try:
            self.value = _finished(_Machine(self._map).run())
        except _RefusedError as error:
            raise InputError(f"{path}: {error}") from None

    def _check_start(self) -> None:
        start = self._map[:512].lstrip().lower()
        if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
            raise InputError(f"{self.path}: is a web page, not a pickle; the download went wrong, repeat it")

    def release(self) -> None:
        """Let go of the memory into which reading has brought parts of the file; they are read again on demand."""
        self._map.madvise(mmap.MADV_DONTNEED)


class _RefusedError(Exception):
    """Why a pickle is not read, as a clause after its path."""


class _Name(str):
    """One of the understood names on the stack."""


class _Stored:
    """A string whose bytes stay in the file."""

    def __init__(self, view: memoryview, *, is_text: bool) -> None:
        self.view, self.is_text = view, is_text
        self._plain: str | bytes | None = None

    def plain(self) -> str | bytes:
        """The string in memory, once, however often the pickle refers to it."""
        if self._plain is None:
            data = bytes(self.view)
            self._plain = data.decode("latin-1") if self.is_text else data
        return self._plain


class _Dtype:
    """A dtype in the making: its item type, and its byte order once the pickle has told it."""

    def __init__(self, code: object) -> None:
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

    def set_state(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _RefusedError("holds an array without shape and bytes")
        _, shape, dtype, fortran, data = state
        self.array = _array(data, dtype, shape, "F" if fortran == 1 else "C")


def _array(data: object, dtype: object, shape: object, order: str) -> np.ndarray:
    """A read-only view of `data`, after all has been checked."""
    if not isinstance(dtype, _Dtype):
        raise _RefusedError("holds an array without an item type")
    if not (isinstance(shape, tuple) and len(shape) <= 8 and all(type(n) is int and 0 <= n < 2**40 for n in shape)):
        raise _RefusedError(f"holds an array of the impossible shape {_short(shape)}")
    if isinstance(data, _Stored):
        buffer = data.view
    elif isinstance(data, str):
        buffer = _latin_1(data)
    elif isinstance(data, bytes):
        buffer = data
    else:
        raise _RefusedError(f"holds an array made of a {type(data).__name__}, not of bytes")
    expected = math.prod(shape) * dtype.dtype.itemsize
    if len(buffer) != expected:
        raise _RefusedError(f"holds an array that claims {expected} bytes (shape {shape}) and has {len(buffer)}")
    # An empty array needs no buffer, and numpy takes none; what else its shape says means nothing.
    array = np.ndarray(shape, dtype.dtype, buffer, order=order) if expected else np.empty(0, dtype.dtype)
    array.flags.writeable = False
    return array


def _latin_1(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise _RefusedError("holds bytes that are no bytes (characters above 255)") from None


def _short(value: object) -> str:
    """A value in a few characters. Containers are named only: their text could be endless."""
    if isinstance(value, tuple) and len(value) <= 8 and all(isinstance(split, int) for split in value):
        return str(value) if all(abs(split) < 1 << 64 for split in value) else "huge"
    if isinstance(value, str | bytes):
        return repr(value[:40])
    return repr(value) if isinstance(value, int | float | None) else f"a {type(value).__name__}"


class _Machine:
    """The stack machine. `run` returns what the pickle leaves on the stack, parts of it still unfinished."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.view = data, memoryview(data)
        self.end, self.position, self.released = len(data), 0, 0
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.containers = 0
        self.copied = 0

    def run(self) -> object:
        try:
            while (code := self._take(1)) != b".":
                action = _ACTIONS.get(code)
                if action is None:
                    raise _RefusedError(_describe_opcode(code, self.position - 1))
                action(self)
            return self._pop()
        except (IndexError, KeyError):
            # An empty stack, a missing mark, an unknown memo: what damaged files lead to.
            raise _RefusedError(f"is no whole pickle (damaged near byte {self.position})") from None

    # Reading.

    def _span(self, length: int) -> tuple[int, int]:
        start, stop = self.position, self.position + length
        if length < 0 or stop > self.end:
            raise _RefusedError(f"is cut off or damaged at byte {start}: {length} more bytes are announced")
        self.position = stop
        if stop - self.released > RELEASE_BYTES:
            self.data.madvise(mmap.MADV_DONTNEED)
            self.released = stop
        return start, stop

    def _take(self, length: int) -> bytes:
        start, stop = self._span(length)
        return self.data[start:stop]

    def _unpack(self, layout: str) -> int | float:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _line(self) -> bytes:
        stop = self.data.find(b"\n", self.position)
        if stop < 0:
            raise _RefusedError(f"is no pickle, or cut off (a line without end at byte {self.position})")
        line = self._take(stop - self.position)
        self.position += 1
        return line.removesuffix(b"\r")

    def _spend(self, length: int) -> None:
        """Account for bytes that are copied; a pickle can ask for the same copy again and again."""
        self.copied += length
        if self.copied > 4 * self.end + (1 << 20):
            raise _RefusedError("unfolds to far more than its size; it is not read")

    # The stack.

    def _pop(self) -> object:
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise IndexError
        return self.stack.pop()

    def _top(self) -> object:
        return self.stack[-1]

    def _pop_to_mark(self) -> list:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def push(self, value: object) -> None:
        self.stack.append(value)

    def push_container(self, value: object) -> None:
        self.containers += 1
        if self.containers > MOST_CONTAINERS:
            raise _RefusedError(f"makes more than {MOST_CONTAINERS} lists, tuples and the like; it is not read")
        self.stack.append(value)

    # Numbers and strings.

    def push_int_line(self) -> None:
        text = self._line()
        self.push(text == b"01" if text in (b"00", b"01") else _int(text))  # how protocol 0 writes truth values

    def push_long_line(self) -> None:
        self.push(_int(self._line().removesuffix(b"L")))

    def push_float_line(self) -> None:
        text = self._line()
        try:
            self.push(float(text[:LONGEST_NUMBER]))
        except ValueError:
            raise _RefusedError(f"is no pickle (a number that is none before byte {self.position})") from None

    def push_long(self, length: int) -> None:
        if length > LONGEST_NUMBER:
            raise _RefusedError(f"holds a number of {length} bytes; no data set does")
        self.push(int.from_bytes(self._take(length), "little", signed=True))

    def push_text_line(self) -> None:
        line = self._line()
        self._spend(len(line))
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise _RefusedError(f"is no pickle (a string without quotes before byte {self.position})")
        try:
            text = codecs.escape_decode(line[1:-1])[0]
        except ValueError:
            raise _RefusedError(f"is no pickle (a damaged string before byte {self.position})") from None
        self.push(text.decode("latin-1"))

    def push_unicode(self, data: bytes, encoding: str = "utf-8") -> None:
        self._spend(len(data))
        try:
            self.push(data.decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict"))
        except UnicodeDecodeError:
            raise _RefusedError(f"is no pickle (damaged text before byte {self.position})") from None

    def push_bytes(self, length: int, *, is_text: bool) -> None:
        start, stop = self._span(length)
        stored = _Stored(self.view[start:stop], is_text=is_text)
        self.push(stored if length >= MAPPED_BYTES else stored.plain())

    # Containers.

    def append(self, items: list) -> None:
        target = self._top()
        if not isinstance(target, list):
            raise _RefusedError("is no whole pickle (appends to what is no list)")
        target.extend(items)

    def set_items(self, items: list) -> None:
        target = self._top()
        if not isinstance(target, dict) or len(items) % 2:
            raise _RefusedError("is no whole pickle (sets items of what is no dictionary)")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_hashable(key)] = value

    def push_dict(self, items: list) -> None:
        self.push_container({})
        self.set_items(items)

    # Names, and what stands for calling them.

    def push_name(self, module: object, name: object) -> None:
        place = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "?"
        if place not in _NAMES:
            raise _RefusedError(
                f"wants to call {place[:80]!a}, which no data set needs: it may be an attack, nothing was run"
            )
        self.push(_Name(_NAMES[place]))

    def push_stack_name(self) -> None:
        name, module = self._pop(), self._pop()
        self.push_name(module, name)

    def push_line_name(self) -> None:
        module, name = self._line(), self._line()
        self.push_name(module.decode("latin-1"), name.decode("latin-1"))

    def reduce(self) -> None:
        arguments, name = self._pop(), self._pop()
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise _RefusedError("wants to call something that has no name; nothing was run")
        build = _BUILDERS.get((str(name), len(arguments)))
        if build is None:
            raise _RefusedError(f"makes a {name} in an unknown way; nothing was run")
        self.push_container(build(self, *arguments))

    def build(self) -> None:
        state, target = self._pop(), self._top()
        if not isinstance(target, _Array | _Dtype):
            raise _RefusedError("wants to change the state of what is no array; nothing was run")
        target.set_state(state)

    def new_array(self, kind: object, shape: object, _code: object) -> _Array:
        # The shape is told again with the bytes; one that is not empty would be filled with nothing.
        if kind != "array type" or not isinstance(kind, _Name) or shape != (0,):
            raise _RefusedError(f"makes an array of shape {_short(shape)} out of nothing; it is not read")
        return _Array()

    def new_dtype(self, code: object, _align: object, _copy: object) -> _Dtype:
        return _Dtype(code)

    def new_scalar(self, dtype: object, data: object) -> object:
        return _array(data, dtype, (), "C").item()

    def array_from_buffer(self, data: object, dtype: object, shape: object, order: object) -> np.ndarray:
        return _array(data, dtype, shape, "F" if order == "F" else "C")

    def encode(self, text: object, encoding: object) -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise _RefusedError("holds bytes in an unknown encoding")
        self._spend(len(text))
        return _latin_1(text)

    def empty_bytes(self) -> bytes:
        return b""

    # Memory of the machine.

    def recall(self, number: int) -> None:
        self.push(self.memo[number])

    def memorise(self, number: int) -> None:
        self.memo[number] = self._top()


def _int(text: bytes) -> int:
    if len(text) > LONGEST_NUMBER or not text.lstrip(b"-").isdigit():
        raise _RefusedError(f"is no pickle (expected a whole number, found {text[:20]!r})")
    return int(text)


def _hashable(key: object) -> object:
    """A key of a dictionary; nested ones could exhaust the stack of the interpreter when they are hashed."""
    if isinstance(key, _Stored):
        return key.plain()
    if key is not None and not isinstance(key, str | bytes | int | float):
        raise _RefusedError(f"has a key that is a {type(key).__name__}; only text and numbers are read")
    return key


def _describe_opcode(code: bytes, position: int) -> str:
    if position == 0:
        return "is no pickle; download it again"
    opcode = pickletools.code2op.get(code.decode("latin-1"))
    if opcode is None:
        return f"is no whole pickle (damaged at byte {position})"
    return f"holds more than plain data ({opcode.name} at byte {position}): it may be an attack, nothing was run"


_BUILDERS: dict[tuple[str, int], Callable] = {
    ("reconstruct", 3): _Machine.new_array,
    ("dtype", 3): _Machine.new_dtype,
    ("scalar", 2): _Machine.new_scalar,
    ("from buffer", 4): _Machine.array_from_buffer,
    ("encode", 2): _Machine.encode,
    ("bytes", 0): _Machine.empty_bytes,
}

# By the byte of each instruction, as pickletools documents them. Absent: persistent ids, instances, objects,
# extension codes, out-of-band buffers, and sets, which no data set holds.
_ACTIONS: dict[bytes, Callable[[_Machine], None]] = {
    b"\x80": lambda m: _check_protocol(m._unpack("<B")),
    b"\x95": lambda m: m._unpack("<Q"),  # a frame: a hint for readers of streams
    # Numbers and None.
    b"N": lambda m: m.push(None),
    b"\x88": lambda m: m.push(True),
    b"\x89": lambda m: m.push(False),
    b"I": _Machine.push_int_line,
    b"L": _Machine.push_long_line,
    b"F": _Machine.push_float_line,
    b"J": lambda m: m.push(m._unpack("<i")),
    b"K": lambda m: m.push(m._unpack("<B")),
    b"M": lambda m: m.push(m._unpack("<H")),
    b"G": lambda m: m.push(m._unpack(">d")),
    b"\x8a": lambda m: m.push_long(m._unpack("<B")),
    b"\x8b": lambda m: m.push_long(m._unpack("<I")),
    # Strings and bytes.
    b"S": _Machine.push_text_line,
    b"V": lambda m: m.push_unicode(m._line(), "raw-unicode-escape"),
    b"X": lambda m: m.push_unicode(m._take(m._unpack("<I"))),
    b"\x8c": lambda m: m.push_unicode(m._take(m._unpack("<B"))),
    b"\x8d": lambda m: m.push_unicode(m._take(m._unpack("<Q"))),
    b"T": lambda m: m.push_bytes(m._unpack("<i"), is_text=True),
    b"U": lambda m: m.push_bytes(m._unpack("<B"), is_text=True),
    b"B": lambda m: m.push_bytes(m._unpack("<I"), is_text=False),
    b"C": lambda m: m.push_bytes(m._unpack("<B"), is_text=False),
    b"\x8e": lambda m: m.push_bytes(m._unpack("<Q"), is_text=False),
    b"\x96": lambda m: m.push_bytes(m._unpack("<Q"), is_text=False),  # a bytearray
    # Containers.
    b"(": lambda m: m.marks.append(len(m.stack)),
    b")": lambda m: m.push_container(()),
    b"t": lambda m: m.push_container(tuple(m._pop_to_mark())),
    b"\x85": lambda m: m.push_container((m._pop(),)),
    b"\x86": lambda m: m.push_container((m._pop(), m._pop())[::-1]),
    b"\x87": lambda m: m.push_container((m._pop(), m._pop(), m._pop())[::-1]),
    b"]": lambda m: m.push_container([]),
    b"l": lambda m: m.push_container(m._pop_to_mark()),
    b"a": lambda m: m.append([m._pop()]),
    b"e": lambda m: m.append(m._pop_to_mark()),
    b"}": lambda m: m.push_container({}),
    b"d": lambda m: m.push_dict(m._pop_to_mark()),
    b"s": lambda m: m.set_items([m._pop(), m._pop()][::-1]),
    b"u": lambda m: m.set_items(m._pop_to_mark()),
    # The stack and the memo.
    b"0": _Machine._pop,
    b"1": _Machine._pop_to_mark,
    b"2": lambda m: m.push(m._top()),
    b"p": lambda m: m.memorise(_int(m._line())),
    b"q": lambda m: m.memorise(m._unpack("<B")),
    b"r": lambda m: m.memorise(m._unpack("<I")),
    b"\x94": lambda m: m.memorise(len(m.memo)),
    b"g": lambda m: m.recall(_int(m._line())),
    b"h": lambda m: m.recall(m._unpack("<B")),
    b"j": lambda m: m.recall(m._unpack("<I")),
    # Names and calls.
    b"c": _Machine.push_line_name,
    b"\x93": _Machine.push_stack_name,
    b"R": _Machine.reduce,
    b"b": _Machine.build,
}


def _check_protocol(number: int) -> None:
    if number > 5:
        raise _RefusedError(f"has pickle protocol {number}; 0 to 5 are known")


def _finished(value: object) -> object:
    """Put arrays and strings in their places, level by level: what is nested deep must not recurse.

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
        elif isinstance(item, _Stored):
            container[key] = item.plain()
        elif isinstance(item, _Array):
            if item.array is None:
                raise _RefusedError("is no whole pickle (an array without bytes)")
            container[key] = item.array
        elif isinstance(item, _Name | _Dtype):
            raise _RefusedError("holds a type where data are expected")
        if isinstance(item, list | dict) and id(item) not in seen:
            seen.add(id(item))
            pending.append(item)
    return pending
