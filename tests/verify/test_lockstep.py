# SPDX-License-Identifier: Apache-2.0
"""Lockstep names the node that is wrong: faults are planted into ports, one at a time, in their files."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from subjects import MODELS, Subject, marked, original

import paritas
from paritas.verify.nodes import same_order
from paritas.verify.of_port import nodes_of
from paritas.verify.report.report import ParityReport


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is wrong, where it is written in the generated module, and the operators that must be named, and only they.

    change: (pattern, replacement) in the source, or a function of the weights. cls: the class to change alone.
    """

    what: str
    change: tuple[str, str] | Callable[[dict[str, np.ndarray]], None]
    guilty: str
    cls: str = ""


def weight(name: str, how: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, np.ndarray]], None]:
    def change(weights: dict[str, np.ndarray]) -> None:
        weights[name] = np.ascontiguousarray(how(weights[name])).astype(weights[name].dtype)

    return change


def swapped(one: str, other: str) -> Callable[[dict[str, np.ndarray]], None]:
    def change(weights: dict[str, np.ndarray]) -> None:
        weights[one], weights[other] = weights[other], weights[one]

    return change


def halved(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float16)


NORM, LINEAR, ATTENTION = "layer_norm.default", "linear.default", "scaled_dot_product_attention.default"
ADD, MUL, GELU = "add.Tensor", "mul.Tensor", "gelu.default"
BERT = "encoder.layer.0.attention"

