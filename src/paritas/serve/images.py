# SPDX-License-Identifier: Apache-2.0
"""Images in bytes become `pixel_values`, as the port's own processor makes them, without torch where it is a plain
one.
"""

from __future__ import annotations

import base64
import binascii
import io
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from paritas.errors import InputError
from paritas.extras import require
from paritas.ports import Port
from paritas.serve.settings import Limits

_IMAGENET = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
_CLIP = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_ALL = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_center_crop": False, "do_convert_rgb": None}

#: Processors that are transformers' general one with these defaults, and nothing of their own: a test compares each.
PLAIN: dict[str, dict[str, Any]] = {
    "ViTImageProcessor": {**_ALL, **_IMAGENET, "size": {"height": 224, "width": 224}, "resample": 2},
    "CLIPImageProcessor": {
        **_ALL, **_CLIP, "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224},
        "do_center_crop": True, "do_convert_rgb": True, "resample": 3,
    },
    "SiglipImageProcessor": {
        **_ALL, **_IMAGENET, "size": {"height": 224, "width": 224}, "do_convert_rgb": None, "resample": 3,
    },
    "DeiTImageProcessor": {
        **_ALL, **_IMAGENET,
        "size": {"height": 256, "width": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True,
        "resample": 3,
    },
}  # fmt: skip

#: What a plain processor may be told. Anything else is left to transformers.
_KNOWN = frozenset({
    "do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor", "do_normalize",
    "image_mean", "image_std", "do_convert_rgb", "image_processor_type", "feature_extractor_type", "processor_class",
})  # fmt: skip
#: And what may be there as long as it says nothing.
_EMPTY = frozenset({
    "do_pad", "pad_size", "default_to_square", "data_format", "input_data_format", "device", "disable_grouping",
    "return_tensors", "image_seq_length", "backend",
})  # fmt: skip


def plain(told: Mapping[str, Any]) -> dict[str, Any] | None:
    """How a plain processor makes pixels, complete; None where it is not one."""
    kind = str(told.get("image_processor_type") or told.get("feature_extractor_type") or "")
    kind = kind.removesuffix("Fast").removesuffix("Pil").replace("FeatureExtractor", "ImageProcessor")
    defaults = PLAIN.get(kind)
    others = {name: value for name, value in told.items() if name not in _KNOWN}
    if defaults is None or any(name not in _EMPTY for name in others) or told.get("do_pad"):
        return None
    how = {"rescale_factor": 1 / 255, "crop_size": None, **defaults}
    how |= {name: value for name, value in told.items() if name in _KNOWN and value is not None}
    for name in ("size", "crop_size"):
        if isinstance(how[name], int):  # as checkpoints had it before 2023
            square = name == "crop_size" or "shortest_edge" not in defaults["size"]
            how[name] = {"height": how[name], "width": how[name]} if square else {"shortest_edge": how[name]}
    size = how["size"]
    if set(size) not in ({"height", "width"}, {"shortest_edge"}):
        return None
    return how


class Images:
    """Reads images for a port. Each is checked by its header before anything of it is decoded."""

    name, content = "image", "image"

    def __init__(self, directory: Path, told: Mapping[str, Any], port: Port, limits: Limits) -> None:
        self._limits, self._how = limits, plain(told)
        self._channels = next(spec.dims[1] for spec in port.inputs if spec.name == "pixel_values")
        self._theirs: Any = None
        self._lock = threading.Lock()
        if self._how is None:
            require("port", "paritas serve, of images for this model")
            from transformers import AutoImageProcessor

            self._theirs = AutoImageProcessor.from_pretrained(directory)

    def read(self, values: Sequence[bytes | str]) -> dict[str, Any]:
        images = [self._open(row, value) for row, value in enumerate(values)]
        if self._how is not None:
            return {"pixel_values": np.stack([pixels_of(image, self._how) for image in images])}
        with self._lock:
            found = self._theirs(images=images, return_tensors="np")
        return {"pixel_values": np.asarray(found["pixel_values"], np.float32)}

    def _open(self, row: int, value: bytes | str) -> Any:
        from PIL import Image

        given = content_of(value)
        try:
            with Image.open(io.BytesIO(given)) as image:
                width, height = image.size
                if width * height > self._limits.pixels:
                    raise InputError(
                        f"image {row} has {width} x {height} pixels, more than the {self._limits.pixels:,} that this "
                        "server decodes."
                    )
                image.load()
                if self._channels == 1:
                    return image.convert("L")
                return image.convert("RGB")
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - Pillow's decoders raise whatever they meet
            about = str(error).partition("<")[0].strip() or type(error).__name__
            raise InputError(f"image {row} of {len(given)} bytes cannot be read: {about}") from None


#: How files of images begin, so that base64 is not taken for one.
_MAGIC = (
    b"\xff\xd8\xff",
    b"\x89PNG",
    b"GIF8",
    b"RIFF",
    b"BM",
    b"II*\x00",
    b"MM\x00*",
    b"\x00\x00\x00",
    b"fLaC",
    b"OggS",
)


def content_of(value: bytes | str) -> bytes:
    """The bytes of a file, which may come as base64 in a string: of either alphabet, with or without padding."""
    raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    if isinstance(value, bytes) and raw.startswith(_MAGIC):
        return raw
    try:
        text = raw.translate(None, b"\r\n").replace(b"-", b"+").replace(b"_", b"/").rstrip(b"=")
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return raw


def pixels_of(image: Any, how: Mapping[str, Any]) -> np.ndarray:
    """float32 [channels, height, width]."""
    if how["do_resize"]:
        image = image.resize(_resized(image.size, how["size"]), resample=how["resample"])
    array = np.asarray(image)
    array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    if how["do_center_crop"]:
        array = _cropped(array, how["crop_size"]["height"], how["crop_size"]["width"])
    if how["do_rescale"]:
        array = (array.astype(np.float64) * how["rescale_factor"]).astype(np.float32)
    array = array.astype(np.float32, copy=False)
    if how["do_normalize"]:
        mean, std = (np.asarray(how[name], np.float32).reshape(-1, 1, 1) for name in ("image_mean", "image_std"))
        array = (array - mean) / std
    return np.ascontiguousarray(array)


def _resized(size: tuple[int, int], wanted: Mapping[str, int]) -> tuple[int, int]:
    """(width, height), as Pillow has them."""
    if "height" in wanted:
        return wanted["width"], wanted["height"]
    width, height = size
    short, long = min(size), max(size)
    edge = wanted["shortest_edge"]
    other = int(edge * long / short)
    return (edge, other) if width <= height else (other, edge)


def _cropped(array: np.ndarray, height: int, width: int) -> np.ndarray:
    """The middle of an image; black beside where it is smaller."""
    _, had_height, had_width = array.shape
    top, left = (had_height - height) // 2, (had_width - width) // 2
    if top >= 0 and left >= 0:
        return array[:, top : top + height, left : left + width]
    full = np.zeros((array.shape[0], max(height, had_height), max(width, had_width)), array.dtype)
    above, before = -(-(full.shape[1] - had_height) // 2), -(-(full.shape[2] - had_width) // 2)
    full[:, above : above + had_height, before : before + had_width] = array
    top, left = max(0, top + above), max(0, left + before)
    return full[:, top : top + height, left : left + width]
