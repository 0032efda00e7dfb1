# SPDX-License-Identifier: Apache-2.0
"""What a search finds in a real port is kept in its directory, verified on ever after, and cannot be tampered with."""

from __future__ import annotations

import contextlib
import copy
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import nn
from typer.testing import CliRunner

import paritas
from paritas import store
from paritas.cli.app import app
from paritas.errors import PortError, TamperedPort
from paritas.store import directory
from paritas.verify import Budget, Case, Environment, ParityReport, Sought, whole_model
from paritas.verify.inputs import regression
from paritas.verify.report.rows import OutputParity


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(60, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.embed(input_ids)))


class Faulty(Tokens):
    """Wrong where token 17 stands behind token 5."""

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        before = torch.nn.functional.pad(input_ids, (1, 0))[:, :-1]
        return super().forward(input_ids) + 0.5 * ((input_ids == 17) & (before == 5)).unsqueeze(-1)


BUDGET = Budget(tries=800)


@pytest.fixture(autouse=True, scope="module")
def no_suspects() -> Iterator[None]:
    """Many sizes would find the fault before the search does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paritas.verify.inputs.suspects.SECONDS", 0.0)
        yield


@pytest.fixture(scope="module")
def right() -> Tokens:
    torch.manual_seed(0)
    return Tokens().eval()


@pytest.fixture(scope="module")
def faulty(right: Tokens) -> paritas.Port:
    pytest.importorskip("openvino")
    model = Faulty()
    model.load_state_dict(right.state_dict())
    return paritas.port(model, "openvino", {"input_ids": torch.randint(0, 60, (2, 9))})


@pytest.fixture(scope="module")
def searched(faulty: paritas.Port, right: Tokens, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The faulty port with the inputs that a search has found, on disk."""
    directory = tmp_path_factory.mktemp("searched") / "port"
    faulty.save(directory)
    port = paritas.load(directory)
    report = port.verify(level="outputs", original=copy.deepcopy(right), search=BUDGET, seed=1)
    assert report.search is not None and report.search.kept.startswith("kept as regression/search-")
    return directory


@pytest.fixture
def saved(searched: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(searched, tmp_path / "port"))


def kept(directory: Path) -> list[str]:
    return [path.relative_to(directory).as_posix() for path in sorted(directory.glob("regression/*"))]


def test_a_fault_that_the_cases_miss_is_found_in_an_openvino_port_kept_and_found_again(
    saved: Path, right: Tokens, faulty: paritas.Port, tmp_path: Path
) -> None:
    assert faulty.verify(level="outputs", original=copy.deepcopy(right)).verdict == "agrees"
    (name,) = kept(saved)
    assert set(json.loads((saved / "port.json").read_text())["files"][name]) == {"sha256", "bytes"}
    ids = load_file(saved / name)["input_ids"]
    assert ((ids[:, :-1] == 5) & (ids[:, 1:] == 17)).any()
    again = paritas.load(saved).verify(level="outputs", original=copy.deepcopy(right))
    assert again.verdict == "diverges"
    assert {row.case for row in again.outputs if row.diverges} == {f"regression: {Path(name).stem}"}
    paritas.load(saved).save(tmp_path / "copy")
    assert kept(tmp_path / "copy") == [name]


def test_given_inputs_do_not_silence_the_regressions(saved: Path, right: Tokens) -> None:
    report = paritas.load(saved).verify(
        {"input_ids": np.array([[1, 2]])}, level="outputs", original=copy.deepcopy(right)
    )
    assert report.verdict == "diverges" and report.outputs[0].case == "given"


def test_a_port_in_memory_keeps_them_until_it_is_saved(right: Tokens, tmp_path: Path) -> None:
    port = paritas.port(Faulty().eval(), "openvino", {"input_ids": torch.randint(0, 60, (2, 9))})
    report = port.verify(level="outputs", search=Budget(tries=30))
    assert report.search is not None and report.search.tries == 30
    port.save(tmp_path / "port")
    names = [path.name for path in store.inputs(store.read(tmp_path / "port"))]
    assert names == [Path(name).name for name in kept(tmp_path / "port")]
    assert len(names) == ("kept as" in report.search.kept)


def test_a_changed_regression_input_is_refused(saved: Path) -> None:
    (name,) = kept(saved)
    save_file({"input_ids": np.array([[1, 2, 3]])}, saved / name)
    with pytest.raises(TamperedPort, match="regression/search-"):
        paritas.load(saved)
    (saved / name).unlink()
    with pytest.raises(TamperedPort, match="missing"):
        paritas.load(saved)


def test_an_unlisted_file_is_never_opened(saved: Path, right: Tokens) -> None:
    (saved / "regression" / "mine.safetensors").write_bytes(b"no arrays at all")
    (saved / "regression" / ".search-1.safetensors.tmp-1-ab").write_bytes(b"")
    report = paritas.load(saved).verify(level="outputs", original=copy.deepcopy(right))
    assert sum(row.case.startswith("regression: ") for row in report.outputs) == 1
    (saved / "regression" / "mine.py").write_text("evil")
    with pytest.raises(TamperedPort, match="not listed"):
        paritas.load(saved)


