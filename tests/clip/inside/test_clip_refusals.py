# SPDX-License-Identifier: Apache-2.0
"""Bad input of `paritas.clip` and `paritas.open_clip`: one error, which says what, where and what next."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from paritas import clip, open_clip
from paritas.errors import InputError, ParitasError, SourceError, UnknownEngine
from paritas.open_clip import checkpoints


class _Evil:
    def __reduce__(self) -> Any:
        return os.system, ("echo executed",)


@pytest.fixture
def files(folder: Path, tmp_path: Path) -> Path:
    """Weights that are damaged, of another model, or more than weights."""
    whole = (folder / "ViT-B-32.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.safetensors").write_bytes((folder / "ViT-B-32.safetensors").read_bytes()[:5000])
    (tmp_path / "cut.ckpt").write_bytes((folder / "ViT-B-32.ckpt").read_bytes()[:5000])
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save({"weight": torch.ones(1), "evil": _Evil()}, tmp_path / "evil.pt")
    torch.save({"weight": torch.ones(1), "epoch": 3}, tmp_path / "epoch.pt")
    torch.save({"weight": torch.ones(1)}, tmp_path / "other.pt")
    shutil.copy(folder / "ViT-B-32.safetensors", tmp_path / "whole.safetensors")
    return tmp_path


def _create(name: str, pretrained: str = "", **more: Any) -> Callable[[Path], Any]:
    def create(files: Path) -> Any:
        weights = str(files / pretrained) if "." in pretrained else pretrained
        return open_clip.create_model(name, pretrained=weights or None, engine="torch", **more)

    return create


def _load(name: str, **more: Any) -> Callable[[Path], Any]:
    return lambda files: clip.load(str(files / name) if "." in name else name, **{"engine": "torch", **more})


def _encode(method: str, *shape: int, whole: bool = False, precision: str = "fp32") -> Callable[[Path], Any]:
    def encode(files: Path) -> Any:
        value = torch.zeros(shape, dtype=torch.int64) if whole else torch.zeros(shape)
        model = open_clip.create_model("tiny", engine="openvino", precision=precision)
        with torch.no_grad():
            return getattr(model, method)(value)

    return encode


def _compare(files: Path) -> Any:
    model = open_clip.create_model("unequal", engine="torch")
    with torch.no_grad():
        return model(torch.zeros(1, 3, 32, 32), torch.zeros(1, 77, dtype=torch.int64))


REFUSALS: dict[str, tuple[Callable[[Path], Any], type[ParitasError], str]] = {
    "a model's name": (_create("ViT-B32"), InputError, r"no model 'ViT-B32'. Did you mean ViT-B-32"),
    "a name like none": (_create("zzzz"), InputError, r"no model 'zzzz'. It has \d+: paritas.open_clip.list_models"),
    "another model's weights": (
        _create("ViT-B-32", "webli"),
        InputError,
        r"'webli' is neither a file nor weights of ViT-B-32; it is one of .*SigLIP.* ViT-B-32 has openai, ",
    ),
    "weights like its own": (_create("ViT-B-32", "laion2b_s34b_b79"), InputError, r"Did you mean 'laion2b_s34b_b79k'"),
    "a model without weights": (_create("tiny", "openai"), InputError, "tiny has no pretrained weights"),
    "towers of another width": (
        _create("wider", "whole.safetensors"),
        SourceError,
        "whole.safetensors does not fit wider: text pos_embed width changed",
    ),
    "fewer layers": (
        _create("shallow", "whole.safetensors"),
        SourceError,
        "does not fit shallow: 24 are in the file alone, first visual.transformer.resblocks.1",
    ),
    "another embedding": (
        _create("narrow", "whole.safetensors"),
        SourceError,
        r"does not fit narrow: 2 tensors are of another shape, first text_projection: \[64, 32\] in the file, \[64, 16",
    ),
    "towers that do not fit": (_compare, InputError, "features of a picture are 32 wide, and those of a text 64"),
    "heads that do not fit": (_create("heads"), InputError, "heads cannot be made: .* must be divisible by num_heads"),
    "another's weights": (_create("tiny", "other.pt"), SourceError, r"fit tiny: \d+ are missing in the file, first "),
    "weights that are cut": (_create("tiny", "cut.pt"), SourceError, "cut.pt cannot be read, so it is damaged"),
    "safetensors that are cut": (_load("cut.safetensors"), SourceError, "no whole safetensors file"),
    "MindSpore's that are cut": (_load("cut.ckpt"), SourceError, "no whole checkpoint of MindSpore's"),
    "an empty file": (_load("empty.pt"), SourceError, "cannot be read"),
    "code in open_clip's": (_create("tiny", "evil.pt"), SourceError, "not unpickled, because they can run code"),
    "code in OpenAI's": (_load("evil.pt"), SourceError, r"evil.pt holds objects .* run code: (posix|nt).system"),
    "more than weights": (_load("epoch.pt"), SourceError, "holds more than weights: epoch are no tensors"),
    "a state of another model": (_load("other.pt"), SourceError, "no state of OpenAI's CLIP: it has no text_proj"),
    "a switch for code": (_create("tiny", weights_only=False), InputError, "weights_only=False would unpickle"),
    "a file that is not there": (_load("nowhere.pt"), InputError, "neither one of OpenAI's models nor a file"),
    "OpenAI's model": (_load("ViT-B-32"), InputError, "Did you mean 'ViT-B/32'"),
    "an engine": (_load("whole.safetensors", engine="openvin"), UnknownEngine, "Did you mean 'openvino'"),
    "a mode": (_load("whole.safetensors", mode=2), InputError, "mode=2: it is 0 or 'graph', 1 or 'pynative'"),
    "a device": (_load("whole.safetensors", device="Ascend"), InputError, "device='Ascend' is none of PyTorch's"),
    "an argument": (_create("tiny", presision="x"), InputError, "no argument 'presision'. Did you mean 'precision'"),
    "a precision": (_create("tiny", precision="bf8"), InputError, "precision='bf8' is none of .*Did you mean .*'bf16'"),
    "a picture of another precision": (
        _encode("encode_image", 1, 3, 32, 32, precision="bf16"),
        InputError,
        r"images \[batch, 3, 32, 32\] of bfloat16: preprocess\(image\).unsqueeze\(0\).to\(torch.bfloat16\) is one",
    ),
    "a text that is too long": (
        lambda _: clip.tokenize(["a", "dog " * 80]),
        InputError,
        r"texts\[1\] has 82 tokens, its beginning and end included, and the context has 77",
    ),
    "a text that is none": (lambda _: clip.tokenize(["a", 3]), InputError, r"texts\[1\] is a int"),  # type: ignore[list-item]
    "a context": (lambda _: clip.tokenize("a", context_length=1), InputError, "context_length is 1"),
    "tokens of another length": (
        _encode("encode_text", 1, 70, whole=True),
        InputError,
        r"tensor of \[1, 70\], int64: .*It takes tokens \[batch, 77\] of whole numbers below 49408",
    ),
    "tokens that are numbers": (_encode("encode_text", 1, 77), InputError, r"tensor of \[1, 77\], float32"),
    "a picture by itself": (
        _encode("encode_image", 3, 32, 32),
        InputError,
        r"\[3, 32, 32\], float32: .*images \[batch, 3, 32, 32\] of floats: preprocess\(image\).unsqueeze\(0\)",
    ),
    "a picture of another size": (_encode("encode_image", 1, 3, 40, 40), InputError, r"\[batch, 3, 32, 32\]"),
    "a picture of one channel": (_encode("encode_image", 1, 1, 32, 32), InputError, r"\[batch, 3, 32, 32\]"),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_bad_input_is_one_error(what: str, files: Path, capfd: pytest.CaptureFixture[str]) -> None:
    refused, kind, text = REFUSALS[what]
    with pytest.raises(kind, match=text):
        refused(files)
    assert "executed" not in capfd.readouterr().out


def test_a_text_is_cut_where_that_is_asked_for() -> None:
    found = clip.tokenize("dog " * 80, truncate=True)
    assert tuple(found.shape) == (1, 77) and int(found[0, -1]) == 49407
    assert tuple(clip.tokenize([]).shape) == (0, 77)


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    weights = {
        "a": torch.randn(2, 3),
        "half": torch.randn(2).half(),
        "wide": torch.arange(3),
        "b": torch.ones(2).bfloat16(),
    }
    for suffix in (".ckpt", ".safetensors", ".pt"):
        checkpoints.write(weights, tmp_path / f"w{suffix}")
        found = checkpoints.read(tmp_path / f"w{suffix}")
        assert (tmp_path / f"w{suffix}").stat().st_mode & 0o600 == 0o600, "as any other file of the user's"
        assert set(found) == set(weights)
        assert all(found[n].dtype == w.dtype and torch.equal(found[n], w) for n, w in weights.items()), suffix
    with pytest.raises(SourceError, match="ends in none of"):
        checkpoints.write(weights, tmp_path / "w.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["w.ckpt", "w.pt", "w.safetensors"]
