# SPDX-License-Identifier: Apache-2.0
"""A causal model on MindSpore: one module, which begins with no tokens behind it and goes on with what it returned."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tests.deploy.causal import tokenizer_of_bytes

import paritas
from paritas import texts
from paritas.run.state import new_state
from paritas.transformers import AutoModelForCausalLM

ms = pytest.importorskip("mindspore")

NEW, PROMPT, LAYERS = 3, 5, 2
MODES = ("pynative", pytest.param("graph", marks=pytest.mark.slow))


@pytest.fixture(scope="module")
def llama() -> Any:
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=60, hidden_size=32, intermediate_size=48, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    model = hf.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # larger ones, so that tokens are no accident of rounding
            parameter.mul_(3)
    return model


@pytest.fixture(scope="module")
def prompt() -> tuple[np.ndarray, np.ndarray]:
    """Tokens and their mask: the second row is padded on the left."""
    ids = np.random.default_rng(0).integers(3, 60, (2, PROMPT))
    return ids, np.array([[1] * PROMPT, [0, 0, 1, 1, 1]])


@pytest.fixture(scope="module")
def wanted(llama: Any, prompt: tuple[np.ndarray, np.ndarray]) -> list[list[int]]:
    ids, mask = map(torch.from_numpy, prompt)
    found = llama.generate(
        ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    return found[:, PROMPT:].tolist()


def _greedy(prompt: tuple[np.ndarray, np.ndarray], logits_of: Any) -> list[list[int]]:
    """What follows the prompt. logits_of: (new tokens, mask of all, positions of the new ones) -> their logits."""
    new, mask = prompt
    tokens = []
    for _ in range(NEW):
        positions = np.maximum(mask.cumsum(-1) - 1, 0)[:, -new.shape[1] :]
        new = logits_of(new, mask, positions)[:, -1].argmax(-1)[:, None].astype(np.int64)
        tokens.append(new)
        mask = np.concatenate([mask, np.ones((len(mask), 1), np.int64)], 1)
    return np.concatenate(tokens, 1).tolist()


@pytest.mark.parametrize("mode", MODES)
def test_one_module_begins_and_goes_on(mode: str, llama: Any, prompt: Any, wanted: Any, tmp_path: Path) -> None:
    port = paritas.port(llama, engine="mindspore", mode=mode)  # the task follows from the model
    state = new_state(port.session, port.manifest)

    def logits_of(new: np.ndarray, mask: np.ndarray, positions: np.ndarray) -> np.ndarray:
        feed = {"input_ids": new, "attention_mask": mask, "position_ids": positions}
        return state.run(feed, new.shape[1])[0]

    assert _greedy(prompt, logits_of) == wanted
    ids = prompt[0]
    with torch.no_grad():
        want = llama(torch.from_numpy(ids)).logits.numpy()
    positions = np.arange(PROMPT)[None].repeat(2, 0)
    out = port(input_ids=ids[:, :3], attention_mask=np.ones((2, 3), np.int64), position_ids=positions[:, :3])
    np.testing.assert_allclose(out["logits"], want[:, :3], atol=1e-5)
    out = port(
        input_ids=ids[:, 3:],
        attention_mask=np.ones((2, PROMPT), np.int64),
        position_ids=positions[:, 3:],
        past_key_values=out["past_key_values"],
    )
    np.testing.assert_allclose(out["logits"], want[:, 3:], atol=1e-5)

    if mode == "pynative":
        port.save(tmp_path / "llama-ms")
        assert _greedy(prompt, _by_mindspore_alone(tmp_path / "llama-ms", port)) == wanted
        _check_opened(tmp_path / "llama-ms", llama)


def _check_opened(directory: Path, llama: Any) -> None:
    """By transformers' loops and by the one without torch, the directory writes what the original does."""
    tokenizer = tokenizer_of_bytes()
    tokenizer.save_pretrained(directory)
    ids = torch.tensor([[5, 7, 9, 11]])
    options: dict[str, Any] = {
        "max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "num_beams": 2, "pad_token_id": 0
    }  # fmt: skip
    opened = AutoModelForCausalLM.from_pretrained(directory)
    assert torch.equal(opened.generate(ids, **options), llama.generate(ids, **options))
    port = paritas.load(directory)
    given: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False}
    assert np.array_equal(port.generate(ids.numpy(), **given), llama.generate(ids, **given).numpy())
    assert not texts.why_not(port, given)
    writer = texts.Writer(port)
    chosen = dataclasses.replace(writer.options(given), eos_token_id=())
    want = llama.generate(ids, **given, eos_token_id=None)[0, 4:].tolist()
    assert list(writer.tokens(ids[0].tolist(), chosen)) == want


def _by_mindspore_alone(directory: Path, port: paritas.Port) -> Any:
    """The file and the checkpoint, as somebody uses them who has neither Paritas nor PyTorch."""
    entry = port.manifest.entry.removesuffix(".py")
    sys.path.insert(0, str(directory))
    try:
        module = importlib.import_module(entry)
    finally:
        sys.path.remove(str(directory))
        sys.modules.pop(entry, None)
    model = module.LlamaForCausalLM().set_train(False)
    weights = ms.load_checkpoint(str(directory / "model.safetensors"), format="safetensors")
    assert ms.load_param_into_net(model, weights) == ([], [])
    past = [ms.ops.zeros((2, 2, 0, 8), ms.float32) for _ in range(2 * LAYERS)]

    def logits_of(new: np.ndarray, mask: np.ndarray, positions: np.ndarray) -> np.ndarray:
        ids, seen, places = map(ms.Tensor, (new, mask, positions))
        logits, *past[:] = model(ids, seen, *past, places)
        return logits.asnumpy()

    return logits_of


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["pynative", "graph"])
def test_verification_plays_generations_on_it(mode: str, llama: Any) -> None:
    report = paritas.port(llama, engine="mindspore", mode=mode).verify(level="outputs")
    assert report.verdict == "agrees", str(report)
    assert len(report.generation) > 50 and all(row.same == row.tokens for row in report.generation)
