# SPDX-License-Identifier: Apache-2.0
"""Devices and properties of OpenVINO: what is here runs, what is not here is one error before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import paritas
from paritas import extras, pipeline
from paritas.errors import DeviceMissing, EngineError, InputError, PortError
from paritas.making import build_options
from paritas.run.engine import about

pytest.importorskip("openvino")

from paritas.run.openvino import devices
from paritas.run.openvino.adapter import OpenVINO


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x).relu()


X = {"x": torch.arange(8.0).reshape(2, 4)}


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture(scope="module")
def saved(model: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("devices") / "port"
    paritas.port(model, inputs=X).save(place)
    return place


@pytest.fixture
def with_npu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with an NPU, as far as anybody asks."""
    monkeypatch.setattr(devices, "found", lambda: {"CPU": "A processor", "NPU": "A neural one"})


@pytest.mark.parametrize("device", ["CPU", "cpu", "AUTO", "AUTO:CPU"])
def test_it_runs_where_it_is_told_and_the_report_says_where(model: torch.nn.Module, saved: Path, device: str) -> None:
    port = paritas.load(saved, device=device)
    with torch.no_grad():
        torch.testing.assert_close(port(**X), model(**X))
    assert port.device == device.upper()
    assert port.session.precision == "float32"
    report = port.verify(X, level="nodes", original=model)
    assert (report.verdict, report.environment.device) == ("agrees", "cpu")


@pytest.mark.parametrize("device", ["GPU", "GPU.1", "AUTO:GPU,CPU", "cuda"])
def test_a_device_that_is_not_here_is_one_error_before_any_work(
    model: torch.nn.Module, saved: Path, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paritas.capture.capture", lambda *_, **__: pytest.fail("captured"))
    if any(name.startswith("GPU") for name in devices.found()) and "GPU" in device:
        pytest.skip("there is one")
    for attempt in (
        lambda: paritas.port(model, inputs=X, device=device),
        lambda: paritas.load(saved, device=device),
    ):
        with pytest.raises(
            DeviceMissing, match=r"openvino finds no device '(GPU|GPU\.1|CUDA)' on this machine. It has: CPU \("
        ):
            attempt()


def test_the_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "found", lambda: {"CPU": "A processor"})
    with pytest.raises(DeviceMissing) as caught:
        OpenVINO().device("gpu")
    assert str(caught.value) == (
        "openvino finds no device 'GPU' on this machine. It has: CPU (A processor), AUTO. "
        "A GPU needs Intel's OpenCL driver (intel-opencl-icd, libOpenCL.so.1) and the right to open /dev/dri."
    )
    with pytest.raises(DeviceMissing, match="mindspore finds no device 'GPU' on this machine"):
        about("mindspore").device("GPU")


def test_an_npu_wants_fixed_sizes(model: torch.nn.Module, saved: Path, with_npu: None) -> None:
    with pytest.raises(InputError, match="paritas port SOURCE --static --device NPU --input NAME=SHAPE"):
        paritas.port(model, inputs=X, device="NPU")
    with pytest.raises(InputError, match="NPU runs models of fixed sizes only, and text-generation-with-past leaves"):
        paritas.port(model, device="npu", dynamic=False, task="text-generation-with-past")
    with pytest.raises(EngineError, match=r"leaves some free: x: float32\[.*, 4\]. Make one without:   paritas port"):
        paritas.load(saved, device="NPU")


def test_what_the_npu_computes_in_is_a_note(with_npu: None) -> None:
    options, notes = build_options("openvino", device="NPU")
    assert options.dtype == "float16"
    assert "float32 was asked for; the arithmetic is float16" in str(notes[0])


# --- properties --------------------------------------------------------------------------------


def test_properties_for_speed_are_passed_on_and_are_no_part_of_the_port(model: torch.nn.Module, tmp_path: Path) -> None:
    port = paritas.port(model, inputs=X, ov_config={"NUM_STREAMS": 2, "ENABLE_CPU_PINNING": False})
    compiled = port.session._open().compiled  # type: ignore[attr-defined]
    assert compiled.get_property("NUM_STREAMS") == 2
    assert "ov_config" not in port.manifest.settings
    with torch.no_grad():
        torch.testing.assert_close(port(**X), model(**X))
    port.save(tmp_path / "p")
    other = paritas.load(tmp_path / "p", ov_config={"INFERENCE_NUM_THREADS": "1"})
    assert other.session._open().compiled.get_property("INFERENCE_NUM_THREADS") == 1  # type: ignore[attr-defined]


