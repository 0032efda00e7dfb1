# SPDX-License-Identifier: Apache-2.0
"""The frame of all pages: the look, the top that says what computes and how long it took, and how errors are shown.

A page is built inside of `page(...)` and served by `serve`. What its buttons call is wrapped by `Frame.answers`: an
error of Paritas stands under the button that met it, a bug of ours too, with its traceback in the terminal.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import importlib.resources
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from paritas.errors import InputError, ParitasError
from paritas.run.engine import about, default_engine

Said = Callable[[str], None]

LARGEST = "100mb"  # of an uploaded file
KEPT = 3600  # seconds for which what was uploaded and made stays on disk

#: One run at a time, of all buttons together: others wait in Gradio's queue and see their place in it.
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "models", "concurrency_limit": 1}


def gradio() -> Any:
    """The library, which is kept from telling its makers. Raises `InputError` if it is missing."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise InputError(f"The page needs gradio ({error}). Install it:   pip install 'paritas[page]'") from error
    return gradio


def seconds(count: float) -> str:
    """A time as a reader wants it: "0.34 s", "12.3 s", "3 min 5 s"."""
    if count < 60:
        return f"{count:.2f} s" if count < 10 else f"{count:.1f} s"
    return f"{int(count) // 60} min {int(count) % 60} s"


@dataclasses.dataclass(frozen=True)
class Told:
    """What a run tells beside its values. took: what it did, in which time, or what it does now, ending in "…".

    hint: what is to be known of the result. engine: the label of the one that computed, if it is not the page's.
    plain: whether the hint is what was asked for, and no warning.
    """

    took: str
    hint: str = ""
    engine: str = ""
    plain: bool = False


