# SPDX-License-Identifier: Apache-2.0
"""Pixels are those that transformers' own processors make, of every size, kind and crop."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from paritas.serve import images


def _picture(mode: str, size: tuple[int, int]) -> Any:
    from PIL import Image

    noise = np.random.default_rng(sum(size)).integers(0, 255, (size[1], size[0], 4), dtype=np.uint8)
    return Image.fromarray(noise, "RGBA").convert(mode)


#: What a checkpoint may say beside the defaults of its processor.
TOLD: list[dict[str, Any]] = [
    {},
    {"size": {"height": 30, "width": 48}, "resample": 3},
    {"do_resize": False, "do_center_crop": True, "crop_size": {"height": 41, "width": 56}},
    {"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": {"height": 64, "width": 30}},
    {"do_rescale": False, "do_normalize": False},
    {"rescale_factor": 1 / 127.5, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]},
]


@pytest.mark.parametrize("name", images.PLAIN)
@pytest.mark.parametrize("told", TOLD, ids=range(len(TOLD)))
def test_plain_processors(name: str, told: dict[str, Any]) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    processor = theirs(**told)
    how = images.plain({"image_processor_type": name, **told})
    assert how is not None
    for size in ((37, 53), (90, 44), (224, 224)):
        picture = _picture("RGB", size)
        want = np.asarray(processor(images=picture, return_tensors="np")["pixel_values"][0], np.float32)
        got = images.pixels_of(picture, how)
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize(
    "told",
    [
        {"image_processor_type": "ConvNextImageProcessor"},
        {"image_processor_type": "ViTImageProcessor", "do_pad": True},
        {"image_processor_type": "ViTImageProcessor", "do_something": True},
        {"image_processor_type": "ViTImageProcessor", "size": {"longest_edge": 40}},
        {},
    ],
)
def test_what_is_not_plain_is_left_to_transformers(told: dict[str, Any]) -> None:
    assert images.plain(told) is None


def test_old_checkpoints_have_sizes_as_numbers() -> None:
    assert images.plain({"feature_extractor_type": "ViTFeatureExtractor", "size": 224})["size"] == {  # type: ignore[index]
        "height": 224, "width": 224,
    }  # fmt: skip
    clip = images.plain({"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224})
    assert clip is not None
    assert (clip["size"], clip["crop_size"]) == ({"shortest_edge": 224}, {"height": 224, "width": 224})


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_files_of_every_kind(mode: str, kind: str) -> None:
    import base64

    file = io.BytesIO()
    picture = _picture(mode, (20, 16))
    try:
        picture.save(file, kind)
    except (OSError, ValueError):
        pytest.skip(f"no {kind} is of {mode}")
    raw = file.getvalue()
    for given in (raw, base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw), base64.encodebytes(raw).decode()):
        assert images.content_of(given) == raw
