# SPDX-License-Identifier: Apache-2.0
"""transformers' own tests of its models, with its classes and with ours: what passes with one passes with the other.

They are not in the installed package. Bring them, and say where they are:

    git clone --depth 1 --branch v5.23.0 https://github.com/huggingface/transformers /tmp/transformers
    PARITAS_TRANSFORMERS_TESTS=/tmp/transformers .venv/bin/python -m pytest tests/drop_in/test_mixins.py -m slow

Each architecture takes minutes. PARITAS_JOURNAL=DIRECTORY keeps the outcomes of each, and goes on from them. The
tests need the package `parameterized`.
"""

from __future__ import annotations

import json
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
    "bert": "BertModelTest", "llama": "LlamaModelTest", "gpt2": "GPT2ModelTest", "t5": "T5ModelTest",
    "vit": "ViTModelTest", "bart": "BartModelTest", "whisper": "WhisperModelTest", "clip": "CLIPModelTest",
    "roberta": "RobertaModelTest", "distilbert": "DistilBertModelTest", "qwen2": "Qwen2ModelTest",
    "gemma3": "Gemma3TextModelTest", "mixtral": "MixtralModelTest", "gpt_neox": "GPTNeoXModelTest",
    "opt": "OPTModelTest", "electra": "ElectraModelTest", "dinov2": "Dinov2ModelTest", "llava":
    "LlavaForConditionalGenerationModelTest", "wav2vec2": "Wav2Vec2ModelTest", "mamba": "MambaModelTest",
}  # fmt: skip

#: What compares speeds, devices and training loops of torch, or takes longest without asking the network.
LEFT_OUT = "not (compile or flash or deepspeed or fsdp or offload or parallel or tensor_parallel or gpu)"

#: Tests that pass with transformers' classes only, and why that is so.
KNOWN: dict[str, str] = {}


def outcomes(model_type: str, engine: str, directory: Path) -> dict[str, str]:
    """Test -> "passed", "failed" or "skipped". engine: "" for transformers' own classes."""
    file = directory / f"{model_type}-{engine or 'transformers'}.jsonl"
    if not file.exists():
        begun = file.with_suffix(".part")
        begun.unlink(missing_ok=True)
        place = f"tests/models/{model_type}/test_modeling_{model_type}.py::{ARCHITECTURES[model_type]}"
        path = os.pathsep.join([str(HERE), str(HERE.parents[1] / "src"), os.environ.get("PYTHONPATH", "")])
        swap = {"PARITAS_SWAP": "1", "PARITAS_ENGINE": engine} if engine else {"PARITAS_SWAP": ""}
        options = ["-q", "-p", "swapped", "-p", "no:cacheprovider", "-c", os.devnull, f"--rootdir={CHECKOUT}"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, place, "-k", LEFT_OUT],
            cwd=CHECKOUT,
            env={**os.environ, **swap, "PYTHONPATH": path, "PARITAS_OUTCOMES": str(begun)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert begun.exists(), done.stdout[-2000:] + done.stderr[-2000:]
        begun.rename(file)
    return {line["test"]: line["outcome"] for line in map(json.loads, file.read_text().splitlines())}


@pytest.mark.slow
@pytest.mark.skipif(not CHECKOUT, reason="PARITAS_TRANSFORMERS_TESTS names no checkout of transformers")
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_what_passes_with_transformers_classes_passes_with_ours(model_type: str, tmp_path: Path) -> None:
    directory = Path(os.environ.get("PARITAS_JOURNAL") or tmp_path)
    want, got = (outcomes(model_type, engine, directory) for engine in ("", ENGINE))
    other = {test: got.get(test) for test, outcome in want.items() if outcome == "passed" != got.get(test)}
    unknown = {test: outcome for test, outcome in other.items() if test not in KNOWN}
    assert not unknown, unknown
    assert len(other) <= 0.03 * sum(outcome == "passed" for outcome in want.values())
