# SPDX-License-Identifier: Apache-2.0
"""Files that may be anyone's: read once, following no link; text for a terminal; what killed runs leave."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from paritas import files, leftovers
from paritas.errors import InputError, PortError
from paritas.lower.mindspore.check import grammar
from paritas.printable import printable
from paritas.program import Note, TensorSpec
from paritas.pytree import described
from paritas.run.tensors import tensors
from paritas.run.values import check_feed
from paritas.store.manifest import is_dimension
from work import calls_of

# --- reading -----------------------------------------------------------------------------------


def kinds(directory: Path) -> dict[str, Path]:
    (directory / "file").write_bytes(b"x" * 100)
    os.mkfifo(directory / "pipe")
    (directory / "folder").mkdir()
    (directory / "link").symlink_to("file")
    (directory / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as made:
        here = os.getcwd()
        os.chdir(directory)
        made.bind("socket")
        os.chdir(here)
    return {path.name: path for path in directory.iterdir()}


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "loop", "socket"])
def test_only_a_regular_file_is_read_and_nothing_is_waited_for(kind: str, tmp_path: Path) -> None:
    with pytest.raises(files.NotPlain):
        files.read(kinds(tmp_path)[kind])
    assert bytes(files.read(tmp_path / "file")[0]) == b"x" * 100
    with pytest.raises(OSError, match="at most 99"):
        files.read(tmp_path / "file", 99)


def test_what_was_read_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"one")
    data, digest = files.read(tmp_path / "file")
    (tmp_path / "file").write_bytes(b"two")
    assert bytes(data) == b"one"
    assert digest == files.hashlib.sha256(b"one").hexdigest()


def test_folders_that_are_too_deep_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "/".join("d" * 30)).mkdir(parents=True)
    with pytest.raises(OSError, match="deep"):
        list(files.walk(tmp_path))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' + "9" * 5000 + "}", "{", ""])
def test_json_that_is_none_is_one_kind_of_error(text: str) -> None:
    with pytest.raises(ValueError):
        files.parsed(text)


# --- safetensors -------------------------------------------------------------------------------


def packed(header: object, body: bytes = bytes(32)) -> files.Buffer:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return memoryview(bytearray(len(raw).to_bytes(8, "little") + raw + body))


def entry(dtype: object = "F32", shape: object = (8,), offsets: object = (0, 32)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (packed({"a": entry(shape=[9])}), "32 bytes, which are no float32"),
        (packed({"a": entry(offsets=[0, 64], shape=[16])}), "ends at byte 64 of 32"),
        (packed({"a": entry(offsets=[0, 16], shape=[4])}), "16 bytes behind its last"),
        (packed({"a": entry(offsets=[4, 32], shape=[7])}), "begins at byte 4, where 0"),
        (packed({"a": entry(), "b": entry()}), "begins at byte 0, where 32"),
        (packed({"a": entry(shape=[-1])}), "no shape"),
        (packed({"a": entry(shape=[2**62, 2**62])}), "no float32"),
        (packed({"a": entry(dtype="X")}), "none of F64"),
        (packed({"a": entry(dtype=["F32"])}), "none of F64"),
        (packed({"a": 3}), "needs dtype"),
        (packed({"a": entry("BOOL", [32])}, b"\2" * 32), "neither 0 nor 1"),
        (packed(b'{"a": 1, "a": 2}'), "the same name twice"),
        (packed(b"[" * 100_000), "nested too deeply"),
        (packed(b"{"), "no JSON"),
        (packed(b"[]"), "no JSON object"),
        (memoryview(b"xx"), "too short"),
        (memoryview(b"\xff" * 99), "does not fit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_header_that_lies_is_refused(data: files.Buffer, says: str) -> None:
    with pytest.raises(PortError, match=says):
        tensors(data, "file")


def test_tensors_are_what_safetensors_wrote() -> None:
    from safetensors.numpy import save

    given = {"b": np.arange(6.0).reshape(2, 3), "a": np.array(3, np.int64), "c": np.array([True, False]), "d": np.zeros((0, 2), np.int8)}  # noqa: E501  # fmt: skip
    read = tensors(memoryview(bytearray(save(given))), "file")
    assert read.keys() == given.keys()
    for name, value in given.items():
        assert read[name].dtype == value.dtype
        np.testing.assert_array_equal(read[name], value)


def test_a_file_that_is_all_hole_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.touch()
    os.truncate(file, 1 << 40)
    for read in (files.read, files.sha256):
        with pytest.raises(OSError, match="almost none were written"):
            read(file)


# --- what a manifest may say -------------------------------------------------------------------


@pytest.mark.parametrize("text", ["s0", "2*s0 + 1", "s0**2", "Max(1, s0 - 3)", "(s0 - 1)//2", "s0 + s1"])
def test_dimensions_that_sympy_prints(text: str) -> None:
    assert is_dimension(text)


@pytest.mark.parametrize(
    "text",
    ["9**9**9", "s0**99", "2**(s0)", "s0.real", "x[0]", "'a'", "9" * 30, "(" * 900, "s0\n", "lambda: 0", ""],
)
def test_dimensions_that_nobody_prints(text: str) -> None:
    assert not is_dimension(text)


@pytest.mark.parametrize(
    "structure",
    [
        {}, {"kind": "x"}, {"kind": "tensor"}, {"kind": "tensor", "index": 1}, {"kind": "tensor", "index": "0"}, [],
        None,
        {"kind": "tuple", "items": 3}, {"kind": "dict", "items": [1]}, {"kind": "namedtuple", "name": "1", "items": {}},
        {"kind": "output", "items": {"a": {"kind": "tensor", "index": 0}}}, {"kind": ["tensor"], "index": 0},
    ],
)  # fmt: skip
def test_a_description_that_cannot_be_followed(structure: object) -> None:
    assert not described(structure, 1)
    assert described({"kind": "tuple", "items": [{"kind": "tensor", "index": 0}]}, 1)


# --- the text of a module ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"# coding: latin-1\nx = 1\n", b"\n# -*- coding: unicode_escape -*-\n", b"# vim: set fileencoding=utf-7 :\n",
        b"\xef\xbb\xbfx = 1\n", b"x = 1\0\n", b"x = 1\x0c\n", b"x = 1\r\n", b"# \xc2\x85import os\n",
        b"# \xe2\x80\xa8\n",
        b"\xff\xfex", b"x = 1\n\x1f", b"\tx",
    ],
)  # fmt: skip
def test_a_text_that_somebody_may_read_otherwise_is_refused(data: bytes) -> None:
    with pytest.raises(PortError, match=r"m\.py.*executed"):
        grammar.decode(data, "m.py")


def test_a_text_may_have_every_letter() -> None:
    text = "# 模型 naïve, a line about coding: in line three\n#\n# coding: x\nx = 1\n"
    assert grammar.decode(text.replace("coding: in", "codes in").encode(), "m.py").startswith("# 模型")


def test_checking_does_work_in_proportion() -> None:
    def calls(count: int) -> int:
        text = "from mindspore import ops\n\n\n" + "".join(f"n{i} = {i}\n" for i in range(count)) + "def f(x):\n"
        text += "".join(f"    v{i} = [x + n{i} for t in range(2)]\n" for i in range(count)) + "    return x\n"
        return calls_of(grammar.check, text, "m.py")

    assert calls(2000) < 5 * calls(500)  # 16 times as many if it were quadratic


# --- text for a terminal -----------------------------------------------------------------------


def test_what_a_terminal_would_obey_is_shown() -> None:
    assert printable("a\x1b]0;owned\x07\x9b31m\u202eb\n\tc é 模") == "a\\x1b]0;owned\\x07\\x9b31m\\u202eb\n\tc é 模"
    assert json.loads(printable(json.dumps("\x9b\x7f\u2066", ensure_ascii=False), as_json=True)) == "\x9b\x7f\u2066"
    assert "\x1b" not in str(PortError("\x1b[1m")) + str(Note("run", "\x1b")) + str(TensorSpec("\x1b", "bool", ()))


# --- what an input may hold --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "value", "says"),
    [
        ({"high": 10}, 10, "the model knows 0 to 9"),
        ({"high": 10}, -1, "the model knows 0 to 9"),
        ({"low": -10, "high": 10}, -11, "the model knows -10 to 9"),
        ({"low": -10, "high": 10}, 10, "the model knows -10 to 9"),
        ({"low": 3}, 2, "the model knows 3 to "),
        ({"never": (5,)}, 5, "with which the model divides by zero"),
        ({"high": 10, "never": (5,)}, 5, "with which the model divides by zero"),
    ],
)
def test_values_that_no_table_has(spec: dict[str, object], value: int, says: str) -> None:
    described_as = TensorSpec("i", "int64", ("s0",), **spec)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=says):
        check_feed({"i": np.array([4, value])}, [described_as])
    check_feed({"i": np.array([4, 3])}, [described_as])


# --- leftovers ---------------------------------------------------------------------------------

KILLED = """
import sys, time
from pathlib import Path
from paritas import leftovers
made = leftovers.make()
(made / "file").write_text("x")
beside = leftovers.beside(Path(sys.argv[1]), "tmp")
beside.mkdir()
lock = leftovers.lock(beside)
print("ready", flush=True)
time.sleep(60)
"""


def test_what_a_killed_run_left_goes_and_what_a_living_one_uses_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    target = tmp_path / "port"

    def left() -> list[str]:
        return [path.name for path in tmp_path.iterdir() if path.name.startswith((".port", "paritas-run-"))]

    with subprocess.Popen([sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        leftovers.sweep_beside(target)
        leftovers.remove(leftovers.make())
        assert len(left()) == 2
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    leftovers.sweep_beside(target)
    leftovers.remove(leftovers.make())
    assert left() == []
