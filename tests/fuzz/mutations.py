# SPDX-License-Identifier: Apache-2.0
"""What an accident or an attacker may do to a port on disk: one function for each kind of change."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.attacks import ATTACKS

Mutation = Callable[[Path, random.Random, Path], str]


def _is_plain(path: Path) -> bool:
    """Whether it can be read: an earlier change may have left a pipe there, or a hole of a terabyte."""
    return path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 28


def _files(port: Path) -> list[Path]:
    return sorted(filter(_is_plain, port.rglob("*")))


def _named(port: Path, pattern: str) -> list[Path]:
    return sorted(filter(_is_plain, port.glob(pattern)))


def _manifest(port: Path) -> Path:
    file = port / "port.json"
    if not _is_plain(file):
        raise OSError("port.json is of another kind by now")
    return file


def _some_bytes(port: Path, rng: random.Random, bait: Path) -> str:
    file = rng.choice(_files(port))
    data = bytearray(file.read_bytes())
    for _ in range(rng.choice((1, 1, 4, 30))):
        if data:
            at = min(int(rng.expovariate(1 / 300)), len(data) - 1) if rng.random() < 0.5 else rng.randrange(len(data))
            data[at] = rng.randrange(256)
    file.write_bytes(data)
    return f"bytes of {file.name}"


def _cut(port: Path, rng: random.Random, bait: Path) -> str:
    file = rng.choice(_files(port))
    data = file.read_bytes()
    kind = rng.randrange(4)
    if kind == 0:
        data = data[: rng.randrange(len(data) + 1)]
    elif kind == 1:
        data += rng.randbytes(rng.choice((1, 100, 5000)))
    elif kind == 2:
        data = b""
    else:
        data = data + data
    file.write_bytes(data)
    return f"length of {file.name}"


_ODD_VALUES: list[Any] = [
    None, True, 0, -1, 1, 2**31, 2**63, 10**30, 0.5, "", "x", "../b", "/etc/passwd", "a\0b", "\x1b[31m", "9**9**9",
    [], {}, [[]], {"kind": "tensor", "index": 99}, "s0", "s0*s1", "model.safetensors", "port.json", "os.system",
    "__import__",
]  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key in value:
            found += _places(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 6)):
            found += _places(value[index], (*path, index))
    return found


def _json_field(port: Path, rng: random.Random, bait: Path) -> str:
    file = _manifest(port)
    data = json.loads(file.read_text())
    # A field at the top first: there are few of them, and they mean most.
    top = rng.choice(list(data))
    path = (top, *rng.choice([(), *_places(data[top])]))
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    kind = rng.randrange(4)
    if kind == 0:
        del holder[path[-1]]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(("extra", "weights", "constants", "class", "kind"))] = rng.choice([*_ODD_VALUES, str(bait)])
    else:
        holder[path[-1]] = rng.choice([*_ODD_VALUES, str(bait), os.path.relpath(bait, port)])
    file.write_text(json.dumps(data))
    return f"port.json {'.'.join(map(str, path))[:60]}"


def _json_text(port: Path, rng: random.Random, bait: Path) -> str:
    file = _manifest(port)
    text = file.read_text()
    texts = (
        text.replace("{", "[", 1), text[:-3], "[" * 100000 + "]" * 100000, "\ufeff" + text, "null", text.upper(),
        text.replace('"format_version": 1', '"format_version": ' + "9" * 5000), text.replace("}", ", }", 1),
        text.replace('"engine"', '"engine": "torch", "engine"', 1), '{"a":' * 50000 + "1" + "}" * 50000,
        text.replace("0", "NaN", 1), text.replace("0", "1e999", 1), text.replace('"', "'"), text * 2, "\0" + text,
        text.encode().decode("latin-1") + "\ud7ff", text + " " * 5_000_000,
    )  # fmt: skip
    file.write_text(rng.choice(texts))
    return "text of port.json"


_SNIPPETS = [
    "import os", "os.system('touch {bait}.ran')", "open('{bait}')", "__import__('os').system('touch {bait}.ran')",
    "x = 9**9**9**9", "self.big = ops.zeros((10**12,), ms.float32)", "y = [0 for _ in range(10**12)]", "lambda: 0",
    "z = 'a' * 10**11", "w = 1 << 10**12", "ms.context.os.system('touch {bait}.ran')", "self.__class__", "exec('1')",
    "return ms.load_checkpoint('{bait}')", "while True:\n            pass", "return x.asnumpy().tofile('{bait}.ran')",
    "# coding: unicode_escape", "\x0cimport os", "x = x" + ".shape" * 50,
]  # fmt: skip


def _module(port: Path, rng: random.Random, bait: Path) -> str:
    found = _named(port, "*.py")
    if not found:
        return _xml(port, rng, bait)
    file = found[0]
    lines = file.read_text().split("\n")
    kind = rng.randrange(6)
    if kind == 0:
        at = rng.randrange(len(lines) + 1)
        indent = re.match(" *", lines[min(at, len(lines) - 1)])[0]  # type: ignore[index]
        lines.insert(at, indent + rng.choice(_SNIPPETS).replace("{bait}", str(bait)))
    elif kind == 1:
        lines.insert(
            rng.randrange(2),
            "# coding: " + rng.choice(("unicode_escape", "utf-7", "latin-1", "utf-16", "rot13")),
        )
        lines.append("# \\x0aimport os; os.system('touch " + str(bait) + ".ran')")
    elif kind == 2:
        del lines[rng.randrange(len(lines))]
    elif kind == 3:
        at = rng.randrange(len(lines))
        lines.insert(at, lines[rng.randrange(len(lines))])
    else:
        text = "\n".join(lines)
        tokens = [match.span() for match in re.finditer(r"[A-Za-z_]\w*|\d+|[-+*/()=,.]", text)]
        begin, end = rng.choice(tokens)
        other = rng.choice(
            [
                text[slice(*rng.choice(tokens))],
                "os",
                "10**12",
                "ms",
                "self",
                "",
                "9**9**9**9",
                "-1",
                "None",
                "(",
                "ops.Custom",
            ]
        )
        lines = (text[:begin] + other + text[end:]).split("\n")
    file.write_text("\n".join(lines))
    return "the module"


def _xml(port: Path, rng: random.Random, bait: Path) -> str:
    found = _named(port, "*.xml")
    if not found:
        return _module(port, rng, bait)
    text = found[0].read_text()
    kind = rng.randrange(7)
    if kind == 0:
        bomb = '<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;">]>'
        text = re.sub(r"(<\?xml[^>]*>)?", lambda m: m[0] + bomb, text, count=1)
    elif kind == 1:
        text = text.replace("<net ", f'<net weights="{bait}" ', 1)
    else:
        pattern = (
            r'(offset|size|shape|id|to-layer|from-port|element_type|type|version|name|precision)="([^"]*)"',
            r"<dim>(-?\d+)</dim>",
        )
        places = list(re.finditer(pattern[rng.random() < 0.4], text))
        if not places:
            return _some_bytes(port, rng, bait)
        place = rng.choice(places)
        group = place.lastindex or 1
        other = rng.choice(
            (
                "-1",
                "0",
                "99999999999999",
                "1000000000000",
                "",
                "x",
                str(bait),
                "If",
                "Loop",
                "Custom",
                "2,3",
                "i64",
                "f64",
                "3",
                "17",
                "dynamic",
            )
        )
        begin, end = place.span(group)
        text = text[:begin] + other + text[end:]
    found[0].write_text(text)
    return "the xml"


def _tensors(port: Path, rng: random.Random, bait: Path) -> str:
    found = _named(port, "*.safetensors")
    if not found:
        return _xml(port, rng, bait)
    file = rng.choice(found)
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    names = [name for name in header if name != "__metadata__"]
    name = rng.choice(names)
    kind = rng.randrange(8)
    if kind == 0:
        header[rng.choice((name + "x", "../x", "", "weight"))] = header.pop(name)
    elif kind == 1:
        header[name]["dtype"] = rng.choice(("F32", "I64", "F16", "BF16", "U8", "BOOL", "F8_E4M3", "X", None, 3))
    elif kind == 2:
        shape = header[name]["shape"]
        header[name]["shape"] = rng.choice(([*shape, 1], shape[::-1], [10**12], [-1], [2**62, 4], None, [0], "3"))
    elif kind == 3:
        header[name]["data_offsets"] = rng.choice(([0, 4], [0, 10**12], [8, 4], [-4, 0], [0], None, [0.5, 4]))
    elif kind == 4:
        del header[name]
    elif kind == 5:
        header[name], header[rng.choice(names)] = header[rng.choice(names)], header[name]
    raw = json.dumps(header).encode()
    if kind == 6:
        raw = raw[:-1] + b"," + json.dumps(name).encode() + b":" + json.dumps(header[name]).encode() + b"}"
    if kind == 7:
        raw = rng.choice((b"[" * 100000, b"{}", b"[]", raw[:-2], raw + b" " * 3))
    length = len(raw) if rng.random() < 0.9 else rng.choice((0, 2**40, 2**63, len(data)))
    file.write_bytes(length.to_bytes(8, "little") + raw + body)
    return f"the header of {file.name}"


def _kind_of_file(port: Path, rng: random.Random, bait: Path) -> str:
    file = rng.choice(_files(port))
    data = file.read_bytes()
    kind = rng.randrange(8)
    if kind != 7:
        file.unlink()
    if kind == 0:
        os.mkfifo(file)
    elif kind == 1:
        file.symlink_to(bait)
    elif kind == 2:
        file.mkdir()
    elif kind == 3:
        with socket.socket(socket.AF_UNIX) as made:
            here = os.getcwd()
            os.chdir(port)
            try:
                made.bind(file.name)
            finally:
                os.chdir(here)
    elif kind == 4:
        (port / "real").write_bytes(data)
        file.symlink_to("real")
    elif kind == 5:
        os.link(bait, file)
    elif kind == 6:
        file.symlink_to(file.name)
    else:
        file.chmod(rng.choice((0o000, 0o777, 0o444)))
    return f"{file.name} is of another kind ({kind})"


def _added(port: Path, rng: random.Random, bait: Path) -> str:
    name = rng.choice(("sitecustomize.py", "mindspore.py", "x.so", "__init__.py", "constants.safetensors", "adapter_config.json", "a/b/c.txt", "openvino_model.bin", "d" * 200, "regression/x.safetensors"))  # noqa: E501  # fmt: skip
    (port / name).parent.mkdir(parents=True, exist_ok=True)
    (port / name).write_text(f"import os\nos.system('touch {bait}.ran')\n")
    if rng.random() < 0.3:
        os.symlink(rng.choice((str(bait), ".", "/dev/zero", "loop")), port / "loop")
    return f"added {name}"


def _json_swap(port: Path, rng: random.Random, bait: Path) -> str:
    """Values that are somewhere in the manifest, in the place of others: of the right type, and wrong."""
    file = _manifest(port)
    data = json.loads(file.read_text())

    def place() -> tuple[Any, ...]:
        top = rng.choice(list(data))
        return (top, *rng.choice([(), *_places(data[top])]))

    def holder_of(path: tuple[Any, ...]) -> Any:
        found = data
        for key in path[:-1]:
            found = found[key]
        return found

    one, other = place(), place()
    here, there = holder_of(one), holder_of(other)
    value = here[one[-1]]
    kind = rng.randrange(6)
    if kind == 0:
        here[one[-1]], there[other[-1]] = there[other[-1]], value
    elif kind == 1:
        here[one[-1]] = json.loads(json.dumps(there[other[-1]]))
    elif kind == 2 and isinstance(value, list):
        here[one[-1]] = value[::-1] + value
    elif kind == 3 and isinstance(value, list):
        here[one[-1]] = (value or ["x"]) * rng.choice((2, 1000, 100_000))
    elif type(value) is int:
        here[one[-1]] = value + rng.choice((1, -1, 2**31, -(2**31)))
    elif isinstance(value, str):
        here[one[-1]] = rng.choice(
            (
                value * 2,
                value[:-1],
                value.upper(),
                value + "\n",
                "\u202e" + value,
                value * 20000,
                f"({value})",
            )
        )
    else:
        nested: Any = value
        for _ in range(rng.choice((2, 40, 900))):
            nested = {"items": [nested], "kind": "list"} if rng.random() < 0.5 else [nested]
        here[one[-1]] = nested
    file.write_text(json.dumps(data))
    return f"port.json {'.'.join(map(str, one))[:60]} and {'.'.join(map(str, other))[:60]} ({kind})"


def _attack(port: Path, rng: random.Random, bait: Path) -> str:
    """A module that the generator cannot have written, or its statements within the module's own."""
    found = _named(port, "*.py")
    if not found:
        return _xml(port, rng, bait)
    name = rng.choice(list(ATTACKS))
    text = ATTACKS[name].replace("/etc/passwd", str(bait)).replace("'true'", f"'touch {bait}.ran'")
    own = found[0].read_text()
    kind = rng.randrange(3)
    if kind == 0:
        body = text
    elif kind == 1:
        body = own + "\n\n" + text.partition("\n\n\n")[2]
    else:
        head, _, rest = own.partition("\n\n\n")
        body = head + "\n\n\n" + text.partition("\n\n\n")[2] + "\n\n" + rest
    found[0].write_text(body)
    return f"an attack: {name} ({kind})"


