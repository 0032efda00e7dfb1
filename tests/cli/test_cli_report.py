# SPDX-License-Identifier: Apache-2.0
"""`paritas report`, and the page and the picture that `paritas verify` writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from paritas import store
from paritas.cli import app
from paritas.verify import ParityReport
from paritas.verify.report import curves

runner = CliRunner()


@pytest.fixture
def files(openvino_port: Path, tmp_path: Path) -> dict[str, Path]:
    """A port's report as a file, as `verify --json` prints it, and one that diverges."""
    text = (openvino_port / "parity.json").read_text()
    data = json.loads(text)
    data["outputs"][0]["excess"] = 7.5
    found = {name: tmp_path / f"{name}.json" for name in ("parity", "printed", "diverging", "other")}
    found["parity"].write_text(text)
    found["printed"].write_text(json.dumps({"directory": "x", "verdict": "agrees", "report": json.loads(text)}))
    found["diverging"].write_text(json.dumps(data))
    found["other"].write_text(json.dumps({**data, "subject": "another/model"}))
    return found


def test_reports_are_joined(openvino_port: Path, files: dict[str, Path], tmp_path: Path) -> None:
    html, png = tmp_path / "report.html", tmp_path / "curves.png"
    given = [str(openvino_port), str(files["printed"]), "--html", str(html), "--png", str(png)]
    result = runner.invoke(app, ["report", *given])
    assert result.exit_code == 0, result.output
    assert "agrees" in result.stdout and f"written: {html}" in result.stdout.replace("\n", "")
    assert "Parity of 2 ports" in html.read_text()
    assert png.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".html", *[".json"] * 4, ".png"]


def test_what_diverges_decides_the_exit_code(files: dict[str, Path]) -> None:
    result = runner.invoke(
        app, ["report", str(files["parity"]), str(files["diverging"]), str(files["other"]), "--json"]
    )
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert [one["verdict"] for one in said["reports"]] == ["agrees", "diverges", "diverges"]
    assert said["reports"][2]["subject"] == "another/model" and said["html"] is None


def test_it_loads_no_engine(paritas: Any, files: dict[str, Path], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom paritas.cli import main\nsys.argv = "
        f"['paritas', 'report', {str(files['parity'])!r}, '--html', {str(tmp_path / 'a.html')!r}]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print([name for name in ('torch', 'transformers', 'openvino', 'mindspore') if name in sys.modules])"
    )
    done = paritas(code, python=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr
    assert (tmp_path / "a.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "There is no file or directory nowhere."),
        (["folder"], "folder is no port: it has neither port.json nor parity.json."),
        (["port"], "The port port has no parity.json. Make it:   paritas verify port --attach"),
        (["text.json"], "text.json is no parity report"),
        (["other.json"], "other.json: This is no parity report"),
        (["newer.json"], "newer.json: This report has format 99"),
        (["port", "--html", "none/a.html"], "--html none/a.html: there is no directory"),
        (["port", "--png", "folder"], "--png folder is a directory. Give the name of a file."),
        (["port", "--html", "a", "--png", "a"], "--html and --png are the same file"),
    ],
)
def test_what_cannot_be_joined_is_said(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("folder", "port"):
        Path(folder).mkdir()
    Path("port/port.json").write_text("{}")
    Path("text.json").write_text("\x00 no")
    Path("other.json").write_text('{"report": {"a": 1}}')
    Path("newer.json").write_text('{"format_version": 99}')
    result = runner.invoke(app, ["report", *arguments])
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.stderr.split(" ")), result.stderr


def test_a_picture_without_matplotlib_is_refused_before_the_work(
    openvino_port: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curves, "drawable", lambda: False)
    for command in ("report", "verify"):
        result = runner.invoke(app, [command, str(openvino_port), "--png", str(tmp_path / "a.png")])
        assert result.exit_code == 2
        assert "pip install 'paritas[report]'" in result.stderr and "load the port" not in result.stderr
    html = tmp_path / "a.html"
    assert runner.invoke(app, ["report", str(openvino_port), "--html", str(html)]).exit_code == 0
    assert 'class="curves"' in html.read_text()  # a page needs no library


def test_what_fails_leaves_the_old_file(openvino_port: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "curves.png"
    old.write_bytes(b"old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    result = runner.invoke(app, ["report", str(openvino_port), "--png", str(old)])
    assert result.exit_code == 2 and "No space left" in result.stderr
    assert old.read_bytes() == b"old" and list(tmp_path.iterdir()) == [old]


def test_verify_writes_and_attaches_them(openvino_port: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    directory = Path(shutil.copytree(openvino_port, tmp_path / "port"))
    html, png = tmp_path / "a.html", tmp_path / "a.png"
    arguments = [str(directory), "--html", str(html), "--png", str(png), "--attach", "--quiet"]
    result = runner.invoke(app, ["verify", *arguments])
    assert result.exit_code == 0, result.output
    assert png.read_bytes().startswith(b"\x89PNG")
    attached = (directory / "PARITY.html").read_text()
    # A port travels, so that its own page calls it by its name; the other one is for whoever asked for it.
    assert attached.replace("verify port ", f"verify {directory} ").count(f"verify {directory} --level modules") == 1
    assert f"paritas verify {directory} --level modules --html PARITY.html" in html.read_text()
    assert str(tmp_path) not in attached
    assert "PARITY.html" in store.read(directory).manifest.files
    one = ParityReport.from_json((directory / "parity.json").read_text())
    assert all(sum(row.histogram) == row.elements for row in one.outputs)


def test_verify_refuses_a_missing_directory_before_the_work(openvino_port: Path) -> None:
    result = runner.invoke(app, ["verify", str(openvino_port), "--html", "none/at/all.html"])
    assert result.exit_code == 2
    assert "there is no directory" in result.stderr and "load the port" not in result.stderr
    result = runner.invoke(app, ["verify", str(openvino_port), "--level", "outputs", "--png", "a.png"])
    assert result.exit_code == 2 and "needs --level modules or nodes" in result.stderr
