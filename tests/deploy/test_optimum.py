# SPDX-License-Identifier: Apache-2.0
"""Ports in optimum-intel and sentence-transformers, which have an environment of their own: they open the directory as
it is, with PyTorch's logits, tokens, vectors and scores.

optimum-intel 2.2 needs transformers below 5.6. CONTRIBUTING.md says how its environment is made; where
$PARITAS_PEER_PYTHON names none, these tests are skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tests.deploy.seeing import MODELS, picture, seeing

import paritas
from paritas.capture.source import minilm_directory

PEER = os.environ.get("PARITAS_PEER_PYTHON", "")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not PEER, reason="PARITAS_PEER_PYTHON names no environment")]

SIZES = {
    "vocab_size": 90, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
}  # fmt: skip
PAIRS = [["what is a cat", "a cat is an animal"], ["what is a cat", "bread is baked in an oven"]]
TEXTS = ["A cat sleeps.", "The dog has been asleep on the mat since noon."]

# In the other environment: what it makes of a directory, with no configuration given but what lies in it.
_READ = """
import json, sys
import numpy as np
DIRECTORY, INPUTS, OUTPUT = sys.argv[1:]
given = dict(np.load(INPUTS))
properties = json.load(open(DIRECTORY + "/ov_config.json"))
def save(**values):
    np.savez(OUTPUT, **{name: np.asarray(value) for name, value in values.items()})
"""

_OPTIMUM = """
import torch
from optimum.intel import {cls}
model = {cls}.from_pretrained(DIRECTORY, ov_config=properties)
out = model(**{{name: torch.from_numpy(value) for name, value in given.items()}})
save(out=out[0])
"""

_GENERATE = """
import torch
from optimum.intel import {cls}
model = {cls}.from_pretrained(DIRECTORY, ov_config=properties)
inputs = {{name: torch.from_numpy(value) for name, value in given.items()}}
save(**{{f"beams{{n}}": model.generate(
    **inputs, max_new_tokens=12, min_new_tokens=12, do_sample=False, num_beams=n) for n in (1, 3)}})
