# SPDX-License-Identifier: Apache-2.0
"""Ports that are kept for the next start: found again, told apart, mended, limited, and safe to share."""

from __future__ import annotations

import concurrent.futures
import copy
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import paritas.transformers as ours
from paritas.dropin import kept, network, port_cache, telling
from paritas.options import BuildOptions

pytest.importorskip("openvino")

IDS = torch.tensor([[5, 6, 7, 8]])


def bert(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config = hf.BertConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48
    )
    return hf.BertModel(config).eval()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PARITAS_CACHE", str(tmp_path / "ports"))
    return tmp_path / "ports"


def places(cache: Path) -> list[Path]:
    return sorted(path for path in cache.iterdir() if path.is_dir())


def test_a_second_start_traces_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    want = ours.port_model(bert(), engine="openvino")(IDS).last_hidden_state
    assert len(places(cache)) == 1

    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("captured again")

    monkeypatch.setattr(network, "capture", never)
    again = ours.port_model(bert(), engine="openvino")
    assert torch.equal(again(IDS).last_hidden_state, want)
    assert again(IDS[:, :2]).last_hidden_state.shape == (1, 2, 32)  # another length, the same port
    with pytest.raises(AssertionError, match="captured again"):
        ours.port_model(bert(seed=1), engine="openvino")(IDS)  # other weights
    with pytest.raises(AssertionError, match="captured again"):
        again(IDS, output_hidden_states=True)  # another signature


def test_a_second_start_prepares_what_the_original_prepares() -> None:
    config = hf.Qwen2_5_VLVisionConfig(
        fullatt_block_indexes=[0], depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=16
    )
    torch.manual_seed(0)
    tower = hf.Qwen2_5_VisionTransformerPretrainedModel(config).eval()
    call = {"hidden_states": torch.randn(16, 1176), "grid_thw": torch.tensor([[1, 4, 4]])}
    want = tower(**call).last_hidden_state
    for _ in range(2):  # cu_seqlens and the like are loops over grid_thw, which no graph holds
        got = ours.port_model(copy.deepcopy(tower), engine="openvino")(**call).last_hidden_state
        assert torch.allclose(got, want, atol=1e-5)


def test_what_is_broken_is_made_again(cache: Path) -> None:
    want = ours.port_model(bert(), engine="openvino")(IDS).last_hidden_state
    (place,) = places(cache)
    weights = place / "port" / "openvino_model.bin"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert torch.equal(ours.port_model(bert(), engine="openvino")(IDS).last_hidden_state, want)
    assert len(places(cache)) == 1
    (place / "port" / "port.json").unlink()
    assert torch.equal(ours.port_model(bert(), engine="openvino")(IDS).last_hidden_state, want)


