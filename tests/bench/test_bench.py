# SPDX-License-Identifier: Apache-2.0
"""Measuring: processes of their own, turns, faults as values. Nothing here asserts how long anything takes."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import paritas
from paritas.bench import race as bench
from paritas.bench.race import BenchReport, Contender, Timing, race

X = {"x": np.ones((2, 4), np.float32)}
FEED = {"input_ids": np.array([[5, 6, 7]]), "attention_mask": np.array([[1, 1, 0]])}


class Layer(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 + 1


@pytest.fixture(scope="module")
def linear() -> paritas.Port:
    return paritas.port(Layer(), "openvino", inputs={"x": torch.ones(2, 4)})


@pytest.fixture(scope="module")
def saved(linear: paritas.Port, tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("ports") / "linear"
    linear.save(directory)
    return str(directory)


@pytest.fixture(scope="module")
def raced(saved: str) -> BenchReport:
    contenders = [Contender("first", saved), Contender("missing", "/nowhere"), Contender("again", saved)]
    return race(contenders, X, 0.2, rounds=3, subject="a layer")


@pytest.fixture(scope="module")
def bert() -> torch.nn.Module:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=20,
    )  # fmt: skip
    return BertModel(config).eval()


def test_each_contender_has_a_process_of_its_own(raced: BenchReport) -> None:
    processes = {timing.process for timing in raced.timings if timing.calls}
    assert len(processes) == 2
    assert os.getpid() not in processes


def test_a_contender_is_timed_in_every_round(raced: BenchReport) -> None:
    timing = raced["again"]
    assert len(timing.rounds) == 3
    assert all(timing.rounds)
    assert timing.best <= timing.median <= timing.p90
    assert timing.load > 0
    assert timing.memory > 2**20
    assert timing.version.startswith("openvino ")


def test_the_first_contender_is_the_baseline(raced: BenchReport) -> None:
    assert raced["first"].ratio == 1.0
    assert raced["again"].ratio == raced["first"].median / raced["again"].median


def test_a_contender_that_fails_is_in_the_report_and_stops_nobody(raced: BenchReport) -> None:
    failed = raced["missing"]
    assert "There is no directory /nowhere" in failed.fault
    assert failed.calls == ()
    assert failed.ratio is None
    assert "missing failed: PortError" in str(raced)


def test_a_process_that_dies_is_a_fault(saved: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    report = race([Contender("x", saved)], X, 0.1, rounds=1)
    assert "its process ended with 1" in report.timings[0].fault


def test_turns_alternate(saved: str, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []
    play = bench._Child.play

    def recorded(self: bench._Child, seconds: float) -> float | None:
        turns.append(self.timing.name)
        return play(self, seconds)

    monkeypatch.setattr(bench._Child, "play", recorded)
    race([Contender("a", saved), Contender("b", saved)], X, 0.1, rounds=2)
    assert turns == ["a", "b", "a", "b"]


def test_processes_are_gone_afterwards(raced: BenchReport) -> None:
    for timing in raced.timings:
        if timing.process:
            with pytest.raises(ProcessLookupError):
                os.kill(timing.process, 0)


def test_the_report_survives_json(raced: BenchReport) -> None:
    assert BenchReport.from_json(raced.to_json()) == raced
    row = json.loads(raced.to_json())["timings"][0]
    assert row["median"] == raced.timings[0].median


def test_the_text_says_ratio_machine_and_noise(raced: BenchReport) -> None:
    text = str(dataclasses.replace(raced, noise=0.4))
    assert text.startswith("a layer\n")
    assert "1.00x" in text
    assert "other processes took 40% of this machine meanwhile" in text
    assert raced.machine in text
    assert "other processes" not in str(dataclasses.replace(raced, noise=0.0))


def test_figures_of_a_timing() -> None:
    timing = Timing("x", rounds=((3.0, 1.0), (2.0,)))
    assert (timing.calls, timing.median, timing.best) == ((3.0, 1.0, 2.0), 2.0, 1.0)
    assert np.isnan(Timing("x", fault="broken").median)


def test_a_contender_is_a_port_or_an_original() -> None:
    with pytest.raises(ValueError, match="give the directory of a port, or the source"):
        Contender("neither")


def test_a_port_is_timed_against_its_original(bert: torch.nn.Module, tmp_path: Path) -> None:
    bert.save_pretrained(tmp_path)
    port = paritas.port(tmp_path, "openvino", inputs={k: torch.from_numpy(v) for k, v in FEED.items()})
    report = port.bench(FEED, seconds=0.1)
    assert [t.name for t in report.timings] == ["torch eager", "openvino float32"]
    assert [t.fault for t in report.timings] == ["", ""]
    assert report["openvino float32"].precision == "float32"
    assert report["torch eager"].version.startswith("torch ")


def test_an_original_in_memory_is_saved_for_the_other_process(bert: torch.nn.Module) -> None:
    port = paritas.port(bert, "openvino", inputs={k: torch.from_numpy(v) for k, v in FEED.items()})
    report = port.bench(FEED, seconds=0.1)
    assert [t.fault for t in report.timings] == ["", ""]


def test_a_module_that_cannot_be_loaded_again_is_timed_without_baseline(linear: paritas.Port) -> None:
    report = linear.bench(X, seconds=0.1, against=[linear])
    assert [t.name for t in report.timings] == ["openvino float32 (1)", "openvino float32 (2)"]
    assert "no baseline: the original was a module in memory" in str(report)
