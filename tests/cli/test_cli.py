# SPDX-License-Identifier: Apache-2.0
"""The command line as a user meets it: mostly in processes of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from paritas import pipeline, store
from paritas.cli import app
from paritas.verify import ParityReport

COMMANDS = ("port", "verify", "report", "bench", "inspect", "doctor", "demo")

HEAVY = ("torch", "transformers", "openvino", "mindspore", "numpy")

runner = CliRunner()


# --- importing, help ---------------------------------------------------------------------------


def test_importing_paritas_loads_no_engine_and_changes_nothing(paritas):
    done = paritas(
        f"""
import os, sys, threading, builtins, warnings, json
def state():
    return (dict(os.environ), list(sys.meta_path), list(sys.path_hooks), list(sys.path), threading.active_count(),
            dict(vars(builtins)), list(warnings.filters), sys.excepthook, sys.displayhook)
before = state()
import paritas
print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))
print(before == state())
""",
        python=True,
    )
    assert done.stdout.split("\n")[:2] == ["[]", "True"], done.stdout + done.stderr


def test_help_loads_no_engine():
    loaded = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "paritas", "port", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    imported = {line.rpartition("|")[2].strip() for line in loaded.splitlines()}
    assert "paritas.cli.commands.port" in imported
    assert not imported & set(HEAVY)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples_and_exit_codes(command):
    result = runner.invoke(app, [command, "--help"])
    text = " ".join(result.stdout.split())
    assert result.exit_code == 0
    assert "Examples" in text
    assert f"paritas {command}" in text
    assert "Exit codes: 0 all is well; 1 the port diverges" in text
    assert "--json" in text
    assert "--debug" in text


def test_the_commands_are_listed_and_the_version_is_said():
    text = runner.invoke(app, ["--help"]).stdout
    assert all(f" {command} " in text for command in COMMANDS)
    assert runner.invoke(app, ["--version"]).stdout == "paritas 0.1.0\n"


def test_it_runs_as_a_module_and_so_does_the_doctor():
    for command in ([], ["doctor"]):
        done = subprocess.run(
            [sys.executable, "-m", "paritas", *command, "--help"], capture_output=True, text=True, check=True
        )
        assert "Exit codes" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["port", "x"], ["nothing"], ["port", "x", "-o", "y", "--dtype", "int8"], ["verify"], ["bench", "--seconds", "0"]],
)  # fmt: skip
def test_wrong_usage_is_exit_code_2(arguments):
    result = runner.invoke(app, arguments)
    assert result.exit_code == 2
    assert "Usage" in result.stderr


# --- port --------------------------------------------------------------------------------------


def test_port_writes_a_verified_port_and_says_so_in_json(openvino_run):
    directory, done = openvino_run
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["verdict"] == "agrees"
    assert said["engine"] == "openvino"
    assert said["report"]["modules"]
    assert said["bytes"] > 10_000
    assert list(said["seconds"]) == ["load", "capture", "lower", "run", "verify", "save"]
    artifact = store.read(directory)
    assert {"PARITY.md", "parity.json", "config.json"} <= set(artifact.manifest.files)
    assert ParityReport.from_json((directory / "parity.json").read_text()).verdict == "agrees"
    assert (directory / "PARITY.md").read_text().startswith("# Parity: agrees")


def test_progress_is_plain_lines_where_there_is_no_terminal(openvino_run, mindspore_run):
    for _, done in (openvino_run, mindspore_run):
        lines = [line for line in done.stderr.splitlines() if line.startswith("[")]
        words = [line.partition("s] ")[2] for line in lines]
        assert words[1:4] == ["load the original", "capture its graph", "lower it to the engine"]
        assert words[-1] == "done"
        seconds = [float(line[1:].partition(" s]")[0]) for line in lines]
        assert seconds == sorted(seconds)
        assert "\x1b" not in done.stderr


def test_progress_in_a_terminal_ticks_off_the_stages():
    code = (
        "import time\nfrom paritas.cli.progress import Stages\nwith Stages('a model') as stages:\n"
        "    stages('capture')\n    stages.detail('half way')\n    time.sleep(0.3)\n    stages('run')"
    )
    main, other = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", code], stderr=other, env={**os.environ, "TERM": "xterm"}) as process:
        os.close(other)
        shown = b""
        while True:
            try:
                block = os.read(main, 4096)
            except OSError:  # Linux says so when the other end is closed
                break
            if not block:
                break
            shown += block
    os.close(main)
    assert process.returncode == 0
    for text in ("a model", "capture its graph", "half way", "✓", "load the port"):
        assert text in shown.decode()


def test_the_report_is_printed_for_people_too(mindspore_run):
    directory, done = mindspore_run
    assert done.returncode == 0, done.stderr
    assert "agrees: " in done.stdout
    assert "outputs compared in" in " ".join(done.stdout.split())  # lines break where the terminal ends
    assert f"paritas.load('{directory}')" in " ".join(done.stdout.split())


def diverging(report: ParityReport) -> ParityReport:
    return dataclasses.replace(report, outputs=tuple(dataclasses.replace(r, excess=7.0) for r in report.outputs))


@pytest.mark.parametrize(
    ("change", "verdict"),
    [(diverging, "diverges"), (lambda r: dataclasses.replace(r, outputs=()), "incomplete")],
)
def test_a_port_that_does_not_agree_is_written_and_exit_code_1(openvino_port, tmp_path, monkeypatch, change, verdict):
    report = change(ParityReport.from_json((openvino_port / "parity.json").read_text()))
    assert report.verdict == verdict
    monkeypatch.setattr(pipeline, "port", lambda *args, **options: pipeline.load(openvino_port))
    monkeypatch.setattr(pipeline.Port, "verify", lambda self, **options: report)
    out = tmp_path / "port"
    result = runner.invoke(app, ["port", "anything", "--out", str(out)])
    assert result.exit_code == 1, result.output
    assert {"diverges": "DIVERGES", "incomplete": "INCOMPLETE"}[verdict] in result.stdout
    assert store.read(out).manifest.engine == "openvino"
    assert (out / "PARITY.md").read_text().startswith(f"# Parity: {verdict}")


def test_without_verification_it_says_how_to_do_it(openvino_port, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "port", lambda *args, **options: pipeline.load(openvino_port))
    result = runner.invoke(app, ["port", "anything", "--no-verify", "--out", str(tmp_path / "port"), "-q"])
    assert result.exit_code == 0
    assert result.stderr == ""
    assert f"paritas verify {tmp_path / 'port'}" in result.stdout.replace("\n", "")


def test_the_options_reach_the_pipeline(openvino_port, tmp_path, monkeypatch):
    seen = {}

    def port(*args, **options):
        seen.update(zip(("source", "engine", "inputs", "dtype"), args, strict=True), **options)
        return pipeline.load(openvino_port)

    monkeypatch.setattr(pipeline, "port", port)
    command = [
        "port",
        "a/b",
        "--engine",
        "mindspore",
        "--out",
        str(tmp_path / "p"),
        "--no-verify",
        "--static",
        "--json",
    ]
    command += [
        "--dtype",
        "fp16",
        "--mode",
        "pynative",
        "--target",
        "ascend",
        "--revision",
        "v1",
        "--subfolder",
        "x",
    ]
    command += [
        "--class",
        "AutoModel",
        "--input",
        "input_ids=2x5:int64",
        "--input",
        "pixels=1x3x8x8",
        "--input",
        "a_mask=2x5:bool",
    ]
    result = runner.invoke(app, command)
    assert result.exit_code == 0, result.output
    inputs = seen.pop("inputs")
    seen.pop("progress")
    assert seen == {
        "source": "a/b", "engine": "mindspore", "dtype": "fp16", "mode": "pynative", "target": "ascend",
        "revision": "v1", "subfolder": "x", "model_class": "AutoModel", "dynamic": False, "weights": "",
        "task": "", "device": "", "ov_config": {}, "train": False, "autocast": "",
    }  # fmt: skip
    shapes = {name: (str(value.dtype), tuple(value.shape)) for name, value in inputs.items()}
    assert shapes["input_ids"] == ("torch.int64", (2, 5))
    assert shapes["pixels"] == ("torch.float32", (1, 3, 8, 8))
    assert bool(inputs["a_mask"].all())


# --- inspect, verify, bench --------------------------------------------------------------------


def test_inspect_tells_everything_and_loads_no_engine(openvino_port, paritas):
    text = " ".join(runner.invoke(app, ["inspect", str(openvino_port)]).stdout.split())
    for words in ("openvino", "float32", "input_ids: int64[", "last_hidden_state: float32[", "tiny-bert", "BertModel",
                  "<= 40", "openvino_model.bin", "agrees, error", "transformers 5.23"):  # fmt: skip
        assert words in text, words
    done = paritas(
        "import sys\nfrom paritas.cli import app\ntry:\n    app(['inspect', sys.argv[1]])\nexcept SystemExit as end:\n"
        "    print(end.code, 'torch' in sys.modules, 'openvino' in sys.modules)",
        openvino_port,
        python=True,
    )
    assert done.stdout.splitlines()[-1] == "0 False False"


def test_inspect_as_json(openvino_port):
    said = json.loads(runner.invoke(app, ["inspect", str(openvino_port), "--json"]).stdout)
    assert said["manifest"]["engine"] == "openvino"
    assert said["parity"]["verdict"] == "agrees"
    assert said["modified"] is False


def test_verify_agrees_and_attaches(mindspore_port, tmp_path):
    directory = Path(shutil.copytree(mindspore_port, tmp_path / "port"))
    (directory / "PARITY.md").unlink()
    ids = np.array([[5, 6, 7, 8]])
    np.savez(tmp_path / "batch.npz", input_ids=ids, attention_mask=np.ones_like(ids))
    inputs = ["--inputs", str(tmp_path / "batch.npz"), "--level", "outputs", "--mode", "pynative", "--json"]
    # A missing report is a missing file: what is listed has to be there.
    assert runner.invoke(app, ["verify", str(directory), *inputs]).exit_code == 2
    shutil.copyfile(mindspore_port / "PARITY.md", directory / "PARITY.md")
    result = runner.invoke(app, ["verify", str(directory), *inputs, "--attach"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["verdict"] == "agrees"
    assert said["report"]["environment"]["mode"] == "pynative"
    assert ParityReport.from_json((directory / "parity.json").read_text()).cases == tuple(said["report"]["cases"])
    store.read(directory)


def test_verify_against_another_original_diverges(openvino_port, checkpoint, tmp_path):
    import transformers

    other = transformers.BertModel.from_pretrained(checkpoint)
    other.encoder.layer[0].output.dense.weight.data *= 1.01
    other.save_pretrained(tmp_path / "other")
    result = runner.invoke(
        app, ["verify", str(openvino_port), "--original", str(tmp_path / "other"), "--level", "outputs"]
    )
    assert result.exit_code == 1, result.output
    assert "diverges" in result.stdout


def test_bench_prints_a_ratio(openvino_port, paritas):
    done = paritas("bench", openvino_port, "--seconds", "0.5", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


# --- demo --------------------------------------------------------------------------------------


def test_the_demo_pools_and_ranks_as_sentence_transformers_does():
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    from paritas.apps import demo
    from paritas.capture.source import minilm_directory

    checkpoint = minilm_directory()
    feed = demo.tokenise(checkpoint)
    model = AutoModel.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        hidden = model(**{name: torch.from_numpy(value) for name, value in feed.items()}).last_hidden_state
    got = demo.pool(hidden.numpy(), feed["attention_mask"], checkpoint)
    want = SentenceTransformer(str(checkpoint), device="cpu").encode(list(demo.SENTENCES))
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert [row[:2] for row in demo.rank(got)[:2]] == [(1, 2), (0, 2)]


def test_the_demo_says_what_is_not_the_same():
    from paritas.apps import demo

    ranking = demo.rank(np.eye(len(demo.SENTENCES)) + 0.5)
    good = demo.Row("openvino", "", "fp32", "", "ports/x", "agrees", 1e-6, "encoder", 2.0, 10**6, 1.0, 1.1, ranking)
    for rows, agrees in (
        ([good], True),
        ([good, dataclasses.replace(good, dtype="bf16", rankings=ranking[::-1])], True),  # near ties may swap
        ([good, dataclasses.replace(good, mode="graph", rankings=ranking[::-1])], False),
        ([good, dataclasses.replace(good, dtype="fp16", verdict="diverges")], False),
        ([demo.Row("mindspore", "", "bf16", "as fp32, above")], False),  # nothing was ported
    ):
        result = demo.Result(tuple(rows), ranking, "a machine")
        assert result.agrees is agrees
        assert json.loads(json.dumps(result.to_json(), allow_nan=False))["agrees"] is agrees


# --- errors ------------------------------------------------------------------------------------


def test_errors_are_one_message_and_json_has_them_too(tmp_path):
    missing = str(tmp_path / "nothing")
    plain = runner.invoke(app, ["inspect", missing])
    assert plain.exit_code == 2
    assert plain.stderr == f"error: There is no directory {missing}.\n"
    assert plain.stdout == ""
    as_json = runner.invoke(app, ["inspect", missing, "--json"])
    assert json.loads(as_json.stdout) == {
        "error": {"type": "PortError", "message": f"There is no directory {missing}."},
        "exit_code": 2,
    }


def test_debug_shows_the_traceback(tmp_path, paritas):
    done = paritas("inspect", tmp_path / "nothing", "--debug")
    assert done.returncode == 2
    assert "Traceback (most recent call last)" in done.stderr
    assert "Traceback" not in paritas("inspect", tmp_path / "nothing").stderr


def test_a_bug_is_exit_code_3_and_says_that_it_is_one(openvino_port, monkeypatch):
    monkeypatch.setattr(store, "read_any", lambda *args, **options: 1 / 0)
    result = runner.invoke(app, ["inspect", str(openvino_port)])
    assert result.exit_code == 3
    assert "This is a bug in Paritas" in result.stderr


def test_json_is_alone_on_stdout_whatever_libraries_print(openvino_port, paritas):
    done = paritas(
        "import os, sys\nfrom paritas import store\nfrom paritas.cli import app\nread = store.read_any\n"
        "def noisy(*args, **options):\n    print('python noise'); os.write(1, b'C noise\\n')\n"
        "    return read(*args, **options)\n"
        "store.read_any = noisy\napp(['inspect', sys.argv[1], '--json'])",
        openvino_port,
        python=True,
    )
    assert json.loads(done.stdout)["parity"]["verdict"] == "agrees"
    assert "C noise" in done.stderr


# --- without torch -----------------------------------------------------------------------------

WITHOUT_TORCH = """
import importlib.abc, json, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "huggingface_hub", "rich", "typer"):
            raise ImportError(f"{name} must not be needed")
sys.meta_path.insert(0, Refuse())
import numpy as np, paritas
port = paritas.load(sys.argv[1])
ids = np.array([[2, 3, 4, 5], [6, 7, 8, 0]])
out = port(input_ids=ids, attention_mask=(ids > 0).astype(np.int64))
assert out.last_hidden_state.shape == (2, 4, 32) and out[0] is out["last_hidden_state"]
print(json.dumps([sorted(out), float(np.abs(out.pooler_output).max()), np.isfinite(out[0]).all().item()]))
"""


@pytest.mark.parametrize("engine", ["openvino", "mindspore"])
def test_a_port_loads_and_runs_where_torch_cannot_be_imported(engine, request, paritas):
    done = paritas(WITHOUT_TORCH, request.getfixturevalue(f"{engine}_port"), python=True)
    assert done.returncode == 0, done.stderr
    names, largest, finite = json.loads(done.stdout.splitlines()[-1])
    assert names == ["last_hidden_state", "pooler_output"]
    assert 0 < largest < 1
    assert finite
