# SPDX-License-Identifier: Apache-2.0
"""How a command ends: its exit code, and one message without a traceback for every error a user can meet."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from paritas.errors import ParitasError
from paritas.extras import require
from paritas.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

OK, DIVERGES, BAD_INPUT, BUG, INTERRUPTED = 0, 1, 2, 3, 130


def guarded(command: Callable[..., int], needs: str = "", name: str = "") -> Callable[..., None]:
    """`command` as typer wants it: what it returns is the exit code, what it raises is said in one message.

    needs: the extra without which it does nothing. name: what a user types to call it.
    """

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        as_json = bool(options.get("as_json"))
        try:
            with _only_json(as_json):
                if needs:
                    require(needs, f"paritas {name}")
                code = command(*args, **options)
        except KeyboardInterrupt:
            say("\nInterrupted. Nothing was left half-made.", err=True)
            code = INTERRUPTED
        except ParitasError as error:
            code = _say(error, str(error), BAD_INPUT, as_json, options)
        except OSError as error:
            # Outside the store, whose own errors say more: the disk of the temporary directory is full, say.
            code = _say(
                error, f"{error.strerror or error}: {error.filename or 'no file named'}", BAD_INPUT, as_json, options
            )
        except MemoryError as error:
            code = _say(error, "There is not enough memory for this model.", BAD_INPUT, as_json, options)
        except Exception as error:  # noqa: BLE001 - the last resort: a bug of ours, said as one
            options["debug"] = True
            text = f"This is a bug in Paritas, please report it with the traceback: {type(error).__name__}: {error}"
            code = _say(error, text, BUG, as_json, options)
        _answer()
        if code:
            raise typer.Exit(code)

    return run


def _say(error: BaseException, text: str, code: int, as_json: bool, options: dict[str, Any]) -> int:
    if options.get("debug"):
        say("".join(traceback.format_exception(error)), err=True)
    if as_json:
        print_json({"error": {"type": type(error).__name__, "message": text}, "exit_code": code})
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    typer.secho("error: ", fg=None if plain else "red", bold=not plain, err=True, nl=False)
    say(text, err=True)
    return code


_answers: list[str] = []


def print_json(value: Any) -> None:
    """The one JSON object of a command, on stdout once nothing else writes there any more."""
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    _answers.append(printable(text, as_json=True))


def say(text: str, *, err: bool = False) -> None:
    """A line of text, whoever wrote it."""
    typer.echo(printable(text), err=err)


def console(*, stderr: bool = False) -> Console:
    """Where tables go: as wide as the terminal, and wide enough for them where there is none."""
    from rich.console import Console, RenderableType
    from rich.segment import Segment

    class Screen(Console):
        """A console that shows what a terminal would obey, where it comes from a port or a model."""

        def render(self, renderable: RenderableType, options: Any = None) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

    if stderr:
        return Screen(stderr=True)
    return Screen(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120)


@contextlib.contextmanager
def _only_json(wanted: bool) -> Iterator[None]:
    """Send what libraries write to stdout, C++ ones included, to stderr: stdout is JSON alone."""
    if not wanted:
        yield
        return
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


def _answer() -> None:
    while _answers:
        print(_answers.pop(0), flush=True)
