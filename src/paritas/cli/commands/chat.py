# SPDX-License-Identifier: Apache-2.0
"""`paritas chat`: a conversation with a port, on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from paritas.cli.commands.generate import (
    MostTokens,
    Penalty,
    PortName,
    Seed,
    Temperature,
    TopK,
    TopP,
    options_of,
    show,
    writer_for,
)
from paritas.cli.options import Debug, Device, OvConfig
from paritas.cli.outcome import OK
from paritas.cli.properties import properties_of
from paritas.errors import InputError, ParitasError, PortError
from paritas.extras import missing

System = Annotated[str, typer.Option("--system", help="What the model is told before the conversation.")]


def chat(
    directory: PortName,
    system: System = "",
    max_new_tokens: MostTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    repetition_penalty: Penalty = None,
    seed: Seed = None,
    device: Device = "",
    ov_config: OvConfig = None,
    debug: Debug = False,
) -> int:
    """Talk with a model, in the words of its tokenizer's chat template.

    /exit ends the conversation, /new begins another; Ctrl-C ends an answer. What was said is not computed again.
    """
    options = options_of(max_new_tokens or 1024, 0, temperature, top_k, top_p, 1, repetition_penalty, seed)
    writer = writer_for(directory, options, device, properties_of(ov_config))
    if not hasattr(writer, "conversation"):
        raise InputError(f"{directory} writes what it hears: paritas generate {directory} FILE.wav")
    try:
        writer.conversation([{"role": "user", "content": ""}])
    except PortError:  # transformers knows templates that have more than jinja's own words
        if missing("port"):
            raise
        from paritas.transformers.texts import Writer

        writer = Writer(writer.port)
    talk(writer, options, system, ask=_asked, tell=show)
    return OK


def talk(
    writer: Any, options: dict[str, Any], system: str, ask: Callable[[], str | None], tell: Callable[[str], None]
) -> list[dict[str, str]]:
    """A conversation, until `ask` returns None; what was said."""
    begun = [{"role": "system", "content": system}] if system else []
    messages = list(begun)
    writer.conversation([*messages, {"role": "user", "content": ""}])  # no template, no conversation
    while (said := ask()) is not None:
        if said.strip() == "/new":
            messages = list(begun)
        elif said.strip():
            messages.append({"role": "user", "content": said})
            answer: list[str] = []

            def heard(text: str, answer: list[str] = answer) -> None:
                answer.append(text)
                tell(text)

            try:
                writer.write(writer.conversation(messages), options, heard, whole=True)
            except KeyboardInterrupt:
                tell(" ...")
            except ParitasError as error:  # a conversation that became too long
                messages.pop()
                tell(f"{error}\n")
                continue
            tell("\n")
            messages.append({"role": "assistant", "content": "".join(answer)})
    return messages


def _asked() -> str | None:
    """A line of the user's; None where there is no more, or for /exit."""
    try:
        said = input("> " if sys.stdin.isatty() else "")
    except (EOFError, KeyboardInterrupt):
        if sys.stdin.isatty():
            show("\n")
        return None
    return None if said.strip() in ("/exit", "/quit") else said
