# SPDX-License-Identifier: Apache-2.0
"""The page of `paritas speech`: three tabs of Gradio's, which show what goes wrong as one message."""

from __future__ import annotations

import html
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from paritas.apps.speech.models import Speech, pcm16
from paritas.errors import InputError, ParitasError

LARGEST = "100mb"  # of an uploaded file
KEPT = 3600  # seconds for which recordings and speech stay on disk

#: One generation at a time, in all tabs together: others wait in Gradio's queue and see their place in it.
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "models", "concurrency_limit": 1}


def gradio() -> Any:
    """The library, which is kept from telling its makers. Raises `InputError` if it is missing."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
        import scipy  # noqa: F401
        import soundfile  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: soundfile without libsndfile
        raise InputError(
            f"The page needs gradio, scipy and soundfile ({error}). Install them:   pip install 'paritas[page]'"
        ) from error
    return gradio


def page(speech: Speech, *, seed: int = 0, said: Callable[[str], None] = lambda line: None) -> Any:
    """The page, a `gradio.Blocks`. said: called with a line for the terminal."""
    gr = gradio()

    def told(progress: Any) -> Callable[[str], None]:
        def tell(what: str) -> None:
            progress(None, desc=what)
            if what.startswith("Loading"):
                said(what)

        return tell

    def number(value: float | None) -> int:
        if value is None:
            raise InputError("The seed has to be a whole number.")
        return int(value)

    def hear(path: str | None, progress: Any = gr.Progress()) -> str:  # noqa: B008 - so Gradio finds it
        with shown(gr, said):
            text = speech.hear(path, seed, told(progress))
            if not text:
                gr.Warning("No speech was recognised in this recording.")
            return text

    def convert(path: str | None, voice: str, drawn: float | None, progress: Any = gr.Progress()) -> Any:  # noqa: B008
        with shown(gr, said):
            rate, samples = speech.convert(path, voice, number(drawn), told(progress))
            return rate, pcm16(samples)

    def say(text: str, voice: str, drawn: float | None, progress: Any = gr.Progress()) -> Any:  # noqa: B008
        with shown(gr, said):
            rate, samples, unknown = speech.say(text, voice, number(drawn), told(progress))
            if unknown:
                gr.Warning(f"Left out, the model does not know them: {html.escape(' '.join(unknown))}")
            return rate, pcm16(samples)

    names, asked = speech.voices, speech.checkpoints

    def voice_and_seed() -> tuple[Any, Any]:
        voice = gr.Dropdown(names, value=names[0], label="Voice", interactive=True)
        drawn = gr.Number(
            seed, precision=0, minimum=0, maximum=2**32 - 1, label="Seed", info="Another one speaks in another way."
        )
        return voice, drawn

    # Of the buttons none but these: "share" would send the sound to another host.
    def recorder() -> Any:
        return gr.Audio(sources=["microphone", "upload"], type="filepath", label="Recording", buttons=["download"])

    def speaking() -> Any:
        return gr.Audio(
            type="numpy", format="wav", interactive=False, label="Speech", buttons=["download"], elem_classes=["speech"]
        )

    # Recordings are somebody's voice: they are removed after an hour, and when the page ends.
    with gr.Blocks(title="Paritas: speech", analytics_enabled=False, delete_cache=(KEPT // 4, KEPT)) as blocks:
        gr.Markdown("# Speech")
        with gr.Tab("Speech to text"), gr.Row():
            with gr.Column():
                heard = recorder()
                button = gr.Button("Transcribe", variant="primary")
            with gr.Column():
                text = gr.Textbox(label="Text", lines=6, buttons=["copy"])
                gr.Markdown(f"`{asked.asr}`")
            button.click(hear, [heard], [text], api_name="hear", **ONE_AT_A_TIME)
        with gr.Tab("Convert a voice"), gr.Row():
            with gr.Column():
                heard = recorder()
                voice, drawn = voice_and_seed()
                button = gr.Button("Convert", variant="primary")
            with gr.Column():
                speech_out = speaking()
                gr.Markdown(f"`{asked.vc}`, `{asked.vocoder}`")
            button.click(convert, [heard, voice, drawn], [speech_out], api_name="convert", **ONE_AT_A_TIME)
        with gr.Tab("Text to speech"), gr.Row():
            with gr.Column():
                text = gr.Textbox(label="Text to say", lines=4)
                voice, drawn = voice_and_seed()
                button = gr.Button("Speak", variant="primary")
            with gr.Column():
                speech_out = speaking()
                gr.Markdown(f"`{asked.tts}`, `{asked.vocoder}`")
            button.click(say, [text, voice, drawn], [speech_out], api_name="say", **ONE_AT_A_TIME)
    return blocks.queue(max_size=20)


@contextmanager
def shown(gr: Any, said: Callable[[str], None]) -> Iterator[None]:
    """What goes wrong, as one message in the page; a bug of ours with its traceback in the terminal alone."""
    try:
        yield
    except ParitasError as error:
        raise gr.Error(html.escape(str(error)), print_exception=False) from None
    except Exception as error:  # noqa: BLE001 - the last resort: a bug of ours, said as one
        said("".join(traceback.format_exception(error)))
        text = f"This is a bug in Paritas, please report it with the traceback in the terminal: {type(error).__name__}"
        raise gr.Error(text, print_exception=False) from None


def serve(blocks: Any, host: str, port: int) -> str:
    """Start the server in a thread, and return the page's address. Raises `InputError` if it cannot listen there."""
    gr = gradio()
    try:
        _, address, _ = blocks.launch(
            server_name=host,
            server_port=port,
            share=False,
            ssr_mode=False,
            prevent_thread_lock=True,
            quiet=True,
            footer_links=[],
            max_file_size=LARGEST,
            theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        )
    except OSError as error:
        raise InputError(f"The page cannot be served at {host}:{port}; choose another --port.") from error
    return address
