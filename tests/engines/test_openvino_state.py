# SPDX-License-Identifier: Apache-2.0
"""A port that goes on with a cache: its file keeps keys and values itself, for whoever runs it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import paritas
from paritas.errors import InputError, InputsNeeded, PortError

openvino = pytest.importorskip("openvino")

PAST, NEW = 4, 3


@pytest.fixture(scope="module")
def llama() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=60,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def port(llama: Any) -> paritas.Port:
    ids = torch.randint(0, 60, (2, PAST + NEW))
    with torch.no_grad():
        cache = llama(input_ids=ids[:, :PAST], use_cache=True).past_key_values
    given = {
        "input_ids": ids[:, PAST:],
        "attention_mask": torch.ones(2, PAST + NEW, dtype=torch.int64),
        "position_ids": torch.arange(PAST, PAST + NEW).repeat(2, 1),
        "past_key_values": cache,
        "use_cache": True,
    }
    return paritas.port(llama, inputs=given)


def _saved(port: paritas.Port, directory: Path) -> Path:
    port.save(directory / "port")
    return directory / "port" / "openvino_model.xml"


def test_openvino_alone_generates_with_the_file(port: paritas.Port, llama: Any, tmp_path: Path) -> None:
    compiled = openvino.Core().compile_model(_saved(port, tmp_path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert [name.any_name for name in compiled.inputs] == ["input_ids", "attention_mask", "position_ids", "beam_idx"]
    ids = torch.randint(0, 60, (2, 5))
    mask = torch.ones(2, 5, dtype=torch.int64)
    mask[0, :2] = 0  # padded on the left
    want = llama.generate(input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False, eos_token_id=None)
    request = compiled.create_infer_request()
    seen, new = mask.numpy(), ids.numpy()
    tokens = []
    for _ in range(8):
        positions = np.maximum(seen.cumsum(-1) - 1, 0)[:, -new.shape[1] :]
        rows = np.arange(2, dtype=np.int32)
        logits = request.infer([new, seen, positions, rows]).to_tuple()[0]
        new = logits[:, -1].argmax(-1)[:, None]
        tokens.append(new)
        seen = np.concatenate([seen, np.ones((2, 1), np.int64)], 1)
    assert np.concatenate(tokens, 1).tolist() == want[:, 5:].tolist()
    # The other row's memory, as a beam search chooses it.
    first = copy.deepcopy([variable.state.data for variable in request.query_state()])
    assert len(first) == 4
    request.infer([new[::-1].copy(), seen, positions[:, -1:] + 1, np.array([1, 0], np.int32)])
    for before, variable in zip(first, request.query_state(), strict=True):
        np.testing.assert_array_equal(variable.state.data[:, :, :-1], before[::-1])


def test_it_is_verified_by_what_its_file_remembers(port: paritas.Port) -> None:
    report = port.verify(level="nodes")
    assert report.verdict == "agrees", str(report)
    assert {row.output for row in report.outputs} == {spec.name for spec in port.outputs}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("past_key_values.1.keyspresent.", "past_key_values.7.keyspresent.", "does not remember what port.json says"),
        ('"beam_idx"', '"rows"', "which is not what port.json says"),
    ],
)
def test_a_file_that_is_another_is_refused(
    port: paritas.Port, tmp_path: Path, before: str, after: str, said: str
) -> None:
    model = _saved(port, tmp_path)
    assert before in model.read_text()
    model.write_text(model.read_text().replace(before, after))
    with pytest.raises(PortError, match=said):
        paritas.load(tmp_path / "port", allow_modified=True)


def test_states_of_a_fixed_size_are_inside_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.MambaConfig(
        vocab_size=60, hidden_size=32, num_hidden_layers=1, state_size=4, initializer_range=0.3, eos_token_id=None
    )
    mamba = transformers.MambaForCausalLM(config).eval()
    port = paritas.port(mamba, task="text-generation-with-past")
    assert port.verify(level="outputs").verdict == "agrees"
    compiled = openvino.Core().compile_model(_saved(port, tmp_path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    ids, mask = torch.randint(0, 60, (2, 5)), torch.ones(2, 5, dtype=torch.int64)
    mask[0, :2] = 0  # padded on the left
    want = mamba.generate(input_ids=ids, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0)
    request, seen, new, tokens = compiled.create_infer_request(), mask.numpy(), ids.numpy(), []
    for _ in range(6):
        inputs = {"input_ids": new, "attention_mask": seen, "beam_idx": np.arange(2, dtype=np.int32)}
        new = request.infer(inputs)["logits"][:, -1].argmax(-1)[:, None]
        tokens.append(new)
        seen = np.concatenate([seen, np.ones((2, 1), np.int64)], 1)  # of all tokens, as openvino-genai hands it on
    assert np.concatenate(tokens, 1).tolist() == want[:, 5:].tolist()
    out = port(input_ids=ids.numpy(), attention_mask=mask.numpy())
    with pytest.raises(InputError, match=r"5 tokens follow on .* which the original forgets unless it is one"):
        port(input_ids=ids.numpy(), attention_mask=mask.numpy(), cache_params=out["cache_params"])


def test_what_remembers_in_a_way_of_its_own_is_refused() -> None:
    config = transformers.RwkvConfig(vocab_size=60, hidden_size=32, num_hidden_layers=2, context_length=16)
    with pytest.raises(InputsNeeded, match="RwkvForCausalLM remembers in no cache, which no port keeps"):
        paritas.port(transformers.RwkvForCausalLM(config).eval(), task="text-generation-with-past")