def _many(port: Path, rng: random.Random, bait: Path) -> str:
    """Folders in folders, files that are holes, many names, devices."""
    kind = rng.randrange(5)
    if kind == 0:
        deep = port
        for _ in range(rng.choice((5, 30, 200))):
            deep = deep / "d"
        deep.mkdir(parents=True)
    elif kind == 1:
        file = rng.choice(_files(port))
        os.truncate(file, rng.choice((1 << 31, 1 << 33, 1 << 40)))
    elif kind == 2:
        (port / "many").mkdir()
        for number in range(rng.choice((10, 3000))):
            (port / "many" / f"{number}.txt").touch()
    elif kind == 3:
        file = rng.choice(_files(port))
        file.unlink()
        number = os.makedev(1, rng.choice((3, 5, 8)))  # null, zero, random
        try:
            os.mknod(file, 0o600 | stat.S_IFCHR, number)
        except PermissionError:
            file.symlink_to("/dev/zero")
    else:
        file = rng.choice(_files(port))
        file.rename(file.with_name(rng.choice((file.name.upper(), file.name + " ", "\u202e" + file.name))))
    return f"many or odd files ({kind})"


def _other_port(port: Path, rng: random.Random, bait: Path) -> str:
    """A file of another engine's port, or of the same one under another name."""
    files = _files(port)
    one, other = rng.choice(files), rng.choice(files)
    data = one.read_bytes()
    if rng.random() < 0.5:
        one.write_bytes(other.read_bytes())
        other.write_bytes(data)
    else:
        other.write_bytes(data)
    return f"{one.name} in the place of {other.name}"


MUTATIONS: tuple[Mutation, ...] = (
    _some_bytes, _cut, _json_field, _json_field, _json_swap, _json_swap, _json_text, _module, _module, _attack, _xml,
    _xml, _tensors, _kind_of_file, _added, _many, _other_port,
)  # fmt: skip


def seal(port: Path) -> None:
    """What an attacker does who knows the format: checksums that fit."""
    try:
        data = json.loads(_manifest(port).read_text())
        assert isinstance(data["files"], dict)
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AssertionError):
        return
    for file in _files(port):
        name = file.relative_to(port).as_posix()
        if name != "port.json" and file.stat().st_size < 1 << 28:
            raw = file.read_bytes()
            data["files"][name] = {"sha256": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
    (port / "port.json").write_text(json.dumps(data))


def mutate(port: Path, rng: random.Random, bait: Path) -> str:
    """Change a port, seal it half of the time, and say what was done."""
    said = [rng.choice(MUTATIONS)(port, rng, bait) for _ in range(1 if rng.random() < 0.8 else 2)]
    if rng.random() < 0.6:
        seal(port)
        said.append("sealed")
    return ", ".join(said)
