# SPDX-License-Identifier: Apache-2.0
"""An engine that is wrong on purpose: caught at its outputs, and in the module where it is wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_programs import eager

from paritas.errors import EngineError, ParitasError
from paritas.run.torch.session import TorchSession
from paritas.verify import Environment, compare_modules, generate, verify

pytestmark = pytest.mark.usefixtures("all_suspects")


class Broken(TorchSession):
    """PyTorch, but one node's value is changed on its way."""

    observed_with = "a copy of the graph, broken"

    def __init__(self, program, node="", change=lambda t: t, hidden=()):
        super().__init__(program)
        self.program, self.at, self.change, self.hidden = program, node, change, set(hidden)

    def _values(self, feed):  # noqa: RET503 - the output node comes last
        graph = self.program.exported.graph
        env, found = {}, {}
        weights = self.program.exported.state_dict
        for node in graph.nodes:
            if node.op == "placeholder":
                env[node] = (
                    torch.from_numpy(feed["x"])
                    if node.name == "x"
                    else weights[node.name.removeprefix("p_").replace("_", ".")]
                )
            elif node.op == "call_function":
                args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), env.__getitem__)
                env[node] = node.target(*args, **kwargs)
                if node.name == self.at:
                    env[node] = self.change(env[node])
                found[node.name] = env[node]
            else:
                return found, [env[n] for n in node.args[0]]

    def run(self, feed):
        with torch.no_grad():
            return [t.numpy() for t in self._values(feed)[1]]

    def observe(self, feed, names=None):
        with torch.no_grad():
            return {n: v.numpy() for n, v in self._values(feed)[0].items() if n not in self.hidden}


@pytest.fixture
def check(mlp, mlp_program):
    def run(session, level="modules", **kwargs):
        return verify(
            session,
            eager(mlp),
            generate(mlp_program.inputs, limits={str(d): (1, 9) for s in mlp_program.inputs for d in s.dims[:2]}),
            outputs=mlp_program.outputs,
            environment=Environment.here("stub", package="torch", mode="test", dtype="float32"),
            level=level,
            truth=TorchSession(mlp_program, "float64"),
            reference=TorchSession(mlp_program),
            modules=mlp_program.modules,
            origin=mlp_program.origin,
            **kwargs,
        )

    return run


def test_a_port_that_is_right_agrees_at_both_levels(mlp_program, check):
    for session in (TorchSession(mlp_program), Broken(mlp_program)):
        report = check(session)
        assert report.verdict == "agrees" and report.error == 0, str(report)
        assert [row.path for row in report.modules] == ["up", "norm", "down"]
        assert report.first_divergence is None and not report.unseen_modules
        assert all(0 < row.torch_error < 1e-6 and row.torch_error == row.port_error for row in report.modules)


