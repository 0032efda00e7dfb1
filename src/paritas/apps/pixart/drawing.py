# SPDX-License-Identifier: Apache-2.0
"""A PixArt pipeline on any engine and at any precision, drawing one picture at a time, with what is seen on the way."""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import re
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from paritas.apps.pixart import small_model
from paritas.errors import InputError, ParitasError, SourceError, first_line
from paritas.run.engine import about, default_engine, engines
from paritas.run.engine import engine as find_engine

LARGEST_SEED = 2**32 - 1
STEPS = (1, 50)
LONGEST = 120  # tokens of a prompt, the last of which ends it: what `PixArtAlphaPipeline` gives its text encoder
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}

#: Rows and columns of latents that a preview is decoded from: of more it would take longer than a step.
_PREVIEWED = 32

#: About what each channel of Stable Diffusion's latents, which PixArt-α's are, adds to red, green and blue.
_SEEN = ((0.298, 0.207, 0.208), (0.187, 0.286, 0.173), (-0.158, 0.189, 0.264), (-0.184, -0.271, -0.473))


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is to be drawn, and on what. engine: its name; precision: of `DTYPES`."""

    prompt: str
    negative: str = ""
    seed: int = 0
    steps: int = 4
    width: int = 256
    height: int = 256
    guidance: float = 0.0
    engine: str = "torch"
    precision: str = "fp32"

    @property
    def guided(self) -> bool:
        """Whether each step is computed twice, with the prompt and with the negative one."""
        return self.guidance > 1


@dataclasses.dataclass(frozen=True)
class Step:
    """What is seen while a picture is drawn, uint8 [height, width, 3], or None where only words are."""

    what: str
    picture: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Drawn:
    """picture: uint8 [height, width, 3]. each, whole: seconds for a step (the median) and for everything."""

    wish: Wish
    picture: np.ndarray
    each: float
    whole: float


class Drawer:
    """source: a hub id or a directory; the small model if not given. Pipelines are loaded when they are first used."""

    def __init__(self, source: str = "", engine: str | None = None) -> None:
        self.engine = find_engine(engine or default_engine()).name
        self.is_small = not source
        self.source = source or str(small_model())
        if not source or os.path.isdir(source):
            if not os.path.isfile(os.path.join(self.source, "model_index.json")):
                if self.is_small:
                    raise SourceError(
                        "The small model is not part of this installation. Train it and name it, or name another:   "
                        "python -m paritas.apps.pixart.train small && paritas demo pixart small"
                    )
                raise SourceError(f"{self.source} is no pipeline of diffusers: it has no model_index.json.")
        elif source.startswith((".", "/", "~")) or source.count("/") > 1:
            raise SourceError(f"There is no directory {source}.")
        self._loaded: dict[tuple[str, str], Any] = {}
        self._ready: set[tuple[Any, ...]] = set()
        self._turn = threading.Lock()

    @property
    def name(self) -> str:
        """What the page calls the model."""
        return "the small model" if self.is_small else self.source

    @property
    def few_steps(self) -> bool:
        """Whether the checkpoint is for few steps without guidance: latent consistency models are."""
        index = Path(self.source, "model_index.json")
        return "LCM" in (index.read_text(encoding="utf-8", errors="replace") if index.is_file() else self.source)

    @property
    def side(self) -> int:
        """Pixels of the square pictures that the checkpoint was trained on."""
        config = Path(self.source, "transformer", "config.json")
        try:
            return 8 * int(json.loads(config.read_text(encoding="utf-8"))["sample_size"])
        except (OSError, ValueError, KeyError):  # on the hub: nothing is fetched before it is needed
            return 512 if "512" in self.source else 1024

    @property
    def engines(self) -> list[tuple[str, str]]:
        """Label and name of every engine that is installed, PyTorch too."""
        return [(info.label, name) for name, info in _installed().items()]

    def precisions(self, engine: str) -> list[str]:
        """Those that an engine has kernels for."""
        does = find_engine(engine).precisions()
        return [short for short, dtype in DTYPES.items() if does.get(dtype) == ""]

    def check(self, wish: Wish) -> None:
        """Raise `InputError` for what cannot be drawn, before anything is loaded for it."""
        if not wish.prompt.strip():
            raise InputError("There is nothing to draw: write what the picture is to show.")
        for what, value, (least, most) in (
            ("steps have", wish.steps, STEPS),
            ("seed has", wish.seed, (0, LARGEST_SEED)),
        ):
            if not least <= value <= most:
                raise InputError(f"The {what} to be from {least} to {most}, not {value}.")
        if wish.precision not in self.precisions(wish.engine):
            label = about(wish.engine).label
            raise InputError(f"{label} has {', '.join(self.precisions(wish.engine))} here, not {wish.precision}.")

    def draw(self, wish: Wish) -> Iterator[Step | Drawn]:
        """Draws, and shows each step; the last that comes is `Drawn`. Who stops to iterate stops the drawing.

        Raises `InputError` for what cannot be drawn, `SourceError` for a checkpoint that cannot be loaded.
        """
        self.check(wish)
        seen: queue.SimpleQueue[Step | Drawn | BaseException] = queue.SimpleQueue()
        given_up = threading.Event()

        def work() -> None:
            try:
                with self._turn:
                    seen.put(self._draw(wish, seen.put, given_up))
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                seen.put(error)

        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        try:
            while True:
                now = seen.get()
                if isinstance(now, BaseException):
                    raise now
                yield now
                if isinstance(now, Drawn):
                    return
        finally:
            given_up.set()

    def hints(self, wish: Wish) -> list[str]:
        """What of a wish the model does not do: words that it does not know or that are too many."""
        found = []
        if self.is_small:
            found += _beyond(wish.prompt)
            if (wish.width, wish.height) != (self.side, self.side):
                found.append(f"The small model has learnt {self.side} × {self.side} pixels: at other sizes it guesses.")
        if wish.negative.strip() and not wish.guided:
            found.append("The negative prompt does nothing at a guidance of 1 or less.")
        pipe = self._loaded.get((wish.engine, wish.precision))
        if pipe is not None:
            for what, text in (("prompt", wish.prompt), ("negative prompt", wish.negative)):
                if cut := _left_out(pipe.tokenizer, text):
                    many = "last word is" if len(cut) == 1 else f"last {len(cut)} words are"
                    found.append(f"The {what} is too long, its {many} left out: {_in_short(cut, ' ')}")
        return found

    # --- in the worker ---------------------------------------------------------------------------------------

    def _draw(self, wish: Wish, show: Callable[[Step], None], given_up: threading.Event) -> Drawn:
        label = about(wish.engine).label
        pipe = self._pipeline(wish, show)
        _check_size(pipe, wish)
        key = (wish.engine, wish.precision, wish.width, wish.height, wish.guided)
        if key not in self._ready:
            if not about(wish.engine).is_original:
                show(Step(f"Porting to {label}, once for this size"))
            _called(pipe, dataclasses.replace(wish, steps=1), lambda *_: None)
            self._ready.add(key)
        times: list[float] = []
        begun = last = time.perf_counter()

        def after(step: int, _: Any, latents: Any) -> None:
            nonlocal last
            times.append(time.perf_counter() - last)
            if given_up.is_set():
                raise _GivenUp
            if step + 1 < wish.steps:
                show(Step(f"Step {step + 1} of {wish.steps}", _preview(pipe, latents)))
            last = time.perf_counter()

        picture = _called(pipe, wish, after)
        each = statistics.median(times[1:] or times)  # before the first the text was encoded
        return Drawn(wish, picture, each, time.perf_counter() - begun)

    def _pipeline(self, wish: Wish, show: Callable[[Step], None]) -> Any:
        key = (wish.engine, wish.precision)
        if key not in self._loaded:
            show(Step(f"Loading {self.name}"))
            if not self.is_small:  # the memory is for one
                self._loaded.clear()
                self._ready.clear()
            self._loaded[key] = _load(self.source, wish.engine, wish.precision)
        return self._loaded[key]


class _GivenUp(Exception):
    """Nobody waits for the picture any more."""


def _installed() -> dict[str, Any]:
    return {name: about(name) for name, info in engines().items() if info.available}


def _load(source: str, engine: str, precision: str) -> Any:
    import torch

    from paritas.extras import require

    require("diffusers", "paritas demo pixart")
    from diffusers import PixArtAlphaPipeline

    from paritas.diffusers import port

    try:
        pipe = PixArtAlphaPipeline.from_pretrained(source, dtype=getattr(torch, DTYPES[precision]))
    except ParitasError:
        raise
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise SourceError(f"{source} cannot be loaded: {first_line(error)}") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe if about(engine).is_original else port(pipe, engine=engine)


def _check_size(pipe: Any, wish: Wish) -> None:
    unit = pipe.vae_scale_factor * pipe.transformer.config.patch_size
    side = pipe.transformer.config.sample_size * pipe.vae_scale_factor
    for what, value in (("width", wish.width), ("height", wish.height)):
        if value % unit or not unit <= value <= 2 * side:
            raise InputError(
                f"The {what} has to be a multiple of {unit} from {unit} to {2 * side}, not {value}: "
                f"{max(unit, min(2 * side, round(value / unit) * unit))} would do."
            )


def _called(pipe: Any, wish: Wish, after: Callable[..., None]) -> np.ndarray:
    import torch

    made = pipe(
        wish.prompt.strip(), negative_prompt=wish.negative.strip(), num_inference_steps=wish.steps,
        guidance_scale=wish.guidance, generator=torch.Generator().manual_seed(wish.seed), height=wish.height,
        width=wish.width, use_resolution_binning=False, clean_caption=False, callback=after, output_type="np",
    ).images[0]  # fmt: skip
    return np.round(255 * made).astype(np.uint8)


def _preview(pipe: Any, latents: Any) -> np.ndarray:
    """What latents [1, 4, rows, columns] look like: decoded, or where that takes too long, as blocks of colour."""
    import torch

    with torch.no_grad():
        if max(latents.shape[-2:]) <= _PREVIEWED:
            decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor, return_dict=False)[0]
        else:
            decoded = torch.einsum("bcrk,cx->bxrk", latents.float(), torch.tensor(_SEEN))
            decoded = decoded.repeat_interleave(4, 2).repeat_interleave(4, 3)
    return np.round(255 * pipe.image_processor.postprocess(decoded, output_type="np")[0]).astype(np.uint8)


def _left_out(tokenizer: Any, text: str) -> list[str]:
    """The words at a prompt's end that the text encoder does not get, whole or in part."""
    ids = tokenizer(text, verbose=False)["input_ids"]
    rest = tokenizer.decode(ids[LONGEST - 1 : -1]).split() if len(ids) > LONGEST else []
    return text.split()[-len(rest) :] if rest else []


