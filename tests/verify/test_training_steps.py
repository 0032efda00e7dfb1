# SPDX-License-Identifier: Apache-2.0
"""`verify(train=STEPS)`: a port that trains as the original does agrees; a gradient that is off is named."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import paritas
from paritas.errors import InputError
from paritas.verify import ParityReport

pytest.importorskip("mindspore")

nn = torch.nn


class Classifier(nn.Module):
    def __init__(self, drops: float = 0.3) -> None:
        super().__init__()
        self.first, self.drop, self.norm, self.last = (
            nn.Linear(6, 16),
            nn.Dropout(drops),
            nn.LayerNorm(16),
            nn.Linear(16, 3),
        )

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = self.last(self.norm(self.drop(torch.tanh(self.first(x)))))
        return nn.functional.cross_entropy(out, labels), out


def _port(model: nn.Module) -> Any:
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    return paritas.port(model, engine="mindspore", train=True, inputs={"x": x, "labels": torch.arange(5) % 3})


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return Classifier().eval()


@pytest.fixture(scope="module")
def port(model: Any) -> Any:
    return _port(model)


def test_a_training_that_is_the_original_s_agrees(port: Any) -> None:
    report = port.verify(train=6)
    assert report.verdict == "agrees", str(report)
    steps = report.training
    assert [row.step for row in steps] == list(range(7)) and len({row.loss for row in steps[1:]}) == 6
    assert max(row.excess for row in steps) < 0.5  # and not because the tolerance lets anything pass
    assert "PyTorch's masks" in report.trained_with
    assert ParityReport.from_json(report.to_json()).to_json() == report.to_json()
    page = report.to_html()
    assert "6 steps of training" in str(report) and "<polyline" in page and "furthest parameter" in report.to_markdown()


def test_without_dropout_it_is_compiled() -> None:
    torch.manual_seed(0)
    report = _port(Classifier(0.0).eval()).verify(train=2)
    assert report.agrees and "Graph" in report.trained_with


@pytest.mark.parametrize("whose", ["first.weight", "last.bias"])
def test_a_gradient_that_is_off_from_a_step_on_is_named(port: Any, whose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from paritas.run.mindspore.training import Recorded

    right, calls = Recorded.backward, []

    def wrong(self: Any, cotangents: Any) -> Any:
        calls.append(1)
        found = right(self, cotangents)
        if len(calls) < 3:
            return found
        return dataclasses.replace(
            found, parameters={n: g * 1.01 if n == whose else g for n, g in found.parameters.items()}
        )

    monkeypatch.setattr(Recorded, "backward", wrong)
    report = port.verify(train=5)
    assert report.verdict == "diverges"
    first = next(row for row in report.training if not row.agrees)
    assert (first.step, first.parameter) == (3, whose)
    assert f"first to diverge: step 3: {first.excess:.3g}x tolerance; {whose} has drifted" in str(report)
    assert report.to_markdown() and report.to_html()


def test_what_somebody_has_cut_off_in_the_file_is_named(port: Any, model: Any, tmp_path: Path) -> None:
    port.save(tmp_path / "port")
    file = tmp_path / "port" / port.manifest.entry
    text = file.read_text()
    edited = re.sub(r"self\.norm\(([^\n]*)\)\n", r"self.norm(ops.stop_gradient(\1))\n", text, count=1)
    assert edited != text
    file.write_text(edited)
    again = paritas.load(tmp_path / "port", allow_modified=True)
    report = again.verify(train=2, original=model)
    first = next(row for row in report.training if not row.agrees)
    assert (first.step, first.parameter.partition(".")[0]) == (1, "first")


def test_other_weights_are_seen_before_the_first_step(port: Any, model: Any) -> None:
    other = Classifier().eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.norm.bias[3] += 0.1
    report = _port(model).verify(train=1, original=other)
    assert (report.training[0].parameter, report.verdict) == ("norm.bias", "diverges")
    assert "before the first step, norm.bias: it begins with another value" in str(report)


def test_a_loss_beside_the_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5)).eval()
    given = {"input": torch.randn(4, 4), "target": torch.tensor([0, 1, 2, 0])}
    made = paritas.port(model, engine="mindspore", train=True, loss=nn.CrossEntropyLoss(), inputs=given)
    assert made.save(tmp_path / "port").verify(train=2).agrees
    again = paritas.load(tmp_path / "port")
    assert again.verify(train=2, original=model, loss=nn.CrossEntropyLoss()).agrees


@pytest.mark.slow
def test_the_command(paritas: Any, tmp_path: Path) -> None:
    import transformers as T

    config = T.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=40
    )
    T.BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    given = ["--input", "input_ids=4x7:int64", "--input", "labels=4:int64", "--class", "BertForSequenceClassification"]
    out, page = str(tmp_path / "port"), tmp_path / "page.html"
    done = paritas("port", str(tmp_path / "bert"), "--engine", "mindspore", "--train", *given, "--out", out)
    assert done.returncode == 0, done.stderr
    done = paritas("verify", out, "--train", "4", "--json", "--html", str(page))
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["report"]["training"]) == 5 and page.exists()
    done = paritas("verify", out, "--train", "4", "--png", str(tmp_path / "curves.png"))
    assert done.returncode == 2 and "--train compares steps of training" in done.stderr


def test_what_is_not_for_training_is_refused(model: Any) -> None:
    plain = paritas.port(nn.Linear(2, 2).eval(), engine="mindspore", inputs={"input": torch.randn(3, 2)})
    with pytest.raises(InputError, match=r"not for training.*train=True"):
        plain.verify(train=3)
    losses = paritas.port(nn.Linear(2, 2).eval(), engine="mindspore", train=True, inputs={"input": torch.randn(3, 2)})
    with pytest.raises(InputError, match=r"shape \[3, 2\], and is no loss"):
        losses.verify(train=1)