class Frame:
    """What is around a page. `top` and what `said_here` returns are outputs of every button's function."""

    def __init__(self, gr: Any, title: str, intro: str, engine: str | None, said: Said) -> None:
        self.gr, self.title, self.intro, self.said = gr, title, intro, said
        self.engine = about(engine or default_engine()).label
        self.top: Any = None

    def heading(self, told: Told | None = None) -> str:
        """The top, as HTML."""
        took, engine = (told.took, told.engine or self.engine) if told else ("Ready", self.engine)
        waiting = told is None or took.endswith("…")
        state = f'<p class="took{" waiting" if waiting else ""}">{html.escape(took)}</p>'
        return (
            f'<p class="brand">Paritas</p><h1>{html.escape(self.title)} '
            f'<span class="engine">on {html.escape(engine)}</span></h1>'
            f'<p class="intro">{html.escape(self.intro)}</p>{state}'
        )

    def said_here(self) -> Any:
        """A place for what a button's function has to say: under the button, and not there while there is nothing."""
        return self.gr.HTML(visible=False, elem_classes=["said"], padding=False)

    def wrong(self, text: str) -> Any:
        """An error, for the place that `said_here` made."""
        return self.gr.HTML(f'<p class="wrong" role="alert">{_marked(text)}</p>', visible=True)

    def hint(self, told: Told) -> Any:
        """What is to be known of a result, for the same place; nothing if that is nothing."""
        if not told.hint:
            return self.nothing()
        kind = "hint plain" if told.plain else "hint"
        return self.gr.HTML(f'<p class="{kind}" role="status">{_marked(told.hint)}</p>', visible=True)

    def nothing(self) -> Any:
        """For the same place: nothing is to be said."""
        return self.gr.HTML("", visible=False)

    def answers(self, outputs: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """A decorator for what a button calls, which returns so many values, then what is `Told`.

        What goes wrong is said where `said_here` is, and the values are left as they are.
        """

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def answer(*given: Any) -> tuple[Any, ...]:
                try:
                    *values, told = function(*given)
                    return *values, self.hint(told), self.heading(told)
                except Exception as error:  # noqa: BLE001 - the last resort: a bug of ours, said as one
                    return *(self.gr.skip() for _ in range(outputs)), self.wrong(self.explained(error)), self.heading()

            return answer

        return decorate

    def streams(self, outputs: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """As `answers`, for what yields such values many times."""

        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def answer(*given: Any) -> Iterator[tuple[Any, ...]]:
                try:
                    for *values, told in function(*given):
                        yield *values, self.hint(told), self.heading(told)
                except Exception as error:  # noqa: BLE001 - as above
                    yield *(self.gr.skip() for _ in range(outputs)), self.wrong(self.explained(error)), self.heading()

            return answer

        return decorate

    def explained(self, error: Exception) -> str:
        """What is shown of an error. A bug's traceback goes to the terminal."""
        if isinstance(error, ParitasError):
            return str(error)
        self.said("".join(traceback.format_exception(error)))
        return f"This is a bug in Paritas, please report it with the traceback in the terminal: {type(error).__name__}"

    def foot(self, *models: str) -> None:
        """The last line: what the page runs, and that nothing leaves this machine."""
        names = ", ".join(html.escape(name) if " " in name else f"<code>{html.escape(name)}</code>" for name in models)
        self.gr.HTML(f"<p>{names} · computed on this machine, nothing is sent elsewhere</p>", elem_classes=["foot"])


def _marked(text: str) -> str:
    """A message as HTML: what is to be typed after "   " is set apart, as it is in a terminal."""
    words, _, command = text.partition(":   ")
    return html.escape(words) + (f":\n<code>{html.escape(command)}</code>" if command else "")


@contextmanager
def page(title: str, intro: str, *, engine: str | None, said: Said = lambda line: None) -> Iterator[tuple[Any, Frame]]:
    """A `gradio.Blocks` to build a page in, and its frame. said: called with a line for the terminal.

    What is uploaded or made is removed after an hour, and when the page ends.
    """
    gr = gradio()
    with gr.Blocks(
        title=f"Paritas: {title.lower()}", analytics_enabled=False, delete_cache=(KEPT // 4, KEPT)
    ) as blocks:
        frame = Frame(gr, title, intro, engine, said)
        frame.top = gr.HTML(frame.heading(), elem_classes=["hero"], padding=False)
        yield blocks, frame


def serve(blocks: Any, host: str, port: int) -> str:
    """Start the server in a thread, and return the page's address. Raises `InputError` if it cannot listen there."""
    gr = gradio()
    try:
        _, address, _ = blocks.queue(max_size=20).launch(
            server_name=host,
            server_port=port,
            share=False,
            ssr_mode=False,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            max_file_size=LARGEST,
            theme=theme(gr),
            css=importlib.resources.files("paritas.apps").joinpath("frame.css").read_text(encoding="utf-8"),
        )
    except OSError as error:
        raise InputError(f"The page cannot be served at {host}:{port}; choose another --port.") from error
    return address


def serve_until_interrupted(blocks: Any, host: str, port: int, what: str, said: Callable[[str], None]) -> None:
    """Serve until Ctrl-C. said: gets the line that names the page's address. Raises as `serve`."""
    address = serve(blocks, host, port)
    try:
        said(f"{what}: {address}   (Ctrl-C ends it)")
        threading.Event().wait()
    except KeyboardInterrupt:
        said("")
    finally:
        blocks.close(verbose=False)


def theme(gr: Any) -> Any:
    """The colours and measures of Paritas' reports, for light and dark, with the fonts that a machine has."""
    blue = gr.themes.Color(
        c50="#eef5fc", c100="#d7e8f8", c200="#b0d1f1", c300="#6cb2ff", c400="#3a92e6", c500="#0b5cad", c600="#0b5cad",
        c700="#094b8d", c800="#073a6e", c900="#062c54", c950="#041e3a", name="paritas",
    )  # fmt: skip
    grey = gr.themes.Color(
        c50="#f7f8fa", c100="#f4f5f7", c200="#dfe3e8", c300="#c9d0d8", c400="#9aa4af", c500="#5b636d", c600="#4a525b",
        c700="#2b313a", c800="#1c2026", c900="#16191e", c950="#0d0f12", name="paper",
    )  # fmt: skip
    base = gr.themes.Base(
        primary_hue=blue, secondary_hue=blue, neutral_hue=grey, radius_size=gr.themes.sizes.radius_md,
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
    )  # fmt: skip
    return base.set(
        body_background_fill="#f4f5f7", body_background_fill_dark="#0d0f12",
        body_text_color="#1b1f24", body_text_color_dark="#e7eaee",
        body_text_color_subdued="#5b636d", body_text_color_subdued_dark="#9aa4af",
        background_fill_primary="#ffffff", background_fill_primary_dark="#16191e",
        background_fill_secondary="#f7f8fa", background_fill_secondary_dark="#1c2026",
        border_color_primary="#dfe3e8", border_color_primary_dark="#2b313a",
        color_accent="#0b5cad", link_text_color="#0b5cad", link_text_color_dark="#6cb2ff",
        block_background_fill="#ffffff", block_background_fill_dark="#16191e",
        block_border_width="1px", block_radius="12px", block_shadow="none", block_padding="1rem",
        block_label_background_fill="transparent", block_label_background_fill_dark="transparent",
        block_label_border_width="0px", block_label_text_color="#5b636d", block_label_text_color_dark="#9aa4af",
        block_title_text_weight="600", block_label_text_weight="600",
        input_background_fill="#ffffff", input_background_fill_dark="#0d0f12",
        input_border_color="#c9d0d8", input_border_color_dark="#2b313a", input_border_width="1px",
        input_border_color_focus="#0b5cad", input_border_color_focus_dark="#6cb2ff", input_radius="8px",
        button_primary_background_fill="#0b5cad", button_primary_background_fill_hover="#094b8d",
        button_primary_background_fill_dark="#2f7fd0", button_primary_background_fill_hover_dark="#3a92e6",
        button_primary_text_color="#ffffff", button_large_radius="8px", button_large_text_weight="600",
        button_secondary_background_fill="#ffffff", button_secondary_background_fill_dark="#1c2026",
        button_secondary_border_color="#c9d0d8", button_secondary_border_color_dark="#2b313a",
        button_border_width="1px", slider_color="#0b5cad", slider_color_dark="#6cb2ff", loader_color="#0b5cad",
    )  # fmt: skip
