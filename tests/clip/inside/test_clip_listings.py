# SPDX-License-Identifier: Apache-2.0
"""The CLIP Handbook's listings with their import changed and the device, on both engines; then what PyTorch says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import open_clip as original
import pytest
import torch

from conftest import TINY
from paritas.clip import loading

CLIP = """
import clip
from PIL import Image
from mindspore import Tensor,nn

# Load a pretrained clip model and transformation operations to the input images
# You can specify a model name returned by clip.available_models() or the path of ckpt file in clip.load()
model, preprocess = clip.load("./ViT-B-32.ckpt", device="Ascend")

# Preprocess to the input images and texts respectively
image = Tensor(preprocess(Image.open("CLIP.png")))
text = clip.tokenize(["a diagram", "a dog", "a cat"])

# Encode images and texts
image_features = model.encode_image(image)
text_features = model.encode_text(text)

# Calculate the cosine similarity, which indicates the predicted score of the labels
logits_per_image, logits_per_text = model(image, text)
probs = nn.Softmax(axis=-1)(logits_per_image).numpy()

print("Label probs:", probs)  # prints: [[0.9927937  0.00421067 0.00299571]]
"""

OPEN_CLIP = """
from src.open_clip import create_model_and_transforms, get_tokenizer
import mindspore as ms
from PIL import Image
from mindspore import Tensor, ops

# Set context for running environment.
ms.set_context(device_target="Ascend", mode=0)

# Load a pretrained clip model and transformation operations to the input images
# Similar to `clip.load`
model, preprocess_train, preprocess_val = create_model_and_transforms(
    "RN50",
    "yfcc15m",
    force_quick_gelu=False,
    force_custom_text=False,
    force_patch_dropout=None,
    force_image_size=None,
    image_mean=None,
    image_std=None,
    aug_cfg={},
)

# Set a tokenizer according to the given model's text config
tokenizer = get_tokenizer("RN50")

# Preprocess to the input images and texts respectively
image = Tensor(preprocess_train(Image.open("CLIP.png")))
text = tokenizer(["a diagram", "a dog", "a cat"])

# Encode images and texts
image_features = model.encode_image(image)
text_features = model.encode_text(text)

# Different with CLIP module, features are normalized manually and independently
image_features /= image_features.norm(dim=-1, keepdim=True)
text_features /= text_features.norm(dim=-1, keepdim=True)

# Calculate the cosine similarity, which indicates the predicted score of the labels
text_probs = ops.softmax(100.0 * image_features @ text_features.T, axis=-1)
"""

DIFFERENCE = """
from PIL import Image
import mindspore as ms
from mindspore import Tensor,nn
import clip

ms.set_context(device_target="Ascend", mode=1)
model, preprocess = clip.load("RN50", device="Ascend")

image = Tensor(preprocess(Image.open("CLIP.png")))
text = clip.tokenize(["a diagram", "a dog", "a cat"])

image_features = model.encode_image(image)
text_features = model.encode_text(text)

logits_per_image, logits_per_text = model(image, text)
probs = nn.Softmax(axis=-1)(logits_per_image).numpy()

print("Label probs:", probs)
"""

IMPORTS = {
    "import clip\n": "from paritas.clip import mindspore as clip\n",
    "from src.open_clip import": "from paritas.open_clip.mindspore import",
    '"Ascend"': '"CPU"',
}


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The names that the listings load are the small model's."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(loading, "download_pretrained_from_url", lambda url, cache_dir: folder / "ViT-B-32.pt")
    monkeypatch.setitem(original.factory._MODEL_CONFIGS, "RN50", TINY)
    monkeypatch.setattr(original.factory, "download_pretrained", lambda *_, **__: str(folder / "ViT-B-32.safetensors"))
    return folder


@pytest.mark.parametrize("engine", ["openvino", "mindspore"])
@pytest.mark.parametrize(
    "listing",
    [
        pytest.param(CLIP, id="clip"),
        pytest.param(OPEN_CLIP, id="open_clip"),
        pytest.param(DIFFERENCE, id="difference", marks=pytest.mark.slow),  # the first one's calls, otherwise imported
    ],
)
def test_the_handbooks_listings_run(
    listing: str, engine: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import mindspore

    monkeypatch.setenv("PARITAS_ENGINE", engine)
    for old, new in IMPORTS.items():
        listing = listing.replace(old, new)
    found: dict[str, Any] = {}
    exec(compile(listing, "listing", "exec"), found)  # noqa: S102 - the handbook's own
    assert found["model"].engine == engine
    assert isinstance(found["image_features"], mindspore.Tensor)
    printed = found["probs"] if "probs" in found else found["text_probs"].asnumpy()
    if "probs" in found:
        assert f"Label probs: {printed}" in capsys.readouterr().out
    for name in ("image_features", "text_features"):
        assert np.abs(found[name].asnumpy() - _want(found, name)).max() < 1e-5
    assert printed.shape == (1, 3)
    assert np.abs(printed - _probs(found)).max() < 1e-5


def _want(found: dict[str, Any], name: str) -> Any:
    model = found["model"].in_pytorch()
    with torch.no_grad():
        if name == "image_features":
            want = model.encode_image(torch.from_numpy(found["image"].asnumpy()))
        else:
            want = model.encode_text(torch.from_numpy(found["text"].asnumpy()))
    if "text_probs" in found:
        want /= want.norm(dim=-1, keepdim=True)
    return want.numpy()


def _probs(found: dict[str, Any]) -> Any:
    image, text = (torch.from_numpy(_want(found, name)) for name in ("image_features", "text_features"))
    image, text = (one / one.norm(dim=-1, keepdim=True) for one in (image, text))
    scale = 100.0 if "text_probs" in found else found["model"].logit_scale.exp()
    return (scale * image @ text.T).softmax(dim=-1).detach().numpy()
