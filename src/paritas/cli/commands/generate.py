# SPDX-License-Identifier: Apache-2.0
"""`paritas generate`: what a port writes after a text, on the terminal as it comes."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from paritas.cli.options import Debug, Device, Json, OvConfig
from paritas.cli.outcome import OK, print_json
from paritas.cli.properties import properties_of
from paritas.printable import printable

PortName = Annotated[Path, typer.Argument(metavar="DIR", help="The directory of a port that generates.")]
Prompt = Annotated[
    str,
    typer.Argument(
        help='The text to go on with, or to answer; "-" reads it from stdin. Of a model that hears: a sound file.'
    ),
]
Images = Annotated[
    list[Path] | None,
    typer.Option("--image", metavar="FILE", help="An image that the text is about; several: give it several times."),
]
MostTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", min=1, help="At most so many tokens; 256 if nothing says another.")
]
LeastTokens = Annotated[int, typer.Option("--min-new-tokens", min=0, help="At least so many tokens.")]
Temperature = Annotated[
    float | None, typer.Option("--temperature", min=0, help="Sample, the wilder the larger; 0 takes the likeliest.")
]
TopK = Annotated[int | None, typer.Option("--top-k", min=1, help="Sample of so many of the likeliest tokens.")]
TopP = Annotated[float | None, typer.Option("--top-p", min=0, max=1, help="And of those with so much probability.")]
Beams = Annotated[int, typer.Option("--num-beams", min=1, help="Search with so many beams.")]
Penalty = Annotated[float | None, typer.Option("--repetition-penalty", help="Above 1: say less of it twice.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Of what is sampled.")]


def generate(
    directory: PortName,
    prompt: Prompt,
    images: Images = None,
    max_new_tokens: MostTokens = None,
    min_new_tokens: LeastTokens = 0,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    num_beams: Beams = 1,
    repetition_penalty: Penalty = None,
    seed: Seed = None,
    device: Device = "",
    ov_config: OvConfig = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    """Go on with a text, and print what follows as it comes; or answer it, or write what is said in a sound file.

    What is written is up to the model: an encoder with a decoder translates or summarises, Whisper listens. Tokens are
    chosen as the model's generation_config.json says, and as the options say.

    **Examples**

      paritas generate llama-openvino "Once upon a time" --max-new-tokens 100

      paritas generate whisper-openvino interview.wav

      paritas generate gemma3-openvino "What is on the table?" --image kitchen.jpg

      cat question.txt | paritas generate llama-openvino - --temperature 0.7 --top-p 0.9 --seed 1
    """
    text = sys.stdin.read().removesuffix("\n") if prompt == "-" else prompt
    options = options_of(
        max_new_tokens or 256, min_new_tokens, temperature, top_k, top_p, num_beams, repetition_penalty, seed
    )
    writer = writer_for(directory, options, device, properties_of(ov_config), images or ())
    if max_new_tokens is None and getattr(writer, "ends_by_itself", False):
        del options["max_new_tokens"]
    start = time.perf_counter()
    found = writer.write(text, options, None if as_json else show)
    if as_json:
        print_json({"prompt": text, "text": found, "seconds": round(time.perf_counter() - start, 3)})
    else:
        show("\n")
    return OK


def writer_for(
    directory: Path,
    options: dict[str, Any],
    device: str = "",
    ov_config: Mapping[str, Any] | None = None,
    images: Sequence[Path] = (),
) -> Any:
    """What writes with the port in `directory`: a loop of ours that is there at once, or transformers' for the rest."""
    from paritas import pipeline, texts

    port = pipeline.load(directory, device=device, ov_config=ov_config)
    why = "images are prepared" if images else "it has several components"
    if not images and isinstance(port, pipeline.Port) and not (why := texts.why_not(port, options)):
        return texts.Writer(port)
    from paritas.extras import require

    require("port", f"Generating with {directory} ({why})")
    from paritas.transformers.texts import writer

    return writer(port, images)


def options_of(
    most: int,
    least: int,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    beams: int,
    penalty: float | None,
    seed: int | None,
) -> dict[str, Any]:
    """Of a generation, by transformers' names: those that were given."""
    found: dict[str, Any] = {"max_new_tokens": most}
    if least:
        found["min_new_tokens"] = least
    if temperature == 0:
        found["do_sample"] = False
    elif temperature is not None or top_k is not None or top_p is not None:
        named = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        found |= {"do_sample": True, **{name: value for name, value in named.items() if value is not None}}
    if beams > 1:
        found["num_beams"] = beams
    for name, value in (("repetition_penalty", penalty), ("seed", seed)):
        if value is not None:
            found[name] = value
    return found


def show(text: str) -> None:
    """A piece of text, at once, and none of what a terminal would obey."""
    sys.stdout.write(printable(text))
    sys.stdout.flush()
