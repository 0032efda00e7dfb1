# SPDX-License-Identifier: Apache-2.0
"""transformers' own tests of its models, with its classes and with ours: what passes with one passes with the other.

They are in no package: its source distribution has `tests/test_modeling_common.py`, and neither the tests of the models
nor the generation mixin. Bring them with what they import, and say where they are (any release near the installed one):

    .venv/bin/python -m pip install parameterized
    git clone --depth 1 --branch v5.23.0 https://github.com/huggingface/transformers /tmp/transformers
    PARITAS_TRANSFORMERS_TESTS=/tmp/transformers .venv/bin/python -m pytest tests/transformers/test_mixins.py -m slow

Each architecture takes minutes. PARITAS_JOURNAL=DIRECTORY keeps the outcomes of each and goes on from them,
PARITAS_MIXINS_ENGINE=mindspore is the other engine, PARITAS_CLASSES=3 tries three classes of each architecture.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHECKOUT = os.environ.get("PARITAS_TRANSFORMERS_TESTS", "")
ENGINE = os.environ.get("PARITAS_MIXINS_ENGINE", "openvino")

#: model type -> the class of its tests.
ARCHITECTURES = {
    "bert": "BertModelTest", "roberta": "RobertaModelTest", "distilbert": "DistilBertModelTest", "electra":
    "ElectraModelTest", "deberta_v2": "DebertaV2ModelTest", "vit": "ViTModelTest", "dinov2": "Dinov2ModelTest",
    "convnext": "ConvNextModelTest", "swin": "SwinModelTest", "resnet": "ResNetModelTest", "clip": "CLIPModelTest",
    "siglip": "SiglipModelTest", "gpt2": "GPT2ModelTest", "llama": "LlamaModelTest", "mistral": "MistralModelTest",
    "qwen2": "Qwen2ModelTest", "mixtral": "MixtralModelTest", "mamba": "MambaModelTest", "t5": "T5ModelTest", "bart":
    "BartModelTest", "whisper": "WhisperModelTest", "wav2vec2": "Wav2Vec2ModelTest",
}  # fmt: skip

#: Of other engines, devices and compilers, of training, which is PyTorch's with our classes too, and tables of 25 forms
#: of attention.
LEFT_OUT = (
    "not (compile or flash or deepspeed or fsdp or offload or parallel or gpu or train or checkpointing or "
    "eager_matches_sdpa or eager_matches_batched or torch_dtype or export)"
)

_GRADIENTS = (
    "wants gradients of a model that nobody put into training mode: ours begins in evaluation mode, and says that an "
    "engine has none"
)

#: Tests that pass with transformers' classes only, and why that is so.
KNOWN = {
    "test_retain_grad_hidden_states_attentions": _GRADIENTS,
    "test_gpt2_reorder_and_upcast_attn": _GRADIENTS,
    "test_gpt2_scale_attn_by_inverse_layer_idx": _GRADIENTS,
}


def outcomes(model_type: str, engine: str, directory: Path) -> dict[str, str]:
    """Test -> "passed", "failed" or "skipped". engine: "" for transformers' own classes."""
    file = directory / f"{model_type}-{engine or 'transformers'}.jsonl"
    if not file.exists():
        begun = file.with_suffix(".part")
        place = f"tests/models/{model_type}/test_modeling_{model_type}.py::{ARCHITECTURES[model_type]}"
        path = os.pathsep.join([str(HERE), str(HERE.parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
        swap = {"PARITAS_SWAP": "1", "PARITAS_ENGINE": engine} if engine else {"PARITAS_SWAP": ""}
        options = ["-q", "-p", "swapped", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={CHECKOUT}"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, place, "-k", LEFT_OUT],
            cwd=CHECKOUT,
            env={
                **os.environ,
                **swap,
                "PYTHONPATH": path,
                "PARITAS_OUTCOMES": str(begun),
                "HF_HUB_OFFLINE": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert begun.exists(), done.stdout[-2000:] + done.stderr[-2000:]
        begun.rename(file)
    found: dict[str, str] = {}
    for line in map(json.loads, file.read_text().splitlines()):
        if found.get(line["test"]) != "failed":
            found[line["test"]] = line["outcome"]
    return found


@pytest.mark.slow
@pytest.mark.skipif(not CHECKOUT, reason="PARITAS_TRANSFORMERS_TESTS names no checkout of transformers")
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_what_passes_with_transformers_classes_passes_with_ours(model_type: str, tmp_path: Path) -> None:
    directory = Path(os.environ.get("PARITAS_JOURNAL") or tmp_path)
    want, got = (outcomes(model_type, engine, directory) for engine in ("", ENGINE))
    passed = [test for test, outcome in want.items() if outcome == "passed"]
    other = {test: got.get(test) for test in passed if got.get(test) != "passed"}
    assert passed
    assert other.keys() <= KNOWN.keys(), other
    assert len(other) <= math.ceil(0.03 * len(passed))
