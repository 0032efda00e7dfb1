# SPDX-License-Identifier: Apache-2.0
"""Mixed precision: the casts of torch.autocast become nodes, and training with them is PyTorch's under autocast."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from test_torch_loops import _built, bert, clip, convolutions, gpt2, llama, t5, unet, vit

import paritas
from paritas.apps.training.wish import Wish
from paritas.capture import autocast, capture
from paritas.errors import CaptureError, InputError
from paritas.verify.training import OWN

HALVES = ["bfloat16", "float16"]

aten = torch.ops.aten
nn = torch.nn

X, TARGET = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])


class Kinds(nn.Module):
    """An operator for each way in which autocast casts: to the narrow dtype, to float32, to the widest, and not."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> Any:
        narrow = self.linear(x)
        with torch.autocast("cpu", enabled=False):
            own = torch.matmul(x, x.t())
        return narrow.softmax(-1), nn.functional.mse_loss(narrow, x), torch.cat((narrow, x)), own


def _casts(program: Any) -> dict[str, list[str]]:
    """Operator -> the dtypes of the floats that it is given."""
    found: dict[str, list[str]] = {}
    for node in program.graph.nodes:
        values = [source.meta.get("val") for source in node.all_input_nodes]
        floats = [str(v.dtype)[6:] for v in values if isinstance(v, torch.Tensor) and v.is_floating_point()]
        if isinstance(node.target, torch._ops.OpOverload) and node.target is not aten._to_copy.default:
            found[node.target._schema.name.partition("::")[2]] = floats
    return found


@pytest.mark.parametrize("dtype", HALVES)
def test_casts_are_those_of_autocast(dtype: str) -> None:
    with autocast.applied(dtype):
        program = capture(Kinds(), {"x": X}, train=True)
    casts = _casts(program)
    assert casts["linear"] == [dtype, dtype, dtype]
    assert casts["softmax"] == [dtype]
    assert casts["mse_loss"] == ["float32", "float32"]
    assert casts["cat"] == ["float32", "float32"]
    assert casts["matmul"] == ["float32", "float32"]
    assert program.autocast == dtype and not any("otherwise" in str(note) for note in program.notes)
    assert capture(Kinds(), {"x": X}, train=True).autocast == ""


def test_a_graph_with_casts_computes_what_pytorch_does() -> None:
    model = Kinds()
    with autocast.applied("bfloat16"):
        want = model(X)
        program = capture(model, {"x": X}, train=True)
    for one, other in zip(program.exported.module()(x=X), want, strict=True):
        assert torch.equal(one, other) and one.dtype == other.dtype


def test_an_operator_of_which_autocast_computes_parts_is_refused() -> None:
    with autocast.applied("bfloat16"), pytest.raises(CaptureError, match=r"parts of aten.gru.input in bfloat16.* at "):
        capture(nn.GRU(5, 4, batch_first=True), {"input": X[None]}, train=True)


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_a_port_is_trained_beside_its_original_under_autocast(dtype: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Dropout(0.3), nn.Linear(8, 3))
    given: dict[str, Any] = {"inputs": {"input": X, "target": TARGET}, "loss": nn.CrossEntropyLoss(), "train": True}
    port = paritas.port(model, engine="mindspore", autocast=dtype, **given)
    assert any(f"in {dtype} is computed in float32 and rounded" in str(note) for note in port.notes)
    report = port.verify(train=3)
    assert report.verdict == "agrees", str(report)
    steps = [row for row in report.training if row.step]
    assert all(row.torch_error > 1e-6 for row in steps)  # PyTorch's own was in mixed precision


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"autocast": "float8"}, "autocast='float8': it is 'bfloat16' or 'float16'"),
        ({"autocast": "float16", "train": False}, "loss= and autocast= are of a port for training"),
    ],
)
def test_what_cannot_be_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        paritas.port(nn.Linear(5, 3), engine="mindspore", inputs={"input": X}, **{"train": True, **given})


