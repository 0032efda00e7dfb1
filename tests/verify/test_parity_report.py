# SPDX-License-Identifier: Apache-2.0
"""A report is a value: it prints, it is valid JSON, it comes back equal."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import subprocess
import sys

import pytest
from rich.console import Console

from paritas.errors import PortError
from paritas.verify import Environment, ModuleParity, OutputParity, ParityReport, terminal, whole_model

ENVIRONMENT = Environment("openvino", "2026.4.1", "", "bfloat16", "float32", machine="a machine", date="2026-01-02")
GOOD = OutputParity(
    "batch 1",
    "last_hidden_state",
    excess=0.01,
    error=3e-7,
    max_abs=1e-6,
    torch_error=2e-7,
    port_error=3e-7,
    elements=9,
    worst=(0, 1),
)
BAD = dataclasses.replace(GOOD, case="left padding", excess=4.2, error=4e-4, needed="|got-want| <= 1e-3", edge=True)
FAULT = OutputParity("odd", "pooler_output", fault="NaN: NaN where the original has none")
UP = ModuleParity(
    "encoder.layer.0", "BertLayer", 0, "add_4", excess=0.5, error=1e-6, source="modeling_bert.py:1  a | b"
)
DOWN = ModuleParity(
    "encoder.layer.0", "BertLayer", 1, "add_5", excess=1.5, error=1e-3, torch_error=1e-7, port_error=1e-3
)


def report(*rows, **kwargs) -> ParityReport:
    return ParityReport(
        ENVIRONMENT, whole_model("float32"), rows, subject="a/model", cases=("batch 1: x[1, 2]",), **kwargs
    )


FULL = report(
    GOOD,
    BAD,
    FAULT,
    unseen={'case "long"': "refused"},
    level="modules",
    modules=(UP, DOWN),
    module_case="odd",
    module_tolerance=whole_model("float32"),
    unseen_modules={"pooler": "shows outputs only"},
    observed="modules observed: outputs added",
    notes=("run: bfloat16 is emulated",),
)


@pytest.mark.parametrize("value", [FULL, report(), report(GOOD)], ids=["full", "empty", "good"])
def test_json_round_trip(value):
    text = value.to_json()
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert data["verdict"] == value.verdict
    back = ParityReport.from_json(text)
    assert back.to_json() == text and back.verdict == value.verdict
    assert str(back) == str(value) and back.to_markdown() == value.to_markdown()


def test_a_report_of_the_first_format_is_read():
    data = json.loads(FULL.to_json())
    for row in [*data["outputs"], *data["modules"]]:
        row["own"], row["ours"] = row.pop("torch_error"), row.pop("port_error")
    assert ParityReport.from_json(json.dumps(data | {"format_version": 1})).to_json() == FULL.to_json()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 99}', '{"format_version": 1, "outputs": 3}', "3"])
def test_what_is_no_report_is_refused(text):
    with pytest.raises(PortError, match=r"no parity report|format 99"):
        ParityReport.from_json(text)


def test_verdicts():
    assert report(GOOD).verdict == "agrees"
    assert report(GOOD, BAD).verdict == "diverges"
    assert report(GOOD, FAULT).verdict == "diverges"
    assert report().verdict == "incomplete"
    assert report(GOOD, unseen={"a": "b"}).verdict == "incomplete"
    assert report(BAD, unseen={"a": "b"}).verdict == "diverges"


def test_figures():
    assert FULL.error == math.inf and report(GOOD, BAD).error == 4e-4 and math.isnan(report().error)
    assert FULL.worst_output is FAULT and FULL.worst_module is DOWN and FULL.first_divergence is DOWN
    assert report().worst_module is None and report().worst_output is None
    assert GOOD.ratio == pytest.approx(1.5) and math.isnan(FAULT.ratio)
    assert (
        dataclasses.replace(GOOD, torch_error=0.0, port_error=0.0).ratio == 1
        and dataclasses.replace(GOOD, torch_error=0.0).ratio == math.inf
    )


def test_text_says_the_verdict_the_arithmetic_and_the_tolerance_with_its_reason():
    text = str(report(GOOD, BAD))
    assert text.startswith("diverges: 2 outputs compared in 2 cases, error 4.00e-04 (max|got-want| / mean|want|)\n")
    assert "openvino 2026.4.1, computing in bfloat16, weights float32" in text
    assert "published fp32 ports differ" in text and 'case "left padding" (edge): 4.2x tolerance' in text
    assert "would pass with |got-want| <= 1e-3" in text
    assert "modules observed: outputs added" in str(FULL) and "encoder.layer.0 (call 2) (BertLayer)" in str(FULL)


def test_markdown_has_tables_that_no_bar_in_a_cell_breaks():
    text = FULL.to_markdown("ports/bert")
    assert text.startswith("# Parity: diverges\n") and text.endswith("\n")
    assert "paritas verify ports/bert --level modules" in text and "2026-01-02" in text and "bfloat16" in text
    for block in text.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in rows}) <= 1, block
    assert "## Modules" not in report(GOOD).to_markdown()


def test_terminal_shows_the_worst_modules_only():
    many = tuple(dataclasses.replace(UP, path=f"layer.{i}", excess=i / 100) for i in range(50))
    console = Console(file=io.StringIO(), width=160, color_system=None)
    console.print(terminal(report(GOOD, level="modules", modules=many)))
    text = console.file.getvalue()
    assert (
        "agrees: 1 outputs" in text and "the 10 worst of 50" in text and "layer.49" in text and "layer.12 " not in text
    )
    console.print(terminal(FULL))


def test_environment_describes_this_machine_without_importing_an_engine():
    code = (
        "import sys; from paritas.verify import Environment, verify, generate; "
        "e = Environment.here('openvino', mode='', dtype='float32'); "
        "assert e.machine and e.date and e.python; "
        "assert not {'torch', 'openvino', 'mindspore', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert Environment.here("none such").version == ""
