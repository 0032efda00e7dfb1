# SPDX-License-Identifier: Apache-2.0
"""Everything that can be wrong with what a user gives: one clear error each, and nothing left half-made."""

from __future__ import annotations

import hashlib
import http.server
import importlib.util
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import paritas
from attacks import ATTACKS
from paritas import pipeline, store
from paritas.cli import app
from paritas.errors import CaptureError, InputError, TamperedPort, UnsupportedOps
from paritas.lower.mindspore.check import grammar

runner = CliRunner()


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory for the test whose temporary directory is watched: what is left in it was left half-made."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield tmp_path
    assert [path.name for path in temporary.glob("paritas-*")] == []


def refused(place: Path, *arguments: object, out: Path | None = None) -> str:
    """What `paritas port ARGUMENTS --out OUT` says, which must be one error, exit code 2, and nothing written."""
    target = out or place / "port"
    before = sorted(path.name for path in place.iterdir())
    result = runner.invoke(app, ["port", *map(str, arguments), "--out", str(target), "-q"])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.stderr
    assert sorted(path.name for path in place.iterdir()) == before
    return result.stderr.removeprefix("error: ")


# --- the source --------------------------------------------------------------------------------


class NoSuchModel(http.server.BaseHTTPRequestHandler):
    """A hub that knows no model."""

    def do_GET(self):
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


def test_an_id_that_does_not_exist(place, paritas):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), NoSuchModel) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        env = {
            "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(place / "hf"),
        }
        done = paritas("port", "nobody/no-such-model", "--out", place / "port", "-q", env=env)
        hub.shutdown()
    assert done.returncode == 2, done.stderr
    assert "There is no model nobody/no-such-model on the hub" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "port").exists()


def test_no_network_says_so_and_what_is_cached(place, paritas):
    snapshot = place / "hf" / "hub" / "models--openai--clip-vit-base-patch16" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(place / "hf")}
    done = paritas("port", "openai/clip-vit-base-patch32", "--out", place / "port", "-q", env=env)
    assert done.returncode == 2, done.stderr
    assert "the hub cannot be reached" in done.stderr
    assert "In the cache there is: openai/clip-vit-base-patch16" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_directory_that_is_not_there(place):
    assert "There is no directory ./bert." in refused(place, "./bert")


def test_a_directory_without_weights(place, checkpoint):
    bare = Path(shutil.copytree(checkpoint, place / "bare"))
    (bare / "model.safetensors").unlink()
    said = refused(place, bare)
    assert f"{bare} has no weights: no model.safetensors and no pytorch_model.bin" in said


def test_truncated_weights(place, checkpoint):
    cut = Path(shutil.copytree(checkpoint, place / "cut"))
    data = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert re.search(
        rf"model.safetensors is cut off: {len(data)} bytes expected, {len(data) // 2} found",
        refused(place, cut),
    )


def test_corrupted_weights(place, checkpoint):
    torn = Path(shutil.copytree(checkpoint, place / "torn"))
    with open(torn / "model.safetensors", "r+b") as file:
        file.seek(8)
        file.write(b"\xff" * 64)
    assert "its header is not the JSON that it should be" in refused(place, torn)


class Evil:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_weights_that_would_run_code_are_not_executed(place, checkpoint, zipped):
    evil, marker = Path(shutil.copytree(checkpoint, place / "evil")), place / "executed"
    (evil / "model.safetensors").unlink()
    payload = {"embeddings.weight": Evil(str(marker))}
    if zipped:
        torch.save(payload, evil / "pytorch_model.bin")
    else:
        (evil / "pytorch_model.bin").write_bytes(pickle.dumps(payload))
    said = refused(place, evil)
    assert not marker.exists()
    assert "executed" in said or "damaged" in said


