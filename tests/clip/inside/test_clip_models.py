# SPDX-License-Identifier: Apache-2.0
"""Models of open_clip are its own objects with towers on an engine: calls, outputs, copies, and what is not theirs."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import open_clip as original
import pytest
import torch

from paritas import clip, open_clip
from paritas.errors import InputError
from paritas.open_clip import port_model
from paritas.open_clip.making import PRECISIONS

ENGINE = "openvino"


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return open_clip.create_model("tiny", pretrained=str(folder / "ViT-B-32.safetensors"), engine=ENGINE)


@pytest.fixture(scope="module")
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    texts = open_clip.get_tokenizer("tiny")(["a diagram", "a dog", "a cat"])
    return torch.randn(3, 3, 32, 32, generator=generator), texts


def _difference(found: Any, want: Any) -> float:
    if isinstance(want, dict):
        assert list(found) == list(want)
        return max(_difference(found[name], want[name]) for name in want)
    if isinstance(want, (tuple, list)):
        assert type(found) is type(want) and len(found) == len(want)
        return max(map(_difference, found, want))
    return 0.0 if want is None and found is None else float((found - want).detach().abs().max())


CALLS: dict[str, Any] = {
    "image": lambda model, image, text: model.encode_image(image),
    "text": lambda model, image, text: model.encode_text(text),
    "image, of length 1": lambda model, image, text: model.encode_image(image, normalize=True),
    "text, of length 1": lambda model, image, text: model.encode_text(text, True),
    "both": lambda model, image, text: model(image, text),
    "by name": lambda model, image, text: model(text=text, image=image),
    "one of them": lambda model, image, text: model(image=image),
    "another batch": lambda model, image, text: model(image[:2], text[:1]),
    "logits": lambda model, image, text: model.get_logits(image, text),
}


@pytest.mark.parametrize("call", CALLS)
def test_calls_say_what_pytorch_says(call: str, model: Any, inputs: Any) -> None:
    want = model.in_pytorch()
    with torch.no_grad():
        assert _difference(CALLS[call](model, *inputs), CALLS[call](want, *inputs)) < 1e-5
    assert len(model.ports) <= 2, "each tower has its weights in the engine once, whatever is called"


def test_a_model_is_the_originals_class(model: Any) -> None:
    assert isinstance(model, original.CLIP) and isinstance(model, open_clip.CLIP) and type(model).__name__ == "CLIP"
    assert issubclass(open_clip.CLIP, original.CLIP) and open_clip.CLIP is not original.CLIP
    assert model.engine == ENGINE and f"engine='{ENGINE}'" in repr(model)
    assert open_clip.SimpleTokenizer is original.SimpleTokenizer
    assert open_clip.list_models() == original.list_models()


def test_everything_that_is_exported_is_there() -> None:
    for name in (name for name in dir(original) if not name.startswith("_")):
        assert getattr(open_clip, name) is not None
    for name in ("create_model", "create_model_and_transforms", "create_model_from_pretrained"):
        theirs = inspect.signature(getattr(original, name)).parameters
        ours = inspect.signature(getattr(open_clip, name)).parameters
        assert set(theirs) < set(ours) and {"engine", "mode"} <= set(ours)
    with pytest.raises(AttributeError, match=r"paritas\.open_clip' has no attribute 'no_such'"):
        _ = open_clip.no_such


def test_a_dictionary_is_returned_where_it_is_asked_for(folder: Path, inputs: Any) -> None:
    path = str(folder / "ViT-B-32.safetensors")
    model, preprocess = open_clip.create_model_from_pretrained("tiny", path, output_dict=True, engine="torch")
    found = model(*inputs)
    assert list(found) == ["image_features", "text_features", "logit_scale"]
    assert tuple(preprocess(_picture("RGB")).shape) == (3, 32, 32)


def test_a_changed_weight_counts(model: Any, inputs: Any) -> None:
    image, _ = inputs
    other = copy.deepcopy(model)
    before = other.encode_image(image)
    with torch.no_grad():
        other.visual.proj.mul_(1.5)
    assert _difference(other.encode_image(image), 1.5 * before) < 1e-5
    assert _difference(model.encode_image(image), before) < 1e-6


@pytest.mark.slow
def test_a_weight_that_is_written_past_torch_counts(model: Any, inputs: Any) -> None:
    _, text = inputs
    other = copy.deepcopy(model)
    before = other.encode_text(text)
    other.text_projection.data.numpy()[:] *= 1.5
    assert _difference(other.encode_text(text), 1.5 * before) < 1e-5
    twice = other.text_projection.detach() * 2
    other.text_projection.untyped_storage().copy_(twice.untyped_storage())
    assert _difference(other.encode_text(text), 3 * before) < 1e-5


def test_training_is_pytorchs(folder: Path, inputs: Any) -> None:
    model = open_clip.create_model("tiny", pretrained=str(folder / "ViT-B-32.safetensors"), engine=ENGINE).train()
    image, text = inputs
    loss = open_clip.ClipLoss()(*model(image, text))
    loss.backward()
    assert model.visual.proj.grad is not None and not model.ports
    model.eval()
    with pytest.raises(InputError, match="there is no gradient by"):
        model.encode_image(image).sum().backward()


def test_a_model_in_memory_gets_an_engine(inputs: Any) -> None:
    one = original.create_model("tiny")
    assert port_model(one, "torch") is one and isinstance(one, original.CLIP) and one.engine == "torch"
    with pytest.raises(InputError, match="Linear is no model of two towers"):
        port_model(torch.nn.Linear(2, 2))


def test_zero_shot_weights_are_the_originals(model: Any) -> None:
    tokenizer = open_clip.get_tokenizer("tiny")
    names, templates = ["dog", "cat", "tench"], open_clip.SIMPLE_IMAGENET_TEMPLATES[:2]
    found = open_clip.build_zero_shot_classifier(model, tokenizer, names, templates)
    want = original.build_zero_shot_classifier(model.in_pytorch(), tokenizer, names, templates)
    assert tuple(found.shape) == (32, 3) and _difference(found, want) < 1e-5


def _picture(mode: str) -> Any:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (7, 90), np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F"])
def test_pictures_of_every_mode_are_read(mode: str, model: Any, folder: Path) -> None:
    _, preprocess = clip.load(folder / "ViT-B-32.pt", engine="torch")
    found = preprocess(_picture(mode))
    assert tuple(found.shape) == (3, 32, 32) and bool(found.isfinite().all())


def test_openais_models_are_loaded_from_every_kind_of_file(folder: Path, inputs: Any, tmp_path: Path) -> None:
    want = original.create_model("tiny", pretrained=str(folder / "ViT-B-32.safetensors"))
    scripted = tmp_path / "scripted.pt"
    archived = copy.deepcopy(want).eval()
    archived.attn_mask = archived._buffers.pop("attn_mask")  # a constant of the program, and no weight
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(archived, inputs, check_trace=False), scripted)
    for path in (*sorted(folder.glob("ViT-B-32.*")), scripted):
        model, _ = clip.load(str(path), device="cpu", jit=path is scripted, engine="torch")
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), want.parameters(), strict=True)), path
        per_image, per_text = model(*inputs)
        assert tuple(per_image.shape) == (3, 3) and torch.equal(per_image.T, per_text)
        assert (model.visual.input_resolution, model.context_length, model.vocab_size) == (32, 77, 49408)
    assert len(clip.available_models()) == 9


def _answers(model: Any, image: torch.Tensor, text: torch.Tensor) -> list[torch.Tensor]:
    """What is made of a model: its features of each picture and text, and how probable each text is for a picture."""
    images, texts = model.encode_image(image).double(), model.encode_text(text).double()
    cosines = torch.nn.functional.normalize(images, dim=-1) @ torch.nn.functional.normalize(texts, dim=-1).T
    return [images, texts, cosines, (100 * cosines).softmax(dim=-1)]


def _no_less_exact(found: list[torch.Tensor], theirs: list[torch.Tensor], truth: list[torch.Tensor]) -> bool:
    """Whether in no row the furthest value is further off than twice PyTorch's furthest of all rows."""
    allowed = [2 * (b - want).abs().max() + 1e-6 * want.abs().max() for b, want in zip(theirs, truth, strict=True)]
    return all(
        bool(((a - want).abs().amax(dim=-1) <= most).all()) for a, want, most in zip(found, truth, allowed, strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "mindspore"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_precision_is_as_exact_as_pytorchs(precision: str, engine: str, folder: Path) -> None:
    path = str(folder / "ViT-B-32.safetensors")
    model = open_clip.create_model("tiny", pretrained=path, precision=precision, engine=engine)
    wide = original.create_model("tiny", pretrained=path).double().eval()
    dtype = open_clip.get_input_dtype(precision)
    image = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(dtype or torch.float32)
    text = open_clip.get_tokenizer("tiny")([f"a picture of {name}" for name in open_clip.IMAGENET_CLASSNAMES[:16]])
    with torch.no_grad():
        for one in (model.encode_image(image), model.encode_text(text)):
            assert one.dtype == (dtype or torch.float32)
        found, theirs = _answers(model, image, text), _answers(model.in_pytorch(), image, text)
        truth = _answers(wide, image.double(), text)
        assert len(model.ports) == 2, "none of it was computed by PyTorch"
        assert _no_less_exact(found, theirs, truth)
        with_a_fault = copy.deepcopy(wide)
        with_a_fault.visual.proj[:, 3] *= 1 + 20 * float((theirs[0] - truth[0]).abs().max() / truth[0].abs().max())
        assert not _no_less_exact(_answers(with_a_fault, image.double(), text), theirs, truth)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "full_first"), [("openvino", False), ("openvino", True), ("mindspore", False)])
