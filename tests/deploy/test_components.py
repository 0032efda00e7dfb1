# SPDX-License-Identifier: Apache-2.0
"""Several components in one directory: saved, loaded, verified and inspected together, and read as strictly as one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import paritas
from paritas.capture import components
from paritas.cli.app import app
from paritas.errors import InputError, PortError, TamperedPort

TASK = "two-halves"


class Halves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.second = nn.Sequential(nn.GELU(), nn.Linear(8, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def halves(model: Halves) -> dict[str, components.Component]:
    return {
        "first_half": components.Component(model.first, lambda: {"input": torch.randn(2, 4)}),
        "second_half": components.Component(model.second, lambda: {"input": torch.randn(2, 8)}),
    }


@pytest.fixture(scope="module")
def model() -> Iterator[Halves]:
    components.TASKS[TASK] = halves
    torch.manual_seed(0)
    yield Halves().eval()
    del components.TASKS[TASK]


@pytest.fixture(scope="module")
def saved(model: Halves, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("saved") / "port"
    with paritas.port(model, task=TASK) as port:
        assert list(port) == ["first_half", "second_half"]
        port.save(directory)
    return directory


def test_openvinos_components_lie_beside_each_other(saved: Path, model: Halves) -> None:
    directory = saved
    assert {path.name for path in directory.iterdir()} == {
        *("openvino_first_half_model.xml", "openvino_first_half_model.bin", "example.first_half.safetensors"),
        *("openvino_second_half_model.xml", "openvino_second_half_model.bin", "example.second_half.safetensors"),
        *("ov_config.json", "port.json"),
    }
    port = paritas.load(directory)
    assert port.task == TASK and repr(port) == "<Components of Halves to openvino: first_half, second_half>"
    x = torch.randn(5, 4)
    with torch.no_grad():
        want = model(x)
    out = port["second_half"](input=port["first_half"](input=x))
    np.testing.assert_allclose(out, want, atol=1e-5)
    with pytest.raises(InputError, match="called one by one"):
        port(x)
    reports = port.verify(original=model, level="outputs")
    assert reports.agrees and set(reports) == set(port)
    assert all("the example" in str(report.cases) for report in reports.values())
    again = paritas.verify.report_from_json(reports.to_json())
    assert dict(again) == dict(reports)


def test_the_commands_know_them(saved: Path, model: Halves, tmp_path: Path) -> None:
    port = paritas.load(saved)
    port.save(tmp_path / "port")
    from paritas.verify.report.files import attach

    attach(tmp_path / "port", port.verify(original=model))
    run = CliRunner().invoke
    shown = run(app, ["inspect", str(tmp_path / "port")])
    assert shown.exit_code == 0, shown.output
    assert "first_half: openvino_first_half_model.xml" in shown.output and shown.output.count("agrees") == 2
    told = json.loads(run(app, ["inspect", str(tmp_path / "port"), "--json"]).stdout)
    assert told["parity"]["components"].keys() == {"first_half", "second_half"}
    both = run(app, ["report", str(tmp_path / "port"), "--html", str(tmp_path / "all.html")])
    assert both.exit_code == 0 and both.output.count("agrees") == 2, both.output
    assert "first_half" in (tmp_path / "port" / "PARITY.md").read_text()
    refused = run(app, ["bisect", str(tmp_path / "port")])
    assert refused.exit_code == 2 and "holds several components" in refused.output


def test_a_search_keeps_its_inputs_for_the_component(saved: Path, model: Halves, tmp_path: Path) -> None:
    paritas.load(saved).save(tmp_path / "port")
    port = paritas.load(tmp_path / "port")
    report = port["second_half"].verify(original=model, level="outputs", search=0.2)
    assert "kept as regression/second_half-search-" in report.search.kept
    again = paritas.load(tmp_path / "port").verify(original=model, level="outputs")
    assert "regression: second_half-search" in str(again["second_half"].cases)
    assert "regression" not in str(again["first_half"].cases)


def _edited(directory: Path, change: Any) -> None:
    path = directory / "port.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def _swap(data: Any) -> None:
    data["components"]["first_half"]["entry"] = "openvino_second_half_model.xml"


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda d: d["components"].clear(), PortError, "there are 0"),
        (lambda d: d["components"].update({"../x": d["components"]["first_half"]}), PortError, "no name of one"),
        (_swap, PortError, "the same main file"),
        (lambda d: d["components"]["first_half"].update(entry="other/x.xml"), PortError, "another's folder"),
        (lambda d: d["components"]["first_half"].update(entry="../x.xml"), PortError, "another's folder"),
        (lambda d: d["components"]["first_half"].update(surprise=1), PortError, "unknown fields"),
        (lambda d: d["components"]["first_half"].update(files={"a": {}}), PortError, "files or a format of its own"),
        (lambda d: d["components"]["first_half"].update(inputs=[]), PortError, "nothing|takes"),
        (lambda d: d.update(engine="openvino"), PortError, "unknown fields: engine"),
        (lambda d: d["files"].pop("openvino_first_half_model.xml"), TamperedPort, "not listed with a checksum"),
        (lambda d: d["files"].pop("openvino_first_half_model.bin"), TamperedPort, "not listed in port.json"),
    ],
)
def test_it_is_read_strictly(saved: Path, tmp_path: Path, change: Any, error: Any, says: str) -> None:
    paritas.load(saved).save(tmp_path / "port")
    _edited(tmp_path / "port", change)
    with pytest.raises(error, match=says):
        paritas.load(tmp_path / "port")


def test_a_file_that_was_changed_is_refused(saved: Path, tmp_path: Path) -> None:
    paritas.load(saved).save(tmp_path / "port")
    file = tmp_path / "port" / "openvino_second_half_model.xml"
    file.write_text(file.read_text().replace("Gelu", "Relu"))
    with pytest.raises(TamperedPort, match="openvino_second_half_model"):
        paritas.load(tmp_path / "port")


def test_files_of_the_same_name_lie_in_folders(model: Halves, tmp_path: Path) -> None:
    from paritas.components import join

    made = join({name: paritas.port(part, inputs=i) for name, part, i in (
        ("first", model.first, {"input": torch.randn(2, 4)}), ("second", model.second, {"input": torch.randn(2, 8)}),
    )})  # fmt: skip
    made.save(tmp_path / "port")
    assert {path.name for path in (tmp_path / "port").iterdir()} == {"port.json", "first", "second"}
    assert (tmp_path / "port" / "second" / "openvino_model.xml").is_file()
    port = paritas.load(tmp_path / "port")
    x = torch.randn(3, 4)
    with torch.no_grad():
        np.testing.assert_allclose(port["second"](input=port["first"](input=x)), model(x), atol=1e-5)
    report = port["second"].verify(original=model.second, level="outputs", search=0.2)
    assert "kept as regression/search-" in report.search.kept
    again = paritas.load(tmp_path / "port")["second"].verify(original=model.second, level="outputs")
    assert report.verdict == again.verdict == "agrees" and "regression" in str(again.cases)
    assert len(list((tmp_path / "port" / "second" / "regression").iterdir())) == 1