def test_properties_that_change_results_are_noted_kept_and_verified(model: torch.nn.Module, tmp_path: Path) -> None:
    port = paritas.port(model, inputs=X, ov_config={"DYNAMIC_QUANTIZATION_GROUP_SIZE": 32, "NUM_STREAMS": 1})
    assert port.manifest.settings["ov_config"] == {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"}
    assert "activations are rounded to 8 bits in groups of 32 (DYNAMIC_QUANTIZATION_GROUP_SIZE=32)" in str(port.notes)
    port.save(tmp_path / "p")
    # Whoever else compiles it reads it there.
    assert json.loads((tmp_path / "p" / "ov_config.json").read_text())["DYNAMIC_QUANTIZATION_GROUP_SIZE"] == "32"
    same = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"}
    for given in ({}, same):
        assert paritas.load(tmp_path / "p", ov_config=given).session.config == same  # type: ignore[attr-defined]
    for given in ({"DYNAMIC_QUANTIZATION_GROUP_SIZE": 64}, {"SNIPPETS_MODE": "ENABLE"}):
        with pytest.raises(InputError, match=r"changes what this port computes .*Port the original again with it"):
            paritas.load(tmp_path / "p", ov_config=given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"INFERENCE_PRECISION_HINT": "bf16"}, "would change the precision that is verified. Say dtype="),
        ({"NUM_STREAM": 2}, "Did you mean NUM_STREAMS?"),
        ({"NOTHING": 2}, "These are: .*NUM_STREAMS"),
        ({"NUM_STREAMS": "many"}, "Could not read number of streams from str: many"),
        ({"KV_CACHE_PRECISION": "z"}, "Wrong value z for property key KV_CACHE_PRECISION. Supported values: u8"),
    ],
)
def test_properties_that_are_none_are_refused_before_any_work(
    model: torch.nn.Module, saved: Path, given: dict[str, Any], said: str
) -> None:
    for attempt in (
        lambda: paritas.port(model, inputs=X, ov_config=given),
        lambda: paritas.load(saved, ov_config=given),
    ):
        with pytest.raises(InputError, match=said):
            attempt()


def test_other_engines_have_no_such_properties(model: torch.nn.Module) -> None:
    with pytest.raises(InputError, match="torch has no properties of its own: leave out ov_config"):
        paritas.port(model, "torch", inputs=X, ov_config={"NUM_STREAMS": 2})


@pytest.mark.parametrize("written", ["u8", {"CACHE_DIR": "/tmp/x"}, {"KV_CACHE_PRECISION": 8}])
def test_a_port_cannot_ask_for_what_reaches_beyond_it(saved: Path, tmp_path: Path, written: Any) -> None:
    import shutil

    place = shutil.copytree(saved, tmp_path / "port")
    told = json.loads((place / "port.json").read_text())
    told["settings"]["ov_config"] = written
    (place / "port.json").write_text(json.dumps(told))
    with pytest.raises(PortError, match="asks for a configuration of OpenVINO that is none"):
        paritas.load(place)


def test_drop_ins_take_devices_and_properties(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers as hf

    import paritas.transformers as ours
    from paritas.transformers.models import split

    monkeypatch.setenv("PARITAS_CACHE", str(tmp_path))
    torch.manual_seed(0)
    config = hf.BertConfig(
        vocab_size=99, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    ids = torch.tensor([[5, 6, 7]])
    want = None
    for _ in range(2):  # made, and read again
        torch.manual_seed(0)
        model = ours.BertModel(config, engine="openvino", engine_device="AUTO", ov_config={"NUM_STREAMS": 1})
        got = model(ids).last_hidden_state
        want = got if want is None else want
        assert torch.equal(got, want)
        assert [port.device for port in model.ports] == ["AUTO"]
        assert model.ports[0].session.config == {"NUM_STREAMS": "1"}
    with pytest.raises(DeviceMissing):
        ours.BertModel(config, engine="openvino", engine_device="NPU.7")
    assert split({"device": "GPU"})[0] == {"engine_device": "GPU"}
    assert split({"device": "cpu"}) == ({}, {"device": "cpu"})


def test_the_command_line_says_the_same(saved: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from paritas.cli import app

    run = CliRunner()
    out, files = ("--out", str(tmp_path / "y")), ("--src", "x.en", "--ref", "x.de")
    for arguments in (
        ("port", "x", *out), ("verify", str(saved)), ("bench", str(saved)), ("bisect", str(saved), *out),
        ("generate", str(saved), "hello"), ("chat", str(saved)), ("adopt", "x.xml", "--original", "x", *out),
        *(
            (*command, "-e", "openvino")
            for command in (
                ("translate", "x", "a"), ("eval", "bleu", "x", *files), ("eval", "search", "x", *files), ("speech",),
                ("demo", *out),
            )
        ),
    ):  # fmt: skip
        said = run.invoke(app, [*arguments, "--device", "GPU.9"])
        assert said.exit_code == 2 and "openvino finds no device 'GPU.9'" in said.stderr
        said = run.invoke(app, [*arguments, "--ov-config", "NUM_STREAMS"])
        assert said.exit_code == 2 and "'NUM_STREAMS' is not NAME=VALUE" in said.stderr
    said = run.invoke(app, ["port", "x", "-e", "mindspore", "--device", "GPU", "--out", str(tmp_path / "y")])
    assert said.exit_code == 2
    found = run.invoke(
        app,
        ["bench", str(saved), "--no-baseline", "--device", "AUTO", "--ov-config", "NUM_STREAMS=1", "--seconds", "0.2"],
    )
    assert found.exit_code == 0 and "openvino float32" in found.stdout
    assert not extras.missing("port") and pipeline.load(saved).device == "CPU"
