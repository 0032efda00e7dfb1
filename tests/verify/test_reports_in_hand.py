# SPDX-License-Identifier: Apache-2.0
"""Reports and ports where people hold them: at a prompt, in a test, in a notebook, as a frame of pandas."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_reports import BAD, FAULTY, GOOD, HOSTILE, SCRIPT, output, report
from small_programs import Mlp

import paritas
from paritas.errors import Disagreement, InputError
from paritas.verify import ParityReport
from paritas.verify.alike import alike
from paritas.verify.report.conclusion import in_words, next_steps, sentence
from paritas.verify.report.notebook import PandasMissing


@pytest.mark.parametrize("one", [GOOD, BAD, FAULTY, HOSTILE], ids=["good", "bad", "faulty", "hostile"])
def test_a_report_is_short_at_a_prompt_and_neither_true_nor_false(one: ParityReport) -> None:
    assert one.verdict in repr(one)
    assert "\n" not in repr(one)
    assert len(repr(one)) < 200 or one is HOSTILE
    with pytest.raises(TypeError, match=r"report\.agrees, or let report\.check\(\)"):
        bool(one)
    if one.agrees:
        assert one.check() is one
    else:
        with pytest.raises(Disagreement) as caught:
            one.check()
        assert isinstance(caught.value, AssertionError)
        assert str(one) in str(caught.value)


def test_a_notebook_shows_the_verdict_and_runs_nothing_of_a_model() -> None:
    for one in (GOOD, BAD, HOSTILE):
        text = one._repr_html_()
        assert one.verdict in text
        assert SCRIPT not in text
        assert 'sandbox="allow-scripts"' in text  # the page in a frame that is nobody's
        assert "<!doctype" not in text  # but escaped, in srcdoc


def test_rows_become_a_frame() -> None:
    pandas = pytest.importorskip("pandas")
    frame = BAD.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["agrees"]) == [True, False]
    assert "ratio" in frame
    assert len(BAD.to_frame("nodes")) == 3
    with pytest.raises(InputError, match=r"no table 'layers'. It has: outputs, generation, modules"):
        BAD.to_frame("layers")  # type: ignore[arg-type]


def test_without_pandas_a_frame_says_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(PandasMissing, match="pip install pandas"):
        GOOD.to_frame()


# --- what it means ------------------------------------------------------------------------------


def test_a_report_says_in_words_how_far_off_it_is() -> None:
    close = report([output("logits", cosine=0.99999998, places=32, same_places=32)])
    assert sentence(close) == "All of 1 comparison in 1 case are within the tolerance."
    assert in_words(close) == [
        "The worst element uses 10 % of what is allowed.",
        "The cosine similarity of the outputs is at least 0.9999999.",
        "The highest logit is the original's in all 32 places.",
    ]
    far = report([output("logits", excess=40.0, places=32, same_places=31, cosine=0.98)])
    assert in_words(far)[0] == "The worst element is 40 times as far off as is allowed."
    assert in_words(far)[-1] == "The highest logit is the original's in 31 of 32 places."
    assert "NaN where the original has none" in in_words(FAULTY)[0]
    assert in_words(report([])) == []


def test_what_to_do_next_is_a_command_that_runs() -> None:
    agreeing = dataclasses.replace(report([output()]), again="--original mine.py:build --allow-modified")
    assert [command for _, command in next_steps(agreeing, "a dir")] == [
        "paritas.load('a dir', allow_modified=True)",
        "paritas bench 'a dir' --original mine.py:build --allow-modified",
    ]
    first = next_steps(dataclasses.replace(BAD, level="modules"), "d")
    assert first[0][1] == "paritas verify d --level nodes"
    assert any("bisect" in command for _, command in first)
    assert any("--dtype fp32" in command for _, command in first)  # it computes in bfloat16
    assert "--inputs" in next_steps(report([]), "d")[0][1]


def test_angles_and_choices_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    want = torch.randn(3, 7, 11, generator=generator)
    got = want + 0.3 * torch.randn(3, 7, 11, generator=generator)
    found = alike("lm_logits", want.numpy(), got.numpy())
    expected = torch.nn.functional.cosine_similarity(want.flatten().double(), got.flatten().double(), dim=0)
    assert found["cosine"] == pytest.approx(float(expected), rel=1e-12)
    assert found["places"] == 21
    assert found["same_places"] == int((want.argmax(-1) == got.argmax(-1)).sum())
    assert set(alike("last_hidden_state", want.numpy(), got.numpy())) == {"cosine"}


def test_what_has_no_angle_has_none() -> None:
    zeros = np.zeros((2, 3), np.float32)
    assert math.isnan(alike("x", zeros, zeros)["cosine"])
    assert alike("x", zeros, zeros[:1]) == {}
    assert alike("x", np.zeros(3, np.int64), np.zeros(3, np.int64)) == {}
    tied = np.array([[1.0, 1.0, 0.0]], np.float32)
    assert alike("logits", tied, np.array([[0.0, 0.0, 1.0]], np.float32))["same_places"] == 0
    assert alike("logits", tied, np.array([[0.0, 1.0, 0.0]], np.float32))["same_places"] == 1


# --- ports --------------------------------------------------------------------------------------


def test_a_port_in_hand(tmp_path: Path) -> None:
    model = Mlp().eval()
    with paritas.port(model, inputs={"x": torch.randn(3, 5, 8)}) as port:
        for way in (copy.deepcopy, copy.copy, pickle.dumps):
            with pytest.raises(TypeError, match=r"neither copied nor pickled. Write it, port.save\(DIR\)"):
                way(port)
        assert "Not verified in this process" in port._repr_html_()
        report = port.verify(level="outputs").check()
        assert port.report is report
        assert report.cosine > 0.9999
        assert "agrees" in port._repr_html_()
        port.save(tmp_path / "mlp-ov")
    # The report is written with the port, and knows neither who made it nor where.
    read = (tmp_path / "mlp-ov" / "parity.json").read_text()
    assert ParityReport.from_json(read).to_json() == report.to_json() == read
    for name in ("PARITY.md", "PARITY.html"):
        text = (tmp_path / "mlp-ov" / name).read_text()
        assert str(tmp_path) not in text
        assert re.search(r"paritas verify mlp-ov --level outputs --original SOURCE", text)
    assert paritas.load(tmp_path / "mlp-ov").report is None
