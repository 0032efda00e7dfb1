# SPDX-License-Identifier: Apache-2.0
"""What is written into a weight's memory past torch is seen, and what nobody wrote is not."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from paritas.dropin import memory, samples
from paritas.dropin.samples import PLACES, Samples
from paritas.dropin.watch import Watch
from work import calls_of

Write = Callable[[torch.Tensor], Any]

_SHAPES = (
    (1,), (5,), (33,), (100,), (1001,), (4, 4), (33, 2), (1000, 3), (3, 1000), (16, 64), (33, 33), (1024, 1024),
    (64, 32, 3, 3), (320, 4, 1, 1), (2,) * 7,
)  # fmt: skip


def _random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


_LAYOUTS: dict[str, Callable[..., torch.Tensor]] = {
    "rows": _random,
    "columns": lambda *shape: _random(*shape).transpose(0, -1).contiguous().transpose(0, -1),
    "gaps": lambda *shape: _random(*shape[:-1], shape[-1] * 2)[..., ::2],
    "one row": lambda *shape: _random(1, *shape[1:]).expand(shape),
    "half": lambda *shape: _random(*shape).to(torch.bfloat16),
    "whole numbers": lambda *shape: (_random(*shape) * 9).long(),
    "truth": lambda *shape: _random(*shape) > 2,
    "complex": lambda *shape: _random(*shape).to(torch.complex128),
}

#: The numbers that are written, past the version of the tensor.
_WRITES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "all": lambda t: t,
    "a quarter of the rows": lambda t: t[: -(-t.shape[0] // 4)],
    "every second row": lambda t: t[::2],
    "the first columns": lambda t: t[..., : -(-t.shape[-1] // 2)],
    "the last columns": lambda t: t[..., t.shape[-1] // 2 :],
    "every second column": lambda t: t[..., 1 - t.shape[-1] % 2 :: 2],
}


@pytest.mark.parametrize("layout", _LAYOUTS)
def test_a_write_is_seen(layout: str) -> None:
    for shape in _SHAPES:
        for name, part in _WRITES.items():
            tensor = _LAYOUTS[layout](*shape)
            watched = Samples([tensor])
            before = watched.taken()
            assert watched.taken() == before
            (part(tensor) if layout != "one row" else tensor[0]).fill_(7)
            assert watched.taken() != before, (shape, name)


def test_few_numbers_are_read() -> None:
    """And a small tensor's are all read."""
    for shape in _SHAPES:
        for layout in ("rows", "columns"):
            tensor = _LAYOUTS[layout](*shape)
            (places,) = (place for places in Samples([tensor])._places for place in places)
            assert min(PLACES // 3, tensor.numel()) <= places.size <= 2 * PLACES
            assert tensor.numel() > PLACES or places.size == tensor.numel()


def test_what_is_beside_a_tensor_in_its_memory_is_not_the_tensors() -> None:
    whole = _random(100, 10)
    watched = Samples([whole[20:60, :5]])
    before = watched.taken()
    whole[:20].fill_(0)
    whole[60:].fill_(0)
    whole[:, 5:].fill_(0)
    assert watched.taken() == before


def test_asking_takes_no_call_for_each_weight() -> None:
    few, many = (Samples([_random(40, 40) for _ in range(count)]) for count in (2, 200))
    assert calls_of(many.taken) == calls_of(few.taken)


def test_weights_are_held_by_nobody() -> None:
    """Else they would not go into files: see `memory.large_in_memory`."""
    model = torch.nn.Linear(256, 256)
    watched = Watch(model)
    (large,) = memory.large_in_memory(model)
    assert large is model.weight and not watched.changed()


def test_memory_that_is_gone_is_not_read() -> None:
    model = torch.nn.Linear(256, 256)
    watched = Watch(model)
    model.weight.untyped_storage().resize_(0)
    assert watched.changed()
    watched.look()
    assert not watched.changed()


# --- ways to write -------------------------------------------------------------------------------------------


def _past_torch(tensor: torch.Tensor) -> None:
    ctypes.memset(tensor.data_ptr(), 1, tensor.nbytes)


def _typed(tensor: torch.Tensor) -> None:
    torch.storage.TypedStorage(wrap_storage=tensor.untyped_storage(), dtype=tensor.dtype, _internal=True).fill_(3)


_PAST: dict[str, Write] = {
    "storage": lambda t: t.untyped_storage().fill_(1),
    "storage of a dtype": _typed,
    "an array of data": lambda t: t.data.numpy().fill(3),
    "an array": lambda t: np.asarray(t.detach()).fill(3),
    "one number of an array": lambda t: t.detach().numpy().__setitem__((5, 7), 3),
    "another tensor of the storage": lambda t: torch.empty(0).set_(t.untyped_storage()).fill_(3),  # type: ignore[call-overload]
    "dlpack": lambda t: torch.from_dlpack(t.detach()).fill_(3),
    "C code": _past_torch,
}


@pytest.mark.filterwarnings("ignore:TypedStorage")
@pytest.mark.parametrize("write", _PAST.values(), ids=_PAST)
def test_a_watch_sees_it(write: Write) -> None:
    model = torch.nn.Linear(40, 40)
    watched = Watch(model)
    weights = watched.weights()
    write(model.weight)
    assert watched.changed()
    watched.look()
    assert not watched.changed() and watched.weights() != weights


def test_an_array_that_was_there_before_its_weight() -> None:
    mine = np.ones((40, 40), "float32")
    model = torch.nn.Linear(40, 40)
    model.weight = torch.nn.Parameter(torch.from_numpy(mine))
    watched = Watch(model)
    mine *= 2
    assert watched.changed()


# --- in files ------------------------------------------------------------------------------------------------

_linux = pytest.mark.skipif(sys.platform != "linux", reason="pages are asked for as Linux tells them")


@pytest.fixture(params=["moved", "of a checkpoint"])
def mapped(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, torch.Tensor]:
    tensors = {"first": _random(300, 300), "second": _random(300, 300)}
    if request.param == "moved":
        memory.move_to_file(list(tensors.values()))
        return tensors
    save_file(tensors, tmp_path / "model.safetensors")
    return load_file(tmp_path / "model.safetensors")


@_linux
def test_of_what_is_in_a_file_nothing_is_read_and_a_write_is_seen(mapped: dict[str, torch.Tensor]) -> None:
    watched = Samples(mapped.values())
    assert watched._places == [] and len(watched._pages) == 2
    seen = [watched.taken()]
    assert seen == [b""]
    for value in (1.0, 2.0):  # the second into a page that is a copy already
        torch.empty(0).set_(mapped["second"].untyped_storage())[:9000] = value  # type: ignore[call-overload]
        seen.append(watched.taken())
        assert watched.taken() == seen[-1]
    mapped["first"].untyped_storage()[4 * 50_000] = 7  # one byte
    seen.append(watched.taken())
    assert len(set(seen)) == 4


@_linux
def test_pages_that_were_let_go_of_are_as_they_were(mapped: dict[str, torch.Tensor]) -> None:
    model = torch.nn.ParameterList(mapped.values())
    watched = Samples(model)
    assert model[0].sum() > 0 and watched.taken() == b""
    memory.let_go(model)
    assert watched.taken() == b""


@_linux
def test_where_the_system_says_nothing_of_pages_numbers_are_read(
    mapped: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "_knows_pages", lambda: False)
    watched = Samples(mapped.values())
    before = watched.taken()
    mapped["first"].untyped_storage().fill_(1)
    assert len(before) > PLACES and watched.taken() != before


@_linux
def test_a_file_that_others_write_to_too_is_read(tmp_path: Path) -> None:
    place = tmp_path / "weights"
    place.write_bytes(bytes(8 * mmap.PAGESIZE))
    tensor = torch.from_file(str(place), shared=True, size=2 * mmap.PAGESIZE)
    watched = Samples([tensor])
    before = watched.taken()
    place.open("r+b").write(b"\1" * 8 * mmap.PAGESIZE)
    assert watched._pages == [] and watched.taken() != before


def test_the_system_is_not_asked_about_no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be asked, a call would fail; where it can, each call would open a file for nothing."""
    asked: list[Any] = []
    taken = Samples([_random(1024, 1024)])
    monkeypatch.setattr("builtins.open", lambda *given, **how: asked.append(given))
    assert taken.taken() and not asked
