# SPDX-License-Identifier: Apache-2.0
"""Ordinary programs are answered as PyTorch answers them, or refused in one clear sentence: see `ordinary_programs`."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from typing import Any

import more_programs
import numpy as np
import pytest
import torch
from ordinary_programs import REFUSED, RIGHT, Encoder, Scaled, X, Y, add_in_place, op, padding
from torch import nn

import paritas
from paritas.capture import capture
from paritas.errors import InputError, ParitasError

#: What is run on MindSpore as well, by default; the whole table with the long tests.
FEW = ("x += 1", "sizes and words", "a dataclass", "by position", "*args", "GRU both ways", "vmap")


def _call(model: Any, inputs: Any) -> Any:
    given = copy.deepcopy(inputs)
    with torch.no_grad():
        return model(*given) if isinstance(given, tuple) else model(**given)


def _check_same(got: Any, want: Any) -> None:
    """Values, types and structure."""
    assert type(got) is type(want)
    if isinstance(want, torch.Tensor):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    elif isinstance(want, np.ndarray):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    elif isinstance(want, dict):
        assert list(got) == list(want)
        for key in want:
            _check_same(got[key], want[key])
    elif isinstance(want, (tuple, list)):
        assert len(got) == len(want)
        for one, other in zip(got, want, strict=True):
            _check_same(one, other)
    elif dataclasses.is_dataclass(want):
        _check_same(vars(got), vars(want))
    else:
        assert got == pytest.approx(want, rel=1e-4) if isinstance(want, float) else got == want


def _check_program(name: str, engine: str) -> None:
    make, inputs = RIGHT[name]
    torch.manual_seed(0)
    model = make().eval()
    want = [_call(model, given) for given in inputs]
    mode = {"mode": "pynative"} if engine == "mindspore" else {}
    port = paritas.port(model, engine=engine, inputs=copy.deepcopy(inputs[0]), **mode)
    for given, expected in zip(inputs, want, strict=True):
        _check_same(_call(port, given), expected)


@pytest.mark.parametrize("name", RIGHT)
def test_a_program_is_answered_as_pytorch_answers_it(name: str) -> None:
    _check_program(name, "openvino")


@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in RIGHT]
)
def test_a_program_on_mindspore(name: str) -> None:
    if "projecti" in name:
        pytest.skip("MindSpore has no LSTM with projections: refused")
    _check_program(name, "mindspore")


@pytest.mark.parametrize("name", REFUSED)
def test_a_program_is_refused_with_its_reason(name: str) -> None:
    make, inputs, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        paritas.port(make(), engine="openvino", inputs=inputs)


def test_what_was_fixed_is_not_taken_for_forwards_default() -> None:
    port = paritas.port(Scaled().eval(), inputs={"x": X, "scale": 3.0})
    with pytest.raises(InputError, match=r"scale is missing: .* scale=3\.0, and leaving it out means 1\.0"):
        port(X)
    with pytest.raises(InputError, match=r"scale=2\.0 is not possible: this port was made with scale=3\.0"):
        port(X, 2.0)
    with pytest.raises(InputError, match="x is given twice"):
        port(X, x=X, scale=3.0)
    with pytest.raises(InputError, match="2 arguments are taken by position, 3 were given: x, scale"):
        port(X, 3.0, 1.0)


def test_the_callers_inputs_are_left_alone_and_that_is_said() -> None:
    model, x = op(add_in_place)(), X.clone()
    port = paritas.port(model, inputs={"x": x})
    port(x)
    assert torch.equal(x, X)
    assert any("writes into its inputs x" in note.text for note in port.notes)
    assert port.verify().verdict == "agrees"


def test_lengths_of_packed_sequences_are_checked() -> None:
    make, inputs = RIGHT["packed LSTM"]
    port = paritas.port(make().eval(), inputs=inputs[0])
    with pytest.raises(InputError, match="lengths from 2 to 4; they must be at least 1, and the longest 5"):
        port(X, torch.tensor([2, 4]))
    with pytest.raises(InputError, match="lengths from 0 to 5"):
        port(X, torch.tensor([0, 5]))
    assert port.verify(level="outputs").verdict == "agrees"


def test_a_port_from_disk_returns_sizes_and_takes_positions(tmp_path: Any) -> None:
    port = paritas.port(op(lambda x: {"y": x * 2, "n": x.shape[1] - 1})(), inputs={"x": X})
    port.save(tmp_path / "port")
    assert paritas.load(tmp_path / "port")(Y)["n"] == 6


def test_porting_leaves_the_model_as_it_was() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.seen, self.calls = nn.Linear(6, 6), [], 0
            self.bn = nn.BatchNorm1d(5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen.append(x.shape)
            self.calls += 1
            self.last = self.layer(x)
            return self.bn(self.last)

    model = Keeps().train()
    model.layer.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    capture(model, {"x": X})
    assert (model.training, model.layer.training, model.bn.training) == (True, False, True)
    assert (model.seen, model.calls, hasattr(model, "last")) == ([], 0, False)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert "forward" not in vars(model)


@pytest.mark.parametrize("engine", ["openvino", "mindspore"])
def test_an_encoder_with_padding_is_right_where_nothing_is_padding(engine: str) -> None:
    model, inputs = Encoder().eval(), {"src": torch.randn(3, 9, 8), "pad": padding(3, 9, 5)}
    port = paritas.port(model, engine=engine, inputs=inputs)
    got, want, seen = port(**inputs), _call(model, inputs), ~inputs["pad"]
    torch.testing.assert_close(got[seen], want[seen], rtol=1e-4, atol=1e-5)
    assert any("fast path" in note.text for note in port.notes)


def test_a_model_of_the_drop_in_is_ported_as_its_original() -> None:
    import transformers

    from paritas.transformers import BertModel

    config = transformers.BertConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48
    )
    model = BertModel(config, engine="openvino")
    port = paritas.port(model)
    assert port.manifest.source.model_class == "transformers.models.bert.modeling_bert.BertModel"
    ids = torch.randint(5, 99, (2, 6))
    twin = transformers.BertModel(config).eval()
    twin.load_state_dict(model.state_dict())
    _check_same(port(ids), _call(twin, {"input_ids": ids}))
    assert not model.ports


# --- programs of rarer kinds -------------------------------------------------------------------

#: Those that were answered otherwise, or refused in another library's words.
EVERY_DAY = (
    "a list of free length",
    "modules used twice",
    "a bag with offsets",
    "a table that grows",
    "print",
)


@pytest.mark.parametrize("engine", ["openvino", "mindspore"])
@pytest.mark.parametrize(
    "name", [n if n in EVERY_DAY else pytest.param(n, marks=pytest.mark.slow) for n in more_programs.RIGHT]
)
def test_a_rarer_program_is_answered_or_refused(name: str, engine: str) -> None:
    make, inputs = more_programs.RIGHT[name]
    if engine == "mindspore":
        _right_or_refused(make, inputs, engine)
    else:
        want, got = _right_or_refused(make, inputs, engine)
        assert got == want


@pytest.mark.parametrize("engine", ["openvino", pytest.param("mindspore", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", more_programs.RIGHT_OR_REFUSED)
def test_a_program_of_sizes_or_entries_is_right_or_refused(name: str, engine: str) -> None:
    _right_or_refused(*more_programs.RIGHT_OR_REFUSED[name], engine)


@pytest.mark.parametrize("name", more_programs.REFUSED)
def test_a_rarer_program_is_refused_with_its_reason(name: str) -> None:
    make, inputs, error, words = more_programs.REFUSED[name]
    with pytest.raises(error, match=words):
        paritas.port(make().eval(), engine="openvino", inputs=inputs)


def _right_or_refused(make: Any, inputs: list[Any], engine: str) -> tuple[int, int]:
    """How many inputs there are, and how many of them are answered: as PyTorch answers them."""
    torch.manual_seed(0)
    model = make().eval()
    want = [_call(model, given) for given in inputs]
    mode = {"mode": "pynative"} if engine == "mindspore" else {}
    try:
        port = paritas.port(model, engine=engine, inputs=copy.deepcopy(inputs[0]), **mode)
    except ParitasError:
        return len(inputs), 0
    answered = 0
    for given, expected in zip(inputs, want, strict=True):
        with contextlib.suppress(InputError):
            got = _call(port, given)
            answered += 1
            _check_same(got, expected)
    return len(inputs), answered
