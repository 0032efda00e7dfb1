# SPDX-License-Identifier: Apache-2.0
"""`paritas speech`: a page to speak to, served to a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from paritas.cli.commands.translate import EngineOption
from paritas.cli.options import Debug, Device, OvConfig
from paritas.cli.outcome import OK, say
from paritas.cli.properties import where

Asr = Annotated[
    str, typer.Option(metavar="MODEL", help="Speech to text: a hub id or a directory, of SpeechT5, Whisper or others.")
]
Vc = Annotated[str, typer.Option(metavar="MODEL", help="A SpeechT5ForSpeechToSpeech: one voice to another.")]
Tts = Annotated[str, typer.Option(metavar="MODEL", help="A SpeechT5ForTextToSpeech.")]
Vocoder = Annotated[str, typer.Option(metavar="MODEL", help="A SpeechT5HifiGan, for both.")]
Speakers = Annotated[
    list[str] | None,
    typer.Option(
        "--speaker",
        metavar="NAME=FILE.npy",
        help="A voice to speak in, an x-vector; repeatable; a made-up one if not given.",
    ),
]
Host = Annotated[
    str,
    typer.Option(
        help="Where to listen; 0.0.0.0 for everybody in the network, whose browsers lend a microphone over https only."
    ),
]
PortNumber = Annotated[int, typer.Option(min=1, max=65535, help="Where the page is.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="The seed that the page begins with.")]


def speech(
    asr: Asr = "microsoft/speecht5_asr",
    vc: Vc = "microsoft/speecht5_vc",
    tts: Tts = "microsoft/speecht5_tts",
    vocoder: Vocoder = "microsoft/speecht5_hifigan",
    speaker: Speakers = None,
    engine: EngineOption = None,
    device: Device = "",
    ov_config: OvConfig = None,
    host: Host = "127.0.0.1",
    port: PortNumber = 7860,
    seed: Seed = 0,
    debug: Debug = False,
) -> int:
    """Serve a page with speech to text, voice conversion and text to speech, with the networks on an engine.

    Each model is loaded when its tab is first used. Recordings of any rate become mono of the model's own rate
    (soundfile, scipy). Needs pip install 'paritas[page]'. Ctrl-C ends it.

    **Examples**

      paritas speech

      paritas speech --asr openai/whisper-base --speaker Anna=anna.npy --speaker Ben=ben.npy --engine mindspore
    """
    from paritas.apps import frame
    from paritas.apps.speech import page
    from paritas.apps.speech.models import Checkpoints, Speech, speakers
    from paritas.run.engine import default_engine
    from paritas.run.engine import engine as find_engine

    checkpoints = Checkpoints(asr=asr, vc=vc, tts=tts, vocoder=vocoder)
    checkpoints.check()
    voices = speakers(speaker or [])
    find_engine(engine or default_engine())
    served = Speech(checkpoints, voices, engine, **where(engine, device, ov_config))
    blocks = page.page(served, seed=seed, said=_say)
    frame.serve_until_interrupted(blocks, host, port, f"Speech on {engine or default_engine()}", _say)
    return OK


def _say(line: str) -> None:
    say(line, err=True)
