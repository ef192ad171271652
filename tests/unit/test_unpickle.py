"""The unpickler: data of every protocol come out as they went in; from hostile files nothing runs or grows."""

import contextlib
import io
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from metantk.data import unpickle
from metantk.data.unpickle import MAPPED_BYTES, PickleFile
from metantk.runtime.files import InputError

RNG = np.random.default_rng(0)
VALUES = {
    "data": RNG.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8),
    "fortran": np.asfortranarray(np.arange(600.0).reshape(20, 30)),
    "big-endian": np.arange(100, dtype=">i4"),
    "bools": np.array([True, False]),
    "text": np.array(["a", "bcd"]),
    "scalar": np.int64(-5),
    "labels": [0, 255, 256, 65536, -1, 2**40, -(2**70)],
    "floats": [1.5, -2.0],
    "truth": [True, False, None],
    "class_dict": {"n01532829": [0, 1], "n01558993": [2, 3, 4]},
    "bytes": bytes(range(256)) * 3,
    "no bytes": b"",
    "long text": "é" * 2 * MAPPED_BYTES,
}


def load(path, content):
    path.write_bytes(content)
    return PickleFile(path).value


@pytest.fixture
def file(tmp_path):
    return tmp_path / "file.pickle"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_data_of_every_protocol_come_out_as_they_went_in(file, protocol):
    value = load(file, pickle.dumps(VALUES, protocol))
    assert list(value) == list(VALUES)
    for name, expected in VALUES.items():
        if isinstance(expected, np.ndarray):
            assert value[name].dtype == expected.dtype
            np.testing.assert_array_equal(value[name], expected)
            assert not value[name].flags.writeable
        else:
            assert value[name] == expected, name
            assert type(value[name]) is (int if name == "scalar" else type(expected))


def python_2_array(array, *, binary: bool) -> bytes:
    """The instructions by which Python 2 writes an array: its bytes are a string."""
    shape = b"(" + b"".join(b"I%d\n" % size for size in array.shape) + b"t"
    dtype = b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
    data = b"T" + struct.pack("<i", array.nbytes) + array.tobytes() if binary else b"S" + _quoted(array) + b"\n"
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n"
        + shape
        + dtype
        + b"I00\n"
        + data
        + b"tb"
    )


def _quoted(array):
    return b"'" + b"".join(b"\\x%02x" % byte for byte in array.tobytes()) + b"'"


@pytest.mark.parametrize("binary", [True, False])
def test_arrays_and_text_of_python_2(file, binary):
    array = VALUES["data"]
    content = (
        b"(dS'data'\n"
        + python_2_array(array, binary=binary)
        + b"sU\x06labels(lp1\nI7\naI01\na sS'name'\nS'caf\\xe9'\ns."
    )
    value = load(file, content.replace(b"a sS", b"asS"))
    np.testing.assert_array_equal(value["data"], array)
    assert value["labels"] == [7, True]
    assert value["name"] == "café"


def test_large_arrays_stay_in_the_file(file):
    array = RNG.integers(0, 256, 20_000_000, dtype=np.uint8)
    with file.open("wb") as out:
        pickle.dump({"data": array}, out, protocol=4)
    tracemalloc.start()
    try:
        pickled = PickleFile(file)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    pickled.release()
    np.testing.assert_array_equal(pickled.value["data"], array)


class Call:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Persistent(pickle.Pickler):
    def persistent_id(self, value):
        return "id" if value == "persistent" else None


def persistent(protocol) -> bytes:
    buffer = io.BytesIO()
    Persistent(buffer, protocol).dump(["persistent"])
    return buffer.getvalue()


class Plain:
    """Pickles to an instance with a state."""

    def __init__(self):
        self.state = 1


NDARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
FROM_BUFFER = b"cnumpy._core.numeric\n_frombuffer\n(S'ab'\ncnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I2\ntS'C'\ntR"
U1_NEW = b"cnumpy\ndtype\n(S'u1'\nI0\nI1\ntR"
U1 = U1_NEW + b"(I3\nS'|'\nNNNI-1\nI-1\nI0\ntb"
REPEATED_TEXT = b"X" + struct.pack("<I", 100_000) + b"x" * 100_000 + b"p0\n0"
ENCODE = b"c_codecs\nencode\n(g0\nS'latin1'\ntR0"


