# SPDX-License-Identifier: Apache-2.0
"""The page of `paritas speech`: three tabs, for speech to text, one voice to another, text to speech."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from paritas.apps import frame
from paritas.apps.frame import ONE_AT_A_TIME, Told, seconds
from paritas.apps.speech.models import Speech, pcm16
from paritas.errors import InputError

INTRO = "Speak, upload a recording or type, and hear it as text, in another voice or aloud."

SENTENCES = (
    "Don't count the days, make the days count.",
    "The same numbers, on another engine.",
    "How much wood would a woodchuck chuck?",
)


class Clock:
    """How long a model takes, from when it was last said what is done: loading it is not part of that."""

    def __init__(self, progress: Any, said: Callable[[str], None]) -> None:
        self._progress, self._said = progress, said
        self._since = time.perf_counter()

    def __call__(self, what: str) -> None:
        self._since = time.perf_counter()
        self._progress(None, desc=what)
        if what.startswith("Loading"):
            self._said(what)

    def took(self) -> str:
        """The time since then."""
        return seconds(time.perf_counter() - self._since)


def page(speech: Speech, *, seed: int = 0, said: Callable[[str], None] = lambda line: None) -> Any:
    """The page, a `gradio.Blocks`. said: called with a line for the terminal."""
    gr = gradio()
    names, asked = speech.voices, speech.checkpoints

    with frame.page("Speech", INTRO, engine=speech.engine, said=said) as (blocks, around):
        with gr.Tabs():
            with gr.Tab("Transcribe"), gr.Row(equal_height=False):
                with gr.Column():
                    heard = _recorder(gr)
                    listen = gr.Button("Transcribe", variant="primary")
                    said_of_text = around.said_here()
                with gr.Column():
                    text = gr.Textbox(
                        label="Text", lines=6, buttons=["copy"], placeholder="What was said appears here."
                    )
            with gr.Tab("Convert"), gr.Row(equal_height=False):
                with gr.Column():
                    given = _recorder(gr)
                    voice, drawn = _voice_and_seed(gr, names, seed)
                    turn = gr.Button("Convert", variant="primary")
                    said_of_voice = around.said_here()
                with gr.Column():
                    converted = _speaking(gr)
            with gr.Tab("Speak"), gr.Row(equal_height=False):
                with gr.Column():
                    words = gr.Textbox(label="Text to say", lines=4, placeholder="A sentence or two.")
                    gr.Examples([[sentence] for sentence in SENTENCES], [words], label="Examples")
                    speaker, seeded = _voice_and_seed(gr, names, seed)
                    speak = gr.Button("Speak", variant="primary")
                    said_of_speech = around.said_here()
                with gr.Column():
                    spoken = _speaking(gr)
        around.foot(*dict.fromkeys((asked.asr, asked.vc, asked.tts, asked.vocoder)))

        def hear(path: str | None, progress: Any = gr.Progress()) -> Any:  # noqa: B008 - so Gradio finds it
            clock = Clock(progress, said)
            found = speech.hear(path, seed, clock)
            hint = "" if found else "No speech was recognised in this recording."
            return found, Told(f"Transcribed in {clock.took()}", hint)

        def convert(path: str | None, name: str, number: float | None, progress: Any = gr.Progress()) -> Any:  # noqa: B008
            clock = Clock(progress, said)
            rate, samples = speech.convert(path, name, _whole(number), clock)
            return (rate, pcm16(samples)), Told(_spoken(rate, samples, clock))

        def say(what: str, name: str, number: float | None, progress: Any = gr.Progress()) -> Any:  # noqa: B008
            clock = Clock(progress, said)
            rate, samples, unknown = speech.say(what, name, _whole(number), clock)
            hint = f"Left out, the model does not know them: {' '.join(unknown)}" if unknown else ""
            return (rate, pcm16(samples)), Told(_spoken(rate, samples, clock), hint)

        for button, function, inputs, output, place in (
            (listen, hear, [heard], text, said_of_text),
            (turn, convert, [given, voice, drawn], converted, said_of_voice),
            (speak, say, [words, speaker, seeded], spoken, said_of_speech),
        ):
            button.click(
                around.answers(1)(function), inputs, [output, place, around.top],
                api_name=function.__name__, show_progress_on=[output], **ONE_AT_A_TIME,
            )  # fmt: skip
    return blocks


def gradio() -> Any:
    """Gradio, with what reads and resamples sound. Raises `InputError` if one is missing."""
    gr = frame.gradio()
    try:
        import scipy  # noqa: F401
        import soundfile  # noqa: F401
    except (ImportError, OSError) as error:  # OSError: soundfile without libsndfile
        raise InputError(
            f"The page needs scipy and soundfile ({error}). Install them:   pip install 'paritas[page]'"
        ) from error
    return gr


def _spoken(rate: int, samples: Any, clock: Clock) -> str:
    return f"{seconds(len(samples) / rate)} of speech in {clock.took()}"


def _whole(number: float | None) -> int:
    if number is None:
        raise InputError("The seed has to be a whole number.")
    return int(number)


def _voice_and_seed(gr: Any, names: list[str], seed: int) -> tuple[Any, Any]:
    voice = gr.Dropdown(names, value=names[0], label="Voice", interactive=True)
    drawn = gr.Number(
        seed, precision=0, minimum=0, maximum=2**32 - 1, label="Seed", info="Another one speaks in another way."
    )
    return voice, drawn


# Of the buttons none but these: "share" would send the sound to another host.
def _recorder(gr: Any) -> Any:
    return gr.Audio(sources=["microphone", "upload"], type="filepath", label="Recording", buttons=["download"])


def _speaking(gr: Any) -> Any:
    return gr.Audio(
        type="numpy", format="wav", interactive=False, label="Speech", buttons=["download"], elem_classes=["speech"]
    )
