# SPDX-License-Identifier: Apache-2.0
"""Where only ports are run: without torch and transformers, which a bare `pip install paritas` does not bring."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
import venv
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import paritas
from paritas import extras
from paritas.errors import ExtraMissing

pytest.importorskip("openvino")

ROOT = Path(__file__).parent.parent.parent

#: As if they were not installed: what imports them, or asks whether they are there, is told that they are not.
ABSENT = "import sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'huggingface_hub')));"

#: What a user calls -> what it is called in the answer.
DOORS = {
    "paritas.port('x')": "paritas.port()",
    "paritas.adopt('x.xml', 'y')": "paritas.adopt()",
    "paritas.compare": "paritas.compare",
    "import paritas.transformers": "paritas.transformers",
    "port.verify()": "port.verify()",
    "port.bisect()": "port.bisect()",
    "port.to('openvino')": "port.to()",
    "port.original()": "The original of a port",
}

LOADING = """
import numpy as np
import paritas

port = paritas.load({port!r})
out = port(x=np.ones((3, 4), np.float32))
print(out.shape)
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bare") / "port"

    class Small(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x)

    paritas.port(Small().eval(), inputs={"x": torch.ones(2, 4)}).save(place)
    return place


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", ABSENT + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return python("from paritas.cli import main; sys.argv[0] = 'paritas'; main()", *arguments)


def test_a_port_is_loaded_and_run_and_what_cannot_be_says_what_to_install(saved: Path) -> None:
    code = LOADING.format(port=str(saved)) + "".join(
        f"""
try:
    {call}
    print('no error')
except ImportError as error:
    print(error)
"""
        for call in DOORS
    )
    done = python(code)
    assert done.returncode == 0, done.stderr
    shape, *said = done.stdout.splitlines()
    assert shape == "(3, 2)"
    assert said == [
        f"{door} needs torch, transformers and huggingface_hub, which are not installed. "
        "Install them:   pip install 'paritas[port]'"
        for door in DOORS.values()
    ]


def test_loading_and_running_imports_neither_torch_nor_transformers(saved: Path) -> None:
    code = LOADING.format(port=str(saved)) + "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines() == ["(3, 2)", "[]"], done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--help",), 0, "inspect"),
        (("inspect", "PORT"), 0, "openvino_model.xml"),
        (("cache", "ls"), 0, " ports"),
        (("port", "x", "--out", "y"), 2, "error: paritas port needs torch, transformers and huggingface_hub"),
        (("scaffold", "op", "aten.foo.default"), 2, "error: paritas scaffold op needs torch"),
    ],
)
def test_the_command_line_without_torch(saved: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = command(*(str(saved) if word == "PORT" else word for word in arguments))
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr


def test_the_doctor_finds_a_bare_install_healthy_and_says_how_to_port() -> None:
    found = command("doctor", "--json", "-q")
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["extras"]["port"] == ["torch", "transformers", "huggingface_hub"]


def test_what_is_missing_inside_an_installed_package_is_no_missing_extra() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_thing"), extras.needing("port", "this"):
        import no_such_thing  # noqa: F401
    with pytest.raises(ModuleNotFoundError, match="no_such"), extras.needing("port", "this"):
        import torch.no_such_thing  # noqa: F401
    assert issubclass(ExtraMissing, ImportError)


def test_every_extra_is_one_of_the_distribution() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    known = project["optional-dependencies"]
    assert set(extras.EXTRAS) <= set(known)
    assert not {re.split(r"[<>=\[]", one)[0] for one in project["dependencies"]} & {"torch", "transformers"}
    everything = set(re.findall(r"\w+", known["all"][0])) - {"paritas"}
    assert everything == set(known) - {"all", "clip", "clip-train", "ray", "train", "zero"}


def test_a_readme_elsewhere_has_no_link_that_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    # pip brings hatchling for the time of a build only.
    hook = SimpleNamespace(MetadataHookInterface=object)
    monkeypatch.setitem(sys.modules, "hatchling.metadata.plugin.interface", hook)
    published = runpy.run_path(str(ROOT / "hatch_build.py"))["published"]
    text = "See [docs/cli.md](docs/cli.md), [there](https://a.b/c), ![A report](images/report.png)\n```\na[0](b)\n```\n"
    assert published(text, "") == "See docs/cli.md, [there](https://a.b/c), *A report*\n```\na[0](b)\n```\n"
    assert "[docs/cli.md](https://a.b/c/blob/main/docs/cli.md)" in published(text, "https://a.b/c/")
    assert "![A report](https://a.b/c/raw/main/images/report.png)" in published(text, "https://a.b/c")


@pytest.mark.parametrize("file", ["Dockerfile", "Dockerfile.serve", "Dockerfile.port"])
def test_an_image_copies_what_there_is_and_runs_as_nobody_special(file: str) -> None:
    text = (ROOT / "docker" / file).read_text(encoding="utf-8")
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {name for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M) for name in line.split()}
    assert copied and copied <= kept and all((ROOT / name).exists() for name in kept)
    assert text.rindex("USER paritas") < text.index("ENTRYPOINT") and text.count("FROM python:3.11-slim") == 2


@pytest.mark.slow
def test_the_wheel_alone_runs_what_the_readme_loads(tmp_path: Path) -> None:
    """In an environment of its own, with the NumPy that pip chooses there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    making, loading = re.findall(r"```python\n(.*?)```", readme[readme.index("## Use") :], re.S)[:2]
    subprocess.run([sys.executable, "-c", making], cwd=tmp_path, check=True, capture_output=True)
    venv.create(tmp_path / "venv", with_pip=True)
    programs = tmp_path / "venv" / "bin"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(str(programs / "pip"), "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT))
    run(str(programs / "pip"), "install", "-q", *map(str, tmp_path.glob("paritas-*.whl")))
    assert "No broken requirements" in run(str(programs / "pip"), "check")
    assert run(str(programs / "python"), "-c", loading) == "(1, 3, 64)\n"
    assert "last_hidden_state" in run(str(programs / "paritas"), "inspect", "bert-openvino")
    assert "Healthy: ports run here" in run(str(programs / "paritas"), "doctor", "-q")
    size = sum(file.stat().st_blocks * 512 for file in (tmp_path / "venv").rglob("*") if not file.is_symlink())
    assert size < 400e6