FAULTS: dict[str, tuple[Fault, ...]] = {
    "bert": (
        Fault("an eps of another framework", ("1e-12", "1e-05"), NORM),
        Fault(
            "a bias forgotten", (r"dense\(input, self\.weight, self\.bias\)", "ops.dense(input, self.weight)"),
            LINEAR, "Linear",
        ),
        Fault("a scale of another head size", ("0.3535533905932738", "0.25"), ATTENTION),
        Fault(
            "queries and keys swapped",
            (r"query_layer, key_layer, value", "key_layer, query_layer, value"),
            ATTENTION
        ),
        Fault("keys for values", (r"key_layer, value_layer, att", "value_layer, value_layer, att"), ATTENTION),
        Fault("tanh's gelu for erf's", (r"return gelu\(input\)", "return ops.GeLU()(input)"), GELU),
        Fault("CLIP's gelu", (r"return gelu\(input\)", "return input * ops.sigmoid(1.702 * input)"), GELU),
        Fault("relu for gelu", (r"return gelu\(input\)", "return ops.ReLU()(input)"), GELU),
        Fault(
            "a residual forgotten", (r"hidden_states \+ input_tensor", "hidden_states"), ADD, "BertSelfOutput"
        ),
        Fault(
            "a residual twice",
            (r"hidden_states \+ input_tensor", "hidden_states + input_tensor + input_tensor"),
            ADD, "BertOutput"
        ),
        Fault("a mask off by one", (r">= 0", "> 0"), "ge.Scalar"),
        Fault("token types forgotten", (r"inputs_embeds \+ token_type_embeddings", "inputs_embeds"), ADD),
        Fault(
            "positions off by one",
            (r"\[:, : input_ids\.shape\[1\]\]", "[:, 1 : input_ids.shape[1] + 1]"),
            "slice.Tensor"
        ),
        Fault("the second token pooled", (r"hidden_states\[:, 0\]", "hidden_states[:, 1]"), "select.int"),
        Fault("sigmoid for tanh", (r"return tanh\(input\)", "return ops.sigmoid(input)"), "tanh.default"),
        Fault(
            "heads not put back",
            (r"attn_output = ops\.transpose\(attn_output, \(0, 2, 1, 3\)\)",
             "attn_output = ops.transpose(attn_output, (0, 1, 2, 3))"),
            "transpose.int"
        ),
        Fault(
            "a mask turned around",
            (r"ops\.cast\(attention_mask, ms\.bool_\)", "ops.logical_not(ops.cast(attention_mask, ms.bool_))"),
            "_to_copy.default"
        ),
        Fault("a weight transposed", weight(f"{BERT}.self.query.weight", np.transpose), LINEAR),
        Fault(
            "queries' and keys' weights swapped",
            swapped(f"{BERT}.self.query.weight", f"{BERT}.self.key.weight"),
            LINEAR
        ),
        Fault("a bias of zeros", weight("encoder.layer.1.output.dense.bias", np.zeros_like), LINEAR),
        Fault(
            "a weight in half precision", weight("encoder.layer.1.intermediate.dense.weight", halved), LINEAR
        ),
        Fault("a norm's weight of ones", weight("embeddings.LayerNorm.weight", np.ones_like), NORM),
        Fault(
            "a vocabulary off by one",
            weight("embeddings.word_embeddings.weight", lambda w: np.roll(w, 1, 0)),
            "embedding.default"
        ),
    ),
    "gpt2": (
        Fault("an eps ten times too small", ("1e-05", "1e-06"), NORM),
        Fault(
            "erf's gelu for tanh's",
            (r"return gelu_tanh\(input\)", "return 0.5 * input * (1 + ops.erf(input * 0.7071067811865476))"),
            MUL
        ),
        Fault(
            "a query that does not see itself", (r"kv_idx <= q_idx", "kv_idx < q_idx"), "le.Tensor"
        ),
        Fault(
            "a mask of the past for that of the future",
            (r"kv_idx <= q_idx", "kv_idx >= q_idx"),
            "le.Tensor"
        ),
        Fault(
            "keys for values in a fused weight",
            (r"value_states = split\[2\]", "value_states = split[1]"),
            "split.Tensor[2]"
        ),
        Fault(
            "positions from one",
            (r"position_ids = ops\.arange\(input_ids\.shape\[1\]\)",
             "position_ids = ops.arange(1, input_ids.shape[1] + 1)"),
            "arange.default"
        ),
        Fault("positions forgotten", (r"inputs_embeds \+ position_embeds", "inputs_embeds"), ADD),
        Fault(
            "a residual of the norm's output",
            (r"attn_output \+ residual", "attn_output + hidden_states"),
            ADD
        ),
        Fault("a Conv1D's weight transposed", weight("h.0.attn.c_proj.weight", np.transpose), "addmm.default"),
        Fault("a bias in half precision", weight("h.1.mlp.c_fc.bias", halved), "addmm.default"),
    ),
    "llama": (
        Fault("an eps of RMSNorm ten times too large", ("1e-06", "1e-05"), MUL, "LlamaRMSNorm"),
        Fault("Gemma's RMSNorm", (r"self\.weight, 1e-06", "self.weight + 1.0, 1e-06"), MUL, "LlamaRMSNorm"),
        Fault("rotary halves not negated", (r"\(-x2, x1\)", "(x2, x1)"), "neg.default"),
        Fault(
            "another rotary base",
            (r"\* self\.inv_freq", "* (self.inv_freq * 0.5)"),
            MUL, "LlamaRotaryEmbedding"
        ),
        Fault("sine for cosine", (r"ops\.cos\(emb\)", "ops.sin(emb)"), "cos.default"),
        Fault("another silu", (r"ops\.sigmoid\(input\)", "ops.sigmoid(1.702 * input)"), "silu.default"),
        Fault(
            "one mask or the other for both",
            (r"ops\.logical_and\(", "ops.logical_or("),
            "__and__.Tensor"
        ),
        Fault(
            "sum for product in the gate",
            (r"self\.gate_proj\(x\)\) \* ", "self.gate_proj(x)) + "),
            MUL, "LlamaMLP"
        ),
        Fault("a norm's weight in half precision", weight("norm.weight", halved), MUL),
    ),
    "t5": (
        Fault(
            "a scale where there is none",
            (r"position_bias_mask, 1\.0\)", "position_bias_mask, 0.35355339)"),
            ATTENTION,
        ),
        Fault(
            "a clipped relu",
            (r"return (relu\(.*\))", r"return ops.minimum(\1, 1)"),
            "relu.default"
        ),
        Fault("a bucket more", (r"relative_position < 8", "relative_position <= 8"), "lt.Scalar"),
        Fault("no direction", (r"relative_position > 0", "relative_position > -999"), "gt.Scalar"),
        Fault("another logarithm", (r"2\.772588722239781", "2.0"), "div.Tensor"),
        Fault(
            "buckets shifted",
            weight("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", lambda w: np.roll(w, 1, 0)),
            "embedding.default"
        ),
        Fault("a residual forgotten", (r"hidden_states \+ forwarded_states", "forwarded_states"), ADD),
    ),
    "vit": (
        Fault("channels behind pixels", (r"\(0, 2, 4, 1, 3, 5\)", "(0, 2, 4, 3, 5, 1)"), "conv2d.default"),
        Fault(
            "the class token last",
            (r"\(cls_tokens, embeddings\), 1", "(embeddings, cls_tokens), 1"),
            "cat.default"
        ),
        Fault("positions forgotten", (r"embeddings \+ self\.position_embeddings", "embeddings"), ADD),
        Fault(
            "patches mirrored",
            weight("embeddings.patch_embeddings.projection.weight", lambda w: w[..., ::-1]),
            "conv2d.default"
        ),
        Fault(
            "colours as BGR",
            weight("embeddings.patch_embeddings.projection.weight", lambda w: w[:, ::-1]),
            "conv2d.default"
        ),
        Fault("an eps of torch's default", ("1e-12", "1e-05"), NORM),
    ),
    "clip": (
        Fault(
            "erf's gelu",
            (r"return (quick_gelu\(input\)|input \* ops\.sigmoid\(.*\))", "return ops.GeLU()(input)"),
            MUL
        ),
        Fault("an eps of BERT's", ("1e-05", "1e-12"), NORM),
    ),
    "resnet": (
        Fault(
            "a variance forgotten",
            weight("embedder.embedder.normalization.running_var", np.ones_like),
            "_native_batch_norm_legit_no_training.default[0]"
        ),
        Fault(
            "a mean forgotten",
            weight("embedder.embedder.normalization.running_mean", np.zeros_like),
            "_native_batch_norm_legit_no_training.default[0]"
        ),
        Fault(
            "a kernel turned",
            weight("embedder.embedder.convolution.weight", lambda w: np.swapaxes(w, 2, 3)),
            "conv2d.default"
        ),
    ),
    "whisper": (
        Fault("positions forgotten", weight("embed_positions.weight", np.zeros_like), "embedding.default"),
        Fault("a kernel mirrored", weight("conv1.weight", lambda w: w[..., ::-1]), "conv1d.default"),
        Fault("a bias for the keys", weight("layers.0.self_attn.v_proj.bias", np.zeros_like), LINEAR),
    ),
    "roberta": (
        Fault(
            "positions in half precision",
            weight("embeddings.position_embeddings.weight", halved),
            "embedding.default"
        ),
        Fault("an eps of another framework", ("1e-12", "1e-05"), NORM),
    ),
    "mixtral": (
        Fault(
            "experts in another order", weight("layers.0.mlp.gate.weight", lambda w: np.roll(w, 1, 0)), LINEAR
        ),
        Fault("an eps ten times too small", ("1e-05", "1e-06"), MUL, "MixtralRMSNorm"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("engine", ["mindspore", "openvino"])
@pytest.mark.parametrize("name", [marked(name, label=name) for name in MODELS])
def test_a_clean_port_has_no_guilty_node(name: str, engine: str, subjects: Callable[[str, str], Subject]) -> None:
    pytest.importorskip(engine)
    subject = subjects(name, engine)
    found = subject.lockstep(paritas.load(subject.directory).session)
    assert [str(row) for row in found.rows if not row.agrees] == []
    assert len(found.rows) > 10
    assert len(found.rows) + len(found.unseen) == len(nodes_of(subject.program))
    assert set(found.unseen.values()) <= {"part of another node in the engine's program"}


@pytest.mark.parametrize(
    ("name", "fault"),
    [marked(name, fault, label=f"{name}: {fault.what}") for name in FAULTS for fault in FAULTS[name]],
)
def test_the_guilty_node_is_named(
    name: str, fault: Fault, subjects: Callable[[str, str], Subject], tmp_path: Path
) -> None:
    pytest.importorskip("mindspore")
    subject = subjects(name, "mindspore")
    directory = tmp_path / "port"
    shutil.copytree(subject.directory, directory)
    plant(fault, directory)
    found = subject.lockstep(paritas.load(directory, allow_modified=True).session)
    guilty = [row for row in found.rows if not row.agrees]
    assert guilty, found.observed
    assert {row.target.removeprefix("aten.") for row in guilty} == {fault.guilty}, guilty
    assert all(row.source for row in guilty)
    if fault.cls:
        assert {row.module_class for row in guilty} == {fault.cls}


def plant(fault: Fault, directory: Path) -> None:
    if callable(fault.change):
        file = directory / "model.safetensors"
        weights = load_file(file)
        before = {key: value.copy() for key, value in weights.items()}
        fault.change(weights)
        assert any(not np.array_equal(weights[key], value) for key, value in before.items())
        save_file(weights, file, metadata={"format": "pt"})
        return
    (file,) = directory.glob("modeling_*.py")
    source = file.read_text()
    start, end = 0, len(source)
    if fault.cls and (found := re.search(rf"^class {fault.cls}\(.*?(?=^class |\Z)", source, re.M | re.S)):
        start, end = found.span()
    changed, count = re.subn(*fault.change, source[start:end])
    assert count, f"{fault.change[0]!r} is not in the source"
    file.write_text(source[:start] + changed + source[end:])


@pytest.mark.slow
def test_a_report_of_nodes_names_the_first_and_says_how_it_looked(
    subjects: Callable[[str, str], Subject], tmp_path: Path
) -> None:
    pytest.importorskip("mindspore")
    directory = tmp_path / "port"
    shutil.copytree(subjects("bert", "mindspore").directory, directory)
    plant(next(fault for fault in FAULTS["bert"] if fault.what == "CLIP's gelu"), directory)
    port = paritas.load(directory, allow_modified=True)
    report = port.verify(level="nodes", original=original("bert"))
    assert report.verdict == "diverges"
    assert [row.target for row in report.guilty] == ["aten.gelu.default"] * 2
    assert report.guilty[0].module == "encoder.layer.0.intermediate.intermediate_act_fn"
    for text in (str(report), report.to_markdown()):
        assert "aten.gelu.default" in text and "activations.py" in text and "PyNative" in text
    assert repr(ParityReport.from_json(report.to_json())) == repr(report)  # NaN is not equal to itself


class TwiceOneActivation(torch.nn.Module):
    """One activation is called for keys last, and its result used first: the port makes the calls in that order."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(8, 24)
        self.act = torch.nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attend(*self.inner(x).chunk(3, -1))

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return (lambda q, k: (v.mT @ k) @ q.mT)(self.act(q), self.act(k))


def test_calls_in_another_order_than_the_graph_are_told_apart(tmp_path: Path) -> None:
    pytest.importorskip("mindspore")
    torch.manual_seed(0)
    port = paritas.port(TwiceOneActivation(), engine="mindspore", inputs={"x": torch.randn(2, 6, 8)})
    source = port.artifact.entry.read_text()
    assert re.search(r"act\(getitem_1\).*act\(getitem\)", source, re.S), "the port calls it in the graph's order"
    report = port.verify(level="nodes")
    assert report.verdict == "agrees" and not report.guilty
    assert [row.target for row in report.nodes].count("aten.relu.default") == 2


def test_equal_values_have_no_order_of_their_own() -> None:
    values, order = np.array([3.0, 1.0, 3.0]), np.array([0, 2, 1])
    assert same_order(values, order, np.array([2, 0, 1]), 0)
    for wrong in ([0, 1, 2], [0, 0, 1], [0, 2, 3], [0, 2]):
        assert not same_order(values, order, np.array(wrong), 0)


class IntoNewMemory(torch.nn.Module):
    """Two parts are written into memory that held something else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        joined = x.new_empty(x.shape[0], 8)
        joined[:, :3].copy_(x[:, :3])
        joined[:, 3:].copy_(x[:, :5])
        return joined.cos()


def test_what_was_in_memory_makes_no_node_guilty(monkeypatch: pytest.MonkeyPatch) -> None:
    port = paritas.port(IntoNewMemory(), engine="openvino", inputs={"x": torch.randn(4, 6)})
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)  # new memory holds NaN
    try:
        assert port.verify({"x": torch.randn(4, 6)}, level="nodes").guilty == ()
    finally:
        torch.use_deterministic_algorithms(False)