@pytest.mark.parametrize(
    ("wished", "message"),
    [
        ({"precision": "fp8"}, "--mixed-precision fp8: it is bf16 or fp16"),
        ({"precision": "bf16", "zero": 2, "processes": 2}, "--mixed-precision beside --zero: DeepSpeed has"),
    ],
)
def test_what_a_command_cannot_be_asked_is_refused(wished: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Wish(__file__, "torch", **wished).check()


@dataclasses.dataclass
class _Run:
    """scale: in the end, growing after every third step. left_out: the steps that overflowed."""

    losses: list[float]
    gradients: dict[str, torch.Tensor]
    scale: float
    left_out: list[int]


def _trained(
    model: Any,
    batches: Any,
    dtype: str,
    steps: int = 12,
    leave_out: Sequence[int] = (),
    loss: Callable[[Any], torch.Tensor] = lambda out: out.loss,
) -> _Run:
    torch.manual_seed(7)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu", growth_interval=3, init_scale=2.0**20, enabled=dtype == "float16")
    run = _Run([], {}, 0.0, [])
    for step in range(steps):
        with autocast.applied(dtype):
            value = loss(model(**batches[step % len(batches)]))
        optimizer.zero_grad()
        scaler.scale(value).backward()
        scaler.unscale_(optimizer)
        run.losses.append(value.item())
        if step in leave_out:
            continue
        if all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None):
            found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
            run.gradients = run.gradients or found
        else:
            run.left_out.append(step)
        scaler.step(optimizer)
        scaler.update()
    run.scale = scaler.get_scale()
    return run


@pytest.mark.slow
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("make", [bert, gpt2, t5, vit, clip, llama, unet, convolutions])
def test_a_training_is_pytorch_s_under_autocast(make: Any, dtype: str) -> None:
    """Losses and gradients are no further off than PyTorch's, by the rule of `verify(train=)`; the same steps are left
    out."""
    model, batches, how = _built(make)
    want = _trained(copy.deepcopy(model), batches, dtype, **how)
    exact = _trained(copy.deepcopy(model), batches, "", leave_out=want.left_out, **how)
    got = _trained(paritas.trainable(copy.deepcopy(model)), batches, dtype, **how)
    assert (got.scale, got.left_out) == (want.scale, want.left_out)
    last = torch.finfo(getattr(torch, dtype)).eps
    assert _furthest(want, got) <= max(OWN * _furthest(want, exact), last / 4)
    largest = max(g.abs().max() for g in exact.gradients.values())
    for name, true in exact.gradients.items():
        own, ours = ((run.gradients[name] - true).abs().max() for run in (want, got))
        assert ours <= max(OWN * own, last / 4 * true.abs().max(), 1e-6 * largest), name


def _furthest(want: _Run, got: _Run) -> float:
    return max(abs(a - b) / abs(a) for a, b in zip(want.losses, got.losses, strict=True))


@pytest.mark.slow
def test_mindspore_s_loop_scales_as_torch_s() -> None:
    """`mindspore.amp.DynamicLossScaler` leaves out the same steps, and has the same scale in the end."""
    import mindspore as ms

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
    loss = nn.CrossEntropyLoss()
    given: dict[str, Any] = {"inputs": {"input": X, "target": TARGET}, "loss": loss, "train": True}
    port = paritas.port(copy.deepcopy(model), engine="mindspore", autocast="float16", **given)
    want = _trained(model, [{"input": X}], "float16", loss=lambda out: loss(out, TARGET))
    assert want.left_out

    net = port.cell.set_train()
    twin = copy.deepcopy(model)
    twin.load_state_dict({name: torch.from_numpy(p.asnumpy()) for name, p in net.parameters_dict().items()})
    optimizer = paritas.optimizer(torch.optim.AdamW(twin.parameters(), lr=1e-3), twin, net)
    scaler = ms.amp.DynamicLossScaler(2.0**20, 2, 3)

    def forward(x: Any, target: Any) -> Any:
        found, _ = net.construct(x, target)
        return scaler.scale(found), found

    step = ms.value_and_grad(forward, None, optimizer.parameters, has_aux=True)
    losses, left_out = [], []
    for number in range(len(want.losses)):
        (_, found), gradients = step(ms.Tensor(X.numpy()), ms.Tensor(TARGET.numpy()))
        gradients = scaler.unscale(gradients)
        finite = ms.amp.all_finite(gradients)
        if finite:
            optimizer(gradients)
        else:
            left_out.append(number)
        scaler.adjust(finite)
        losses.append(float(found))
    assert (float(scaler.scale_value), left_out) == (want.scale, want.left_out)
    assert losses == pytest.approx(want.losses, rel=1e-3)
