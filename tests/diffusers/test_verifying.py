# SPDX-License-Identifier: Apache-2.0
"""A pipeline on engines is compared with PyTorch's port by port and by its picture; what is wrong is named."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("diffusers")
import tiny_pipelines

import paritas.diffusers as ours
from paritas.cli import app
from paritas.diffusers import picture, verifying
from paritas.diffusers.runs import Run
from paritas.errors import Disagreement, InputError, OriginalMissing
from paritas.program import TensorSpec
from paritas.verify import Case, ComponentReports, report_from_json

#: Of a saved pipeline, what its ports are called.
PORTS = ["text_encoder", "unet", "vae_decoder", "vae_encoder"]


@pytest.fixture
def copy(ported_directory: Path, tmp_path: Path) -> Path:
    place = tmp_path / "copy"
    shutil.copytree(ported_directory, place)
    return place


def _changed(folder: Path, change: Callable[[np.ndarray], None], file: str = "openvino_model.bin") -> None:
    """A port whose weights are others, and which says so of itself: nothing but a comparison finds it."""
    place, manifest = folder / file, folder / "port.json"
    values = np.frombuffer(place.read_bytes(), np.float32).copy()
    change(values)
    place.chmod(0o644)
    place.write_bytes(values.tobytes())
    told = json.loads(manifest.read_text())
    told["files"][file]["sha256"] = hashlib.sha256(place.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(told))


@torch.no_grad()
def test_a_pipeline_in_memory_is_compared_and_what_rounding_costs_is_told() -> None:
    options: dict[str, Any] = {"engine": "openvino", "weights": {"unet": "int4"}}
    pipe = ours.port(tiny_pipelines.stable_diffusion(), **options)
    scheduler, state = type(pipe.scheduler), torch.get_rng_state()
    step = scheduler.step
    report = ours.verify(pipe, level="outputs")
    assert isinstance(report, ComponentReports)
    assert {name: one.verdict for name, one in report.items()} == {
        "text_encoder": "agrees",
        "unet": "diverges",
        "vae_decoder": "agrees",
        "picture": "diverges",
    }
    assert len(report["unet"].cases) == 6  # both steps, and values near them and far from them
    names = [row.output for row in report["picture"].outputs]
    assert names == ["latents after step 1", "latents after step 2", "images"]
    cost = report["picture"].picture
    assert cost.because == "unet has weights of int4" and cost.levels >= 1 and 10 < cost.psnr < 60
    again = report_from_json(report.to_json())
    assert again["picture"].picture == cost
    words = f"off by {cost.levels} level"
    assert all(words in text for text in (str(report), report.to_markdown(), report.to_html()))
    # The run has left nothing behind.
    assert scheduler.step is step and torch.equal(torch.get_rng_state(), state)
    assert not pipe.unet._forward_pre_hooks and "decode" not in vars(pipe.vae)


def test_a_directory_has_its_report_and_is_verified_again(ported_directory: Path) -> None:
    kept = report_from_json((ported_directory / "parity.json").read_text())
    assert list(kept) == [*PORTS, "picture"] and kept.agrees
    assert (
        "# Parity: agrees" in (ported_directory / "PARITY.md").read_text()
        and (ported_directory / "PARITY.html").is_file()
    )
    result = CliRunner().invoke(
        app, ["verify", str(ported_directory), "--component", "text_encoder", "--level", "nodes", "--json", "-q"]
    )
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)["report"]
    assert list(report["components"]) == ["text_encoder"] and len(report["components"]["text_encoder"]["nodes"]) > 20


def _one(values: np.ndarray) -> None:
    values[np.abs(values).argmax()] *= 3


def _two(folder: Path) -> Callable[[np.ndarray], None]:
    """Two matrices of one size change places: no sum and no distribution is another."""
    found = re.findall(r'shape="16,\s*16" offset="(\d+)"', (folder / "openvino_model.xml").read_text())

    def change(values: np.ndarray) -> None:
        one, other = (slice(int(at) // 4, int(at) // 4 + 256) for at in found[:2])
        values[one], values[other] = values[other].copy(), values[one].copy()

    return change


def test_wrong_weights_are_found_and_their_components_named(copy: Path) -> None:
    _changed(copy / "vae_decoder", _one)
    _changed(copy / "text_encoder", _two(copy / "text_encoder"))
    result = CliRunner().invoke(app, ["verify", str(copy), "--level", "outputs", "--attach", "-q"])
    assert result.exit_code == 1, result.output
    report = report_from_json((copy / "parity.json").read_text())
    found = {name: one.verdict for name, one in report.items() if not one.agrees}
    assert found == {"text_encoder": "diverges", "vae_decoder": "diverges", "picture": "diverges"}
    assert report.verdict == "diverges" and not report.agrees
    with pytest.raises(Disagreement, match="vae_decoder: diverges"):
        report.check()
    which = CliRunner().invoke(app, ["bisect", str(copy), "-q"])
    assert which.exit_code == 2 and "say which, --component unet" in which.stderr


@pytest.mark.slow
def test_bisection_reaches_into_a_pipeline(copy: Path, tmp_path: Path) -> None:
    _changed(copy / "vae_decoder", _one)
    pipe = ours.DiffusionPipeline.from_pretrained(copy)
    report = pipe.bisect("vae_decoder", None, tmp_path / "script")
    assert report.verdict != "clean" and report.nodes


def test_a_large_network_is_compared_with_pytorch_alone(
    ported_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "LARGEST", 1000)
    opened = ours.DiffusionPipeline.from_pretrained(ported_directory)
    report = opened.verify(component="vae_decoder").check()["vae_decoder"]
    assert report.level == "outputs" and [case.partition(":")[0] for case in report.cases] == ["call 1", "call 2"]
    assert "compared with PyTorch alone, without float64" in str(report)


def test_what_cannot_be_verified(copy: Path, ported_directory: Path) -> None:
    plain = tiny_pipelines.stable_diffusion()
    with pytest.raises(InputError, match="No network of this pipeline is on an engine"):
        ours.verify(plain)
    opened = ours.DiffusionPipeline.from_pretrained(ported_directory)
    with pytest.raises(InputError, match="takes no promt; it takes prompt"):
        opened.verify({"promt": "a dog"})
    with pytest.raises(InputError, match="unet was called with other arguments"):
        opened.verify({"prompt": "a dog", "height": 24, "width": 24})
    with pytest.raises(InputError, match=r"There is no component vae\. There are: text_encoder, unet, vae_decoder"):
        opened.verify(component="vae")
    told = json.loads((copy / "ports.json").read_text())
    (copy / "ports.json").write_text(json.dumps({**told, "source": ""}))
    with pytest.raises(OriginalMissing, match="does not say of which pipeline it was made: give the original"):
        ours.DiffusionPipeline.from_pretrained(copy).verify()
    with pytest.raises(OriginalMissing, match="The pipeline nowhere cannot be loaded"):
        opened.verify(original="nowhere")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "verdict"),
    [
        (["--engine", "unet=openvino,vae=mindspore,text_encoder=openvino"], "agrees"),
        (["--weights", "unet=int8,vae=fp16"], "diverges"),
    ],
)
def test_an_engine_and_a_precision_for_each_network(
    pipeline_directory: Path, tmp_path: Path, options: list[str], verdict: str
) -> None:
    place = tmp_path / "port"
    given = ["port", str(pipeline_directory), *options, "--static", "--level", "outputs", "--out", str(place)]
    result = CliRunner().invoke(app, [*given, "--json", "-q"])
    assert result.exit_code == (verdict == "diverges"), result.output
    told = json.loads(result.stdout)
    assert told["verdict"] == verdict
    if verdict == "agrees":
        assert told["engines"] == {"vae": "mindspore", "text_encoder": "openvino", "unet": "openvino"}
        opened = ours.DiffusionPipeline.from_pretrained(place, engine={"vae": "mindspore"})
        assert (opened.vae.engine, opened.unet.engine) == ("mindspore", "openvino")
    else:
        assert "unet has weights of int8" in told["report"]["components"]["picture"]["picture"]["because"]


def test_values_around_a_call_are_of_its_precision() -> None:
    """Or the original, which gets them as they are, and a port, which gets them rounded, would be asked two things."""
    value = torch.randn(2, 8).to(torch.bfloat16).float().numpy()
    cases = list(verifying.around([TensorSpec("x", "bfloat16", (2, 8))], [Case("call 1", {"x": value})]))
    assert [case.name for case in cases] == ["call 1, near", "call 1, other values"]
    for case in cases:
        held = torch.from_numpy(case.feed["x"])
        assert not np.array_equal(held, value) and torch.equal(held.to(torch.bfloat16).float(), held)


def _run(scale: float, seed: int) -> Run:
    """A run that is that far from the truth, by rounding."""
    truth = np.linspace(0, 1, 3 * 64, dtype=np.float32).reshape(1, 8, 8, 3)
    noise = np.random.default_rng(seed).standard_normal(truth.shape).astype(np.float32) * scale
    return Run([truth + noise], {"images": np.clip(truth + noise, 0, 1)})


@pytest.mark.parametrize(("scale", "verdict"), [(0.01, "agrees"), (0.05, "diverges")])
def test_a_picture_in_half_precision_is_judged_by_float64(scale: float, verdict: str) -> None:
    """By how far PyTorch's is from it in the same precision: the bar of float32 would refuse both."""
    theirs, truth = _run(0.01, 1), _run(0.0, 0)
    how: dict[str, Any] = {"truth": truth, "yardstick": theirs, "half": "bfloat16"}
    report = picture.compared(theirs, _run(scale, 2), [], **how)
    assert report.verdict == verdict, str(report)
    assert "|got-float64| <= 2 * |PyTorch in bfloat16 - float64|" in str(report)
    assert picture.compared(theirs, _run(scale, 2), []).verdict == "diverges"


@pytest.mark.slow
@torch.no_grad()
def test_a_pipeline_in_bfloat16_agrees_by_the_bar_of_bfloat16() -> None:
    pipe = ours.port(tiny_pipelines.stable_diffusion().to(torch.bfloat16), engine="openvino")
    report = ours.verify(pipe, level="outputs")
    assert report["picture"].verdict == "agrees", str(report["picture"])
    assert "PyTorch in bfloat16" in str(report["picture"])