"""

_SEE = """
import torch
from optimum.intel import OVModelForVisualCausalLM
model = OVModelForVisualCausalLM.from_pretrained(DIRECTORY, ov_config=properties)
inputs = {name: torch.from_numpy(value) for name, value in given.items()}
save(out=model.generate(**inputs, max_new_tokens=12, min_new_tokens=12, do_sample=False, pad_token_id=2))
"""

_SENTENCES = """
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(DIRECTORY, backend="openvino")
save(out=model.encode(list(given["texts"])))
"""

_PAIRS = """
from sentence_transformers import CrossEncoder
model = CrossEncoder(DIRECTORY, backend="openvino", model_kwargs={"ov_config": properties})
save(out=model.predict([tuple(map(str, pair)) for pair in given["pairs"]]))
"""


@pytest.fixture
def peer(tmp_path: Path) -> Callable[..., dict[str, np.ndarray]]:
    """What a script of the other environment answers for a port's directory and inputs."""

    def run(script: str, directory: Path, **given: Any) -> dict[str, np.ndarray]:
        np.savez(tmp_path / "given.npz", **given)
        hidden = {"PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [PEER, "-W", "ignore", "-c", _READ + script, directory, tmp_path / "given.npz", tmp_path / "out.npz"],
            capture_output=True, text=True, env={**os.environ, **hidden}, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return dict(np.load(tmp_path / "out.npz"))

    return run


#: By how much weights are larger than usual, so that tokens are no accident of rounding; 3 where nothing is said. Some
#: small models repeat one token unless theirs are much larger.
TIMES = {"t5": 8, "bart": 10, "whisper": 8, "phi": 4}


def _larger(model: Any, times: float = 3) -> Any:
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(times)
    return model.eval()


def _ported(model: Any, tmp_path: Path, **options: Any) -> Path:
    model.save_pretrained(tmp_path / "original")
    paritas.port(tmp_path / "original", **options).save(tmp_path / "port")
    return tmp_path / "port"


@pytest.mark.parametrize(
    ("cls", "peer_class", "config"),
    [
        ("BertModel", "OVModelForFeatureExtraction", "BertConfig"),
        ("BertForSequenceClassification", "OVModelForSequenceClassification", "BertConfig"),
        ("BertForTokenClassification", "OVModelForTokenClassification", "BertConfig"),
        ("BertForMaskedLM", "OVModelForMaskedLM", "BertConfig"),
    ],
)
def test_one_call(cls: str, peer_class: str, config: str, tmp_path: Path, peer: Any) -> None:
    model = _larger(getattr(hf, cls)(getattr(hf, config)(**SIZES)))
    given = {"input_ids": torch.randint(3, 90, (2, 7)), "attention_mask": torch.ones(2, 7, dtype=torch.int64)}
    given |= {"token_type_ids": torch.zeros(2, 7, dtype=torch.int64)}
    given["attention_mask"][1, 5:] = 0
    with torch.no_grad():
        want = model(**given)[0].numpy()
    directory = _ported(model, tmp_path)
    out = peer(_OPTIMUM.format(cls=peer_class), directory, **{name: value.numpy() for name, value in given.items()})
    visible = given["attention_mask"].numpy().astype(bool) if want.shape[:2] == (2, 7) else ...
    np.testing.assert_allclose(out["out"][visible], want[visible], rtol=1e-4, atol=1e-4)


GENERATING: dict[str, Any] = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES)),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=90, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=1, pad_token_id=2)
    ),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(head_dim=8, **SIZES)),
    "phi": lambda: hf.PhiForCausalLM(hf.PhiConfig(**{**SIZES, "num_key_value_heads": 4})),
    "gemma3": lambda: hf.Gemma3ForCausalLM(
        hf.Gemma3TextConfig(head_dim=8, sliding_window=6, sliding_window_pattern=2, **SIZES)
    ),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(num_local_experts=4, **SIZES)),
    "t5": lambda: hf.T5ForConditionalGeneration(
        hf.T5Config(
            vocab_size=90, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=2,
            eos_token_id=1, pad_token_id=2,
        )
    ),
    "bart": lambda: hf.BartForConditionalGeneration(
        hf.BartConfig(
            vocab_size=90, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64,
            bos_token_id=0, eos_token_id=1, pad_token_id=2, decoder_start_token_id=1, forced_eos_token_id=None,
        )
    ),
    "whisper": lambda: hf.WhisperForConditionalGeneration(
        hf.WhisperConfig(
            vocab_size=90, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
            decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_source_positions=50,
            max_target_positions=64, num_mel_bins=8, bos_token_id=0, eos_token_id=1, pad_token_id=2,
            decoder_start_token_id=3, suppress_tokens=None, begin_suppress_tokens=None,
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GENERATING)
def test_its_tokens_are_pytorchs(name: str, tmp_path: Path, peer: Any) -> None:
    torch.manual_seed(2)
    model = _larger(GENERATING[name](), TIMES.get(name, 3))
    if name == "whisper":
        cls, given = "OVModelForSpeechSeq2Seq", {"input_features": torch.randn(2, 8, 100)}
    else:
        cls = "OVModelForSeq2SeqLM" if model.config.is_encoder_decoder else "OVModelForCausalLM"
        given = {"input_ids": torch.randint(3, 90, (2, 7)), "attention_mask": torch.ones(2, 7, dtype=torch.int64)}
    want = {
        f"beams{n}": model.generate(**given, max_new_tokens=12, min_new_tokens=12, do_sample=False, num_beams=n).numpy()
        for n in (1, 3)
    }
    for tokens in want.values():
        new = tokens[:, -12:]
        assert len(np.unique(new)) > 3 and all(len(set(row)) > 2 for row in new.tolist())  # one would hide mistakes
    directory = _ported(model, tmp_path)
    out = peer(_GENERATE.format(cls=cls), directory, **{key: value.numpy() for key, value in given.items()})
    for beams, tokens in want.items():
        assert out[beams].tolist() == tokens.tolist(), beams


def test_vectors_of_sentence_transformers(tmp_path: Path, peer: Any) -> None:
    models = pytest.importorskip("sentence_transformers")
    want = models.SentenceTransformer(str(minilm_directory())).encode(TEXTS)
    paritas.port(minilm_directory()).save(tmp_path / "port")
    out = peer(_SENTENCES, tmp_path / "port", texts=np.array(TEXTS))
    np.testing.assert_allclose(out["out"], want, atol=1e-6)


def test_scores_of_pairs(tmp_path: Path, peer: Any) -> None:
    models = pytest.importorskip("sentence_transformers")
    config = hf.BertConfig(**{**SIZES, "vocab_size": 30522}, num_labels=1)
    model = _larger(hf.BertForSequenceClassification(config))
    model.save_pretrained(tmp_path / "original")
    hf.AutoTokenizer.from_pretrained(minilm_directory()).save_pretrained(tmp_path / "original")
    want = models.CrossEncoder(str(tmp_path / "original"), max_length=32).predict([tuple(pair) for pair in PAIRS])
    paritas.port(tmp_path / "original").save(tmp_path / "port")
    assert json.loads((tmp_path / "port" / "config.json").read_text())["architectures"] == [type(model).__name__]
    out = peer(_PAIRS, tmp_path / "port", pairs=np.array(PAIRS))
    np.testing.assert_allclose(out["out"], want, atol=1e-5)


# Of LLaVA it wants a prompt with one token for each image, and not one for each of its places.
@pytest.mark.parametrize("name", [name for name in MODELS if name != "llava"])
def test_images_and_text(name: str, tmp_path: Path, peer: Any) -> None:
    """One sequence with two images of different sizes, greedy."""
    one = seeing(name, tmp_path / "original")
    paritas.port(tmp_path / "original").save(tmp_path / "port")
    images = [picture(16, 24), picture(40, 32, 1)]
    inputs = one.inputs(["the " + "[image] quick " * len(images) + "fox"], images)
    want = one.model.generate(**inputs, max_new_tokens=12, min_new_tokens=12, do_sample=False, pad_token_id=2)
    assert len(set(want[0, -12:].tolist())) > 3
    out = peer(_SEE, tmp_path / "port", **{name: value.numpy() for name, value in inputs.items()})
    assert (out["out"] == want.numpy()).all()