def test_plain_pickled_tensors_go_through_the_weights_only_loader(place, checkpoint):
    old = Path(shutil.copytree(checkpoint, place / "old"))
    from safetensors.torch import load_file

    torch.save(load_file(old / "model.safetensors"), old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    assert paritas.port(old).manifest.source.id == str(old)


# --- engine, options ---------------------------------------------------------------------------


def test_an_unknown_engine(place, checkpoint):
    assert refused(place, checkpoint, "-e", "tensorrt") == (
        "There is no engine 'tensorrt'. Paritas knows: torch, openvino, mindspore.\n"
    )


def test_an_engine_that_is_not_installed(place, checkpoint, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "mindspore" else find(name, *rest)
    )
    said = refused(place, checkpoint, "-e", "mindspore")
    assert "The engine 'mindspore' is not installed. Install it:   pip install 'paritas[mindspore]'" in said
    assert "Installed here: torch, openvino." in said
    result = runner.invoke(app, ["demo", "--engine", "mindspore", "--out", str(place / "ports")])
    assert result.exit_code == 2
    assert not (place / "ports").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--input", "input_ids"], "'input_ids' is not NAME=SHAPE[:DTYPE]"),
        (["--input", "input_ids=2x-1:int64"], "is not NAME=SHAPE[:DTYPE]"),
        (["--input", "input_ids=2x3:integer"], "is not NAME=SHAPE[:DTYPE]"),
        (["--input", "a=1", "--input", "a=2"], "a is given twice"),
        (["--mode", "pynative"], "--mode and --target are for --engine mindspore, not for openvino"),
        (["--class", "NoSuchModel"], "has no class NoSuchModel"),
        (["--class", "os.system"], "os.system is no class of transformers"),
        (["--subfolder", "unet"], "has no directory 'unet'"),
        (["--subfolder", ".."], "has no directory '..'"),
    ],
)
def test_options_that_make_no_sense(place, checkpoint, options, said):
    assert said in refused(place, checkpoint, *options)


# --- inputs of a port --------------------------------------------------------------------------

IDS = np.array([[5, 6, 7]])


@pytest.mark.parametrize("engine", ["openvino", "mindspore"])
@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"input_idz": IDS}, "input_idz is not an input. Did you mean input_ids? The inputs are: input_ids, att"),
        ({"attention_mask": IDS}, "input_ids is missing: int64["),
        ({"input_ids": IDS[0]}, "input_ids has 1 dimensions [3]; 2 are expected"),
        ({"input_ids": IDS.astype(np.float32)}, "input_ids is float32; int64 is expected. If that is meant"),
        ({"input_ids": IDS + 99}, "input_ids holds 104 at [0, 0] and 2 more; the model knows 0 to 98"),
        ({"input_ids": IDS - 9}, "input_ids holds -4 at [0, 0]"),
        ({"input_ids": IDS[:0]}, "input_ids is empty: its shape is [0, 3]"),
        ({"input_ids": np.ones((1, 41), int)}, "input_ids has size 41 in dimension 1; the model takes at most 40"),
        (
            {"input_ids": IDS, "attention_mask": np.ones((2, 3), int)},
            "attention_mask has size 2 in dimension 0, but input_ids has 1",
        ),
        ({"input_ids": "a sentence"}, "input_ids is a builtins.str, not an array or tensor"),
        ({"input_ids": IDS, "attention_mask": torch.ones(1, 3)}, "The inputs are of different frameworks"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)  # fmt: skip
def test_inputs_that_do_not_fit(engine, inputs, said, request, loaded):
    with pytest.raises(InputError) as caught:
        loaded(request.getfixturevalue(f"{engine}_port"))(**inputs)
    assert said in str(caught.value)


@pytest.fixture(scope="module")
def loaded():
    """Ports by directory, each loaded once."""
    ports = {}
    return lambda directory: ports.setdefault(directory, ports.get(directory) or paritas.load(directory))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no .npz file of plain arrays"),
        (b"PK not really", "is no .npz file of plain arrays"),
        (None, "There is no file"),
        ({"input_ids": np.array([[1, "x"]], object)}, "is no .npz file of plain arrays"),
        ({"wrong": IDS}, "wrong is not an input"),
    ],
)
def test_files_of_inputs_that_do_not_fit(tmp_path, openvino_port, content, said):
    file = tmp_path / "batch.npz"
    if isinstance(content, dict):
        np.savez(file, **content)
    elif content is not None:
        file.write_bytes(content)
    result = runner.invoke(app, ["verify", str(openvino_port), "--inputs", str(file), "-q"])
    assert result.exit_code == 2, result.output
    assert said in result.stderr


# --- capture and lowering ----------------------------------------------------------------------


class Branches(torch.nn.Module):
    def forward(self, x):
        if x.sum() > 0:  # data-dependent
            return x * 2
        return x


class Exotic(torch.nn.Module):
    def forward(self, x):
        y = torch.linalg.matrix_exp(x)
        return torch.special.bessel_j0(y) + torch.special.bessel_j0(x)


