# SPDX-License-Identifier: Apache-2.0
"""Verification backwards: faults that no output shows are planted into ports, and named with their source line."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from subjects import uneven
from typer.testing import CliRunner

import paritas
from paritas.cli.app import app
from paritas.errors import InputError
from paritas.program import Program
from paritas.run.session import Gradients
from paritas.run.torch.gradients import differentiable, eager_gradients, weight_names
from paritas.run.torch.session import TorchSession
from paritas.verify.gradients import Backwards, Flow, compare_backwards, gradient_distance
from paritas.verify.of_port import nodes_of
from paritas.verify.report.report import ParityReport

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
TEXT = {"vocab_size": 49, **SIZES}

MODELS: dict[str, Callable[[], torch.nn.Module]] = {
    "bert": lambda: hf.BertModel(hf.BertConfig(**TEXT, max_position_embeddings=32)),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=49, n_embd=16, n_layer=2, n_head=2, n_positions=32)
    ),
    "llama": lambda: hf.LlamaModel(hf.LlamaConfig(**TEXT, num_key_value_heads=1)),
    "t5": lambda: hf.T5EncoderModel(
        hf.T5Config(vocab_size=49, num_layers=2, d_model=16, d_ff=24, d_kv=8, num_heads=2)
    ),
    "vit": lambda: hf.ViTModel(hf.ViTConfig(image_size=8, patch_size=4, **SIZES)),
    "resnet": lambda: hf.ResNetModel(hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])),
    "clip": lambda: hf.CLIPTextModel(hf.CLIPTextConfig(**TEXT, eos_token_id=48)),
}  # fmt: skip


class Small(torch.nn.Module):
    """What models are made of: a look-up with padding, a norm, a gate, a residual, attention-like products."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(11, 6, padding_idx=0)
        self.norm = torch.nn.LayerNorm(6)
        self.up = torch.nn.Linear(6, 8)
        self.down = torch.nn.Linear(8, 6)
        self.act = torch.nn.ReLU()

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        words = self.words(ids)
        hidden = self.down(self.act(self.up(self.norm(words))))
        summed = hidden + words
        return summed @ self.words.weight.T  # tied


@functools.cache
def small() -> torch.nn.Module:
    torch.manual_seed(0)
    model = Small().eval()
    with torch.no_grad():
        model.words.weight += 0.1  # the padding token's row is zeros, and a gradient of zeros hides much
        model.norm.bias += 0.1
    return model


IDS = {"ids": torch.tensor([[1, 0, 3, 3], [0, 10, 2, 5]])}


@functools.cache
def original(name: str) -> torch.nn.Module:
    return uneven(MODELS[name])


def feed_of(port: Any) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    feed = {}
    for spec in port.inputs:
        shape = tuple(size if isinstance(size, int) else 2 if axis == 0 else 7 for axis, size in enumerate(spec.dims))
        if spec.name == "attention_mask":
            feed[spec.name] = np.ones(shape, np.int64)
            feed[spec.name][0, :3] = 0
        elif spec.dtype == "int64":
            feed[spec.name] = generator.integers(0, 2 if spec.name == "token_type_ids" else 48, shape)
            feed[spec.name][:, 1] = 0  # the padding token, as likely as not
        else:
            shape = tuple(16 if size == 7 else size for size in shape)  # pixels
            feed[spec.name] = generator.standard_normal(shape).astype(np.float32)
    return feed


def outputs_agree(report: ParityReport) -> bool:
    return all(row.agrees for row in report.outputs)


DAILY = {("bert", "graph"), ("resnet", "pynative")}


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        pytest.param(name, mode, marks=() if (name, mode) in DAILY else pytest.mark.slow)
        for name in MODELS
        for mode in ("graph", "pynative")
    ],
)
def test_the_gradients_of_a_port_are_the_originals(name: str, mode: str) -> None:
    pytest.importorskip("mindspore")
    model = original(name)
    # As a training has it: one call on all tokens.
    task = "text-generation" if isinstance(model, hf.GPT2LMHeadModel) else ""
    port = paritas.port(model, engine="mindspore", mode=mode, task=task)
    report = port.verify(feed_of(port), level="outputs", gradients=True)
    assert [str(row) for row in report.gradients if not row.agrees] == []
    assert [str(row) for row in report.guilty_backwards] == []
    assert report.verdict == "agrees", str(report)
    parameters = [row.name for row in report.gradients if row.kind == "parameter"]
    assert set(parameters) == {n for n, p in model.named_parameters() if p.requires_grad}
    assert {row.name for row in report.gradients} - set(parameters) == {
        spec.name for spec in port.inputs if spec.dtype == "float32"
    }
    assert len(report.gradient_nodes) > 10
    assert set(report.unseen_gradient_nodes.values()) <= {"part of another node in the engine's program"}


