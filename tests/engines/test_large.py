# SPDX-License-Identifier: Apache-2.0
"""Weights that stay in a checkpoint's files until they are rounded: the same port as of a model in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino.opset16 as ops
import pytest
import torch
import transformers as hf

import paritas
from paritas.capture import stored, streaming
from paritas.capture.source import resolve
from paritas.errors import InputError, SourceError
from paritas.lower.openvino.compress import compress
from paritas.lower.openvino.emit import half_constant
from paritas.lower.openvino.spool import Spool
from paritas.options import weights_of
from paritas.run.torch.session import TorchSession
from paritas.verify import of_port

PAST = "text-generation-with-past"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several shards in bfloat16, with an embedding that is the last matrix too."""
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=300, hidden_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        intermediate_size=256, initializer_range=0.05, tie_word_embeddings=True,
    )  # fmt: skip
    directory = tmp_path_factory.mktemp("checkpoint")
    hf.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory, max_shard_size="200KB")
    assert len(list(directory.glob("*.safetensors"))) > 1
    return directory


@pytest.fixture
def is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "LARGE", 0)
    monkeypatch.setattr(stored, "_MATRIX", 1000)


def files(port: paritas.Port) -> list[Any]:
    """What its file has for constants. In which order they lie there is OpenVINO's choice."""
    return constants(openvino.Core().read_model(port.artifact.directory / "openvino_model.xml"))