def test_the_oldest_go_when_there_are_too_many(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARITAS_CACHE_GIB", "1e-9")
    ours.port_model(bert(), engine="openvino")(IDS)
    (first,) = places(cache)
    os.utime(first / kept.USED, (time.time() - 9, time.time() - 9))
    ours.port_model(bert(seed=1), engine="openvino")(IDS)
    assert first not in places(cache)
    assert len(places(cache)) == 1  # the one in use stays, however small the limit


def test_an_empty_name_turns_it_off(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARITAS_CACHE", "")
    ours.port_model(bert(), engine="openvino")(IDS)
    assert not cache.exists()


def test_a_disk_that_cannot_be_written_costs_nothing_but_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PARITAS_CACHE", str(tmp_path / "file"))
    assert ours.port_model(bert(), engine="openvino")(IDS).last_hidden_state.shape == (1, 4, 32)


def test_what_is_kept_is_listed_and_removed_by_name(
    cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    from typer.testing import CliRunner

    from paritas.cli import app

    bert().save_pretrained(tmp_path / "mine")
    run = CliRunner()
    with caplog.at_level("INFO", logger="paritas"):
        warmed = run.invoke(app, ["cache", "warm", str(tmp_path / "mine"), "-q", "--json"])
    assert warmed.exit_code == 0, warmed.output
    said = [record.getMessage() for record in caplog.records if record.name == "paritas.dropin"]
    assert said[0] == "BertModel to openvino (computes): this call is the first of its kind, so a port is made for it"
    assert re.fullmatch(r"BertModel to openvino \(computes\): the port was made in \d+\.\d s", said[-1])
    assert "first of its kind" not in capsys.readouterr().err  # silent, but for who listens
    ours.port_model(bert(seed=1), engine="openvino")(IDS)
    told = {one.model: one for one in kept.entries()}
    assert set(told) == {str(tmp_path / "mine"), ""}
    mine = told[str(tmp_path / "mine")]
    assert (mine.model_class, mine.call, mine.engine, mine.weights) == ("BertModel", "computes", "openvino", "float32")
    assert mine.bytes > 10_000
    listed = run.invoke(app, ["cache", "ls"], env={"COLUMNS": "200"}).stdout
    assert "in memory" in listed and mine.name in listed and "2 ports, " in listed
    removed = json.loads(run.invoke(app, ["cache", "rm", "mine", "--json"]).stdout)
    assert (removed["removed"], removed["bytes"]) == ([mine.name], mine.bytes)
    assert not mine.place.exists() and len(places(cache)) == 1
    for wrong, words in ((["nothing"], "No port is kept of 'nothing'"), ([], "Say what to remove")):
        refused = run.invoke(app, ["cache", "rm", *wrong])
        assert refused.exit_code == 2 and words in refused.stderr
    assert run.invoke(app, ["cache", "rm", "--all"]).exit_code == 0 and not places(cache)


def test_a_first_call_shows_one_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(written, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", written)
    with telling.Making("BertModel to openvino") as making:
        making("capture")
        making("lower")
    shown = written.getvalue()
    assert shown.count("\n") == 1 and shown.startswith("\r\x1b[Kparitas: BertModel to openvino: capturing ...")
    monkeypatch.setattr(telling, "occupied", 1)
    with telling.Making("BertModel to openvino") as making:
        making("capture")
    assert written.getvalue() == shown


SCRIPT = """
import sys, torch
sys.path.insert(0, {folder!r})
from test_port_cache import IDS, bert
import paritas.transformers as ours
print(ours.port_model(bert(), engine="openvino")(IDS).last_hidden_state.double().sum().item())
"""


def start(cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(folder=str(Path(__file__).parent))],
        env={**os.environ, "PARITAS_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_processes_at_once_and_one_that_is_killed_leave_a_usable_cache(cache: Path) -> None:
    victim = start(cache)
    while not (cache.exists() and places(cache)) and victim.poll() is None:
        time.sleep(0.005)
    victim.kill()
    victim.communicate()
    both = [start(cache) for _ in range(2)]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        said = list(pool.map(lambda process: process.communicate(timeout=300), both))
    assert [process.returncode for process in both] == [0, 0], said
    assert said[0][0] == said[1][0]
    assert len(places(cache)) == 1
    assert port_cache.read(places(cache)[0], BuildOptions("openvino")) is not None


@pytest.mark.slow
def test_pictures_of_other_sizes_get_a_port_of_their_own(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MindSpore takes one grid per port; which one is asked for decides, in this process and in the next."""
    config = hf.Siglip2VisionConfig(
        num_hidden_layers=1, hidden_size=32, intermediate_size=48, num_attention_heads=4, patch_size=4
    )
    torch.manual_seed(0)
    original = hf.Siglip2VisionModel(config).eval()
    want, got = [], []
    for again in (False, True):
        if again:
            monkeypatch.setattr(network, "capture", lambda *args, **kwargs: pytest.fail("captured again"))
        port = ours.port_model(copy.deepcopy(original), engine="mindspore")
        for sizes in ([[4, 4], [2, 8]], [[3, 5], [4, 4]]):
            mask = torch.zeros(2, 16, dtype=torch.int64)
            for row, (height, width) in enumerate(sizes):
                mask[row, : height * width] = 1
            call = {"pixel_values": torch.ones(2, 16, 48), "pixel_attention_mask": mask}
            call["spatial_shapes"] = torch.tensor(sizes)
            with torch.no_grad():
                want.append(original(**call).last_hidden_state)
            got.append(port(**call).last_hidden_state)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    assert len(places(cache)) == 2
