# SPDX-License-Identifier: Apache-2.0
"""Sizes that are read out of tensors: numbers if these are constants, and for one value if these are inputs."""

from __future__ import annotations

import pytest
import torch

import paritas
from paritas.capture import capture
from paritas.capture.modules import is_size
from paritas.capture.normalise import name_of
from paritas.capture.specialize import specialized
from paritas.errors import InputError, LoweringError


class Pictures(torch.nn.Module):
    """Patches of several pictures in one row, each with a mean of its own, and repeated by its height."""

    def __init__(self, repeats: bool = True) -> None:
        super().__init__()
        self.project, self.repeats = torch.nn.Linear(6, 6), repeats

    def forward(self, patches: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        patches = self.project(patches)
        parts = patches.split((grid[:, 0] * grid[:, 1]).tolist())
        means = torch.stack([part.mean(0) for part in parts])
        if not self.repeats:
            return means
        rows = torch.repeat_interleave(torch.arange(grid.shape[0]), grid[:, 0])
        spread = means.repeat_interleave(grid[:, 1], 0)
        return torch.cat([means[rows], spread])


class Constants(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sizes = torch.tensor([2, 3])
        first, second = x.split(sizes.tolist(), 1)
        return first.sum(1, keepdim=True) * second


class ByValues(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[: int((x[:, 0] > 0).sum().item())]


class Grids(torch.nn.Module):
    """A bias for each place of a picture, whose height and width travel in a tensor, as those of its levels do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shapes = torch.tensor([(x.shape[2] * 2, x.shape[3]), (7, 3)])
        height, width = shapes.int()[0].unbind()
        rows = torch.arange(0, height, dtype=x.dtype) / height
        columns = torch.arange(0, width, dtype=x.dtype) / width
        return torch.cat([x, x], 2).flatten(2) + (rows[:, None] + columns).flatten() * int(shapes[1:, -1])


GRID = torch.tensor([[2, 3], [1, 4]])


def patches(seed: int = 0) -> torch.Tensor:
    return torch.randn(10, 6, generator=torch.Generator().manual_seed(seed))


def test_sizes_read_out_of_constants_are_numbers() -> None:
    program = capture(Constants(), {"x": torch.randn(4, 5)})
    assert not {"aten.item.default", "aten._local_scalar_dense.default"} & set(map(name_of, program.graph.nodes))
    assert isinstance(program.inputs[0].dims[0], str)
    assert program.outputs[0].dims[1] == 3


def test_nothing_is_read_out_of_a_tensor_of_sizes() -> None:
    program = capture(Grids(), {"x": torch.randn(2, 3, 8, 5)})
    assert "aten.item.default" not in set(map(name_of, program.graph.nodes))
    assert all("u" not in str(node.meta.get("val")) for node in program.graph.nodes if is_size(node))


@pytest.mark.parametrize("engine", ["mindspore", "openvino"])
def test_sizes_that_were_put_into_a_tensor_are_these_sizes(engine: str) -> None:
    model = Grids()
    port = paritas.port(model, engine=engine, inputs={"x": torch.randn(2, 3, 8, 5)})
    assert port.verify().verdict == "agrees"
    for height, width in ((8, 5), (12, 7)):
        x = torch.randn(2, 3, height, width)
        torch.testing.assert_close(port(x=x), model(x), rtol=1e-5, atol=1e-5)


def test_an_input_that_sizes_are_read_from_keeps_its_value_and_the_others_stay_free() -> None:
    program = capture(Pictures(), {"patches": patches(), "grid": GRID})
    fixed = specialized(program)
    assert [spec.value for spec in fixed.inputs] == [None, GRID.tolist()]
    assert fixed.outputs[0].dims == (10, 6)
    assert any("grid=[[2, 3], [1, 4]] is fixed" in note.text for note in fixed.notes)
    # The program itself is another one: OpenVINO, and verification, run that.
    assert program.inputs[1].value is None
    assert "aten.item.default" in set(map(name_of, program.graph.nodes))
    assert specialized(fixed) is fixed


@pytest.mark.parametrize("engine", ["mindspore", "openvino"])
def test_a_port_computes_what_the_original_does_and_refuses_what_it_was_not_made_for(engine: str) -> None:
    model = Pictures(repeats=engine == "mindspore")  # OpenVINO's converter knows no repeats but one
    port = paritas.port(model, engine=engine, inputs={"patches": patches(), "grid": GRID})
    for seed in (0, 1):
        with torch.no_grad():
            want = model(patches(seed), GRID)
        torch.testing.assert_close(port(patches=patches(seed), grid=GRID), want, rtol=1e-5, atol=1e-5)
    report = port.verify()
    assert report.verdict == "agrees", str(report)
    other = torch.tensor([[1, 4], [3, 2]])
    if engine == "mindspore":
        with pytest.raises(InputError, match=r"this port was made for \[\[2, 3\], \[1, 4\]\]"):
            port(patches=patches(), grid=other)
    else:
        with torch.no_grad():
            want = model(patches(), other)
        torch.testing.assert_close(port(patches=patches(), grid=other), want, rtol=1e-5, atol=1e-5)


def test_the_value_is_in_the_port_on_disk(tmp_path) -> None:
    port = paritas.port(Pictures(), engine="mindspore", inputs={"patches": patches(), "grid": GRID})
    port.save(tmp_path / "port")
    again = paritas.load(tmp_path / "port")
    assert again.inputs[1].value == GRID.tolist()
    torch.testing.assert_close(
        again(patches=patches(), grid=GRID), port(patches=patches(), grid=GRID), rtol=1e-6, atol=1e-6
    )


def test_sizes_that_follow_from_floats_are_refused() -> None:
    with pytest.raises(LoweringError, match="cannot be read off any tensor"):
        paritas.port(ByValues(), engine="mindspore", inputs={"x": torch.randn(5, 3)})
