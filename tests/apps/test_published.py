# SPDX-License-Identifier: Apache-2.0
"""`paritas parity`: the documents' formulas and figures, and a run of stand-ins that can be interrupted."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from paritas.apps.published import models as parity_models
from paritas.apps.published import rows
from paritas.apps.published import run as parity
from paritas.apps.published import table as parity_table
from paritas.apps.published.figures import CLIP, ENCODERS
from paritas.apps.published.models import CLIP_TABLE, ENCODER_TABLE, MODELS, Model
from paritas.apps.published.rows import Column, Distance, Row, distance, distances
from paritas.apps.zoo.entries import entry_of
from paritas.cli.app import app
from paritas.errors import InputError
from paritas.workers import Limits

OPENVINO = Column("openvino", "", "float32")
GRAPH = Column("mindspore", "graph", "float32")

# --- formulas ----------------------------------------------------------------------------------


def test_the_formulas_by_hand() -> None:
    found = distance(np.array([1.0, -2.0, 0.0], np.float32), np.array([1.5, -2.0, 0.003], np.float32))
    assert found.error == pytest.approx(0.5 / (3 / 3))
    assert found.absolute == pytest.approx(0.503 / 3)
    assert found.relative == pytest.approx((0.5 / 1.000001 + 0.003 / 1e-6) / 3, rel=1e-5)
    assert not found.fault


@pytest.mark.parametrize(
    ("got", "word"),
    [([1.0, np.nan], "NaN"), ([1.0, np.inf], "inf"), ([1.0, 2.0, 3.0], "shape"), ([[1.0, 2.0]], "shape")],
)
def test_what_cannot_be_compared_is_no_small_number(got: Any, word: str) -> None:
    found = distance(np.array([1.0, 2.0], np.float32), np.array(got, np.float32))
    assert word in found.fault and found.error == found.absolute == found.relative == math.inf
    row = Row(MODELS["google-t5/t5-small"], GRAPH, (found,), (found,), (Distance(0.0, 0.0, 0.0),))
    assert row.verdict == "failed"


def test_an_output_too_few_is_a_fault() -> None:
    one = np.ones(2, np.float32)
    (found,) = distances([one, one], [one])
    assert "2 outputs were expected, there are 1" in found.fault
    row = Row(MODELS["google-t5/t5-small"], GRAPH, (found,), (found,), (Distance(0, 0, 0),) * 2)
    assert row.verdict == "failed"


def _row(column: Column, to_torch: float, own: list[float], torch: list[float]) -> Row:
    made = [tuple(Distance(e, e, e) for e in es) for es in ([to_torch] * len(own), own, torch)]
    return Row(MODELS["google-t5/t5-small"], column, *made)


@pytest.mark.parametrize(
    ("dtype", "to_torch", "own", "torch", "verdict"),
    [
        ("float32", 1e-5, [9e-6], [1e-6], "within"),
        ("float32", 1.1e-5, [9e-6], [5e-6], "accurate"),
        ("float32", 1.1e-5, [11e-6], [5e-6], "missed"),
        ("float16", 1e-6, [3e-2], [1e-2], "missed"),
        ("float16", 5e-2, [2e-2], [1e-2], "accurate"),
        ("float16", 5e-2, [1e-3, 3e-2], [1e-3, 1e-2], "missed"),  # every output, not the worst alone
        ("float16", 0.0, [0.0], [0.0], "accurate"),
        ("float16", 1e-9, [1e-9], [0.0], "missed"),
        ("float16", 1e-9, [1e-9], [math.inf], "missed"),  # PyTorch's overflow is no yardstick
    ],
)
def test_verdicts(dtype: str, to_torch: float, own: list[float], torch: list[float], verdict: str) -> None:
    column = Column("mindspore", "graph", dtype)
    assert _row(column, to_torch, own, torch).verdict == verdict


def test_an_output_within_the_bar_needs_no_yardstick() -> None:
    near, far = Distance(1e-6, 1e-6, 1e-6), Distance(2e-5, 2e-5, 2e-5)
    tiny = Distance(1e-8, 1e-8, 1e-8)
    row = Row(MODELS["google-t5/t5-small"], GRAPH, (near, far), (near, far), (tiny, far))
    assert row.verdict == "accurate" and row.ratio == 1
    half = dataclasses.replace(row, column=Column("mindspore", "graph", "float16"))
    assert half.verdict == "missed" and half.ratio == pytest.approx(100)


# --- the documents -----------------------------------------------------------------------------


def test_every_model_of_the_documents_is_there_with_its_figures() -> None:
    keys = [key for model in MODELS.values() for key in model.published]
    assert sorted(map(str, keys)) == sorted(map(str, (*ENCODERS, *CLIP)))
    for model in MODELS.values():
        for dtype in ("float32", "float16"):
            for mode in ("graph", "pynative"):
                assert parity_models.published(model, f"mindspore {mode} {dtype}"), (model.name, mode, dtype)


@pytest.mark.parametrize(
    ("name", "column", "figures"),
    [
        ("openai/clip-vit-large-patch14", "graph float32", (0.0186, 7.81e-05)),
        ("google-t5/t5-small", "graph float16", (None, 0.0488)),
        ("DeepFloyd/t5-v1_1-xxl", "pynative float32", (0.0349, 1.40e-04)),
        ("google/flan-t5-large", "pynative float16", (0.0032, 0.0025)),
        ("stabilityai/stable-diffusion-xl-base-1.0(bigG)", "graph float32", (0.0039, 1.75e-05)),
    ],
)
def test_published_figures_of_encoders(name: str, column: str, figures: tuple[float | None, float]) -> None:
    assert parity_models.published(MODELS[name], f"mindspore {column}") == [figures]
    assert parity_models.published(MODELS[name], f"openvino {column.split()[1]}") == []


def test_published_figures_of_clip() -> None:
    in_clip, in_open_clip = parity_models.published(MODELS["RN50 (OpenAI)"], "mindspore graph float32")
    assert in_clip["image_features"] == (0.00014024, 0.0189662)
    assert in_open_clip["probs"] == (0.00003248, 0.0030192)
    (only,) = parity_models.published(MODELS["ViT-H-14 (LAION)"], "mindspore graph float32")
    assert only["text_features"] == (0.00059179, 0.0090787)


def test_real_sizes() -> None:
    import torch

    millions = {
        "openai/clip-vit-large-patch14": 123,
        "stabilityai/stable-diffusion-2-1": 340,
        "stabilityai/stable-diffusion-xl-base-1.0(bigG)": 695,
        "google-t5/t5-small": 61,
        "DeepFloyd/t5-v1_1-xxl": 4762,
        "google/flan-t5-large": 750,  # 783 in the checkpoint: T5Config ties the head to the embedding
    }
    for name, count in millions.items():
        with torch.device("meta"):
            found = sum(p.numel() for p in MODELS[name].entry.built().parameters())
        assert round(found / 1e6) == count, name


# --- layers ------------------------------------------------------------------------------------


def test_a_model_that_does_not_fit_is_cut_and_says_so() -> None:
    model = MODELS["DeepFloyd/t5-v1_1-xxl"]
    assert parity.fitting(MODELS["openai/clip-vit-large-patch14"], 0.1) == 0
    assert parity.fitting(model, 1000) == 0
    layers = parity.fitting(model, 9.0)
    assert 1 <= layers < model.depth == 24
    cut = model.capped(layers)
    assert cut.entry.config["num_layers"] == layers and cut.entry.digest != model.entry.digest
    assert model.capped(24) is model and model.capped(0) is model
    with pytest.raises(InputError, match=r"needs .* GiB for a single layer, the limit is 2\.0"):
        parity.fitting(model, 2.0)
    row = Row(cut, GRAPH, failed="not today")
    text = parity_table.to_markdown(parity.Results((row,)), [])
    assert f"| DeepFloyd/t5-v1_1-xxl, {layers} of 24 layers |" in text
    assert f"- DeepFloyd/t5-v1_1-xxl: {layers} of 24 layers, since all do not fit" in text


# --- a run -------------------------------------------------------------------------------------

STAND_INS = """
import os, time, torch

