# SPDX-License-Identifier: Apache-2.0
"""In float64, nothing of a captured program may stay at fp32, whatever its code casts to."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_programs import eager, program_of
from torch import nn

from paritas.errors import EngineError
from paritas.run.torch.session import TorchSession
from paritas.run.torch.walk import captured_dtype


class Casts(nn.Module):
    """Everything that pins fp32 inside a model: casts, dtype arguments, default dtypes, constants."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.register_buffer("third", torch.tensor([1.0, 3.0]).reciprocal(), persistent=False)

    def forward(self, x, ids):
        h = self.layer(x).to(torch.float32)
        h = torch.softmax(h, -1, dtype=torch.float32) * torch.tensor([0.1])
        steps = torch.arange(x.shape[1], dtype=torch.float32) / 7
        h = h + steps[None, :, None].float() + torch.full((x.shape[0], 1, 1), 0.3) + self.third[1]
        h = h + (ids / 3 + torch.sqrt(ids) + ids * 0.1 + (1.0 - ids))[:, :, None]
        h = h + torch.where(ids[:, :, None] > 1, 0.7, 0.2)
        h = h.to(torch.float16).to(torch.float32) + torch.ones(6).cumsum(0).sqrt()
        return h, h.sum(-1, dtype=torch.float32), ids + 1


def exactly(model, x, ids):
    """The same formula, written in NumPy's float64."""
    w, b = (p.detach().double().numpy() for p in (model.layer.weight, model.layer.bias))
    third = model.third.double().numpy()  # a captured constant is what it is, 1/3 rounded to fp32
    x = x.astype(np.float64)
    h = x @ w.T + b
    e = np.exp(h - h.max(-1, keepdims=True))
    h = e / e.sum(-1, keepdims=True) * np.float64(np.float32(0.1))
    h = h + (np.arange(x.shape[1]) / 7)[None, :, None] + 0.3 + third[1]
    i = ids.astype(np.float64)
    h = h + (i / 3 + np.sqrt(i) + i * 0.1 + (1.0 - i))[:, :, None]
    h = h + np.where(ids[:, :, None] > 1, 0.7, 0.2)
    h = h + np.sqrt(np.arange(1.0, 7.0))
    return h, h.sum(-1), ids + 1


@pytest.fixture(scope="module")
def casts():
    torch.manual_seed(0)
    model = Casts().eval()
    example = {"x": torch.randn(2, 3, 6), "ids": torch.randint(0, 5, (2, 3))}
    return model, program_of(model, example)


def feed(batch=3, length=5):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, length, 6)).astype(np.float32)
    return {"x": x, "ids": rng.integers(0, 5, (batch, length))}


def test_float64_is_float64_although_the_module_casts_to_float32(casts):
    model, program = casts
    session = TorchSession(program, "float64")
    inputs = feed()
    got, want = session.run(inputs), exactly(model, **inputs)
    assert [g.dtype for g in got] == [np.float64, np.float64, np.int64]
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-14, atol=1e-14)


def test_every_inner_float_is_float64(casts):
    _, program = casts
    names = [node.name for node in program.graph.nodes]
    for name, value in TorchSession(program, "float64").observe(feed(), names).items():
        assert value.dtype.kind in "bi" or value.dtype == np.float64, name


def test_at_the_captured_dtype_the_graph_is_the_eager_model_bit_for_bit(casts):
    model, program = casts
    inputs = feed(4, 2)
    for g, w in zip(TorchSession(program).run(inputs), eager(model)(inputs), strict=True):
        assert g.dtype == w.dtype and np.array_equal(g, w)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precisions_run_and_are_near(casts, precision):
    _, program = casts
    inputs = feed()
    want = TorchSession(program, "float64").run(inputs)
    got = TorchSession(program, precision).run(inputs)
    assert got[0].dtype == (np.float32 if precision == "bfloat16" else np.float16)
    error = np.abs(got[0] - want[0]).max() / np.abs(want[0]).mean()
    assert 1e-5 < error < 0.1


def test_process_wide_settings_are_left_alone(casts):
    _, program = casts
    before = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()
    TorchSession(program, "float64").run(feed())
    assert (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads()) == before
    assert all(p.dtype == torch.float32 for p in program.exported.state_dict.values())


