# SPDX-License-Identifier: Apache-2.0
"""Families of models that write about images: a port's directory writes PyTorch's tokens, or it is said why not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.deploy.small_seeing import FAMILIES, IMAGE, family

import paritas
import paritas.transformers as ours
from paritas.capture import image_inputs, image_patches, image_tiles, vision_language
from paritas.errors import InputError, InputsNeeded

pytest.importorskip("openvino")

NEW = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 2}

#: Family -> what a refusal says. Nothing is ported before.
REFUSED = {
    "glm4v": "Glm4vVisionModel does not take apart into patches and a merger",
    "mllama": "MllamaForConditionalGeneration has no get_image_features: what it sees in images does not stand among",
}

#: Which hold each way of taking images apart, quickly: fixed sizes with kinds of tokens, and tiles.
QUICK = ("gemma3", "llava_next")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES if name not in REFUSED],
)
def test_a_directory_writes_pytorchs_tokens(name: str, tmp_path: Path) -> None:
    """With two images, of two sizes where the family has them, with one, and with none; greedy and by beams."""
    model, make = family(name)
    model.save_pretrained(tmp_path / "original")
    with paritas.port(tmp_path / "original") as port:
        port.save(tmp_path / "port")
    opened = ours.AutoModelForImageTextToText.from_pretrained(tmp_path / "port")
    written = []
    for images in (2, 1, 0):
        inputs = make(images)
        for beams in (1, 3):
            want = model.generate(**inputs, num_beams=beams, **NEW)
            assert torch.equal(opened.generate(**inputs, num_beams=beams, **NEW), want), (images, beams)
            written.append(tuple(want[0, -8:].tolist()))
    assert len(set(written)) > 2
    inputs = make(1)
    with torch.no_grad():
        want = model(**inputs).logits
    torch.testing.assert_close(opened(**inputs).logits, want, atol=1e-3, rtol=1e-3)
    with pytest.raises(InputError, match="tokens for images"):
        opened(**{**inputs, "input_ids": inputs["input_ids"].clamp(max=IMAGE - 1)})


@pytest.mark.parametrize("name", REFUSED)
def test_a_family_that_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    model, _ = family(name)
    model.save_pretrained(tmp_path)
    with pytest.raises(InputsNeeded, match=REFUSED[name]):
        paritas.port(tmp_path)


def test_a_language_model_that_is_told_of_more_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which features are added behind layers, unless that is known."""
    model, _ = family("qwen3_vl")
    assert image_inputs.is_all(model, image_inputs.told(model))
    monkeypatch.setattr(image_inputs, "layers_added_to", lambda model: 0)
    assert not image_inputs.is_all(model, model)
    with pytest.raises(InputsNeeded, match="computes with more of an image than what stands in its places"):
        vision_language.parts(model)["language_model"].inputs()


def test_an_image_of_one_token(tmp_path: Path) -> None:
    """Which a merger does not take alone."""
    model, make = family("qwen2_vl")
    model.save_pretrained(tmp_path / "original")
    with paritas.port(tmp_path / "original") as port:
        port.save(tmp_path / "port")
    opened = ours.AutoModelForImageTextToText.from_pretrained(tmp_path / "port")
    inputs = make(1)
    ids = inputs["input_ids"]
    ids = torch.cat((ids[:, :4], ids[:, -3:]), dim=1)
    assert int((ids == IMAGE).sum()) == 1
    small = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "mm_token_type_ids": (ids == IMAGE).int(),
        "pixel_values": inputs["pixel_values"][:4],
        "image_grid_thw": torch.tensor([[1, 2, 2]]),
    }
    assert torch.equal(opened.generate(**small, **NEW), model.generate(**small, **NEW))


def test_tiles_are_what_the_models_own_code_makes_of_them() -> None:
    """The code around both networks answers what the original does, for a model without weights."""
    (model, make), (same, _) = family("llava_next"), family("llava_next")
    given = {name: value for name, value in make(2).items() if name in ("pixel_values", "image_sizes")}
    networks = image_tiles.networks_of(same, torch.randn(2, 3, 16, 16))
    assert networks is not None
    assert (networks.tower, networks.connector) == ("vision_tower", "multi_modal_projector")
    features = image_tiles.TileFeatures(same, networks).eval()
    with torch.no_grad():
        want = model.get_image_features(**given, return_dict=True).pooler_output
        weights = {name: value.detach() for name, value in image_tiles.own_weights(model).items()}
        found = image_tiles.around(model, given, weights, features).pooler_output
    assert all(torch.equal(one, other) for one, other in zip(found, want, strict=True))
    assert image_patches.tower_of(model) is None
