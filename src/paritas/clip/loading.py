# SPDX-License-Identifier: Apache-2.0
"""OpenAI's models by name or from a file, on an engine."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import build_model_from_openai_state_dict
from open_clip.pretrained import download_pretrained_from_url
from open_clip.transform import image_transform

from paritas.dropin.classes import split
from paritas.errors import InputError, SourceError, did_you_mean, first_line
from paritas.open_clip import checkpoints
from paritas.open_clip.making import architecture_of
from paritas.open_clip.networks import attach

_logger = logging.getLogger("paritas.clip")

#: OpenAI's nine, as its package names them.
_NAMES = (
    "RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-L/14@336px",
)  # fmt: skip

#: MindSpore's modes as it numbers them.
_MODES = {0: "graph", 1: "pynative"}

#: What tells a state of OpenAI's CLIP from another model's.
_KNOWN = ("text_projection", "positional_embedding", "token_embedding.weight", "ln_final.weight", "logit_scale")


class CLIP(open_clip.CLIP):
    """open_clip's model, whose call returns logits as that of OpenAI's package does."""

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(logits_per_image [images, texts], logits_per_text): cosines times `logit_scale.exp()`."""
        found: tuple[torch.Tensor, torch.Tensor] = self.get_logits(image, text)
        return found

    @property
    def dtype(self) -> torch.dtype:
        """In which its weights are."""
        found: torch.dtype = self.ln_final.weight.dtype
        return found


def available_models() -> list[str]:
    """The names that `load` knows: OpenAI's nine."""
    return list(_NAMES)


def load(
    name: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    jit: bool = False,
    download_root: str | None = None,
    *,
    mode: int | str = "",
    engine: str | None = None,
    weights: str | Mapping[str, Any] = "",
    engine_device: str = "",
    ov_config: Mapping[str, Any] | None = None,
) -> tuple[CLIP, Any]:
    """A model of OpenAI's on an engine, and the transform of its pictures.

    Args:
        name: one of `available_models()`, downloaded where it is not in `download_root`, or a file: a TorchScript
            archive, of which only the tensors are read, a state dict, safetensors or a `.ckpt` of MindSpore's.
        device: where PyTorch's tensors are, "cpu"; in capitals the engine's device, as "CPU" or "GPU".
        jit: an engine always computes a compiled graph, so that this changes nothing but MindSpore's mode, which is
            Graph then unless another is named.
        download_root: the folder of downloads, by default "~/.cache/clip".
        mode: MindSpore's, "graph" or "pynative", or as it numbers them, 0 and 1.
        engine: by default `paritas.default_engine()`.
        weights, engine_device, ov_config: as for `paritas.port`.

    Returns:
        (model, preprocess). The model has `encode_image`, `encode_text`, and its call returns (logits_per_image,
        logits_per_text), float32. preprocess makes a tensor [3, size, size] of a picture.

    Raises:
        InputError: an unknown name or mode. SourceError: a file that is no such model's.
    """
    asked: dict[str, Any] = {
        "engine": engine,
        "mode": _mode(mode, jit),
        "weights": weights or None,
        "engine_device": engine_device or None,
        "ov_config": ov_config,
        "device": device,
    }
    ours, theirs = split(asked)
    try:
        place = torch.device(theirs.get("device") or "cpu")
    except RuntimeError as error:
        raise InputError(
            f"device={device!r} is none of PyTorch's: {first_line(error)[:100]}. An engine's is in capitals."
        ) from None
    if jit:
        _logger.info("jit=True: the engine computes a compiled graph anyway, and no TorchScript is run")
    path = _file_of(str(name), download_root)
    model = _built(checkpoints.read(path), path)
    size = model.visual.image_size
    model.visual.input_resolution = size[0] if isinstance(size, (tuple, list)) else size
    model = model.float().to(place)
    transform = image_transform(size, is_train=False, mean=OPENAI_DATASET_MEAN, std=OPENAI_DATASET_STD)
    return attach(model, **ours), transform


def _mode(mode: int | str, jit: bool) -> str:
    if mode in _MODES and not isinstance(mode, (str, bool)):
        return _MODES[int(mode)]
    if not isinstance(mode, str):
        raise InputError(f"mode={mode!r}: it is 0 or 'graph', 1 or 'pynative'.")
    return mode or ("graph" if jit else "")


def _file_of(name: str, download_root: str | None) -> Path:
    if name in _NAMES:
        tag = open_clip.get_pretrained_url(architecture_of(name), "openai")
        root = str(Path(download_root or "~/.cache/clip").expanduser())
        try:
            return Path(download_pretrained_from_url(tag, cache_dir=root))
        except Exception as error:
            raise SourceError(
                f"{name} is not in {root}, and cannot be downloaded from {tag}: {first_line(error)}. "
                "Put the file there, or give its path."
            ) from error
    path = Path(name).expanduser()
    if path.is_file():
        return path
    close = difflib.get_close_matches(name, _NAMES, 2, 0.5)
    meant = did_you_mean(map(repr, close))
    raise InputError(f"{name!r} is neither one of OpenAI's models nor a file.{meant} The models: {', '.join(_NAMES)}.")


def _built(state: dict[str, torch.Tensor], path: Path) -> Any:
    """The model whose state that is, as open_clip builds it. Raises `SourceError`."""
    absent = [name for name in _KNOWN if name not in state]
    if absent:
        raise SourceError(
            f"{path} is no state of OpenAI's CLIP: it has no {', '.join(absent)}. Models of open_clip are made by "
            "paritas.open_clip.create_model(name, pretrained=FILE)."
        )
    halves = [name for name, value in state.items() if value.dtype == torch.float32 and _loses(value)]
    try:
        model = build_model_from_openai_state_dict(dict(state))
    except Exception as error:
        raise SourceError(f"{path} is no whole state of OpenAI's CLIP: {first_line(error)}") from error
    model.__class__ = CLIP
    rounded = [name for name in halves if dict(model.named_parameters())[name].dtype == torch.float16]
    if rounded:
        _logger.warning(
            "%s has weights in float32, of which %d are rounded to float16, as OpenAI's package does: %s",
            path,
            len(rounded),
            ", ".join(rounded[:3]) + (", ..." if len(rounded) > 3 else ""),
        )
    return model


def _loses(value: torch.Tensor) -> bool:
    return not torch.equal(value.half().float(), value)
