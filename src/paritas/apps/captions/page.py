# SPDX-License-Identifier: Apache-2.0
"""The page of `paritas demo clip`: pictures, captions, and how sure the model is which is whose."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paritas.apps import frame
from paritas.apps.captions.matching import Matcher, overlay
from paritas.apps.frame import ONE_AT_A_TIME, Told, seconds
from paritas.errors import InputError
from paritas.run.engine import about

INTRO = "Drop pictures and write captions, one on each line: the model says which caption fits each picture best."

CAPTIONS = "a photo of a dog\na photo of a cat\na diagram\na landscape"


def page(matcher: Matcher, *, said: Callable[[str], None] = lambda line: None) -> Any:
    """The page, a `gradio.Blocks`. said: called with a line for the terminal."""
    gr = frame.gradio()
    with frame.page("Pictures and captions", INTRO, engine=matcher.engine, said=said) as (blocks, around):
        with gr.Row(equal_height=False, elem_classes=["bench"]):
            with gr.Column():
                pictures = gr.Gallery(
                    label="Pictures", type="pil", file_types=["image"], columns=3, height=250, object_fit="contain",
                    interactive=True, buttons=["fullscreen"], elem_classes=["pictures"],
                )  # fmt: skip
                captions = gr.Textbox(CAPTIONS, label="Captions", lines=4, max_lines=10, info="One on each line.")
                with gr.Row():
                    match = gr.Button("Compare", variant="primary", scale=3)
                    where = gr.Button("Show where", scale=2, min_width=140, elem_classes=["one-line"])
                note = around.said_here()
                with gr.Column(elem_classes=["settings"]):
                    engine = gr.Dropdown(matcher.engines, value=matcher.engine, label="Engine", interactive=True)
            with gr.Column():
                bars = gr.HTML(_empty(), elem_classes=["bars"], padding=False)
                parts = gr.Gallery(
                    label="What counts for the best caption", columns=2, object_fit="contain", interactive=False,
                    visible=False, height="auto", buttons=["download", "fullscreen"], elem_classes=["parts"],
                )  # fmt: skip
        weights = Path(matcher.pretrained).name or "random weights: what it says means nothing"
        around.foot(matcher.name, weights)

        def compare(given: Any, text: str, on: str) -> tuple[Any, ...]:
            found, lines = _pictures(given), _lines(text)
            started = time.perf_counter()
            probabilities = matcher.probabilities(found, lines, on)
            took = time.perf_counter() - started
            count = "1 picture" if len(found) == 1 else f"{len(found)} pictures"
            told = Told(f"{count} and {len(lines)} captions in {seconds(took)}", engine=about(on).label)
            return _bars(lines, probabilities), gr.Gallery(visible=False), told

        def look(given: Any, text: str, on: str) -> tuple[Any, ...]:
            found, lines = _pictures(given), _lines(text)
            started = time.perf_counter()
            probabilities = matcher.probabilities(found, lines, on)
            shown = []
            for picture, row in zip(found, probabilities, strict=True):
                best = int(row.argmax())
                shown.append((overlay(matcher.seen(picture), matcher.parts(picture, lines, best, on)), lines[best]))
            told = Told(
                f"Parts covered and compared in {seconds(time.perf_counter() - started)}", engine=about(on).label
            )
            return _bars(lines, probabilities), gr.Gallery(shown, visible=True), told

        shown = [bars, parts, note, around.top]
        for button, function, name in ((match, compare, "compare"), (where, look, "where")):
            button.click(
                around.answers(2)(function), [pictures, captions, engine], shown, api_name=name,
                show_progress="minimal", show_progress_on=[bars], **ONE_AT_A_TIME,
            )  # fmt: skip
    return blocks


def _pictures(given: Any) -> list[Any]:
    found = [one[0] if isinstance(one, (tuple, list)) else one for one in given or ()]
    if any(isinstance(one, str) or one is None for one in found):
        raise InputError("Only pictures are read: PNG, JPEG, WebP and what else Pillow knows.")
    return found


def _lines(text: str) -> list[str]:
    return list(dict.fromkeys(line.strip() for line in (text or "").splitlines() if line.strip()))


def _empty() -> str:
    return '<p class="none">The bars stand here: for each picture how sure the model is of every caption.</p>'


def _bars(captions: Sequence[str], probabilities: Any) -> str:
    """A list for each picture, its captions in the order in which they were written, the best one marked."""
    parts = []
    for number, row in enumerate(probabilities, 1):
        best = int(row.argmax())
        items = "".join(
            f'<li class="{"best" if place == best else ""}"><span class="text">{html.escape(text)}</span>'
            f'<span class="share">{100 * share:.1f} %</span>'
            f'<span class="bar" style="width: {100 * share:.2f}%"></span></li>'
            for place, (text, share) in enumerate(zip(captions, row, strict=True))
        )
        parts.append(f'<section aria-label="Picture {number}"><h2>Picture {number}</h2><ul>{items}</ul></section>')
    return "".join(parts)