def test_a_model_that_writes(engine: str, full_first: bool, folder: Path) -> None:
    torch.manual_seed(0)
    model = open_clip.create_model("several", engine=engine)
    assert type(model).__name__ == "CoCa" and isinstance(model, original.CoCa)
    with torch.no_grad():
        for weight in model.parameters():  # some begin as zeros, and then all words are as probable as each other
            weight.add_(0.15 * torch.randn_like(weight))
        model.text_decoder.text_projection.normal_(std=0.15)  # which open_clip leaves as the memory was
    image, text = torch.randn(2, 3, 32, 32), torch.randint(1, 49000, (2, 76))
    want = model.in_pytorch()
    with torch.no_grad():
        if full_first:
            model(image, text)  # whose text is as long as the model's tables: no other length goes the same way
        for how in ({}, {"generation_type": "top_k", "top_k": 3}, {"generation_type": "top_p", "top_p": 0.5}):
            torch.manual_seed(0)
            found = model.generate(image, seq_len=9, **how)
            torch.manual_seed(0)
            assert torch.equal(found, want.generate(image, seq_len=9, **how)), how
        assert len(model.ports) <= 6, "texts of any length are one port"
        assert _difference(model(image, text), want(image, text)) < 1e-4
        assert _difference(model.encode_text(text), want.encode_text(text)) < 1e-5