@pytest.mark.parametrize(
    "arrays",
    [
        {"other": np.array([1])},
        {"input_ids": np.array([[60]])},
        {"input_ids": np.array([1])},
        {"input_ids": np.array([[0.5]])},
        None,
    ],
    ids=["another input", "beyond the vocabulary", "another rank", "another dtype", "no arrays"],
)
def test_what_the_port_does_not_take_is_said_with_its_file(arrays: dict | None, saved: Path, right: Tokens) -> None:
    (name,) = kept(saved)
    if arrays is None:
        (saved / name).write_bytes(b"no arrays")
    else:
        save_file(arrays, saved / name)
    port = paritas.load(saved, allow_modified=True)
    with pytest.raises(PortError, match=r"search-\w+\.safetensors holds no inputs of this port"):
        port.verify(level="outputs", original=copy.deepcopy(right))


def test_a_port_that_cannot_be_written_to_is_verified_all_the_same(
    faulty: paritas.Port, right: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty.save(tmp_path / "port")

    def refuse(path: Path, data: bytes) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    port = paritas.load(tmp_path / "port")
    monkeypatch.setattr(directory, "replace", refuse)
    report = port.verify(level="outputs", original=copy.deepcopy(right), search=BUDGET, seed=1)
    assert report.verdict == "diverges" and report.search is not None
    assert "not kept as a regression input" in report.search.kept and "no permission" in report.search.kept
    monkeypatch.undo()
    paritas.load(tmp_path / "port")


# --- the worst few ------------------------------------------------------------------------------


def report_with(**excess: float) -> ParityReport:
    """A report of cases with these excesses; `new` is what the search found."""
    rows = tuple(
        OutputParity("search" if name == "new" else f"regression: {name}", "y", excess=value, error=value, elements=1)
        for name, value in excess.items()
    )
    sought = Sought("9 tries", 0, 1.0, 9, 1, 0, 0, excess=excess["new"], case="search")
    return ParityReport(Environment("stub"), whole_model("float32"), rows, search=sought)


def kept_of(artifact, number: float):
    return regression.keep(artifact, Case("search", {"input_ids": np.array([[int(number)]])}), report_with(new=number))


def test_at_most_a_handful_is_kept_the_worst_and_what_gave_way_is_said(saved: Path) -> None:
    artifact = store.read(saved)
    for number in range(1, regression.MOST):
        artifact, _ = kept_of(artifact, number)
    assert len(kept(saved)) == regression.MOST
    everything = {Path(name).stem: float(i) for i, name in enumerate(kept(saved), 2)}
    case = Case("search", {"input_ids": np.array([[50]])})
    same, report = regression.keep(artifact, case, report_with(new=1.0, **everything))
    assert same == artifact and "as bad or worse" in report.search.kept
    artifact, report = regression.keep(artifact, case, report_with(new=9.0, **everything))
    assert report.search.dropped == (kept_of_least(everything),) and len(kept(saved)) == regression.MOST
    assert "dropped regression/" in str(report)
    assert store.read(saved).manifest.files == artifact.manifest.files
    again, report = regression.keep(artifact, case, report_with(new=9.0))
    assert "kept already" in report.search.kept and again == artifact


def kept_of_least(everything: dict[str, float]) -> str:
    return f"regression/{min(everything, key=everything.__getitem__)}.safetensors"


@pytest.mark.parametrize(
    "name", ["evil.py", "regression/../x.safetensors", "regression/a/b.safetensors", "model.safetensors"]
)
def test_only_regression_inputs_can_be_added(saved: Path, name: str) -> None:
    with pytest.raises(PortError, match="is no name for inputs"):
        store.keep(store.read(saved), name, b"")
    with pytest.raises(PortError, match="is no name for inputs"):
        store.keep(store.read(saved), "regression/x.safetensors", b"", drop=[name])


@pytest.mark.parametrize("nth", range(6))
def test_an_interruption_leaves_a_port_that_can_be_read(saved: Path, nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {"done": 0}
    for name in ("replace", "fsync", "unlink"):
        real = getattr(os, name)

        def call(*args: object, real: object = real, **kwargs: object) -> object:
            steps["done"] += 1
            if steps["done"] == nth + 1:
                raise KeyboardInterrupt
            return real(*args, **kwargs)  # type: ignore[operator]

        monkeypatch.setattr(os, name, call)
    artifact = store.read(saved)
    with contextlib.suppress(KeyboardInterrupt):
        store.keep(artifact, "regression/new.safetensors", b"new", drop=kept(saved))
    monkeypatch.undo()
    files = store.read(saved).manifest.files
    assert [name for name in files if name.startswith("regression/")] in (
        ["regression/new.safetensors"],
        [name for name in kept(saved) if name != "regression/new.safetensors"],
    )


# --- the command --------------------------------------------------------------------------------


def test_the_command_searches_says_so_and_keeps_what_it_found(openvino_port: Path, tmp_path: Path) -> None:
    assert not (openvino_port / "regression").exists(), "paritas port keeps none"
    directory = Path(shutil.copytree(openvino_port, tmp_path / "port"))
    runner = CliRunner()
    options = ["--level", "outputs", "--json", "--quiet"]
    result = runner.invoke(app, ["verify", str(directory), "--search", "1", "--seed", "3", *options])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)["report"]
    assert report["search"]["tries"] > 0 and report["search"]["seed"] == 3
    (name,) = kept(directory)
    assert report["search"]["kept"].startswith(f"kept as {name}")
    again = json.loads(runner.invoke(app, ["verify", str(directory), *options]).stdout)["report"]
    assert again["search"] is None and any(row["case"] == f"regression: {Path(name).stem}" for row in again["outputs"])


def test_no_search_without_time(openvino_port: Path) -> None:
    assert CliRunner().invoke(app, ["verify", str(openvino_port), "--search", "0"]).exit_code == 2
