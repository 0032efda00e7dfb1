# SPDX-License-Identifier: Apache-2.0
"""What the CLIP Handbook calls difference, of any checkpoint on any engine: its example, its two formulas."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from paritas.apps.published.figures import CLIP
from paritas.apps.published.models import MODELS
from paritas.apps.published.open_clip_models import as_if_trained
from paritas.apps.published.rows import distance

#: The handbook's captions.
CAPTIONS = ("a diagram", "a dog", "a cat")

OUTPUTS = ("image_features", "text_features", "probs")

#: What its example multiplies cosines with.
_SCALE = 100.0


@dataclasses.dataclass(frozen=True)
class Row:
    """One output of a model on an engine. absolute: mean|pt-got|. relative: mean(|pt-got| / (|pt| + 1e-6)).

    published: the handbook's (absolute, relative), of whichever checkpoint of that architecture is nearest.
    """

    model: str
    engine: str
    output: str
    absolute: float
    relative: float
    largest: float
    published: tuple[float, float] | None


def differences(
    model: str,
    engines: Sequence[tuple[str, str]],
    *,
    pretrained: str = "",
    picture: Any = None,
    captions: Sequence[str] = CAPTIONS,
) -> Iterator[Row]:
    """The rows of a model on each (engine, mode). pretrained: a tag or a file; "" for random weights of a seed.

    picture: a `PIL.Image`; by default one that is drawn. Raises what `paritas.open_clip.create_model` raises.
    """
    from paritas import open_clip
    from paritas.open_clip.networks import attach

    torch.manual_seed(0)
    made, _, preprocess = open_clip.create_model_and_transforms(
        model, pretrained=pretrained or None, pretrained_text=False, engine="torch"
    )
    original: Any = made.in_pytorch()
    if not pretrained:
        with torch.no_grad():
            original.logit_scale.fill_(math.log(_SCALE))
        as_if_trained(original.visual)
    image = preprocess(picture or drawn()).unsqueeze(0)
    text = open_clip.get_tokenizer(model)(list(captions))
    want = _outputs(original, image, text)
    for engine, mode in engines:
        ported = attach(original, engine=engine, **({"mode": mode} if mode else {}))
        got = _outputs(ported, image, text)
        for port in ported.ports:  # the next engine has weights of its own
            port.close()
        original = ported.in_pytorch()
        for output in OUTPUTS:
            found = distance(want[output], got[output])
            largest = float(np.abs(want[output] - got[output]).max())
            figures = _published(model, pretrained, output)
            yield Row(
                model, " ".join(filter(None, (engine, mode))), output, found.absolute, found.relative, largest, figures
            )


def _outputs(model: Any, image: torch.Tensor, text: torch.Tensor) -> dict[str, Any]:
    with torch.no_grad():
        features, words = model.encode_image(image), model.encode_text(text)
        cosines = torch.nn.functional.normalize(features, dim=-1) @ torch.nn.functional.normalize(words, dim=-1).T
        probs = (_SCALE * cosines).softmax(dim=-1)
    return {"image_features": features.numpy(), "text_features": words.numpy(), "probs": probs.numpy()}


def drawn() -> Any:
    """A picture that has something everywhere, the same in every run."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    return Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC)


def _published(model: str, pretrained: str, output: str) -> tuple[float, float] | None:
    """The handbook's figures of that architecture; of several checkpoints OpenAI's where its weights are meant."""
    keys = [
        key
        for one in MODELS.values()
        for key in one.published
        if one.entry.config.get("architecture", "").removesuffix("-quickgelu") == model.removesuffix("-quickgelu")
    ]
    if not keys:
        return None
    wanted = pretrained == "openai" or model.endswith("-quickgelu")
    best = max(keys, key=lambda key: ((key[2] == "OpenAI") == wanted, key[0] == "open_clip"))
    figures: Mapping[str, tuple[float, float]] = CLIP[best]
    return figures.get(output)


def to_markdown(rows: Sequence[Row]) -> str:
    """A table, with the handbook's figures beside ours where it has some."""
    lines = [
        "| model | engine | output | abs | rel | handbook's abs | rel |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        theirs = ("", "") if row.published is None else (f"{row.published[0]:.8f}", f"{row.published[1]:.5%}")
        cells = (row.model, row.engine, row.output, f"{row.absolute:.2e}", f"{row.relative:.5%}", *theirs)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
