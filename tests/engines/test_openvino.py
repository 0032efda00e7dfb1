# SPDX-License-Identifier: Apache-2.0
"""OpenVINO against eager PyTorch: real architectures, small and random, at shapes never captured."""

from __future__ import annotations

import dataclasses
import functools
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers

from paritas.capture import capture
from paritas.errors import EngineError, LoweringError, PortError
from paritas.lower.openvino.convert import lower
from paritas.lower.openvino.watch import BEYOND
from paritas.options import BuildOptions
from paritas.program import Artifact, Manifest, Program
from paritas.run.openvino.adapter import OpenVINO
from paritas.run.torch.session import TorchSession
from paritas.run.values import describe_output
from paritas.store.manifest import manifest_to_json

TOLERANCE = 1e-5  # of max|got - want| / mean|want|


def ids(batch: int, length: int) -> torch.Tensor:
    return torch.randint(2, 90, (batch, length), generator=torch.Generator().manual_seed(length))


def padded(batch: int, length: int, *, left: bool) -> torch.Tensor:
    """A mask that leaves out more in each row; in the last only one token is left."""
    mask = torch.ones(batch, length, dtype=torch.int64)
    for row in range(1, batch):
        cut = length - 1 if row == batch - 1 else row
        mask[row, slice(0, cut) if left else slice(length - cut, length)] = 0
    return mask


def text(batch: int, length: int, *, left: bool = False) -> dict[str, torch.Tensor]:
    return {"input_ids": ids(batch, length), "attention_mask": padded(batch, length, left=left)}


def image(batch: int, _: int) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch))}


def audio(batch: int, _: int) -> dict[str, torch.Tensor]:
    return {"input_features": torch.randn(batch, 80, 60, generator=torch.Generator().manual_seed(batch))}


ENCODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
VISION = {**ENCODER, "image_size": 32, "patch_size": 8}


def bert():
    return transformers.BertModel(transformers.BertConfig(**ENCODER, vocab_size=99)), text


def clip_text():
    limits = {"vocab_size": 99, "eos_token_id": 98, "max_position_embeddings": 40}
    config = transformers.CLIPTextConfig(**ENCODER, **limits)
    return transformers.CLIPTextModel(config), text


def clip_vision():
    return transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION)), image


