# SPDX-License-Identifier: Apache-2.0
"""What other converters made is verified as a port is: in the precision in which it runs, node by node if it can be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import openvino
import pytest
import torch
from openvino import opset16 as ops
from transformers import GPT2Config, GPT2Model
from typer.testing import CliRunner

import paritas
from paritas.cli.app import app
from paritas.errors import InputError

ATTENTION = "aten.scaled_dot_product_attention.default"


def gpt2() -> GPT2Model:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=99, n_embd=32, n_layer=3, n_head=4, bos_token_id=None, eos_token_id=None)
    return GPT2Model(config).eval()


def batch(*, padding: int) -> dict[str, torch.Tensor]:
    mask = torch.ones(2, 8, dtype=torch.long)
    mask[1, :padding] = 0
    ids = torch.randint(0, 99, (2, 8), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": mask}


@pytest.fixture(scope="module")
def original() -> GPT2Model:
    return gpt2()


@pytest.fixture(scope="module")
def theirs(original: GPT2Model) -> openvino.Model:
    """What OpenVINO's own converter makes of the graph: its attention is NaN where a row sees nothing."""
    program = paritas.port(original, engine="torch", inputs=batch(padding=3)).program()
    return openvino.convert_model(program.exported)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", None], ids=str)
def test_padding_on_the_left_is_nan_in_three_attentions_which_are_named(theirs, original, dtype):
    inputs = batch(padding=3)
    port = paritas.adopt(theirs, original, inputs, dtype=dtype)
    report = port.verify(inputs, level="nodes")
    assert report.verdict == "diverges" and report.outputs[0].fault.startswith("NaN")
    assert [(row.target, row.module) for row in report.guilty] == [(ATTENTION, f"h.{layer}.attn") for layer in range(3)]
    for row in report.guilty:
        assert row.fault.startswith("NaN")
        assert row.source.startswith("sdpa_attention.py:") and "called at modeling_gpt2.py:" in row.source
    assert f"computing in {port.session.precision}" in str(report)
    if dtype is None:  # verified as OpenVINO would run it without us
        default = openvino.Core().compile_model(theirs, "CPU").get_property("INFERENCE_PRECISION_HINT")
        assert {"f32": "float32", "bf16": "bfloat16"}[default.to_string()] == report.environment.precision
        assert any("computes in by itself" in note for note in report.notes)


def test_without_padding_the_same_model_agrees(theirs, original):
    inputs = batch(padding=0)
    report = paritas.adopt(theirs, original, inputs, dtype="float32").verify(inputs, level="nodes")
    assert report.verdict == "agrees" and not report.guilty
    assert {row.target for row in report.nodes} >= {ATTENTION, "aten.embedding.default"}
    assert any("converted by others" in note and f"{len(report.nodes)} of" in note for note in report.notes)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_port_of_ours_is_right_where_theirs_is_not(original, dtype):
    inputs = batch(padding=3)
    report = paritas.port(original, engine="openvino", inputs=inputs, dtype=dtype).verify(inputs, level="nodes")
    assert report.verdict == "agrees" and not report.guilty


def test_it_is_saved_loaded_and_verified_again(theirs, original, tmp_path):
    inputs = batch(padding=3)
    paritas.adopt(theirs, original, inputs, dtype="float32").save(tmp_path / "port")
    report = paritas.load(tmp_path / "port").verify(inputs, original=original)
    assert report.verdict == "diverges"


def doubled(kind: openvino.Type, shape: list[int], name: str = "x") -> openvino.Model:
    x = ops.parameter(shape, kind)
    x.set_friendly_name(name)
    wide = ops.convert(x, "f32")
    return openvino.Model([ops.result(ops.multiply(wide, ops.constant(2.0, openvino.Type.f32)))], [x], "m")


class Double(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.float() * 2.0


WHOLE = {"x": torch.arange(12).reshape(3, 4)}


@pytest.mark.parametrize(
    ("model", "note"),
    [
        (doubled(openvino.Type.i64, [-1, -1]), "outputs were matched by order"),
        (doubled(openvino.Type.i64, [-1, -1], "ids"), "inputs were matched by order: ids is x"),
        (doubled(openvino.Type.i32, [-1, -1]), "takes x as i32: it is cast from int64"),
        (doubled(openvino.Type.i64, [3, 4]), "fixed sizes: x: int64[3, 4]"),
    ],
    ids=["outputs", "inputs", "cast", "static"],
)
def test_what_was_assumed_is_said(model, note):
    port = paritas.adopt(model, Double(), WHOLE, dtype="fp32")
    report = port.verify(WHOLE, level="outputs")
    assert report.verdict == "agrees", report
    assert any(note in said for said in report.notes), report.notes
    assert any("0 of 2 nodes are known" in said for said in report.notes), report.notes


def test_what_does_not_fit_is_refused(tmp_path):
    class Two(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x + y

    model = doubled(openvino.Type.i64, [-1, -1])
    with pytest.raises(InputError, match=r"The model's 1 inputs are x; the original's 2 are x, y"):
        paritas.adopt(model, Two(), {"x": torch.ones(2, 3), "y": torch.ones(2, 3)})
    with pytest.raises(InputError, match=r"takes x as \[\?\], the original as x: int64"):
        paritas.adopt(doubled(openvino.Type.i64, [-1]), Double(), WHOLE)
    with pytest.raises(InputError, match="There is no file"):
        paritas.adopt(tmp_path / "none.xml", Double(), WHOLE)
    (tmp_path / "bad.xml").write_text("<net>")
    with pytest.raises(InputError, match="is no model that OpenVINO reads"):
        paritas.adopt(tmp_path / "bad.xml", Double(), WHOLE)


def test_the_command(theirs, original, tmp_path):
    original.save_pretrained(tmp_path / "gpt2")
    openvino.save_model(theirs, str(tmp_path / "theirs.xml"), compress_to_fp16=False)
    given = ["--original", str(tmp_path / "gpt2"), "--out", str(tmp_path / "out"), "--dtype", "fp32"]
    result = CliRunner().invoke(app, ["adopt", str(tmp_path / "theirs.xml"), *given, "--level", "nodes", "-q"])
    assert result.exit_code == 1, result.output
    assert "3 guilty" in result.output and "It DIVERGES from its original" in result.output.replace("\n", " ")
    assert "NaN" in (tmp_path / "out" / "PARITY.md").read_text()


@pytest.mark.slow
def test_the_example_shows_it():
    example = Path(__file__).parents[2] / "examples" / "left_padding.py"
    done = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, check=True, timeout=600)
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("OpenVINO ", "Paritas "))]
    assert [row[2] for row in rows] == ["diverges"] * 6 + ["agrees"] * 2
    assert sum("scaled_dot_product_attention" in row[3] for row in rows) == 6