def test_a_bfloat16_capture_runs_as_it_is_and_leaves_as_float32():
    torch.manual_seed(0)
    model = nn.Linear(4, 4).bfloat16().eval()
    program = program_of(model, {"input": torch.randn(2, 4).bfloat16()})
    assert captured_dtype(program) == torch.bfloat16
    x = {"input": np.ones((3, 4), np.float32)}
    got = TorchSession(program, "bfloat16").run(x)[0]
    assert got.dtype == np.float32 and np.array_equal(got, eager(model)(x)[0])
    assert TorchSession(program, "float64").run(x)[0].dtype == np.float64


class Blocks(nn.Module):
    """Gradient and autocast regions, bits of a float, a scalar size and a mutated buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        with torch.no_grad():
            scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        with torch.autocast("cpu", enabled=False):
            h = self.layer((x * scale).float())
        self.count.add_(1)
        sign = (h.view(torch.int32) < 0).to(torch.float32)
        first, second = h.split([1, 3], -1)
        attended = F.scaled_dot_product_attention(h[None], h[None], h[None])[0]
        return torch.cat([first, second, sign], -1) + self.count, x.shape[0], attended


def test_regions_bit_views_sizes_and_mutated_buffers():
    torch.manual_seed(0)
    model = Blocks().eval()
    program = program_of(model, {"x": torch.randn(3, 4)})
    x = {"x": np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)}
    with torch.no_grad():
        # A copy, since the program shares the buffer that forward counts up.
        out = copy.deepcopy(model)(torch.from_numpy(x["x"]))
        want = [t.numpy() if isinstance(t, torch.Tensor) else t for t in out]
    for precision, rtol in (("float32", 0), ("float64", 1e-5)):
        got = TorchSession(program, precision).run(x)
        assert len(got) == 3 and got[1].shape == () and got[1] == 5
        np.testing.assert_allclose(got[0], want[0], rtol=rtol, atol=rtol)
        np.testing.assert_allclose(got[2], want[2], rtol=rtol, atol=rtol)


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.1))

    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: x * self.weight, lambda x: x - torch.full((1,), 0.1), (x,))


def test_branches_are_taken_in_float64_too():
    program = program_of(Branch(), {"x": torch.ones(3)}, dynamic=False)
    session = TorchSession(program, "float64")
    np.testing.assert_array_equal(session.run({"x": np.ones(3, "f4")})[0], np.float64(np.float32(0.1)))
    np.testing.assert_array_equal(session.run({"x": -np.ones(3, "f4")})[0], -1 - 0.1)


def test_observe_shows_the_modules_nodes_and_walk_keeps_nothing(mlp, mlp_program):
    session = TorchSession(mlp_program)
    x = {"x": np.random.default_rng(0).standard_normal((2, 3, 8)).astype(np.float32)}
    seen = session.observe(x)
    assert list(seen) == ["linear", "layer_norm", "linear_1"]
    with torch.no_grad():
        want = mlp.up(torch.from_numpy(x["x"])).numpy()
    assert np.array_equal(seen["linear"], want)
    assert np.array_equal(seen["linear_1"], session.run(x)[0])
    order: list[str] = []
    session.walk(x, lambda name, value: order.append(name), {"gelu", "linear_1"})
    assert order == ["gelu", "linear_1"]


def test_intermediate_values_are_freed():
    class Long(nn.Module):
        def forward(self, x):
            for _ in range(200):
                x = x * 0.5
            return x

    program = program_of(Long(), {"x": torch.ones(4, 4)})
    alive, peak = 0, 0

    class Mode(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal alive, peak
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                import weakref

                alive += 1
                peak = max(peak, alive)

                def gone():
                    nonlocal alive
                    alive -= 1

                weakref.finalize(out, gone)
            return out

    with Mode():
        TorchSession(program).run({"x": np.ones((4, 4), "f4")})
    assert peak < 10


def test_errors_name_the_input_the_node_and_the_line(mlp_program):
    session = TorchSession(mlp_program)
    with pytest.raises(EngineError, match="The feed has no x; it has y"):
        session.run({"y": np.ones(1, "f4")})
    with pytest.raises(EngineError, match=r"could not run linear = aten.linear.default in float32 \(small_programs.py"):
        session.run({"x": np.ones((2, 3), "f4")})
    with pytest.raises(EngineError, match="does not compute in 'int8'"):
        TorchSession(mlp_program, "int8")
    closed = TorchSession(mlp_program)
    closed.close()
    with pytest.raises(EngineError, match="closed"):
        closed.run({"x": np.ones((2, 3, 8), "f4")})


def test_read_only_inputs_are_not_written_to(mlp_program):
    x = np.ones((2, 3, 8), np.float32)
    x.flags.writeable = False
    assert TorchSession(mlp_program).run({"x": x})[0].shape == (2, 3, 4)
