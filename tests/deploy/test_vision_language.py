# SPDX-License-Identifier: Apache-2.0
"""Ports of models that write about images: in transformers' loops, and in openvino-genai, which opens the directory."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.deploy.seeing import MODELS, Seeing, picture, seeing

import paritas
import paritas.transformers as ours
from paritas.capture import image_patches
from paritas.cli.commands.generate import generate
from paritas.errors import InputError, InputsNeeded
from paritas.printable import printable
from paritas.transformers.texts import writer

openvino = pytest.importorskip("openvino")
genai = pytest.importorskip("openvino_genai")

TASK = "image-text-to-text"
COMPONENTS = ["text_embeddings", "vision_embeddings", "language_model"]
MERGED = ["text_embeddings", "vision_embeddings", "vision_embeddings_merger", "language_model"]
NEW = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 2}

#: The sizes of two images: those of patches have different ones.
SIZES = {"llava": ((16, 16), (16, 16)), "gemma3": ((32, 32), (32, 32))}
PATCHES = ((16, 24), (40, 32))
#: As openvino-genai writes prompts of each kind of model.
PROMPTS = {"llava": "[image]\n", "gemma3": "\n\n[image]\n\n"}
#: What others hold, quickly.
SLOW = ("qwen2-vl", "gemma3")


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in MODELS]
)
def ported(request: Any, tmp_path_factory: Any) -> tuple[str, Seeing, Path]:
    """(name, the original and what makes its inputs, the port's directory): ported without naming a task."""
    place = tmp_path_factory.mktemp("seeing")
    one = seeing(request.param, place / "original")
    with paritas.port(place / "original") as port:
        places = [name for name in port if name == "vision_embeddings_pos"]
        assert [name for name in port if name not in places] == (MERGED if one.packed else COMPONENTS)
        assert bool(places) == (request.param == "qwen3-vl")
        port.save(place / "port")
    return request.param, one, place / "port"


def _given(name: str, one: Seeing) -> dict[str, dict[str, torch.Tensor]]:
    first, second = SIZES.get(name, PATCHES)
    images = [picture(*first), picture(*second, 1), picture(*first, 2)]
    return {
        "one image": one.inputs(["[image] the quick brown"], images[:1]),
        "two images, and a padded row with one": one.inputs(["a [image] and [image] b", "[image] hello"], images),
        "a text": one.inputs(["the quick brown"]),
        "texts": one.inputs(["the quick brown", "hello"]),
    }


def test_transformers_opens_it(ported: Any, tmp_path: Path) -> None:
    """Images of several sizes, batches of which a row is padded, texts alone, greedy and by beams; one forward."""
    name, one, place = ported
    opened = ours.AutoModelForImageTextToText.from_pretrained(place)
    assert not any(parameter.device.type != "meta" for parameter in opened.parameters())
    given = _given(name, one)
    tokens = set()
    for case, inputs in given.items():
        for beams in (1, 3):
            want = one.model.generate(**inputs, num_beams=beams, **NEW)
            assert torch.equal(opened.generate(**inputs, num_beams=beams, **NEW), want), (case, beams)
            tokens |= set(want[:, -8:].flatten().tolist())
    assert len(tokens) > 15
    inputs = given["one image"]
    with torch.no_grad():
        want = one.model(**inputs).logits
    torch.testing.assert_close(opened(**inputs).logits, want, atol=1e-4, rtol=1e-4)
    assert torch.equal(paritas.load(place).generate(**inputs, **NEW), one.model.generate(**inputs, **NEW))
    count = int((inputs["input_ids"] == one.model.config.image_token_id).sum())
    first = (inputs["input_ids"][0] == one.model.config.image_token_id).nonzero()[0]
    less = {**inputs, "input_ids": inputs["input_ids"].index_fill(1, first, 5)}
    with pytest.raises(InputError, match=f"holds {count - 1} tokens for images, and pixel_values has {count}"):
        opened(**less)
    again = ours.AutoModelForImageTextToText.from_pretrained(place)
    again.save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy" / "openvino_language_model.xml").is_file()


@pytest.mark.parametrize("ported", ["llava"], indirect=True)
def test_a_text_about_image_files(ported: Any, tmp_path: Path, capsys: Any) -> None:
    """`paritas generate --image`, with the model's own processor."""
    _, one, place = ported
    images = pytest.importorskip("PIL.Image")
    files = [tmp_path / "first.png", tmp_path / "second.png"]
    for seed, file in enumerate(files):
        images.fromarray(picture(16, 16, seed)).save(file)
    inputs = one.inputs(["[image][image]the quick brown"], [picture(16, 16), picture(16, 16, 1)])
    want = one.model.generate(**inputs, max_new_tokens=8, pad_token_id=2)[0, inputs["input_ids"].shape[1] :]
    assert generate(place, "the quick brown", files, 8) == 0
    assert capsys.readouterr().out.strip() == printable(one.tokenizer.decode(want, skip_special_tokens=True)).strip()
    marked = writer(paritas.load(place), files).write("<image><image>the quick brown", {"max_new_tokens": 8})
    assert marked == one.tokenizer.decode(want, skip_special_tokens=True)
    said = {"text": "<image>\nhello", "images": [images.open(files[0])], "generate_kwargs": NEW}
    processor = transformers.AutoProcessor.from_pretrained(place)
    theirs = transformers.pipeline(TASK, model=one.model, processor=processor)(**said)
    assert ours.pipeline(TASK, model=str(place))(**said) == theirs
    (tmp_path / "none.png").write_text("no image")
    with pytest.raises(InputError, match=r"none\.png is no image that is read"):
        generate(place, "the quick brown", [tmp_path / "none.png"])


@pytest.mark.slow
def test_each_component_agrees(ported: Any) -> None:
    """In every case, in lockstep, and in generations."""
    _, _, place = ported
    report = paritas.load(place).verify(level="nodes")
    assert report.agrees, report
    assert report["language_model"].generation


def _as_genai_counts(model: Any, inputs: dict[str, torch.Tensor], new: int) -> list[int]:
    """PyTorch's tokens at the places that openvino-genai 2026.4 gives Gemma 3's: those of a prompt from 1, and those of
    what follows from its length."""
    seen, found, cache = inputs["input_ids"].shape[1], [], None
    given, places = inputs, torch.arange(1, seen + 1)
    with torch.no_grad():
        for count in range(new):
            out = model(**given, position_ids=places[None], past_key_values=cache, use_cache=True)
            found.append(int(out.logits[0, -1].argmax()))
            cache, places = out.past_key_values, torch.tensor([seen + count])
            mask = torch.ones(1, seen + count + 1, dtype=torch.int64)
            given = {"input_ids": torch.tensor([found[-1:]]), "attention_mask": mask}
    return found


@pytest.mark.slow
def test_genai_writes_pytorchs_tokens(ported: Any) -> None:
    name, one, place = ported
    pipeline = genai.VLMPipeline(str(place), "CPU", INFERENCE_PRECISION_HINT="f32", ATTENTION_BACKEND="SDPA")
    config = genai.GenerationConfig(
        max_new_tokens=12, min_new_tokens=12, do_sample=False, apply_chat_template=False, eos_token_id=1
    )
    first, second = SIZES.get(name, PATCHES)
    for images in ([picture(*first)], [picture(*first), picture(*second, 1)], []):
        text = PROMPTS.get(name, "[image]") * len(images) + "the quick brown"
        inputs = one.inputs([text], images)
        want = one.model.generate(**inputs, **{**NEW, "max_new_tokens": 12, "min_new_tokens": 12})
        seen = {"images": [openvino.Tensor(image[None]) for image in images]} if images else {}
        found = pipeline.generate("the quick brown", generation_config=config, **seen)
        new = want[0, inputs["input_ids"].shape[1] :].tolist()
        if name == "gemma3":
            new = _as_genai_counts(one.model, inputs, 12)
        spelt = one.tokenizer.decode(new, skip_special_tokens=True)
        assert found.texts[0].replace("\ufffd", "") == spelt.replace("\ufffd", ""), len(images)
        assert len(set(want[0].tolist())) > 3
    del pipeline
    gc.collect()


def test_a_merger_wants_an_order_of_windows_and_patches_of_their_width(tmp_path: Path) -> None:
    tower = image_patches.tower_of(seeing("qwen2.5-vl", tmp_path).model)
    given = image_patches.example_for_merger(tower)
    port = paritas.port(image_patches.merger(tower).eval(), inputs=given)
    assert not any("out of range" in note.text for note in port.notes)
    twice = given["window_index"].clone()
    twice[0] = twice[1]
    with pytest.raises(InputError, match="window_index must be an order: every number from 0 to 43 once"):
        port(**{**given, "window_index": twice})
    patches, _ = image_patches.example_of(tower)
    embeddings = paritas.port(image_patches.PatchEmbeddings(tower).eval(), inputs={"hidden_states": patches})
    with pytest.raises(InputError, match="hidden_states"):
        embeddings(hidden_states=patches.reshape(-1, 48))


def test_what_writes_about_no_images_is_refused(checkpoint: Path) -> None:
    with pytest.raises(InputsNeeded, match="BertModel does not write about images: it has no image-text-to-text"):
        paritas.port(checkpoint, task=TASK)
