# SPDX-License-Identifier: Apache-2.0
"""Lockstep names the node that is wrong in a model of OpenVINO's: faults are planted into its .xml and its .bin."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from subjects import Subject, marked, original

import paritas


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is wrong, how to make it so, and the operators that must be named, and only they.

    change: (pattern, replacement) in the .xml, or (parameter of the original, what becomes of it) in the .bin.
    """

    what: str
    change: tuple[str, str | Callable[[np.ndarray], np.ndarray]]
    guilty: str


def kind(old: str, new: str, name: str = r"[^\"]*") -> tuple[str, str]:
    """Another operator for that of a layer."""
    return rf'name="({name})" type="{old}"', rf'name="\1" type="{new}"'


def halved(value: np.ndarray) -> np.ndarray:
    return value.astype(np.float16)


NORM, LINEAR, ATTENTION = "layer_norm.default", "linear.default", "scaled_dot_product_attention.default"
PATCHES = "embeddings.patch_embeddings.projection.weight"
EPS = r'eps="9\.99\d+e-13"'
CAUSAL = Fault("a causal mask where there is none", ('causal="false"', 'causal="true"'), ATTENTION)
TANH_GELU = Fault("tanh's gelu for erf's", ('mode="ERF"', 'mode="TANH"'), "gelu.default")

FAULTS: dict[str, tuple[Fault, ...]] = {
    "bert": (
        Fault("an eps of another framework", (EPS, 'eps="1e-05"'), NORM),
        Fault("a variance not divided by", ('normalize_variance="true"', 'normalize_variance="false"'), NORM),
        Fault("sigmoid for tanh", kind("Tanh", "Sigmoid"), "tanh.default"),
        Fault("a mask off by one", kind("LessEqual", "Less", r"ge[^\"]*"), "ge.Scalar"),
        Fault(
            "a weight read transposed",
            (r'(?s)\A(.*?type="MatMul"[^>]*>\s*<data [^/]*)"true"', r'\1"false"'),
            LINEAR,
        ),
        Fault("a weight in half precision", ("encoder.layer.1.intermediate.dense.weight", halved), LINEAR),
        Fault("a bias of zeros", ("encoder.layer.1.output.dense.bias", np.zeros_like), LINEAR),
        Fault("a norm's weight of ones", ("embeddings.LayerNorm.weight", np.ones_like), NORM),
        Fault(
            "a vocabulary off by one",
            ("embeddings.word_embeddings.weight", lambda w: np.roll(w, 1, 0)),
            "embedding.default",
        ),
        CAUSAL,
        TANH_GELU,
    ),
    "gpt2": (
        Fault("a query that does not see itself", kind("LessEqual", "Less"), "le.Tensor"),
        Fault("erf for tanh", kind("Tanh", "Erf"), "tanh.default"),
        Fault("a bias in half precision", ("h.1.mlp.c_fc.bias", halved), "addmm.default"),
        Fault("positions from one", ("wpe.weight", lambda w: np.roll(w, -1, 0)), "embedding.default"),
    ),
    "llama": (
        Fault("sine for cosine", kind("Cos", "Sin"), "cos.default"),
        Fault("another silu", kind("Swish", "HSwish"), "silu.default"),
        Fault("the largest for the mean", kind("ReduceMean", "ReduceMax"), "mean.dim"),
        Fault("a norm's weight in half precision", ("norm.weight", halved), "mul.Tensor"),
    ),
    "t5": (
        Fault("what relu cuts off", kind("Maximum", "Minimum", r"relu[^\"]*"), "relu.default"),
        Fault("a bucket more", kind("Less", "LessEqual", r"lt[^\"]*"), "lt.Scalar"),
        Fault("the larger distance for the smaller", kind("Minimum", "Maximum"), "min.other"),
    ),
    "vit": (
        Fault("an eps of torch's default", (EPS, 'eps="1e-05"'), NORM),
        Fault("patches mirrored", (PATCHES, lambda w: w[..., ::-1]), "conv2d.default"),
        Fault("colours as BGR", (PATCHES, lambda w: w[:, ::-1]), "conv2d.default"),
        TANH_GELU,
    ),
    "clip": (
        Fault("tanh for sigmoid", kind("Sigmoid", "Tanh"), "sigmoid.default"),
        Fault("the least for the greatest", ('mode="max"', 'mode="min"'), "argmax.default"),
        CAUSAL,
    ),
    "resnet": (
        Fault("what relu cuts off", kind("Maximum", "Minimum", r"relu[^\"]*"), "relu.default"),
        Fault("an eps a hundred times too large", ('epsilon="[^"]*e-0[56]"', 'epsilon="1e-03"'),
              "_native_batch_norm_legit_no_training.default[0]"),
        Fault(
            "a kernel turned",
            ("embedder.embedder.convolution.weight", lambda w: np.swapaxes(w, 2, 3)),
            "conv2d.default",
        ),
        Fault("the largest for the mean", kind("ReduceMean", "ReduceMax"), "adaptive_avg_pool2d.default"),
    ),
    "whisper": (
        Fault("positions forgotten", ("embed_positions.weight", np.zeros_like), "embedding.default"),
        TANH_GELU,
        CAUSAL,
    ),
    "roberta": (
        Fault("sigmoid for tanh", kind("Tanh", "Sigmoid"), "tanh.default"),
        Fault("positions in half precision", ("embeddings.position_embeddings.weight", halved), "embedding.default"),
    ),
    "mixtral": (
        Fault("experts in another order", ("layers.0.mlp.gate.weight", lambda w: np.roll(w, 1, 0)), LINEAR),
        Fault("a causal mask that sees the next", kind("LessEqual", "NotEqual", "le"), "le.Tensor"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "fault"),
    [marked(name, fault, label=f"{name}: {fault.what}") for name in FAULTS for fault in FAULTS[name]],
)
def test_the_guilty_node_is_named(
    name: str, fault: Fault, subjects: Callable[[str, str], Subject], tmp_path: Path
) -> None:
    subject = subjects(name, "openvino")
    directory = tmp_path / "port"
    shutil.copytree(subject.directory, directory)
    plant(fault, name, directory)
    found = subject.lockstep(paritas.load(directory, allow_modified=True).session)
    guilty = [row for row in found.rows if not row.agrees]
    assert guilty, found.unseen or found.observed
    assert {row.target.removeprefix("aten.") for row in guilty} == {fault.guilty}, guilty
    assert all(row.source for row in guilty)


def plant(fault: Fault, name: str, directory: Path) -> None:
    where, change = fault.change
    if isinstance(change, str):
        file = directory / "openvino_model.xml"
        text, count = re.subn(where, change, file.read_text())
        assert count, f"{where!r} is not in the file"
        file.write_text(text)
        return
    file = directory / "openvino_model.bin"
    stored = file.read_bytes()
    value = original(name).state_dict()[where].numpy()
    wrong = np.ascontiguousarray(change(value)).astype(value.dtype)
    assert stored.count(value.tobytes()) == 1, f"{where} is not in the file as it is"
    file.write_bytes(stored.replace(value.tobytes(), wrong.tobytes()))