def hostile(canary) -> dict[str, tuple[bytes, str]]:
    """Name: a pickle and what is said of it. Those that run something would make the file `canary`."""
    shell, code = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
    run = (eval, code)
    attack = "may be an attack, nothing was run"
    return {
        "os.system": (pickle.dumps(Call(os.system, shell)), rf"system', which no data set needs: it {attack}"),
        "os.system, protocol 0": (pickle.dumps(Call(os.system, shell), 0), attack),
        "eval": (pickle.dumps(Call(*run)), r"'builtins.eval'"),
        "exec": (pickle.dumps(Call(exec, code)), r"'builtins.exec'"),
        "a chain": (pickle.dumps(Call(getattr, Call(__import__, "os"), "system")), r"'builtins.getattr'"),
        "getattr": (pickle.dumps(Call(getattr, os.system, "__call__")), attack),
        "numpy.load": (b"cnumpy\nload\n(S'x.npy'\nNI01\ntR.", r"'numpy.load'"),
        "dotted name": (b"\x80\x04\x8c\x05numpy\x8c\x0dos.system.__x\x93.", "attack"),
        "an instance": (pickle.dumps(Plain()), attack),
        "an old instance": (b"(S'touch'\nios\nsystem\n.", r"INST.*nothing was run"),
        "an object": (b"(cos\nsystem\nS'touch'\no.", attack),
        "a new object": (b"\x80\x02cnumpy\nndarray\n)\x81.", r"NEWOBJ"),
        "an extension": (b"\x80\x02\x82\x01.", r"EXT1"),
        "persistent id": (persistent(2), r"BINPERSID"),
        "persistent id, protocol 0": (persistent(0), r"PERSID"),
        "a hidden argument": (pickle.dumps({"data": np.zeros(3), "x": [Call(*run)]}), r"'builtins.eval'"),
        "a call of an array": (NDARRAY + b"(tR.", "no name; nothing was run"),
        "a state for a list": (b"(l(dS'__class__'\nI1\nsb.", "no array; nothing was run"),
        "a state for an array that is whole": (
            b"\x80\x04" + FROM_BUFFER + b"(I1\n(I9\nt" + U1 + b"I00\nS'a'\ntb.",
            "no array; nothing was run",
        ),
        "a state for a function": (b"c_codecs\nencode\n}S'x'\nI1\nsb.", "no array; nothing was run"),
        "object array": (pickle.dumps(np.array([Call(*run)], dtype=object)), r"array of 'O8'; only numbers"),
        "record array": (pickle.dumps(np.zeros(2, [("a", "u1")])), "only numbers and strings are read"),
        "a made-up dtype state": (U1_NEW + b"(I3\nS'|'\n(I9\nI9\ntNNI-1\nI-1\nI0\ntb.", "records"),
        "huge empty array": (
            NDARRAY.replace(b"(I0\n", b"(I9999999999999\n") + b".",
            r"shape \(9999999999999,\) out of nothing",
        ),
        "huge shape": (
            NDARRAY + b"(I1\n(I99999999\nI99999\nt" + U1 + b"I00\nS'abc'\ntb.",
            r"claims \d+ bytes .* has 3",
        ),
        "negative shape": (NDARRAY + b"(I1\n(I-1\nt" + U1 + b"I00\nS''\ntb.", "impossible shape"),
        "endless shape": (NDARRAY + b"(I1\n(L" + b"9" * 30 + b"L\nt" + U1 + b"I00\nS''\ntb.", "impossible shape"),
        "huge items": (b"cnumpy\ndtype\n(S'S99999999999'\nI0\nI1\ntR.", "only numbers and strings"),
        "items without size": (b"cnumpy\ndtype\n(S'S0'\nI0\nI1\ntR.", "only numbers and strings"),
        "a huge number": (b"\x80\x02\x8b" + struct.pack("<I", 500) + b"\xff" * 500 + b".", r"LONG4"),
        "a huge number in digits": (b"I" + b"9" * 5000 + b"\n.", "damaged near byte"),
        "a length beyond the end": (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"x.", "more bytes are announced"),
        "a negative length": (b"T" + struct.pack("<i", -5) + b"abcde.", "damaged near byte"),
        "a copy again and again": (REPEATED_TEXT + ENCODE * 1000 + b"N.", "unfolds to far more than its size"),
        "deep recursion": (b"]" * 100_000 + b"a" * 99_999 + b".", "nested deeper than 50"),
        "deep key": (b"}" + b")" + b"\x85" * 100_000 + b"Ns.", "a key that is a tuple"),
        "containers without end": (b"]" * 2_000, "lists, tuples and the like"),
        "truncated": (pickle.dumps(VALUES)[:-2000], "cut off|damaged"),
        "truncated in front": (pickle.dumps(VALUES)[3:], "no pickle|damaged|cut off"),
        "cut behind the last item": (pickle.dumps(VALUES)[:-1], "cut off"),
        "wrong protocol": (b"\x80\xc8.", "is no whole pickle"),
        "HTML": (b"\n<!DOCTYPE html><html><body>Quota exceeded</body></html>", "is a web page, not a pickle"),
        "a zip file": (b"PK\x03\x04" + b"\0" * 100, "no pickle|damaged"),
        "nothing": (b"", "is empty; expected a pickle"),
        "nothing but zeros": (b"\0" * 1000, "is no whole pickle .*; download it again"),
        "an array without bytes": (NDARRAY + b".", "an array without bytes"),
        "a type": (b"cnumpy\ndtype\n.", "holds a type"),
        "a lonely mark": (b"(.", "damaged"),
        "an unknown memo": (b"g77\n.", "damaged"),
    }