FAULTS = {
    "bias": ("linear", lambda t: t + 0.01, "up"),
    "eps": ("layer_norm", lambda t: t * 1.001, "norm"),
    "tanh gelu": ("gelu", lambda t: t + 5e-4 * torch.sin(9 * t), "norm"),
    "one element": (
        "layer_norm",
        lambda t: t.index_put((torch.tensor(0), torch.tensor(0), torch.tensor(3)), t.new_tensor(9.0)),
        "norm",
    ),
    "NaN": ("linear", lambda t: torch.where(t > t.flatten().sort().values[-2], torch.nan, t), "up"),
    "head": ("linear_1", lambda t: t.flip(-1), "down"),
    "shape": ("linear_1", lambda t: t[..., :3], "down"),
    "half": ("layer_norm", lambda t: t.bfloat16().float(), "norm"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_node_is_caught_at_the_outputs_and_in_its_module(mlp_program, check, name):
    node, change, module = FAULTS[name]
    report = check(Broken(mlp_program, node, change))
    assert report.verdict == "diverges", str(report)
    assert report.first_divergence is not None and report.first_divergence.path == module
    assert "small_programs.py:1" in report.first_divergence.source
    assert report.worst_module is not None and not report.worst_module.agrees
    assert "first divergence: " + module in str(report)


def test_the_failed_row_says_where_and_what_would_have_passed(mlp_program, check):
    report = check(Broken(mlp_program, "linear_1", lambda t: t + 0.25), level="outputs")
    worst = report.worst_output
    assert worst.max_abs == pytest.approx(0.25, rel=1e-5) and worst.got == pytest.approx(worst.want + 0.25, rel=1e-5)
    assert "would pass with |got-want| <=" in str(report) and len(worst.worst) == 3
    assert report.modules == () and worst.ratio > 1000


def test_integer_outputs_are_exact(mlp_program, check):
    report = check(Broken(mlp_program, "argmax", lambda t: (t + 1) % 4), level="outputs")
    assert report.verdict == "diverges"
    assert {row.output for row in report.outputs if row.diverges} == {"out1"}


def test_an_engine_without_inner_values_is_unseen_inside_but_its_outputs_rule(mlp_program, check):
    class Closed:
        precision = "float32"

        def __init__(self, program):
            self.run = TorchSession(program).run

        def close(self):
            pass

    report = check(Closed(mlp_program))
    assert report.verdict == "agrees" and report.observed == "modules not observed"
    assert set(report.unseen_modules) == {"up", "norm", "down"}
    assert "shows outputs only" in str(report)


def test_single_nodes_may_be_unseen_with_a_reason(mlp_program, check):
    report = check(Broken(mlp_program, hidden={"layer_norm"}))
    assert [row.path for row in report.modules] == ["up", "down"]
    assert report.unseen_modules == {"norm": "the engine's program has no value for it"}
    assert report.observed == "modules observed: a copy of the graph, broken"


def test_observing_may_fail_without_touching_the_verdict(mlp_program, check):
    class Fails(TorchSession):
        def observe(self, feed, names=None):
            raise EngineError("cannot add outputs\nbecause")

    report = check(Fails(mlp_program))
    assert report.verdict == "agrees"
    assert set(report.unseen_modules.values()) == {"observing failed: EngineError: cannot add outputs"}


def test_the_verdict_comes_from_the_unobserved_run(mlp_program, check):
    class Fused(TorchSession):
        """Wrong only while nobody looks."""

        def run(self, feed):
            first, second = super().run(feed)
            return [first + np.float32(0.1), second]

    report = check(Fused(mlp_program))
    assert report.verdict == "diverges" and report.first_divergence is None

    class Heisenberg(TorchSession):
        """Wrong only while someone looks."""

        def observe(self, feed, names=None):
            return {n: v + np.float32(0.1) for n, v in super().observe(feed, names).items()}

    report = check(Heisenberg(mlp_program))
    assert report.verdict == "agrees" and report.first_divergence is not None
    assert "the outputs of the unobserved run agree nevertheless" in str(report)


def test_without_a_captured_program_modules_are_unseen(mlp, mlp_program):
    report = verify(
        TorchSession(mlp_program),
        eager(mlp),
        generate(mlp_program.inputs)[:1],
        outputs=mlp_program.outputs,
        environment=Environment("stub"),
        level="modules",
    )
    assert report.verdict == "agrees" and "no captured program" in str(report)
    assert np.isnan(report.outputs[0].ratio)


def test_integers_inside_may_have_another_width_but_not_other_values(mlp_program):
    class Narrow(TorchSession):
        def observe(self, feed, names=None):
            return {
                n: v.astype("i4") if v.dtype.kind == "i" else v for n, v in super().observe(feed, ["argmax"]).items()
            }

    from paritas.program import ModuleCall

    x = generate(mlp_program.inputs)[0].feed
    calls = (ModuleCall("head", "Head", 0, ("argmax",)), ModuleCall("head", "Head", 1, ("argmax", "absent")))
    inside = compare_modules(Narrow(mlp_program), TorchSession(mlp_program), x, calls)
    assert [row.agrees for row in inside.rows] == [True, True]
    assert [row.name for row in inside.rows] == ["head", "head (call 2)"]
    assert list(inside.unseen) == ["head (call 2): absent"]


def test_unknown_levels_and_equal_case_names_are_refused(mlp_program, check):
    with pytest.raises(ParitasError, match="outputs, modules, nodes, not 'ops'"):
        check(TorchSession(mlp_program), level="ops")
    case = generate(mlp_program.inputs)[0]
    with pytest.raises(ParitasError, match="Two cases are named 'batch 1'"):
        verify(TorchSession(mlp_program), lambda f: [], [case, case], outputs=(), environment=Environment("stub"))


def test_progress_names_each_case(mlp_program, check):
    names: list[str] = []
    check(TorchSession(mlp_program), level="outputs", progress=names.append)
    known = ["batch 1", "odd sizes", "longer", "corner values", "tiny and large values"]
    assert names == [f"case {number} of 5: {name}" for number, name in enumerate(known, 1)]
