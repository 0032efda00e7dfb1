# SPDX-License-Identifier: Apache-2.0
"""What docs/ shows is run, in order, in one folder: files are written, commands print what is shown, scripts succeed.

Above a block, `<!-- file: NAME -->` writes it, `<!-- exit: 1 -->` is its last command's exit code. Of what a command
prints the lines shown must be there, in order; numbers with an exponent, times and sizes are any.
"""

from __future__ import annotations

import dataclasses
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GENERATE = runpy.run_path(str(ROOT / "docs" / "generate.py"))
DOCUMENTS = sorted((ROOT / "docs").glob("*.md"))

_BLOCK = re.compile(
    r"^(?:<!-- (?P<key>file|exit): (?P<value>\S+) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.S | re.M
)
_COMMAND = re.compile(r"^\$ (paritas .*)$", re.M)


@dataclasses.dataclass(frozen=True)
class Block:
    kind: str
    text: str
    file: str = ""
    exit: int = 0


def blocks(document: Path) -> list[Block]:
    # What is generated is compared, not run.
    text = GENERATE["PART"].sub("", document.read_text(encoding="utf-8"))
    found = []
    for match in _BLOCK.finditer(text):
        told = {match["key"]: match["value"]} if match["key"] else {}
        found.append(Block(match["kind"], match["text"], told.get("file", ""), int(told.get("exit", 0))))
    return found


def plain(text: str) -> str:
    """Numbers that differ from run to run are #, and lines are not where a terminal ends."""
    text = re.sub(r"\d+(\.\d+)?e[+-]\d+", "#", text)
    text = re.sub(r"\d+(\.\d+)?x tolerance", "#x tolerance", text)
    return " ".join(text.split())


def missing(shown: str, printed: str) -> str:
    """The first line shown that was not printed behind the ones before it, "" if all were."""
    printed = plain(printed)
    for line in shown.splitlines():
        wanted = plain(line)
        if wanted in ("...", ""):
            continue
        place = printed.find(wanted)
        if place < 0:
            return line
        printed = printed[place + len(wanted) :]
    return ""


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment in which `paritas` and `python` are the ones under test."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, arguments in (("paritas", " -m paritas"), ("python", "")):
        program = programs / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
        program.chmod(0o755)
    # Where paritas is not installed but run from its sources, they stay on the path.
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": path}


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_everything_shown_is_run(document: Path, tmp_path: Path, shell: dict[str, str]) -> None:
    work = tmp_path / "work"
    work.mkdir()
    shutil.copytree(ROOT / "examples", work / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    for number, block in enumerate(blocks(document)):
        if block.file:
            (work / block.file).write_text(block.text)
        elif block.kind == "python":
            script = work / f"block_{number}.py"
            script.write_text(block.text)
            done = subprocess.run([sys.executable, script], cwd=work, env=shell, capture_output=True, text=True)
            assert done.returncode == 0, f"{block.text}\n{done.stderr}"
        elif block.kind == "console":
            commands = re.split(r"^\$ ", block.text, flags=re.M)[1:]
            for position, told in enumerate(commands):
                command, _, shown = told.partition("\n")
                done = subprocess.run(
                    command,
                    shell=True,
                    cwd=work,
                    env=shell,
                    capture_output=True,
                    text=True,
                    stdin=subprocess.DEVNULL,
                )
                printed = done.stdout + done.stderr
                wanted = block.exit if position == len(commands) - 1 else 0
                assert done.returncode == wanted, f"{command}\n{printed}"
                assert not missing(shown, printed), f"{command}\n{missing(shown, printed)}\nis not in\n{printed}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_and_option_exists(document: Path) -> None:
    from typer.testing import CliRunner

    from paritas.cli import app

    for command in _COMMAND.findall(document.read_text(encoding="utf-8")):
        words = command.split()[1:]
        name = words[:2] if words[0] in ("scaffold", "eval", "convert", "cache", "train") else words[:1]
        told = CliRunner().invoke(app, [*name, "--help"], env={"COLUMNS": "200"})
        assert told.exit_code == 0, command
        for option in (word for word in words if word.startswith("--")):
            assert option in told.stdout, command


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_paths_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.S | re.M)  # code has brackets of its own
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", prose) if "://" not in link]
    paths = re.findall(r"`((?:src|tests|examples|docs)/[\w./]+)`", text)
    assert not [link for link in links if not (document.parent / link).exists()]
    assert not [path for path in paths if not (ROOT / path).exists()]


def stable(text: str) -> str:
    """Without what differs from run to run: figures of a report, where they arose, lines of other packages.

    How many cases are found in a second depends on the machine, and OpenVINO numbers what it makes in a process.
    """
    text = re.sub(r"\d+ outputs compared in \d+ cases", "outputs compared", text)
    text = re.sub(r"\b(Constant|MatMul|Result)_\d+\b", r"\1", text)
    text = re.sub(r"(worst output|worst module|  note: verify).*", r"\1", text)
    text = re.sub(r'"(sha256|bytes|paritas|torch|transformers|mindspore|numpy)": .*', r"\1", text)
    return plain(re.sub(r"((?!gate)\b\w+\.py):\d+", r"\1", text))


@pytest.mark.parametrize("page", GENERATE["pages"](), ids=lambda path: path.name)
def test_what_is_generated_is_what_would_be_written_now(page: Path) -> None:
    pytest.importorskip("mindspore")
    text = page.read_text(encoding="utf-8")
    assert stable(GENERATE["regenerated"](text)) == stable(text), "run: make docs"


def test_another_text_is_not_what_would_be_written() -> None:
    shown = (ROOT / "docs" / "anatomy.md").read_text(encoding="utf-8")
    assert stable(shown.replace("ops.sigmoid", "ops.tanh")) != stable(shown)
    assert stable(shown.replace("gate.py:16", "gate.py:17")) != stable(shown)
    assert stable(shown.replace("1.42e+01", "1.43e+01")) == stable(shown)


@pytest.mark.parametrize("part", ["nothing", "class No", "benchmark no"])
def test_a_part_that_nothing_writes_is_an_error(part: str) -> None:
    with pytest.raises(KeyError):
        GENERATE["regenerated"](f"<!-- generated: {part} -->\n<!-- end -->")


def test_a_line_that_is_not_printed_is_missed() -> None:
    printed = "agrees: error 2.10e-06\n  note: x dimension 2 is\nfixed at 32"
    assert missing("agrees: error 1e-05\n...\n  note: x dimension 2 is fixed at 32", printed) == ""
    assert missing("note: x\nagrees", printed) == "agrees"  # in another order
    assert missing("diverges", printed) == "diverges"