NAMES = list(hostile("canary"))


def test_there_are_many_hostile_files():
    assert len(NAMES) >= 15


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_file_runs_nothing_and_is_named(tmp_path, file, name, monkeypatch):
    if name == "containers without end":
        monkeypatch.setattr(unpickle, "MOST_OBJECTS", 1_000)
    content, message = hostile(tmp_path / "canary")[name]
    with pytest.raises(InputError, match=message) as raised:
        load(file, content)
    assert str(raised.value).startswith(f"{file}: ")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400
    assert not (tmp_path / "canary").exists()


def test_the_canary_would_sing(tmp_path):
    """What the tests above rely on: Python's own unpickler runs these files."""
    for name in ("os.system", "eval", "exec", "object array", "a hidden argument"):
        canary = tmp_path / name.replace(" ", "_")
        pickle.loads(hostile(canary)[name][0])
        assert canary.exists()


def test_pairs_of_pairs_do_not_unfold(file):
    """2^40 leaves, in a hundred bytes."""
    value = load(file, b"(I1\nI2\nt" + b"2\x86" * 40 + b".")
    for _ in range(40):
        assert value[0] is value[1]
        value = value[0]
    assert value == [1, 2]


@pytest.mark.parametrize("name", ["huge empty array", "huge shape", "a length beyond the end", "deep recursion"])
def test_a_bomb_allocates_little(tmp_path, file, name):
    content, message = hostile(tmp_path / "canary")[name]
    file.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=message):
            PickleFile(file)
        assert tracemalloc.get_traced_memory()[1] < 200 * len(content) + 1_000_000
    finally:
        tracemalloc.stop()


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"absent: cannot be read \(No such file"):
        PickleFile(tmp_path / "absent")


def test_changed_bytes_anywhere_give_data_or_a_clear_line(file):
    """Damage of every kind: never another error than ours, never a crash."""
    content = pickle.dumps({key: VALUES[key] for key in ("text", "labels", "class_dict", "truth")}, 2)
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(1500):
        damaged = bytearray(content)
        for place in rng.integers(len(content), size=rng.integers(1, 4)):
            damaged[place] = rng.integers(256)
        with contextlib.suppress(InputError):
            load(file, bytes(damaged))
            continue
        refused += 1
    assert 500 < refused < 1500
