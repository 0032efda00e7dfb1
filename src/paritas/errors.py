# SPDX-License-Identifier: Apache-2.0
"""Every error a user can meet, in the pipeline's order. Each says what, where, how many more, what next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from paritas.printable import printable
from paritas.program import Origin


class ParitasError(Exception):
    """The base of all of them: what the command line prints without a traceback.

    Its text may hold names of a port or a model, so it says what a terminal would obey instead of show.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


# --- install -----------------------------------------------------------------------------------


class ExtraMissing(ParitasError, ImportError):
    """Something needs packages that a bare install does not bring: names it, them, and what installs them."""

    def __init__(self, door: str, packages: Sequence[str], install: str):
        names = " and ".join(filter(None, (", ".join(packages[:-1]), packages[-1])))
        one = len(packages) == 1
        super().__init__(
            f"{door} needs {names}, which {'is' if one else 'are'} not installed. "
            f"Install {'it' if one else 'them'}:   {install}"
        )


# --- source ------------------------------------------------------------------------------------


class SourceError(ParitasError):
    """The original cannot be loaded: no such id or directory, no network, no or broken weights."""


# --- capture -----------------------------------------------------------------------------------


class InputsNeeded(ParitasError, TypeError):
    """A module that is not a transformers model was given without example inputs."""


class CaptureError(ParitasError):
    """torch.export refused the model."""


class WritesArguments(CaptureError):
    """The model writes into the lists or dictionaries that it is given: a port does not, unless it returns them."""


class ReturnsObject(CaptureError):
    """The model returns an object that is neither a tensor nor made of them."""


class LeavesBehind(CaptureError):
    """The model leaves something for somebody to read beside what it returns. behind: what, and what has it."""

    def __init__(self, message: str, behind: Sequence[Any] = ()) -> None:
        super().__init__(message)
        self.behind = behind


class OriginalFails(CaptureError):
    """The model itself does not run on the inputs that it was to be captured with; the cause is its error."""


class FrozenDimension(ParitasError):
    """A dimension that was asked to be dynamic came out of the capture as a constant."""


# --- lower -------------------------------------------------------------------------------------


class UnsupportedOps(ParitasError, NotImplementedError):
    """Every operator of a graph that an engine has no lowering for, found before any is lowered."""

    def __init__(self, engine: str, missing: Iterable[tuple[str, Origin]]):
        self.engine, self.missing = engine, tuple(missing)
        first: dict[str, Origin] = {}
        for target, origin in self.missing:
            first.setdefault(target, origin)
        counts = Counter(target for target, _ in self.missing).most_common()
        rows = [f"  {target:<44} x{count:<4} first at {first[target]}" for target, count in counts]
        name = counts[0][0].split(".")[-2:][0] if counts else ""  # a higher-order operator is "cond"
        super().__init__(
            f"{engine} cannot lower {len(rows)} of this model's operators:\n" + "\n".join(rows) + "\n"
            "Add one, in a source checkout:   "
            f"paritas scaffold op {counts[0][0] if counts else 'NAME'} --engine {engine}   writes its function and its "
            f"test cases in "
            f"src/paritas/lower/{engine}/ops/ and tests/ops/; fill in its body, then   "
            f"python -m pytest tests/ops -k {name}"
        )


class LoweringError(ParitasError):
    """An operator is known, but not with these arguments; or the engine's converter failed."""


# --- run ---------------------------------------------------------------------------------------


class UnknownEngine(ParitasError, ValueError):
    def __init__(self, name: str, known: Sequence[str], meant: str = ""):
        hint = did_you_mean([repr(meant)] if meant else ())
        super().__init__(f"There is no engine {name!r}.{hint} Paritas knows: {', '.join(known)}.")


class EngineMissing(ParitasError, ImportError):
    def __init__(self, name: str, install: str, available: Sequence[str]):
        super().__init__(
            f"The engine {name!r} is not installed. Install it:   {install}\n"
            f"Installed here: {', '.join(available) or 'none'}."
        )


class UnknownMode(ParitasError, ValueError):
    def __init__(self, engine: str, mode: str, known: Sequence[str]):
        super().__init__(f"{engine} has no mode {mode!r}. It has: {', '.join(known)}.")


class InputError(ParitasError, ValueError):
    """An input of the wrong name, rank, dtype or value: names the input, what was expected, what came."""


class TokenError(InputError, IndexError):
    """A token that the vocabulary does not have: names both. PyTorch raises IndexError there."""


class SizeError(InputError):
    """Sizes for which the model's code goes another way than the one that was captured: names the line that asks."""


class EngineError(ParitasError):
    """The engine failed while loading or running a port."""


class DeviceMissing(EngineError, ValueError):
    """A device was asked for that this machine, or its drivers, do not have."""

    def __init__(self, engine: str, device: str, known: Sequence[str], names: Mapping[str, str], advice: str = ""):
        listed = (f"{one} ({names[one]})" if names.get(one) else one for one in known)
        super().__init__(
            f"{engine} finds no device {device!r} on this machine. It has: {', '.join(listed)}.{advice and ' '}{advice}"
        )


# --- verify ------------------------------------------------------------------------------------


class OriginalMissing(ParitasError):
    """Verification needs the original, which this port cannot load again."""


class Disagreement(ParitasError, AssertionError):
    """`report.check()`: a port diverges from its original, or could not be compared in full. The report's text."""


class Diverged(ParitasError):
    """A training's loss is NaN or infinite: names the step, and the module or the weight in which it began."""


# --- store -------------------------------------------------------------------------------------


class PortError(ParitasError):
    """A port directory is not one, is incomplete, was written by a newer Paritas, or cannot be written."""


class TamperedPort(PortError):
    """A port directory holds something that Paritas did not put there; nothing of it was executed."""


# --- apps --------------------------------------------------------------------------------------


class IndexDamaged(ParitasError):
    """An index of texts cannot be read: names the file and what is wrong with it, and how to go on."""


class ZooError(ParitasError):
    """The zoo, or an entry of it, is not usable: names the file or the entry and what is wrong with it."""


def reason_of(error: BaseException) -> str:
    """Another library's error in a line: its type, and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def first_lines(error: BaseException, most: int) -> str:
    """The first lines of what another library's error says, as one; "" where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " | ".join(lines[:most])[:500]


def did_you_mean(close: Iterable[object]) -> str:
    """A sentence with what may have been meant, behind another one; "" where nothing is like it."""
    meant = " or ".join(map(str, close))
    return f" Did you mean {meant}?" if meant else ""


def first_line(error: BaseException) -> str:
    """The first line of what another library's error says; its type where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" -")]
    return lines[0] if lines else type(error).__name__
