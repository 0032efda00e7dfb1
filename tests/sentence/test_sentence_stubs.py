# SPDX-License-Identifier: Apache-2.0
"""What type checkers and editors see of `paritas.sentence_transformers`."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from checked import assert_found
from paritas.extras import missing

if missing("sentence"):
    pytest.skip("paritas[sentence] is not installed", allow_module_level=True)

ROOT = Path(__file__).parent.parent.parent
STUBS = runpy.run_path(str(ROOT / "docs" / "stubs.py"))

RIGHT = """
from paritas.sentence_transformers import CrossEncoder, SentenceTransformer, port_model, quantize_embeddings
import sentence_transformers

model = SentenceTransformer("all-MiniLM-L6-v2", engine="openvino", truncate_dim=64)
reveal_type(model)  # SentenceTransformer
reveal_type(model.ports)  # list[paritas.ports.Port]
model.encode_query(["a"], normalize_embeddings=True)
CrossEncoder("ms-marco", weights="int8").rank("a", ["b"])
reveal_type(port_model(sentence_transformers.SparseEncoder("splade")))  # paritas.sentence_transformers.SparseEncoder
"""

WRONG = """
from paritas.sentence_transformers import SentenceTransformer, port_model
from paritas.sentence_transformers import SentenceTransfromer
SentenceTransformer("all-MiniLM-L6-v2", engine="openvno")
SentenceTransformer("all-MiniLM-L6-v2").encode_qurey("a")
port_model(1)
"""


def test_the_stub_is_what_would_be_written_now() -> None:
    import paritas.sentence_transformers as ours

    text = (ROOT / "src" / "paritas" / "sentence_transformers" / "__init__.pyi").read_text(encoding="utf-8")
    assert text == STUBS["of_sentence_transformers"](), "run: make docs"
    named = {line.split(" as ")[1] for line in text.splitlines() if line.startswith("from sentence_transformers")}
    assert not [name for name in named if not hasattr(ours, name)]


@pytest.mark.slow
def test_a_checker_knows_the_models_and_finds_wrong_words(tmp_path: Path) -> None:
    assert_found(RIGHT, WRONG, {3, 4, 5, 6}, tmp_path)