def test_a_model_that_capture_refuses_says_why_and_where(place):
    with pytest.raises(CaptureError) as caught:
        paritas.port(Branches(), inputs={"x": torch.ones(2, 3)})
    said = str(caught.value)
    assert "cannot capture Branches" in said
    assert "data-dependent" in said
    line = next(n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "# data-dependent" in text)
    assert f"test_bad_input.py:{line}" in said


def test_unsupported_operators_are_named_all_at_once(place):
    with pytest.raises(UnsupportedOps) as caught:
        paritas.port(Exotic(), "mindspore", inputs={"x": torch.eye(3)})
    said = str(caught.value)
    assert "mindspore cannot lower 2 of this model's operators" in said
    assert re.search(r"aten\.special_bessel_j0\.default +x2 +first at test_bad_input\.py:\d+ ", said)
    assert re.search(r"aten\.linalg_matrix_exp\.default +x1 +first at test_bad_input\.py:\d+ ", said)
    assert "python -m pytest tests/ops -k special_bessel_j0" in said


def test_a_module_without_inputs_says_what_to_pass(place):
    with pytest.raises(paritas.errors.InputsNeeded, match="Pass an example"):
        paritas.port(Branches())


# --- where to write ----------------------------------------------------------------------------


def test_a_directory_with_other_things_in_it(place, checkpoint):
    (place / "work").mkdir()
    (place / "work" / "thesis.tex").write_text("years of it")
    said = refused(place, checkpoint, out=place / "work")
    assert "is not empty and not a port" in said
    assert "thesis.tex" in said
    assert (place / "work" / "thesis.tex").read_text() == "years of it"


def test_a_file_in_the_way(place, checkpoint):
    (place / "file").write_text("")
    assert "is a file" in refused(place, checkpoint, out=place / "file")
    assert "a part of that path is a file" in refused(place, checkpoint, out=place / "file" / "below")


def test_no_permission_is_said_before_any_work(place, checkpoint, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *args, **options: False)  # tests may run as root, who may write anywhere
    monkeypatch.setattr(pipeline, "port", lambda *args, **options: pytest.fail("it began to work"))
    assert f"no permission to write in {place}" in refused(place, checkpoint)


def test_no_space_where_the_port_goes(place, openvino_port, checkpoint, monkeypatch):
    monkeypatch.setattr(pipeline, "port", lambda *args, **options: pipeline.load(openvino_port))
    usage = shutil.disk_usage(place)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    said = refused(place, checkpoint, "--no-verify", out=place / "deep" / "port")
    assert "no space left" in said
    assert "Nothing was left half-made" in said


@pytest.mark.parametrize("engine", ["openvino", "mindspore"])
def test_no_space_in_the_temporary_directory(place, checkpoint, paritas, engine):
    code = (
        "import resource, signal, sys\nfrom paritas.cli import app\nimport transformers, torch\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"  # then writing fails as it does on a full disk
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        f"app(['port', sys.argv[1], '-e', {engine!r}, '--out', sys.argv[2], '-q'])"
    )
    done = paritas(code, checkpoint, place / "port", python=True)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "port").exists()