# --- faults that the outputs do not show ---------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is wrong; (pattern, replacement) in the module's source; the operators that must be named, and only they."""

    what: str
    change: tuple[str, str]
    guilty: set[str]
    source: str


FAULTS = (
    Fault(
        "a branch detached",
        (r"return (dense\(input.*\))", r"return ops.stop_gradient(\1)"),
        {"aten.linear.default"},
        "hidden = self.down(self.act(self.up(self.norm(words))))"
    ),
    Fault(
        "a residual's gradient twice",
        (r"summed = hidden \+ words", "summed = hidden + words + (words - ops.stop_gradient(words))"),
        {"aten.add.Tensor"},
        "summed = hidden + words"
    ),
    Fault(
        "a residual detached",
        (r"summed = hidden \+ words", "summed = hidden + ops.stop_gradient(words)"),
        {"aten.add.Tensor"},
        "summed = hidden + words"
    ),
    Fault(
        "a straight-through relu",
        (r"return (relu\(input, .*\))", r"return input + ops.stop_gradient(\1 - input)"),
        {"aten.relu.default"},
        "hidden = self.down(self.act(self.up(self.norm(words))))"
    ),
    Fault(
        "a norm whose deviation has no gradient",
        (r"outer_product\(rsqrt\((.*?) \+ eps\)", r"outer_product(rsqrt(ops.stop_gradient(\1) + eps)"),
        {"aten.layer_norm.default"},
        "hidden = self.down(self.act(self.up(self.norm(words))))"
    ),
    Fault(
        "a padding token that learns",
        (r"embedding_lookup\(self\.weight, input, .*?\)", "ops.gather(self.weight, input, 0)"),
        {"aten.embedding.default"},
        "words = self.words(ids)"
    ),
    Fault(
        "a tied weight that learns in one place only",
        (r"(ops\.matmul|self\.mat_mul|self\.batch_mat_mul)\(summed, ", r"\1(ops.stop_gradient(summed), "),
        {"aten.matmul.default"},
        "return summed @ self.words.weight.T"
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def ported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Program]:
    pytest.importorskip("mindspore")
    port = paritas.port(small(), engine="mindspore", inputs=IDS, mode="pynative")
    directory = tmp_path_factory.mktemp("small") / "port"
    port.save(directory)
    return directory, port.program()


def planted(directory: Path, place: Path, pattern: str, replacement: str) -> Any:
    shutil.copytree(directory, place)
    (file,) = place.glob("modeling_*.py")
    changed, count = re.subn(pattern, replacement, file.read_text())
    assert count, f"{pattern!r} is not in\n{file.read_text()}"
    file.write_text(changed)
    return paritas.load(place, allow_modified=True)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_a_wrong_gradient_is_found_and_its_node_is_named(
    fault: Fault, ported: tuple[Path, Program], tmp_path: Path
) -> None:
    port = planted(ported[0], tmp_path / "port", *fault.change)
    report = port.verify(IDS, level="outputs", original=small(), gradients=True)
    assert outputs_agree(report), str(report)
    assert report.verdict == "diverges"
    assert {row.target for row in report.guilty_backwards} == fault.guilty, str(report)
    first = report.guilty_backwards[0]
    assert fault.source in first.source and "test_gradients.py" in first.source
    for text in (str(report), report.to_markdown()):
        assert first.target in text and fault.source.split("=")[0] in text


def test_a_frozen_parameter_is_found(ported: tuple[Path, Program], tmp_path: Path) -> None:
    frozen = (r"(self\.bias = Parameter\(initializer\(.*?\))\)", r"\1, requires_grad=False)")
    port = planted(ported[0], tmp_path / "port", *frozen)
    report = port.verify(IDS, level="outputs", original=small(), gradients=True)
    assert outputs_agree(report)
    assert report.verdict == "diverges"
    off = {row.name: row.fault for row in report.gradients if not row.agrees}
    assert set(off) == {"norm.bias", "up.bias", "down.bias"}
    assert set(off.values()) == {"no gradient: frozen here, or missing"}
    assert {row.wrt for row in report.guilty_backwards} == set(off)


def test_a_clean_port_has_no_guilty_node_and_the_tied_weight_one_gradient(
    ported: tuple[Path, Program],
) -> None:
    port = paritas.load(ported[0], mode="graph")
    report = port.verify(IDS, level="outputs", original=small(), gradients=True)
    assert report.verdict == "agrees", str(report)
    assert [row.name for row in report.gradients] == sorted(n for n, _ in small().named_parameters())
    assert report.guilty_backwards == ()
    assert repr(ParityReport.from_json(report.to_json())) == repr(report)
    assert "--gradients" in report.to_markdown() and "## Gradients" in report.to_markdown()


# --- the comparison itself, with PyTorch in the engine's place -----------------------------------


class Engine(TorchSession):
    """PyTorch as an engine that shows its nodes. `spoil` changes what it answers."""

    def __init__(self, program: Program, spoil: Callable[[dict[str, Any]], None] | None = None) -> None:
        super().__init__(program)
        self.names = {node.name for node in nodes_of(program)}
        self.spoil = spoil

    def nodes(self) -> set[str]:
        return self.names

    def gradients(self, feed: Any, cotangents: Any) -> Gradients:
        found = super().gradients(feed, cotangents)
        if self.spoil is None:
            return found
        changed = dict(found.parameters)
        self.spoil(changed)
        return dataclasses.replace(found, parameters=changed)


@functools.cache
def program() -> Program:
    return paritas.port(small(), engine="torch", inputs=IDS).program()


def backwards(session: Any, model: torch.nn.Module | None = None, graph: Program | None = None) -> Backwards:
    graph, model = graph or program(), model or small()
    names = weight_names(graph)
    flow = Flow(
        tuple(dict.fromkeys(names.get(n, n) for n in sorted(graph.trainable))),
        (),
        differentiable(graph),
        names,
    )
    return compare_backwards(
        session,
        lambda feed, cotangents: eager_gradients(model, feed, cotangents, {}, {}),
        TorchSession(graph, "float32"),
        TorchSession(graph, "float64"),
        {name: value.numpy() for name, value in IDS.items()},
        flow,
        nodes_of(graph),
        case="given",
    )


def test_pytorch_agrees_with_itself() -> None:
    found = backwards(Engine(program()))
    assert found.gradients and all(row.agrees for row in found.gradients)
    assert len(found.gradient_nodes) == len(differentiable(program()))
    assert all(row.agrees for row in found.gradient_nodes)


def test_a_small_gradient_among_large_ones_is_not_the_measure() -> None:
    truth = np.array([1.0, -2.0, 3.0, 1e-4])
    assert gradient_distance(truth, truth + 1e-6) < 1e-6
    assert gradient_distance(truth, truth + 1.0) > 0.2
    assert gradient_distance(truth, truth) == 0
    assert gradient_distance(np.zeros(3), np.array([0.0, 1e-9, 0.0])) == np.inf
    assert gradient_distance(np.array([np.nan, 1.0]), np.array([np.nan, 1.5])) == 0.25


def scaled(by: float) -> Callable[[dict[str, Any]], None]:
    def spoil(found: dict[str, Any]) -> None:
        found["up.weight"] = found["up.weight"] * np.float32(by)

    return spoil


def put(value: Any) -> Callable[[dict[str, Any]], None]:
    def spoil(found: dict[str, Any]) -> None:
        found["up.weight"] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "symptom"),
    [
        (scaled(1.001), "x tolerance"),
        (scaled(-1), "x tolerance"),
        (scaled(0), "x tolerance"),
        (scaled(float("nan")), "NaN"),
        (put(None), "no gradient"),
        (put(np.zeros((8, 5), np.float32)), "shape"),
        (put(np.zeros((8, 6), np.int64)), "dtype"),
    ],
    ids=["a thousandth", "a sign", "nothing", "NaN", "missing", "shape", "dtype"],
)
def test_a_wrong_gradient_diverges(spoil: Callable[[dict[str, Any]], None], symptom: str) -> None:
    found = backwards(Engine(program(), spoil))
    off = [row for row in found.gradients if not row.agrees]
    assert [row.name for row in off] == ["up.weight"]
    assert symptom in str(off[0])


