# SPDX-License-Identifier: Apache-2.0
"""Tables become folders of answers: every row once, whatever was killed in between, and a bad row fails alone."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.serve import small

import paritas
from paritas.errors import InputError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
batch = pytest.importorskip("paritas.serve.batch")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("batch")
    paritas.port(small.bert(place / "original")).save(place / "port")
    return place / "port"


TEXTS = ["good film", "bad film", "the song was not good", "a film is a film", "bad", "good song a film"] * 5


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("table") / "data.parquet"
    texts: list[Any] = [*TEXTS]
    texts[7] = None
    texts[11] = "film " * 60
    made = pyarrow.table({"id": [f"r{n}" for n in range(len(texts))], "said": texts})
    parquet.write_table(made, place, row_group_size=7)
    return place


def _plan(bert: Path, table: Path, **more: Any) -> Any:
    return batch.planned(bert, [table], **{"columns": {"text": "said"}, "keep": ["id"], "part": 8, **more})


def _answers(out: Path) -> list[dict[str, Any]]:
    return [row for part in sorted(out.glob("part-*.parquet")) for row in parquet.read_table(part).to_pylist()]


def test_every_row_is_answered_once(bert: Path, table: Path, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    outcome = batch.run(_plan(bert, table), tmp_path / "out", lambda done, of: heard.append((done, of)))
    assert (outcome.rows, outcome.failed, outcome.parts, outcome.passed) == (30, 2, 4, 0)
    assert heard[0] == (0, 30) and heard[-1] == (30, 30)
    found = _answers(tmp_path / "out")
    assert [row["row"] for row in found] == list(range(30)) and [row["id"] for row in found] == [
        f"r{n}" for n in range(30)
    ]
    assert "missing" in found[7]["error"] and found[7]["label"] is None
    assert "more than the" in found[11]["error"]
    model = batch.open_servable(bert)
    for row in found:
        if row["error"] is None:
            alone = model.predict("", {"text": np.array([TEXTS[row["row"]]], object)})
            assert row["label"] == alone["label"][0] and row["confidence"] == pytest.approx(
                alone["confidence"][0], abs=1e-6
            )
    model.close()
    assert len({round(row["confidence"], 5) for row in found if row["label"]}) >= 3


def test_what_is_there_is_passed_over_and_anything_else_is_refused(bert: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    batch.run(_plan(bert, table), out)
    before = _answers(out)
    (out / "part-000002.parquet").unlink()
    (out / ".part-000002.parquet.1.tmp").write_bytes(b"half")
    seen = (out / "part-000001.parquet").stat().st_mtime_ns
    outcome = batch.run(_plan(bert, table), out)
    assert outcome.passed == 3 and _answers(out) == before and not list(out.glob("*.tmp"))
    assert (out / "part-000001.parquet").stat().st_mtime_ns == seen
    with pytest.raises(InputError, match="begun with another port, input"):
        batch.run(_plan(bert, table, part=9), out)
    (out / "part-000001.parquet").write_bytes(b"other")
    with pytest.raises(InputError, match=r"part-000001\.parquet is none of this run's"):
        batch.run(_plan(bert, table), out)
    with (
        batch.begun(_plan(bert, table), tmp_path / "new"),
        pytest.raises(InputError, match="Another process is writing"),
    ):
        batch.run(_plan(bert, table), tmp_path / "new")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"columns": {"text": "words"}}, "has no column 'words'; it has: id, said"),
        ({"columns": {"txt": "said"}}, "no input 'txt' in the signature serving_default; it has: text"),
        ({"columns": {}}, "Say which:   --column text=COLUMN"),
        ({"keep": ["name"]}, "no column 'name'"),
        ({"signature": "poetry"}, 'Serving signature name: "poetry" not found'),
    ],
)
def test_what_is_asked_wrongly_is_said(
    bert: Path, table: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(paritas.errors.ParitasError, match=words):
        batch.run(_plan(bert, table, **change), tmp_path / "out")


def test_what_is_no_table_or_folder_is_said(bert: Path, table: Path, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"none")
    (tmp_path / "file").write_text("here")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    for where, words in ((tmp_path / "file", "is a file"), (tmp_path / "full", "holds something else")):
        with pytest.raises(InputError, match=words):
            batch.run(_plan(bert, table), where)
    for given, words in (("a.parquet", "no table of Parquet"), ("full", "holds no table")):
        with pytest.raises(InputError, match=words):
            batch.planned(bert, [tmp_path / given])
    with pytest.raises(InputError, match="is no port"):
        batch.planned(tmp_path, [table])


def test_several_tables_are_read_as_one(tmp_path: Path) -> None:
    tables = []
    for number, rows in enumerate((5, 1, 9)):
        tables.append(tmp_path / f"{number}.parquet")
        parquet.write_table(
            pyarrow.table({"n": [number * 100 + row for row in range(rows)]}), tables[-1], row_group_size=2
        )
    plan = batch.Plan("", "", "", {}, (), tuple((str(t), 0, r) for t, r in zip(tables, (5, 1, 9), strict=True)), 4)
    want = [*range(5), 100, *range(200, 209)]
    parts = [batch._rows(plan, *batch._span(plan, part), ["n"])["n"].to_pylist() for part in range(plan.parts)]
    assert [value for part in parts for value in part] == want and [len(part) for part in parts] == [4, 4, 4, 3]


@pytest.mark.slow
def test_images_and_tensors(tmp_path: Path) -> None:
    paritas.port(small.vit(tmp_path / "original")).save(tmp_path / "port")
    draw = np.random.default_rng(0)
    pictures = []
    for _ in range(6):
        file = io.BytesIO()
        Image.fromarray(draw.integers(0, 255, (40, 50, 3), np.uint8)).save(file, "png")
        pictures.append(file.getvalue())
    pictures[4] = b"no picture"
    parquet.write_table(pyarrow.table({"image": pictures}), tmp_path / "images.parquet")
    outcome = batch.run(batch.planned(tmp_path / "port", [tmp_path / "images.parquet"], part=4), tmp_path / "out")
    assert (outcome.rows, outcome.failed) == (6, 1)
    values = draw.normal(size=(3, 3, 32, 32)).astype(np.float32)
    column = pyarrow.array(values.tolist(), pyarrow.list_(pyarrow.list_(pyarrow.list_(pyarrow.float32()))))
    parquet.write_table(pyarrow.table({"pixel_values": column}), tmp_path / "tensors.parquet")
    plan = batch.planned(tmp_path / "port", [tmp_path / "tensors.parquet"], signature="tensors")
    batch.run(plan, tmp_path / "raw")
    found = np.array([row["logits"] for row in _answers(tmp_path / "raw")], np.float32)
    np.testing.assert_allclose(found, paritas.load(tmp_path / "port")(pixel_values=values).logits, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [0, 2])
def test_killed_and_begun_again_nothing_is_lost_or_doubled(bert: Path, tmp_path: Path, processes: int) -> None:
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(small.WORDS[5:], 6)) for _ in range(1500)]
    parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "data.parquet")
    command = [sys.executable, "-m", "paritas", "batch", str(bert), "--input", str(tmp_path / "data.parquet")]
    command += ["--part", "50", "--quiet", "--processes", str(processes)]
    whole = subprocess.run([*command, "--output", str(tmp_path / "whole")], capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    out = tmp_path / "out"
    kills = 0
    for number in range(60):
        process = subprocess.Popen([*command, "--output", str(out)], start_new_session=True, stderr=subprocess.DEVNULL)
        had = len(list(out.glob("part-*"))) if out.is_dir() else 0
        while process.poll() is None and (not out.is_dir() or len(list(out.glob("part-*"))) < had + 1 + number % 3):
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        if process.wait() == 0:
            break
    assert kills >= 3 and json.loads((out / "done.json").read_text())["rows"] == 1500
    for one, other in zip(_answers(out), _answers(tmp_path / "whole"), strict=True):
        assert (one["row"], one["label"], one["error"]) == (other["row"], other["label"], None)
        assert one["confidence"] == pytest.approx(other["confidence"], abs=1e-6)