# --- Ctrl-C ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "number", "code"),
    [
        ("capture its graph", signal.SIGINT, 130),
        ("verify it", signal.SIGINT, 130),
        ("capture its graph", signal.SIGTERM, 143),
    ],
)
def test_ctrl_c_in_the_middle_leaves_nothing(place, checkpoint, stage, number, code):
    command = [
        sys.executable,
        "-m",
        "paritas",
        "port",
        str(checkpoint),
        "--out",
        str(place / "deep" / "port"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if stage in line:
                process.send_signal(number)
                break
        said += process.stderr.read()
        assert process.wait(60) == code, said
    assert "Traceback" not in said
    if number == signal.SIGINT:
        assert "Interrupted. Nothing was left half-made." in said
    assert sorted(path.name for path in place.iterdir()) == ["temporary"]


# --- a port that someone has changed -----------------------------------------------------------


def module_of(directory: Path) -> Path:
    return directory / store.read(directory, verify_checksums=False, allow_modified=True).manifest.entry


def sign(directory: Path, name: str) -> None:
    """What an attacker does who knows the format: a checksum that fits."""
    manifest = json.loads((directory / "port.json").read_text())
    data = (directory / name).read_bytes()
    manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (directory / "port.json").write_text(json.dumps(manifest))


@pytest.fixture
def copy(mindspore_port, tmp_path):
    return Path(shutil.copytree(mindspore_port, tmp_path / "copy"))


def tampered(directory: Path, command: str = "verify") -> str:
    result = runner.invoke(app, [command, str(directory), *([] if command == "inspect" else ["-q"])])
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.stderr
    with pytest.raises(TamperedPort):
        paritas.load(directory)
    return result.stderr


def test_an_edited_module(copy, tmp_path):
    module = module_of(copy)
    module.write_text(module.read_text() + f"\nopen({str(tmp_path / 'executed')!r}, 'w')\n")
    said = tampered(copy)
    assert f"{module.name}: " in said
    assert "nothing of it was executed" in said
    assert "--allow-modified" in said
    assert not (tmp_path / "executed").exists()


def test_an_edited_module_with_a_checksum_that_fits(copy, tmp_path):
    module = module_of(copy)
    text = module.read_text()
    module.write_text(text + f"\nopen({str(tmp_path / 'executed')!r}, 'w')\n")
    sign(copy, module.name)
    line = len(text.splitlines()) + 2
    assert f"{module}:{line}: " in tampered(copy)
    assert not (tmp_path / "executed").exists()
    # inspect executes nothing, so it may look
    assert runner.invoke(app, ["inspect", str(copy)]).exit_code == 0


def test_your_own_edit_is_accepted_with_the_override(copy):
    module = module_of(copy)
    module.write_text(module.read_text() + "\n# my own remark\n")
    tampered(copy, "inspect")
    once = ["--mode", "pynative", "--level", "outputs"]  # nothing is compiled
    result = runner.invoke(app, ["verify", str(copy), "--allow-modified", *once, "-q"])
    assert result.exit_code == 0, result.output
    assert "edited since it was written" in runner.invoke(app, ["inspect", str(copy), "--allow-modified"]).stdout


def test_edited_weights(copy):
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    assert "model.safetensors: sha256" in tampered(copy)


@pytest.mark.parametrize("name", ["helpers.py", "mindspore.py", "sub/x.so", "weights.bin", "x.pkl"])
def test_an_added_file_that_could_run_or_replace(copy, name):
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text("")
    assert f"{name}: not listed in port.json" in tampered(copy)


@pytest.mark.parametrize("name", ["../evil.py", "/etc/passwd", "a/../../evil.py", "C:\\evil.py"])
def test_a_path_that_leads_outside(copy, name):
    manifest = json.loads((copy / "port.json").read_text())
    manifest["files"][name] = {"sha256": "0" * 64, "bytes": 0}
    (copy / "port.json").write_text(json.dumps(manifest))
    assert "outside the port" in tampered(copy)
    manifest["entry"] = name
    (copy / "port.json").write_text(json.dumps(manifest))
    assert "outside the port" in tampered(copy)
    with pytest.raises(TamperedPort):  # no override for this
        paritas.load(copy, allow_modified=True)


def test_a_link_that_leads_outside(copy, tmp_path):
    (tmp_path / "evil.py").write_text("")
    module = module_of(copy)
    module.unlink()
    module.symlink_to(tmp_path / "evil.py")
    assert "is a link to" in tampered(copy)


def test_an_output_class_of_someone_elses_choice_is_not_imported(copy, tmp_path, monkeypatch):
    (tmp_path / "evil_package.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    manifest = json.loads((copy / "port.json").read_text())
    assert manifest["structure"]["kind"] == "output"
    manifest["structure"]["class"] = "evil_package.Output"
    (copy / "port.json").write_text(json.dumps(manifest))
    port = paritas.load(copy)
    for ids in (IDS, torch.from_numpy(IDS)):
        assert type(port(input_ids=ids)).__module__ == "paritas.pytree"
    assert not (tmp_path / "executed").exists()


# --- the grammar of generated modules ----------------------------------------------------------


@pytest.mark.parametrize("name", ATTACKS)
def test_a_module_that_the_generator_cannot_have_written_is_refused(name):
    with pytest.raises(TamperedPort, match=r"m\.py.*(xecuted)"):
        grammar.check(ATTACKS[name], "m.py", elements=1000)


@pytest.mark.parametrize("name", ["a module held", "annotation", "tofile", "a module as a value", "nested too deeply"])
def test_an_attack_in_a_signed_port_is_not_executed(copy, name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    module = module_of(copy)
    module.write_text(ATTACKS[name].replace("'x'", "'executed'").replace("'true'", "'touch executed'"))
    sign(copy, module.name)
    tampered(copy)
    assert not (tmp_path / "executed").exists()


def test_what_the_generator_writes_is_accepted(mindspore_port):
    module = module_of(mindspore_port)
    grammar.check(module.read_text(), module.name)