def test_an_engine_that_fails_diverges() -> None:
    def fail(found: dict[str, Any]) -> None:
        raise RuntimeError("no kernel for that")

    found = backwards(Engine(program(), fail))
    assert found.gradients and not any(row.agrees for row in found.gradients)
    assert "no kernel for that" in found.gradients[0].fault


class Shared(torch.nn.Module):
    """One value with three users, of which one is to be found guilty."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(-1, 1, 6))
        self.unused = torch.nn.Parameter(torch.ones(2))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.weight * 2.0
        return torch.sin(x) + torch.cos(x) + torch.exp(x) + ids.sum()


def test_of_several_users_the_guilty_one_is_named() -> None:
    torch.manual_seed(0)
    model = Shared().eval()
    graph = paritas.port(model, engine="torch", inputs=IDS).program()

    class Wrong(Engine):
        def vjps(self, feed: Any, given: Any, cotangents: Mapping[str, np.ndarray]) -> Gradients:
            found = super().vjps(feed, given, cotangents)
            nodes = dict(found.nodes)
            if "cos" in cotangents:
                nodes["mul"] = nodes["mul"] * np.float32(1.01)
            return dataclasses.replace(found, nodes=nodes)

    found = backwards(Wrong(graph), model, graph)
    guilty = [row for row in found.gradient_nodes if not row.agrees]
    assert [(row.node, row.wrt) for row in guilty] == [("cos", "mul")]
    assert "torch.cos(x)" in guilty[0].source


def test_a_parameter_without_gradient_must_have_none() -> None:
    model = Shared().eval()
    graph = paritas.port(model, engine="torch", inputs=IDS).program()
    rows = {row.name: row for row in backwards(Engine(graph), model, graph).gradients}
    assert rows["unused"].agrees

    def invent(found: dict[str, Any]) -> None:
        found["unused"] = np.full(2, 1e-3, np.float32)

    rows = {row.name: row for row in backwards(Engine(graph, invent), model, graph).gradients}
    assert rows["unused"].fault == "a gradient where the original has none"
    assert rows["weight"].agrees


class Detached(torch.nn.Module):
    """What a capture, which drops `detach`, takes for a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(x) + self.other(x).detach()