def t5():
    config = transformers.T5Config(
        d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=99, decoder_start_token_id=0
    )

    def inputs(batch: int, length: int) -> dict[str, torch.Tensor]:
        return text(batch, length) | {"decoder_input_ids": ids(batch, length // 2 + 2)}

    return transformers.T5Model(config), inputs


def gpt2():
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=99)
    return transformers.GPT2LMHeadModel(config), functools.partial(text, left=True)


def llama():
    config = transformers.LlamaConfig(**ENCODER, num_key_value_heads=2, vocab_size=99)
    return transformers.LlamaForCausalLM(config), functools.partial(text, left=True)


def whisper_encoder():
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = transformers.WhisperConfig(
        d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=48, max_source_positions=30
    )
    return WhisperEncoder(config), audio


MODELS = {f.__name__: f for f in (bert, clip_text, clip_vision, t5, gpt2, llama, whisper_encoder)}


@dataclasses.dataclass
class Case:
    model: torch.nn.Module
    inputs: Callable[[int, int], dict[str, torch.Tensor]]
    program: Program
    artifact: Artifact

    def want(self, inputs: dict[str, torch.Tensor]) -> list[np.ndarray]:
        return eager(self.model, {**inputs, **self.program.constants})


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    @functools.cache
    def make(name: str) -> Case:
        torch.manual_seed(0)
        model, inputs = MODELS[name]()
        program = capture(model.eval(), inputs(3, 10))
        return Case(model, inputs, program, write(program, tmp_path_factory.mktemp(name)))

    return make


def write(program: Program, directory: Path, dtype: str = "float32") -> Artifact:
    lowered = lower(program, directory, BuildOptions("openvino", dtype))
    manifest = Manifest(
        engine="openvino",
        dtype=dtype,
        inputs=program.inputs,
        outputs=program.outputs,
        structure=program.structure,
        source=program.source,
        entry=lowered.entry,
        modules=program.modules,
        settings=lowered.settings,
    )
    return Artifact(directory, manifest)


def feed(inputs: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in inputs.items()}


def eager(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> list[np.ndarray]:
    with torch.no_grad():
        return [tensor.detach().numpy() for tensor in describe_output(model(**inputs))[0]]


def error(got: np.ndarray, want: np.ndarray) -> float:
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    assert np.isfinite(want).all()
    assert np.isfinite(got).all()
    scale = np.abs(want, dtype=np.float64).mean() if want.size else 0.0
    return float(np.abs(got - want.astype(np.float64)).max() / scale) if scale else float(np.any(got != want))


@pytest.mark.parametrize("name", MODELS)
def test_it_computes_what_the_original_computes_at_other_shapes(case, name):
    it = case(name)
    session = OpenVINO().load(it.artifact)
    assert session.precision == "float32"
    for batch, length in ((3, 10), (1, 10), (5, 23), (2, 4)):
        inputs = it.inputs(batch, length)
        got, want = session.run(feed(inputs)), it.want(inputs)
        for spec, one, other in zip(it.program.outputs, got, want, strict=True):
            assert error(one, other) <= TOLERANCE, f"{spec.name} at batch {batch}, length {length}"


@pytest.mark.parametrize("name", MODELS)
def test_every_tensor_that_leaves_a_module_can_be_seen(case, name):
    it = case(name)
    given = feed(it.inputs(4, 13))
    want = TorchSession(it.program).observe(given)
    session = OpenVINO().load(it.artifact)
    got = session.observe(given)
    assert got.keys() == want.keys()
    assert session.observed_with == "outputs added to the graph"
    for node, value in want.items():
        assert error(got[node], value) <= 5 * TOLERANCE, node


@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_token_that_attends_to_nothing_is_not_nan(case, name, precision):
    it = case(name)
    reason = OpenVINO().precisions()[precision]
    if reason:
        pytest.skip(reason)
    session = OpenVINO().load(it.artifact, precision=precision)
    inputs = it.inputs(4, 12)
    assert session.precision == precision
    limit = TOLERANCE if precision == "float32" else 0.2
    assert error(session.run(feed(inputs))[0], it.want(inputs)[0]) <= limit


class Masked(torch.nn.Module):
    """Attention under one kind of mask, whose first row lets nothing through."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q = x.unflatten(-1, (2, 4)).transpose(1, 2)
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril(-1)
        if self.kind == "boolean":
            return F.scaled_dot_product_attention(q, q, q, mask)
        smallest = -torch.inf if self.kind == "infinite" else torch.finfo(torch.float32).min
        added = torch.zeros_like(mask, dtype=x.dtype).masked_fill(~mask, smallest)
        return F.scaled_dot_product_attention(q, q, q, added)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["boolean", "infinite", "smallest"])
def test_a_row_of_mask_that_lets_nothing_through_is_what_torch_makes_of_it(tmp_path, kind, precision):
    x = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    model = Masked(kind)
    session = OpenVINO().load(write(capture(model, {"x": x}), tmp_path), precision=precision)
    (got,), (want,) = session.run(feed({"x": x})), eager(model, {"x": x})
    assert error(got, want) <= (TOLERANCE if session.precision == "float32" else 0.1)
    if kind != "smallest":
        assert not got[:, :, 0].any()


class Grouped(torch.nn.Module):
    """Attention of 8 heads of 128 on 2 keys and values, as Llama has it, whose output goes into a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.out = torch.nn.Linear(8 * 128, 64, bias=False)

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        k, v = (one[:, :, None].expand(-1, -1, 4, -1, -1).reshape(q.shape) for one in (k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, mask)
        return self.out(mixed.transpose(1, 2).reshape(len(q), -1, 8 * 128))


def test_grouped_attention_before_a_matrix_product_is_computed_whole(tmp_path):
    """OpenVINO 2026.4 compiles this to snippets of code that leave memory unwritten, unless told not to."""
    torch.manual_seed(0)
    model = Grouped().eval()
    given = {
        "q": torch.randn(2, 8, 16, 128),
        "k": torch.randn(2, 2, 16, 128),
        "v": torch.randn(2, 2, 16, 128),
        "mask": torch.ones(2, 1, 16, 16, dtype=torch.bool),
    }
    session = OpenVINO().load(write(capture(model, given), tmp_path))
    assert error(session.run(feed(given))[0], eager(model, given)[0]) <= TOLERANCE


class Odd(torch.nn.Module):
    """Outputs of every sort: an input, one value twice, numbers, integers, bools; and composite operators."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.ConvTranspose1d(6, 6, 3)
        self.group = torch.nn.GroupNorm(2, 6)
        self.norm = torch.nn.LayerNorm(6, elementwise_affine=False)

    def forward(self, x: torch.Tensor, number: torch.Tensor, flag: torch.Tensor, unused: torch.Tensor):
        h = self.norm(x)
        q = h.unsqueeze(1)
        return {
            "x": x,
            "h": h,
            "again": h,
            "total": number.sum(),
            "positive": x > 0,
            "any": (flag & (x[..., 0] > 0)).any(),
            "not": ~flag,
            "best": x.argmax(-1),
            "small": number.int(),
            "conv": self.conv(F.softplus(self.group(h.transpose(1, 2)))),
            "product": torch.einsum("bij,bkj->bik", x, x),
            "softmax": torch.matmul(x, x.transpose(1, 2)).softmax(-1),
            "grouped": F.scaled_dot_product_attention(torch.cat([q, q], 1), q, q, enable_gqa=True),
            "causal": F.scaled_dot_product_attention(q, q, q, is_causal=True, scale=0.3),
        }


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    torch.manual_seed(0)
    model = Odd().eval()
    inputs = {
        "x": torch.randn(2, 5, 6),
        "number": torch.randint(0, 9, (2, 5)),
        "flag": torch.rand(2, 5) > 0.5,
        "unused": torch.randn(2, 3),
    }
    return model, inputs, write(capture(model, inputs), tmp_path_factory.mktemp("odd"))


def test_outputs_of_every_sort_come_back_with_their_dtype(odd):
    model, inputs, artifact = odd
    session = OpenVINO().load(artifact)
    for given in (inputs, {name: torch.cat([tensor] * 3) for name, tensor in inputs.items()}):
        got, want = session.run(feed(given)), eager(model, given)
        for spec, one, other in zip(artifact.manifest.outputs, got, want, strict=True):
            assert error(one, other) <= TOLERANCE, spec.name


def test_outputs_stay_as_they_are_when_the_session_runs_again(odd):
    _, inputs, artifact = odd
    session = OpenVINO().load(artifact)
    first = session.run(feed(inputs))
    kept = [value.copy() for value in first]
    session.run(feed({name: tensor.flip(0) for name, tensor in inputs.items()}))
    for value, copy in zip(first, kept, strict=True):
        np.testing.assert_array_equal(value, copy)


def test_the_model_carries_the_programs_names(odd):
    import openvino

    _, _, artifact = odd
    model = openvino.Core().read_model(artifact.entry)
    used = [port.get_any_name() for port in model.inputs]
    assert used == [spec.name for spec in artifact.manifest.inputs if spec.name in used]
    outputs = [port.get_any_name() for port in model.outputs]
    assert outputs.pop() == BEYOND  # the model adds up whole numbers
    assert outputs[1:] == [spec.name for spec in artifact.manifest.outputs][1:]
    assert outputs[0] != "x"  # the first is the input x again, and a name stands for one port


def test_half_the_bytes_in_float16_and_the_arithmetic_named_as_it_is(case, tmp_path):
    it = case("bert")
    small = write(it.program, tmp_path, "float16")
    whole, half = (a.entry.with_suffix(".bin").stat().st_size for a in (it.artifact, small))
    assert half < 0.6 * whole
    session = OpenVINO().load(small)
    inputs = it.inputs(2, 9)
    assert session.precision == ("float32" if OpenVINO().precisions()["float16"] else "float16")
    assert error(session.run(feed(inputs))[0], it.want(inputs)[0]) <= 1e-2


def test_loading_and_running_need_neither_torch_nor_transformers(case, tmp_path):
    it = case("bert")
    inputs = it.inputs(2, 9)
    np.savez(tmp_path / "feed.npz", **feed(inputs))
    (tmp_path / "port.json").write_text(manifest_to_json(it.artifact.manifest))
    script = """
        import sys
        from pathlib import Path
        sys.modules["torch"] = sys.modules["transformers"] = None
        import numpy as np
        from paritas.store.manifest import manifest_from_json
        from paritas.program import Artifact
        from paritas.run.engine import engine
        port, work = map(Path, sys.argv[1:])
        manifest = manifest_from_json((work / "port.json").read_text())
        session = engine("openvino").load(Artifact(port, manifest))
        assert session.precision == "float32"
        np.save(work / "out.npy", session.run(dict(np.load(work / "feed.npz")))[0])
    """
    port = str(it.artifact.directory)
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), port, str(tmp_path)], check=True)
    assert error(np.load(tmp_path / "out.npy"), it.want(inputs)[0]) <= TOLERANCE


def test_errors_name_what_failed(odd, tmp_path):
    model, inputs, artifact = odd
    session = OpenVINO().load(artifact)
    with pytest.raises(EngineError, match="while running"):
        session.run(feed(inputs) | {"x": np.zeros((2, 5, 7), np.float32)})
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session.run(feed(inputs))
    with pytest.raises(EngineError, match="no precision 'int8'"):
        OpenVINO().load(artifact, precision="int8")
    with pytest.raises(PortError, match=r"openvino_model\.xml is missing"):
        OpenVINO().load(dataclasses.replace(artifact, directory=tmp_path))
    with pytest.raises(LoweringError, match="no dtype 'int8'"):
        lower(capture(model, inputs), tmp_path, BuildOptions("openvino", "int8"))


def test_a_model_in_bfloat16_becomes_a_float32_graph(tmp_path):
    torch.manual_seed(0)
    model, inputs = bert()
    model = model.eval().bfloat16()
    given = inputs(2, 9)
    session = OpenVINO().load(write(capture(model, given), tmp_path))
    got, want = session.run(feed(given))[0], model.float()(**given)[0].detach().numpy()
    assert error(got, want) <= TOLERANCE