@pytest.mark.parametrize("weights", ["", "bf16", "int8", "int4"])
def test_a_port_of_weights_in_files_is_that_of_weights_in_memory(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    in_memory = paritas.port(checkpoint, weights=weights, task=PAST)
    monkeypatch.setattr(stored, "LARGE", 0)
    monkeypatch.setattr(stored, "_MATRIX", 1000)
    ported = paritas.port(checkpoint, weights=weights, task=PAST)
    assert stored.of(ported._original.state_dict())  # none was read into memory for it
    assert files(ported) == files(in_memory)
    ids = np.arange(10, 16)[None]
    given = {"input_ids": ids, "attention_mask": np.ones((1, 6), np.int64), "position_ids": np.arange(6)[None]}
    want, got = in_memory(**given), ported(**given)
    np.testing.assert_allclose(want.logits, got.logits, rtol=1e-4, atol=1e-5)
    if not weights:
        other = ported.to("openvino", weights="int8")
        assert stored.of(ported._original.state_dict())  # nor for another precision
        assert files(other) == files(in_memory.to("openvino", weights="int8"))


@pytest.mark.usefixtures("is_large")
def test_what_is_verified_against_is_the_checkpoint(checkpoint: Path) -> None:
    port = paritas.port(checkpoint, weights="bf16", task=PAST)
    assert any("holds them exactly" in str(note) for note in port.notes)
    report = port.verify(level="modules")
    assert report.verdict == "agrees", report
    assert stored.of(port.original(in_files=True).state_dict())  # and was read one by one
    assert not stored.of(port.original().state_dict())
    other = hf.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    for (name, value), own in zip(other.state_dict().items(), port.original().state_dict().values(), strict=True):
        assert torch.equal(value, own), name


@pytest.mark.usefixtures("is_large")
@pytest.mark.parametrize("kind", ["llama", "mixtral"])
def test_weights_that_are_read_one_by_one_compute_what_those_in_memory_do(
    checkpoint: Path, tmp_path: Path, kind: str
) -> None:
    if kind == "mixtral":
        config = hf.MixtralConfig(
            vocab_size=300, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=128, num_local_experts=4,
        )  # fmt: skip
        hf.MixtralForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path)
    port = paritas.port(checkpoint if kind == "llama" else tmp_path, task=PAST)
    assert isinstance(port, paritas.Port)

    def answers(in_files: bool) -> list[list[np.ndarray]]:
        model, program = port.original(in_files=in_files), port.program(in_files=in_files)
        assert bool(stored.of(model.state_dict())) == in_files
        runs = [of_port.eager(port, of_port.in_precision(model, dtype)) for dtype in ("float32", "bfloat16")]
        runs += [TorchSession(program, dtype).run for dtype in ("float32", "float64")]
        if kind == "llama":  # PyTorch's grouped products of experts know no float64
            runs.append(of_port.exactly(port, model))
        return [list(run(port.examples())) for run in runs]

    for got, want in zip(answers(True), answers(False), strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.usefixtures("is_large")
def test_a_view_of_what_stands_in_is_not_computed_with(checkpoint: Path) -> None:
    model, _ = resolve(checkpoint, in_files=True)
    early = model.model.layers[0].mlp.up_proj.weight.detach()[1:]
    with streaming.reading(), pytest.raises(RuntimeError, match="a view of a weight that stays in its checkpoint"):
        early.sum()


@pytest.mark.usefixtures("is_large")
def test_a_port_that_is_loaded_is_verified_without_reading_all(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paritas.port(checkpoint, task=PAST).save(tmp_path / "port")
    monkeypatch.setattr(stored, "restore", lambda *of: pytest.fail("all weights were read into memory"))
    report = paritas.load(tmp_path / "port").verify(level="modules")
    assert report.verdict == "agrees"
    assert any("3 of 8 generations were played: several tokens at once" in note for note in report.notes)


@pytest.mark.usefixtures("is_large")
def test_tied_weights_are_one_and_stand_ins_are_not_tied(checkpoint: Path) -> None:
    model, _ = resolve(checkpoint, in_files=True)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    places = [p.data_ptr() for p in model.parameters()]
    assert len(set(places)) == len(places)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert {value.dtype for value in stored.of(model.state_dict()).values()} == {torch.bfloat16}
    stored.release()
    assert float(model.lm_head.weight.detach().std()) > 0.01
    stored.restore(model)
    assert torch.equal(
        model.lm_head.weight, hf.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).lm_head.weight
    )


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ({"quant_method": "gptq", "bits": 4}, 'quantised by gptq, 4 bits: .* with weights="int4"'),
        ({"quant_method": "awq", "bits": 4}, "quantised by awq"),
        ({"load_in_8bit": True}, 'quantised by bitsandbytes, 8 bits: .* with weights="int8"'),
        ({"quant_method": "compressed-tensors"}, "unpacks them with compressed_tensors, which is not installed"),
        ({"quant_method": "fp8"}, "has no weights"),  # transformers makes plain ones of these
    ],
)
def test_packed_weights_are_refused_before_any_is_read(tmp_path: Path, method: dict[str, Any], says: str) -> None:
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "quantization_config": method}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match=says):
        paritas.port(tmp_path)


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (
            {"format": "int4", "groups": 64},
            "weights has no 'groups'; it has 'format', 'group_size', 'symmetric', 'ratio'",
        ),
        ({"format": "bf16", "group_size": 64}, "group_size and symmetric are of whole numbers"),
        ({"format": "int4", "group_size": 7}, "group_size=7 is no even number"),
        ({"format": "int3"}, "int8, int4, bf16 and fp16 are"),
    ],
)
def test_what_weights_cannot_be(tmp_path: Path, weights: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        paritas.port(tmp_path, weights=weights)


def products(half: bool, keep: list[Any]) -> openvino.Model:
    """A table, products with matrices of two and three axes, either way round, and a convolution."""
    generator = torch.Generator().manual_seed(0)

    def weight(*shape: int) -> openvino.Output:
        value = torch.randn(*shape, generator=generator) * 0.05
        value[0], value[1] = 0, value[1].abs()
        if half:
            return half_constant(value.bfloat16(), keep)
        return ops.constant(value.numpy()).output(0)

    ids = ops.parameter([-1, -1], np.int64)
    x = ops.gather(weight(300, 256), ids, ops.constant(np.int64(0)))
    x = ops.matmul(x, weight(384, 256), False, True)
    x = ops.matmul(x, weight(384, 128), False, False)
    x = ops.matmul(ops.unsqueeze(x, ops.constant(np.int64(1))), weight(3, 128, 256), False, False)
    x = ops.reshape(ops.reduce_sum(x, ops.constant(np.array([1])), False), ops.constant(np.array([0, 0, 256])), True)
    turned = ops.transpose(x, ops.constant(np.array([0, 2, 1])))
    y = ops.convolution(turned, weight(64, 256, 3), [1], [1], [1], [1])
    return openvino.Model([ops.matmul(x, weight(300, 256), False, True), y], [ids], "products")


def constants(model: openvino.Model) -> list[Any]:
    found = [node for node in model.get_ops() if node.get_type_name() == "Constant" and node.data.nbytes > 100]
    return sorted((str(n.get_element_type()), tuple(n.get_output_shape(0)), n.data.tobytes()) for n in found)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize(
    ("weights", "mode", "options"),
    [
        ("int8", "INT8_ASYM", {}),
        ({"format": "int8", "symmetric": True}, "INT8_SYM", {}),
        ("int4", "INT4_ASYM", {}),
        ({"format": "int4", "group_size": 64, "symmetric": True}, "INT4_SYM", {"group_size": 64}),
        ({"format": "int4", "group_size": 32}, "INT4_ASYM", {"group_size": 32}),
        ({"format": "int4", "group_size": -1}, "INT4_ASYM", {"group_size": -1}),
    ],
)
def test_rounding_is_that_of_nncf_to_the_bit(
    tmp_path: Path, weights: Any, mode: str, options: dict[str, Any], half: bool
) -> None:
    nncf = pytest.importorskip("nncf")
    keep: list[Any] = []
    spool = Spool(tmp_path)
    ours = products(half, keep)
    compress(ours, weights_of(weights)[0].text, spool)
    theirs = nncf.compress_weights(products(half, keep), mode=nncf.CompressWeightsMode[mode], **options)
    assert constants(ours) == constants(theirs)
    assert not list(tmp_path.iterdir())  # its file has no name


def test_a_module_may_make_as_much_as_all_of_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as twice its largest one: models of 400 million parameters and more were refused on MindSpore."""
    pytest.importorskip("mindspore")
    from paritas.lower.mindspore.check import bounds

    monkeypatch.setattr(bounds, "_SPARE", 0)
    model = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(6)))
    x = torch.randn(2, 8)
    got = paritas.port(model, "mindspore", inputs={"input": x})(input=x)
    np.testing.assert_allclose(got, model(x).detach(), atol=1e-5)
