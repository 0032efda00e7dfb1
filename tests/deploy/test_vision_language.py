# SPDX-License-Identifier: Apache-2.0
"""Ports of models that write about images, in openvino-genai, which nobody here wrote: it opens the directory."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tests.deploy.causal import SIZES, tokenizer_of_bytes

import paritas
import paritas.transformers as ours
from paritas.errors import InputError, InputsNeeded

openvino = pytest.importorskip("openvino")
genai = pytest.importorskip("openvino_genai")

TASK = "image-text-to-text"


def _llava(tokenizer: Any, directory: Path) -> Any:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    torch.manual_seed(0)
    size = len(tokenizer)
    vision = hf.CLIPVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=16, patch_size=8
    )
    config = hf.LlavaConfig(
        vision_config=vision,
        text_config=hf.LlamaConfig(vocab_size=size, **SIZES),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    model = hf.LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    images = hf.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    images.save_pretrained(directory)
    return model, images


@pytest.mark.slow
def test_its_tokens_are_pytorchs(tmp_path: Path) -> None:
    tokenizer = tokenizer_of_bytes()
    model, images = _llava(tokenizer, tmp_path / "original")
    with paritas.port(tmp_path / "original", task=TASK) as port:
        assert list(port) == ["text_embeddings", "vision_embeddings", "language_model"]
        assert port.verify(level="outputs").agrees
        port.save(tmp_path / "port")
    files = {path.name for path in (tmp_path / "port").iterdir()}
    names = ("text_embeddings_model", "vision_embeddings_model", "language_model")
    assert {f"openvino_{name}.xml" for name in names} <= files
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    places = (16 // 8) ** 2
    ids = tokenizer("<image>" * places + "\n" + "the quick brown", return_tensors="pt")
    pixels = images(images=image, return_tensors="pt").pixel_values
    want = model.generate(**ids, pixel_values=pixels, max_new_tokens=12, min_new_tokens=12, do_sample=False)
    pipeline = genai.VLMPipeline(
        str(tmp_path / "port"), "CPU", INFERENCE_PRECISION_HINT="f32", ATTENTION_BACKEND="SDPA"
    )
    config = genai.GenerationConfig(
        max_new_tokens=12, min_new_tokens=12, do_sample=False, apply_chat_template=False, eos_token_id=1
    )
    found = pipeline.generate("the quick brown", images=[openvino.Tensor(image[None])], generation_config=config)
    spelt = tokenizer.decode(want[0, ids.input_ids.shape[1] :], skip_special_tokens=True)
    assert found.texts[0].replace("\ufffd", "") == spelt.replace("\ufffd", "")
    assert len(set(want[0].tolist())) > 3
    del pipeline
    gc.collect()


def test_transformers_opens_it(tmp_path: Path) -> None:
    """Images, a batch of two of which one is padded, a text alone, beams, and a conversation that goes on."""
    tokenizer = tokenizer_of_bytes()
    model, images = _llava(tokenizer, tmp_path / "original")
    paritas.port(tmp_path / "original", task=TASK).save(tmp_path / "port")
    opened = ours.AutoModelForImageTextToText.from_pretrained(tmp_path / "port")
    assert not any(parameter.device.type != "meta" for parameter in opened.parameters())
    rng = np.random.default_rng(0)
    pixels = images(images=list(rng.integers(0, 256, (2, 16, 16, 3), np.uint8)), return_tensors="pt").pixel_values
    marks = "<image>" * (16 // 8) ** 2
    texts = [f"{marks}\nthe quick brown", f"hello {marks}"]
    one = tokenizer(texts[0], return_tensors="pt")
    two = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    alone = tokenizer("the quick brown", return_tensors="pt")
    new = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 2}
    for given in ({**one, "pixel_values": pixels[:1]}, {**two, "pixel_values": pixels}, {**alone}):
        for beams in (1, 3):
            want = model.generate(**given, num_beams=beams, **new)
            assert torch.equal(opened.generate(**given, num_beams=beams, **new), want), (list(given), beams)
    with torch.no_grad():
        want = model(**one, pixel_values=pixels[:1]).logits
    torch.testing.assert_close(opened(**one, pixel_values=pixels[:1]).logits, want, atol=1e-4, rtol=1e-4)
    assert torch.equal(
        paritas.load(tmp_path / "port").generate(**one, pixel_values=pixels[:1], **new),
        model.generate(**one, pixel_values=pixels[:1], **new),
    )
    with pytest.raises(InputError, match="input_ids holds 4 tokens for images, and pixel_values has 8 features"):
        opened(**one, pixel_values=pixels)
    again = ours.AutoModelForImageTextToText.from_pretrained(tmp_path / "port")
    again.save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy" / "openvino_language_model.xml").is_file()


def test_what_writes_about_no_images_is_refused(checkpoint: Path) -> None:
    with pytest.raises(InputsNeeded, match="BertModel does not write about images: it has no image-text-to-text"):
        paritas.port(checkpoint, task=TASK)
