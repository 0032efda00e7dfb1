# SPDX-License-Identifier: Apache-2.0
"""Code of a user's own in a network: what it reads around it, what it keeps, and what it puts in torch's place."""

from __future__ import annotations

import importlib
import logging
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
from diffusers.hooks import apply_layerwise_casting
from tiny_pipelines import ENGINES

from paritas.capture import around
from paritas.diffusers.networks import attach
from paritas.dropin import keepers

STRENGTH = 1.0
TABLE = {"strength": [1.0]}
SEEN: list[torch.Tensor] = []
ALIVE = torch.nn.Identity()
ALIVE.strength = 1.0  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What one test has found out about code is none of the next one's."""
    for name in ("_objects", "_attributes", "_variables", "_changes"):
        monkeypatch.setattr(keepers, name, type(getattr(keepers, name))())
    yield
    globals().update(STRENGTH=1.0)
    TABLE["strength"][0] = 1.0
    SEEN.clear()


class Attending(torch.nn.Module):
    """A layer, and a processor behind it as diffusers has them in its attention."""

    def __init__(self, processor: Any = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.processor = torch.nn.Linear(4, 4), processor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.nn.functional.silu(self.inner(x))
        return self.processor(y) if self.processor is not None else y


class Plain:
    strength = 1.0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.strength


class ByVariable:
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x * STRENGTH


class ByTable:
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return _by_table(x)


def _by_table(x: torch.Tensor) -> torch.Tensor:
    return x * TABLE["strength"][0]


class ByModel:
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x * ALIVE.strength  # type: ignore[operator]


class Storing:
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        SEEN.append(x)
        return x


class Counting:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * self.calls


class Keeping(torch.nn.Module):
    """A processor that is a module, and keeps what it saw last."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last = x
        return x * 2


def _closure() -> Any:
    strength = 1.0

    def process(x: torch.Tensor) -> torch.Tensor:
        return x * strength

    def change(value: float) -> None:
        nonlocal strength
        strength = value

    process.change = change  # type: ignore[attr-defined]
    return process


def _set(holder: Any, name: Any, value: Any) -> None:
    holder.__setitem__(name, value) if isinstance(holder, (dict, list)) else setattr(holder, name, value)


def _redefined(model: Any, step: int) -> None:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(f"class Mine:\n    def __call__(self, x):\n        return x * {step + 1}.0", space)  # noqa: S102 - as a notebook's cell
    model.processor = space["Mine"]()


#: name -> (the processor, what is done before each of three calls).
CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any, int], Any]]] = {
    "a class that is written again": (Plain, _redefined),
    "an attribute of its class": (Plain, lambda m, i: _set(Plain, "strength", 1.0 + i % 2)),
    "an attribute": (Plain, lambda m, i: _set(m.processor, "strength", 1.0 + i)),
    "a variable of the script": (ByVariable, lambda m, i: _set(globals(), "STRENGTH", 1.0 + i)),
    "a table that a function reads": (ByTable, lambda m, i: _set(TABLE["strength"], 0, 1.0 + i)),
    "a variable of the function around it": (_closure, lambda m, i: m.processor.change(1.0 + i)),
    "a module somewhere else": (ByModel, lambda m, i: _set(ALIVE, "strength", 1.0 + i)),
    "a count of calls": (Counting, lambda m, i: None),
    "nothing": (Storing, lambda m, i: None),
}


@pytest.mark.parametrize("name", CHANGES)
@torch.no_grad()
def test_what_code_of_ones_own_goes_by_is_seen(name: str) -> None:
    make, change = CHANGES[name]
    found: list[list[Any]] = []
    for port in (False, True):
        model = Attending(make()).eval()
        model = attach(model, engine="openvino") if port else model
        outs = []
        for step in range(3):
            change(model, step)
            outs.append(model(torch.full((2, 4), 0.5 + step)))
        found.append([*outs, *SEEN])
        SEEN.clear()
        Plain.strength = 1.0
    assert len(found[0]) == len(found[1])
    for got, want in zip(found[1], found[0], strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


@torch.no_grad()
def test_what_keeps_something_makes_no_port_in_each_call(caplog: pytest.LogCaptureFixture) -> None:
    model = attach(Attending(Counting()).eval(), engine="openvino")
    with caplog.at_level(logging.WARNING, "paritas.diffusers"):
        for step in range(5):
            model(torch.full((2, 4), float(step)))
            if step == 1:
                known = list(model.ports)
    assert model.processor.calls == 5 and model.ports == known
    assert "leaves processor.calls for somebody to read" in caplog.text


@torch.no_grad()
def test_what_is_told_another_number_in_each_step_makes_no_port_for_each() -> None:
    model, want = attach(Attending(Plain()).eval(), engine="openvino"), Attending(Plain()).eval()
    made = []
    for step in range(8):
        for one in (model, want):
            one.processor.strength = 1.0 + step
        x = torch.full((2, 4), float(step))
        np.testing.assert_allclose(model(x), want(x), atol=1e-5)
        made.append({id(port) for port in model.ports})
    assert made[-1] == made[-2] == made[-3]


@torch.no_grad()
def test_what_a_module_of_ones_own_keeps_is_there() -> None:
    model = attach(Attending(Keeping()).eval(), engine="openvino")
    for step in range(2):
        out = model(torch.full((2, 4), float(step)))
        np.testing.assert_allclose(model.processor.last * 2, out, atol=1e-6)


@torch.no_grad()
def test_what_is_put_in_the_place_of_torchs_functions_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    model, want = attach(Attending().eval(), engine="openvino"), Attending().eval()
    x, own = torch.full((2, 4), 0.5), torch.nn.functional.silu
    np.testing.assert_allclose(model(x), want(x), atol=1e-6)
    monkeypatch.setattr(torch.nn.functional, "silu", lambda x: own(x) * 2)
    np.testing.assert_allclose(model(x), want(x), atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("when", ["before", "after"])
@torch.no_grad()
def test_layers_that_are_cast_are_one_port(engine: str, when: str) -> None:
    """Weights of float8, which diffusers casts for each call of a layer."""
    found: list[list[torch.Tensor]] = []
    for port in (False, True):
        model: Any = torch.nn.Sequential(Attending(), Attending()).eval()
        if port and when == "after":
            attach(model, engine=engine)(torch.ones(2, 4))
        apply_layerwise_casting(model, torch.float8_e4m3fn, torch.float32)
        if port:
            attach(model, engine=engine)
        found.append([model(torch.full((2, 4), float(step))) for step in range(3)])
    for got, want in zip(found[1], found[0], strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)
    assert len(model._paritas.now.all_ports()) == 1
    assert model[0].inner.weight.dtype == torch.float8_e4m3fn


def _forwards(model: Any, x: torch.Tensor) -> torch.Tensor:
    import torch.autograd.forward_ad as forward

    with forward.dual_level():
        out = model(forward.make_dual(x, torch.ones_like(x)))
        return torch.as_tensor(forward.unpack_dual(out).tangent)


class _Louder(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        return out * 2 if function is torch.nn.functional.silu else out


def _in_mode(model: Any, x: torch.Tensor) -> Any:
    with _Louder():
        return model(x)


def _with_hooks(model: Any, x: torch.Tensor) -> Any:
    def louder(module: Any, given: Any, out: Any) -> Any:
        return out * 2 if isinstance(module, torch.nn.Linear) else None

    handle = torch.nn.modules.module.register_module_forward_hook(louder)
    try:
        return model(x)
    finally:
        handle.remove()


#: What torch does around a call, and no port would see.
AROUND: dict[str, Callable[[Any, torch.Tensor], Any]] = {
    "a derivative forwards": _forwards,
    "a transformation": lambda model, x: torch.func.jvp(model, (x,), (torch.ones_like(x),))[1],
    "a batch of calls": lambda model, x: torch.func.vmap(model)(x),
    "other weights": lambda model, x: torch.func.functional_call(
        model, {n: p * 2 for n, p in model.named_parameters()}, (x,)
    ),
    "torch's compiler": lambda model, x: torch.compile(model, backend="eager")(x),
    "a mode": _in_mode,
    "hooks of every module": _with_hooks,
}


@pytest.mark.parametrize("name", AROUND)
@torch.no_grad()
def test_what_torch_does_around_a_call(name: str) -> None:
    model, x = attach(Attending().eval(), engine="openvino"), torch.linspace(-1, 1, 8).reshape(2, 4)
    want = AROUND[name](Attending().eval(), x)
    np.testing.assert_allclose(AROUND[name](model, x), want, atol=1e-5)
    np.testing.assert_allclose(model(x), Attending().eval()(x), atol=1e-5)


def test_a_method_that_a_class_of_ones_own_has_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    import diffusers

    import paritas.diffusers as ours

    sizes = {
        "in_channels": 4,
        "out_channels": 4,
        "latent_channels": 4,
        "block_out_channels": (4,),
        "norm_num_groups": 2,
    }
    outs = []
    for base in (diffusers.AutoencoderKL, ours.AutoencoderKL):

        class Mine(base):  # type: ignore[misc, valid-type]
            def _decode(self, z: torch.Tensor, return_dict: bool = True) -> Any:
                return super()._decode(z * 2, return_dict)

        torch.manual_seed(0)
        model = Mine(**sizes).eval()
        with torch.no_grad(), caplog.at_level(logging.WARNING, "paritas.diffusers"):
            outs.append(model.decode(torch.ones(1, 4, 4, 4), return_dict=False)[0])
    np.testing.assert_allclose(*outs, atol=1e-5)
    assert "Mine._decode is in the place of the original's" in caplog.text


def test_a_gradient_by_what_lies_in_a_list(caplog: pytest.LogCaptureFixture) -> None:
    class Summing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.inner = torch.nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, more: dict[str, list[torch.Tensor]]) -> torch.Tensor:
            y: torch.Tensor = self.inner(x + more["rest"][0])
            return y

    found = []
    for model in (Summing().eval(), attach(Summing().eval(), engine="openvino")):
        z = torch.ones(2, 4, requires_grad=True)
        with caplog.at_level(logging.WARNING, "paritas.diffusers"):
            found.append(torch.autograd.grad(model(torch.ones(2, 4), {"rest": [z]}).square().sum() + z.sum(), z)[0])
    np.testing.assert_allclose(*found, atol=1e-5)
    assert "a gradient by more.rest.0 is asked for" in caplog.text


def test_functions_that_are_a_users() -> None:
    assert around.is_users(__name__) and around.is_users("__main__") and around.is_users("of_a_notebook")
    assert not any(map(around.is_users, ("torch.nn", "diffusers.models", "numpy", "json", "paritas.dropin.watch")))
    names = {one.name for one in around.around(_by_table)}
    assert names == {"TABLE"}
    assert isinstance(_closure(), types.FunctionType)


@pytest.mark.parametrize("installed", [True, False])
def test_a_package_in_a_folder_of_its_own_is_no_users(
    installed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"in_a_folder_{installed}".lower()
    (tmp_path / f"{name}.py").write_text("")
    if installed:
        (tmp_path / f"{name}-1.0.dist-info").mkdir()  # as `pip install --user` and `--target` leave it
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module(name)
    assert around.is_users(name) is not installed
