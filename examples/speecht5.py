# SPDX-License-Identifier: Apache-2.0
"""SpeechT5 on an engine: text to speech, one voice to another, speech to text.

    python examples/speecht5.py say "Don't count the days, make the days count." --wav said.wav
    python examples/speecht5.py convert spoken.wav --wav converted.wav
    python examples/speecht5.py hear spoken.wav

`--model` and `--vocoder` are directories or names on the hub. A speaker is an x-vector: `--speaker`, a file of NumPy.
The decoder's pre-net draws random numbers in every run, as in the original; `--seed` makes a run the same again.
"""

from __future__ import annotations

import argparse

import soundfile
import torch

from paritas.apps.speech.models import Checkpoints, recording, speaker
from paritas.errors import ParitasError
from paritas.transformers import (
    SpeechT5ForSpeechToSpeech,
    SpeechT5ForSpeechToText,
    SpeechT5ForTextToSpeech,
    SpeechT5HifiGan,
    SpeechT5Processor,
)

RATE = 16_000  # SpeechT5 knows no other
MODELS = {"say": Checkpoints().tts, "convert": Checkpoints().vc, "hear": Checkpoints().asr}


def main() -> None:
    """Read the arguments and do one of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", choices=list(MODELS))
    parser.add_argument("what", help="the text to say, or a file of sound")
    parser.add_argument("--model", help="a directory or a name on the hub; by default Microsoft's checkpoint")
    parser.add_argument("--vocoder", default=Checkpoints().vocoder)
    parser.add_argument("--speaker", help=".npy with the x-vector of the voice; without it a made-up one")
    parser.add_argument("--engine", default="openvino", choices=["openvino", "mindspore", "torch"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wav", default="speech.wav", help="where the speech goes")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    name = args.model or MODELS[args.do]
    processor = SpeechT5Processor.from_pretrained(name)
    if args.do == "hear":
        hearing = SpeechT5ForSpeechToText.from_pretrained(name, engine=args.engine)
        inputs = processor(audio=recording(args.what, RATE), sampling_rate=RATE, return_tensors="pt")
        predicted_ids = hearing.generate(**inputs, max_length=100)
        print(processor.batch_decode(predicted_ids, skip_special_tokens=True)[0])
        return

    vocoder = SpeechT5HifiGan.from_pretrained(args.vocoder, engine=args.engine)
    if args.do == "say":
        model = SpeechT5ForTextToSpeech.from_pretrained(name, engine=args.engine)
        given = processor(text=args.what, return_tensors="pt")["input_ids"]
    else:
        model = SpeechT5ForSpeechToSpeech.from_pretrained(name, engine=args.engine)
        audio = recording(args.what, RATE)
        given = processor(audio=audio, sampling_rate=RATE, return_tensors="pt")["input_values"]
    voice = speaker(args.speaker, model.config.speaker_embedding_dim)
    speech = model.generate_speech(given, voice, vocoder=vocoder)
    soundfile.write(args.wav, speech.numpy(), samplerate=RATE)
    print(f"{args.wav}: {len(speech) / RATE:.2f} s")


if __name__ == "__main__":
    try:
        main()
    except ParitasError as error:
        raise SystemExit(str(error)) from None