class Linear(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x)

class Clip(torch.nn.Linear):
    def forward(self, x):
        y = super().forward(x)
        return {"image_features": y, "text_features": y + 1, "probs": y.softmax(-1)}

class Crashes(Linear):
    def forward(self, x):
        os.kill(os.getpid(), 11)

class Raises(Linear):
    def forward(self, x):
        raise ValueError("not today")

class Different(Linear):
    def __init__(self, **sizes):
        super().__init__(**sizes)
        torch.manual_seed(time.time_ns() % 2**32)
        torch.nn.init.normal_(self.weight)
"""


def _stand_in(name: str, table: str = ENCODER_TABLE, library: str = "torch") -> Model:
    entry = entry_of(
        {
            "name": f"stand-in/{name}", "model_type": "parity", "library": library,
            "class": f"stand_in_models.{name}", "config": {"in_features": 3, "out_features": 2},
            "inputs": {"x": {"shape": [2, 3], "dtype": "float32", "dist": "normal"}},
        }
    )  # fmt: skip
    key: Any = "google-t5/t5-small" if table == ENCODER_TABLE else ("open_clip", "ViT-B-32", "laion2B")
    return Model(entry, table, name, (key,))


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stand_in_models.py").write_text(STAND_INS)
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return tmp_path


def _run(models: list[Model], out: Path, **options: Any) -> tuple[parity.Results, list[tuple[int, int, str]]]:
    told: list[tuple[int, int, str]] = []
    results = parity.tables(
        models, [OPENVINO], out, limits=Limits(60, 4), told=lambda *args: told.append(args), **options
    )
    return results, told


@pytest.mark.slow
def test_a_run_its_resumption_and_its_failures(stand_ins: Path) -> None:
    models = [_stand_in("Linear"), _stand_in("Crashes"), _stand_in("Raises")]
    results, told = _run(models, stand_ins / "out")
    verdicts = {row.model.title: row for row in results.rows}
    assert verdicts["Linear"].verdict == "within" and verdicts["Linear"].error < 1e-5
    assert "SIGSEGV" in verdicts["Crashes"].fault and verdicts["Crashes"].verdict == "failed"
    assert "not today" in verdicts["Raises"].fault
    assert [done for done, _, _ in told] == list(range(10)) and results.peaks["stand-in/Linear"] > 0

    # Again: what is known is not computed again, and what has failed is.
    again, told = _run(models, stand_ins / "out")
    assert told[0][:2] == (3, 9) and len(told) == 7
    assert [row.verdict for row in again.rows] == [row.verdict for row in results.rows]

    # The line that was being written when the power went, and a file that is gone.
    journal = stand_ins / "out" / parity.JOURNAL
    lines = [line for line in journal.read_text().splitlines() if "stand-in/Linear" in line]
    journal.write_text("\n".join(lines)[:-10])
    (stand_ins / "out" / parity.ANSWERS / models[0].entry.digest / "openvino float32.npz").unlink()
    again, told = _run(models[:1], stand_ins / "out")
    assert told == [(2, 3, ""), (3, 3, "stand-in/Linear: openvino float32")]
    assert again.rows[0].verdict == "within"

    _, told = _run(models[:1], stand_ins / "out", fresh=True)
    assert told[0] == (0, 3, "")


@pytest.mark.slow
def test_workers_that_make_different_weights_are_found_out(stand_ins: Path) -> None:
    model, out = _stand_in("Different"), stand_ins / "out"
    _run([model], out)
    (out / parity.ANSWERS / model.entry.digest / "openvino float32.npz").unlink()
    results, _ = _run([model], out)
    assert "2 different models of one seed" in results.rows[0].fault


def test_a_model_whose_library_is_missing_is_a_line_that_says_what_installs_it(stand_ins: Path) -> None:
    models = [_stand_in("Linear"), _stand_in("Clip", CLIP_TABLE, library="no_such_library")]
    results, _ = _run(models, stand_ins / "out")
    assert len(results.rows) == 1
    assert results.missing == ("stand-in/Clip: needs no_such_library. Install it:   pip install 'paritas[clip]'",)
    assert f"- {results.missing[0]}" in parity_table.to_markdown(results, [])
    assert results.missing[0] in json.loads(parity_table.to_json(results, []))["absent"]


@pytest.mark.slow
def test_the_command_writes_the_tables_of_stand_ins(stand_ins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mindspore")
    models = [_stand_in("Linear"), _stand_in("Clip", CLIP_TABLE)]
    monkeypatch.setattr(parity_models, "MODELS", {model.name: model for model in models})
    out = stand_ins / "out"
    found = CliRunner().invoke(app, ["parity", "--out", str(out), "--memory", "4", "-q"])
    assert found.exit_code == 0, found.output
    assert "PARITY-TABLES.md has all of it" in found.output and "mindspore bfloat16: run as float32" in found.output
    text = (out / "PARITY-TABLES.md").read_text()
    for title in ("Graph FP32", "PyNative FP32", "Graph FP16", "PyNative FP16"):
        assert f"## MindSpore {title}: encoders" in text and f"## MindSpore {title}: CLIP and open_clip" in text
    assert "## OpenVINO FP32: encoders" in text
    assert "| stand-in/Linear | N.A. | 4.88e-05 |" in text, "Graph FP32 of T5-small"
    assert "| stand-in/Clip | probs | 0.00000438 | 1.46012% |" in text
    value = json.loads((out / "parity.json").read_text())
    assert {row["verdict"] for row in value["rows"]} <= {"within", "accurate"}
    assert value["summary"]["mindspore graph float32"] == {"within": 2}
    assert (out / "PARITY-TABLES.html").read_text().count("<table>") == text.count("\n## ")
    assert not (out / parity.JOURNAL).exists() and not (out / parity.ANSWERS).exists()


def test_what_is_asked_for_is_checked_before_any_work(tmp_path: Path) -> None:
    run = CliRunner().invoke
    found = run(app, ["parity", "--models", "nonsense", "--out", str(tmp_path)])
    assert found.exit_code == 2 and "--model nonsense is in no name. They are: openai/clip" in found.output
    found = run(app, ["parity", "--engines", "tpu", "--out", str(tmp_path)])
    assert found.exit_code == 2 and "tpu" in found.output
    found = run(app, ["parity", "--engines", "torch", "--out", str(tmp_path)])
    assert found.exit_code == 2 and "what the others are compared with" in found.output
    assert not list(tmp_path.iterdir())


def test_a_bar_that_is_missed_is_in_the_table() -> None:
    row = _row(GRAPH, 3e-5, [3e-5], [1e-5])
    text = parity_table.to_markdown(parity.Results((row,)), [])
    assert "3.0e-05 !" in text and "| missed | 1 |" in text
    lines = [line for line in text.splitlines() if line.startswith("| google-t5/t5-small | N.A.")]
    assert lines == ["| google-t5/t5-small | N.A. | 4.88e-05 | 3.0e-05 | 3.0e-05 | 1.0e-05 | 3.00 | missed |"]
    value = json.loads(parity_table.to_json(parity.Results((dataclasses.replace(row, failed="x"),)), []))
    assert value["rows"][0]["verdict"] == "failed" and value["rows"][0]["reason"] == "x"


def test_open_clips_models_have_the_handbooks_outputs() -> None:
    pytest.importorskip("torch")
    try:
        from paritas.apps.published.open_clip_models import open_clip

        open_clip()
    except Exception:  # noqa: BLE001 - an extra
        pytest.skip("open_clip is not installed")
    import torch

    entry = MODELS["RN50 (OpenAI)"].entry
    with torch.no_grad():
        found = entry.model()(**entry.values())
    assert tuple(found) == parity_table.OUTPUTS
    assert [tuple(v.shape) for v in found.values()] == [(1, 1024), (3, 1024), (1, 3)]
    assert all(v.abs().mean() > 1e-3 for v in found.values())


def test_parity_rows_need_every_answer() -> None:
    (row,) = rows.rows_of(MODELS["google-t5/t5-small"], [GRAPH], {}, {})
    assert "not computed: torch float32, truth float32, mindspore graph float32" in row.failed
    (row,) = rows.rows_of(MODELS["google-t5/t5-small"], [GRAPH], {}, {"truth float32": "gone"})
    assert "truth float32: gone" in row.failed
