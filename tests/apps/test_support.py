# SPDX-License-Identifier: Apache-2.0
"""`paritas support`: a worker that crashes, hangs or eats memory costs one cell; an interrupted sweep goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from paritas.apps.zoo import entries as zoo
from paritas.apps.zoo import sweep
from paritas.apps.zoo import table as support_table
from paritas.cli.app import app

BAD = """
import ctypes, os, time, torch

class Linear(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x)

class Crashes(Linear):
    def forward(self, x):
        os.kill(os.getpid(), 11)

class Hangs(Linear):
    def forward(self, x):
        time.sleep(1000)

class Eats(Linear):
    def forward(self, x):
        self.kept = b"x" * 2**32
        time.sleep(1000)

class Raises(Linear):
    def forward(self, x):
        raise ValueError("not today")
"""


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, zoo.Entry]:
    (tmp_path / "bad_models.py").write_text(BAD)
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return {
        name: zoo.entry_of(
            {
                "name": f"bad/{name}", "model_type": "bad", "library": "bad", "class": f"bad_models.{name}",
                "config": {"in_features": 3, "out_features": 2},
                "inputs": {"x": {"shape": [2, 3], "dtype": "float32", "dist": "normal"}},
            }
        )
        for name in ("Linear", "Crashes", "Hangs", "Eats", "Raises")
    }  # fmt: skip


@pytest.mark.slow
def test_what_is_wrong_with_one_entry_is_said_and_the_others_go_on(
    tmp_path: Path, entries: dict[str, zoo.Entry]
) -> None:
    told: list[tuple[int, int, str]] = []
    results = sweep.sweep(
        list(entries.values()),
        tmp_path / "out",
        cells=("openvino",),
        jobs=2,
        limits=sweep.Limits(seconds=20, gib=3),
        told=lambda *args: told.append(args),
    )
    cells = {r.entry.name.partition("/")[2]: r.cells["openvino"] for r in results}
    assert cells["Linear"]["verdict"] == "agrees" and cells["Linear"]["error"] < 1e-5
    assert "SIGSEGV" in cells["Crashes"]["reason"]
    assert "no answer within 20 s" in cells["Hangs"]["reason"]
    assert "more than 3 GiB" in cells["Eats"]["reason"]
    assert "not today" in cells["Raises"]["reason"]
    assert sorted(done for done, _, _ in told) == [1, 2, 3, 4, 5]
    assert [r.entry.name for r in sweep.failed(results, ("openvino",))] == [
        "bad/Crashes", "bad/Hangs", "bad/Eats", "bad/Raises",
    ]  # fmt: skip

    # Again: nothing is done twice, unless the entry has changed.
    told.clear()
    again = sweep.sweep(
        list(entries.values()), tmp_path / "out", cells=("openvino",), told=lambda *args: told.append(args)
    )
    assert told == [] and [r.cells for r in again] == [r.cells for r in results]

    table = support_table.to_markdown(results, ("openvino",))
    assert "| agree | 1 (20.0%) |" in table
    assert "refused [" in table and "not today" in table
    value = json.loads(support_table.to_json(results, ("openvino",)))
    assert value["summary"]["openvino"]["refused"] == 4 and len(value["entries"]) == 5


def test_a_half_written_line_of_the_journal_is_passed_over(tmp_path: Path, entries: dict[str, zoo.Entry]) -> None:
    one = [entries["Linear"]]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / sweep.JOURNAL).write_text('{"entry": "bad/Linear", "cell": "openvino", "verd')
    assert sweep.sweep(one, tmp_path / "out", cells=("openvino",), jobs=1)[0].agrees("openvino")
    told: list[tuple[int, int, str]] = []
    again = sweep.sweep(one, tmp_path / "out", cells=("openvino",), told=lambda *args: told.append(args))
    assert again[0].agrees("openvino") and not told  # what was written after it is read


def test_the_command_on_an_entry_in_every_engine_and_mode(tmp_path: Path) -> None:
    pytest.importorskip("mindspore")
    directory = Path(__file__).parents[1] / "zoo"
    found = CliRunner().invoke(
        app,
        [
            "support",
            "fnet/FNetModel",
            "--zoo",
            str(directory),
            "--out",
            str(tmp_path),
            "-q",
        ],
    )
    assert found.exit_code == 0, found.output
    for cell in sweep.CELLS:
        assert f"{cell}: 1 entry, agrees 1" in found.output
    assert not (tmp_path / "SUPPORT.md").exists()  # only the whole zoo makes the table


def test_an_unknown_engine_or_name_is_refused_before_any_work(tmp_path: Path) -> None:
    directory = str(Path(__file__).parents[1] / "zoo")
    run = CliRunner().invoke
    found = run(app, ["support", "-e", "tpu", "--zoo", directory, "--out", str(tmp_path)])
    assert found.exit_code == 2 and "--engine tpu is none of mindspore, openvino" in found.output
    found = run(app, ["support", "nonsense", "--zoo", directory, "--out", str(tmp_path)])
    assert found.exit_code == 2 and "No entry of" in found.output