def _in_short(words: list[str], between: str, most: int = 12) -> str:
    """All words, or of many the first and the last ones."""
    if len(words) <= most:
        return between.join(words)
    half = most // 2
    return f"{between.join(words[:half])} … {between.join(words[-half:])}"


def _beyond(prompt: str) -> list[str]:
    """What the small model has not learnt of a prompt."""
    from paritas.apps.pixart import scenes

    unknown = [word for word in dict.fromkeys(re.findall(r"[^\W_]+", prompt.lower())) if word not in scenes.WORDS]
    draws = "It draws circles, squares, triangles, stars and hearts in eight colours"
    if unknown:
        return [f"The small model does not know: {_in_short(unknown, ', ')}. {draws}."]
    if not scenes.learnt(prompt):
        return [f"The small model guesses here. {draws}, one, two alike or not, three or four alike: see the examples."]
    return []


def size(text: str) -> tuple[int, int]:
    """Width and height of "512 × 256" or "512x256". Raises `InputError`."""
    found = re.fullmatch(r"\s*(\d{1,5})\s*[x×*, ]\s*(\d{1,5})\s*(px)?\s*", text or "", re.IGNORECASE)
    if not found:
        raise InputError(f"The size {text!r} is no width and height: write 256 x 256, for one.")
    return int(found[1]), int(found[2])


def apart(one: np.ndarray, other: np.ndarray) -> tuple[int, float]:
    """The largest difference of two pictures, in levels of 255, and the part of values that differ."""
    off = np.abs(one.astype(np.int16) - other.astype(np.int16))
    return int(off.max()), float((off > 0).mean())
