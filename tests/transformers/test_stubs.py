# SPDX-License-Identifier: Apache-2.0
"""What type checkers and editors see of `paritas.transformers`: its classes, and our keywords with what they take."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

import paritas.transformers as ours
from checked import assert_found
from paritas.dropin.classes import OURS, Ported

ROOT = Path(__file__).parent.parent.parent
STUBS = runpy.run_path(str(ROOT / "docs" / "stubs.py"))

RIGHT = """
from paritas.transformers import AutoModelForCausalLM, BertModel, LlamaConfig, LlamaForCausalLM, Trainer, pipeline

bert = BertModel.from_pretrained("bert", engine="mindspore", mode="pynative")
reveal_type(bert)  # BertModel
reveal_type(bert.config)  # BertConfig
reveal_type(bert.ports)  # list[paritas.ports.Port]
reveal_type(AutoModelForCausalLM.from_pretrained("llama", weights="int8"))  # PortedGenerator
reveal_type(LlamaForCausalLM(LlamaConfig(), engine="openvino"))  # LlamaForCausalLM
pipeline("text-classification", engine="openvino", weights="int4")
reveal_type(Trainer(bert, engine="torch"))  # Trainer
"""

WRONG = """
from paritas.transformers import AutoModelForCausalLM, BertModel, LlamaConfig, LlamaForCausalLM, pipeline
from paritas.transformers import BertModle, Trainer
BertModel.from_pretrained("bert", mode="grahp")
AutoModelForCausalLM.from_pretrained("llama", weights="int5")
LlamaForCausalLM(LlamaConfig(), engine="openvno")
pipeline("text-classification", target="gpu")
Trainer(engine="mindspor")
"""


def test_the_stub_is_what_would_be_written_now() -> None:
    assert STUBS["STUB"].read_text(encoding="utf-8") == STUBS["written"](), "run: make docs"


def test_what_the_stub_names_is_there_and_takes_what_it_says() -> None:
    text = STUBS["STUB"].read_text(encoding="utf-8")
    for name in ("BertModel", "LlamaForCausalLM", "WhisperForConditionalGeneration"):
        assert re.search(rf"^class {name}\((Ported|Generates), _t\.{name}\)", text, re.M)
        assert issubclass(getattr(ours, name), Ported)
    assert {name for name in OURS if re.search(rf"^        {name}: ", text, re.M)} == set(OURS)


@pytest.mark.slow
def test_a_checker_knows_the_models_and_finds_wrong_words(tmp_path: Path) -> None:
    assert_found(RIGHT, WRONG, {3, 4, 5, 6, 7, 8}, tmp_path)