def test_a_capture_that_is_not_the_original_does_not_pass() -> None:
    port = paritas.port(Detached().eval(), engine="torch", inputs={"x": torch.randn(2, 4)})
    report = port.verify(level="outputs", gradients=True)
    assert outputs_agree(report)
    assert report.verdict == "diverges"
    assert {row.name for row in report.gradients if not row.agrees} >= {"other.weight", "other.bias"}


# --- refusals ------------------------------------------------------------------------------------


def test_an_engine_without_gradients_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    port = paritas.port(small(), engine="openvino", inputs=IDS)
    monkeypatch.setattr(port, "original", lambda given=None: pytest.fail("the original was loaded"))
    with pytest.raises(InputError, match=r"openvino has no gradients.*mindspore and torch have"):
        port.verify(gradients=True)


class Frozen(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3), requires_grad=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return ids.unsqueeze(-1) * self.weight


class Ungraded(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    @torch.no_grad()
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return ids.unsqueeze(-1) * self.weight


@pytest.mark.parametrize(("model", "why"), [(Frozen(), "no parameter requires gradients"), (Ungraded(), "no_grad")])
def test_nothing_to_compare_is_incomplete(model: torch.nn.Module, why: str) -> None:
    report = paritas.port(model.eval(), engine="torch", inputs=IDS).verify(level="outputs", gradients=True)
    assert outputs_agree(report)
    assert report.verdict == "incomplete"
    assert why in str(report) and why in report.to_markdown()


def test_a_report_without_gradients_is_still_read() -> None:
    report = paritas.port(small(), engine="torch", inputs=IDS).verify(IDS, level="outputs")
    old = {key: value for key, value in json.loads(report.to_json()).items() if "gradient" not in key}
    assert repr(ParityReport.from_json(json.dumps(old))) == repr(report)
    assert "gradients:" not in str(report) and "## Gradients" not in report.to_markdown()


def test_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("mindspore")
    checkpoint, directory = tmp_path / "clip", tmp_path / "port"
    original("clip").save_pretrained(checkpoint)
    paritas.port(checkpoint, engine="mindspore", mode="pynative", model_class="CLIPTextModel").save(directory)
    np.savez(tmp_path / "one.npz", **feed_of(paritas.load(directory)))
    arguments = ["verify", str(directory), "--level", "outputs", "--gradients", "--json", "--quiet"]
    done = CliRunner().invoke(app, [*arguments, "--inputs", str(tmp_path / "one.npz")])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout[done.stdout.index("{") :])["report"]
    assert report["gradients"] and report["gradient_nodes"]


def test_the_command_line_refuses_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    paritas.port(small(), engine="openvino", inputs=IDS).save(tmp_path / "port")
    done = CliRunner().invoke(app, ["verify", str(tmp_path / "port"), "--gradients"])
    assert done.exit_code == 2
    assert "openvino has no gradients" in done.output
