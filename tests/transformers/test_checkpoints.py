# SPDX-License-Identifier: Apache-2.0
"""What our classes read of a checkpoint is what transformers' own read, in a process that has none of those.

All classes that the zoo has a configuration for, with a journal that an interrupted run goes on from:

    PARITAS_JOURNAL=read.jsonl PARITAS_JOBS=2 .venv/bin/python -m pytest tests/transformers/test_checkpoints.py -m slow
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import checkpoints
import pytest
import torch
import transformers as hf

import paritas.transformers as ours

pytest.importorskip("openvino")
SCRIPT = Path(__file__).with_name("checkpoints.py")

#: Of each way in which transformers' loading looks at a class: renamed weights, fused experts, nested models.
DAILY = (
    "ViTModel", "ViTForImageClassification", "Dinov2Model", "LlavaForConditionalGeneration", "MixtralForCausalLM",
    "GPTNeoXForCausalLM", "BertForMaskedLM", "GPT2Model", "T5ForConditionalGeneration", "CLIPModel", "MambaForCausalLM",
    "WhisperForConditionalGeneration", "Wav2Vec2Model", "RTDetrForObjectDetection", "Qwen3MoeForCausalLM",
)  # fmt: skip


def faults(names: list[str], directory: Path, write: bool = True) -> dict[str, str]:
    """What is wrong with each class, "" for nothing: written by one process, or before, and read by another."""
    said = []
    for command in (["write", directory, *names], ["read", directory])[not write :]:
        done = subprocess.run(
            [sys.executable, SCRIPT, *map(str, command)],
            capture_output=True,
            text=True,
            check=False,
            timeout=1200,
        )
        said += [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode:
            return dict.fromkeys(names, f"{command[0]}: {done.stderr.strip().splitlines()[-1:]}")
    shutil.rmtree(directory)
    return {one["name"]: one["fault"] for one in said}


def test_checkpoints_of_transformers_are_read_exactly(tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    checkpoints.write(directory, list(DAILY))
    found = faults(list(DAILY), directory, write=False)
    assert found == dict.fromkeys(DAILY, "")


@pytest.mark.slow
def test_checkpoints_of_every_class_are_read_exactly(tmp_path: Path) -> None:
    journal = Path(os.environ.get("PARITAS_JOURNAL") or tmp_path / "read.jsonl")
    known: dict[str, str] = {}
    if journal.is_file():
        known = {one["name"]: one["fault"] for one in map(json.loads, journal.read_text().splitlines())}
    names = [name for name in checkpoints.entries() if name not in known]
    parts = [names[at : at + 60] for at in range(0, len(names), 60)]
    with ThreadPoolExecutor(int(os.environ.get("PARITAS_JOBS", "2"))) as pool:
        for found in pool.map(lambda at: faults(parts[at], tmp_path / str(at)), range(len(parts))):
            known |= found
            with journal.open("a") as file:
                file.writelines(json.dumps({"name": n, "fault": f}) + "\n" for n, f in found.items())
    wrong = {name: fault for name, fault in known.items() if fault and not fault.startswith("not written")}
    assert wrong == {}
    unwritten = {name for name, fault in known.items() if fault}
    assert not unwritten & checkpoints.zoo_classes()


ALONE = """
import torch, transformers as hf
import paritas.transformers as ours
V = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4)
model = ours.CLIPVisionModel(hf.CLIPVisionConfig(**V, attn_implementation="eager"), engine="openvino")
out = model(torch.zeros(1, 3, 8, 8), output_hidden_states=True, output_attentions=True)
print(len(out.hidden_states), len(out.attentions), model.is_custom_code(), type(model).__module__)
D = dict(vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)
experts = ours.MixtralForCausalLM(hf.MixtralConfig(**D, intermediate_size=24, num_local_experts=4), engine="openvino")
print(tuple(experts(torch.ones(1, 4, dtype=torch.int64), use_cache=False).logits.shape))
"""


def test_a_class_says_that_it_is_the_originals_where_none_was_made() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [
        "3 2 False transformers.models.clip.modeling_clip",
        "(1, 4, 60)",
    ]


def test_a_ported_class_is_the_originals_subclass_under_its_name() -> None:
    assert ours.BertModel is not hf.BertModel
    assert issubclass(ours.BertModel, hf.BertModel)
    assert (ours.BertModel.__module__, ours.BertModel.__qualname__) == (
        hf.BertModel.__module__,
        hf.BertModel.__qualname__,
    )


def test_a_normalised_weight_is_read_from_a_checkpoint_of_the_base(tmp_path: Path) -> None:
    config = hf.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(16, 16),
        conv_kernel=(4, 4), conv_stride=(4, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, vocab_size=20,
    )  # fmt: skip
    base = hf.Wav2Vec2Model(config)
    base.save_pretrained(tmp_path)
    read = ours.Wav2Vec2ForCTC.from_pretrained(tmp_path, engine="openvino")
    own, other = (model.encoder.pos_conv_embed.conv for model in (base, read.wav2vec2))
    assert isinstance(other.weight, torch.Tensor)
    assert torch.equal(other.weight, own.weight)
    assert read.ports == []
    torch.nn.utils.parametrize.remove_parametrizations(other, "weight")
    assert torch.equal(other.weight, own.weight)
