# SPDX-License-Identifier: Apache-2.0
"""What a picture of a panel shows, whatever draws it: heights on a logarithmic axis, lines with gaps, names."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator

from paritas.verify.report.layers import is_entry, stacks
from paritas.verify.report.panels import Line, Panel
from paritas.verify.report.rows import ModuleParity

ERROR = "max|got-want| / mean|want|"

MOST_LABELS = 32  # along the axis; of more layers, every second, third, ... is named
LONGEST, LONGEST_TITLE = 22, 90  # characters


@dataclasses.dataclass
class Scale:
    """A panel's layers along one axis, its errors in decades along the other."""

    panel: Panel

    def __post_init__(self) -> None:
        self.layers = self.panel.layers
        self.at = {row.name: x for x, row in enumerate(self.layers)}
        self.stacks = stacks([*self.layers])
        self.low, self.high = self._span()

    @functools.cached_property
    def rows(self) -> list[ModuleParity]:
        return [row for line in self.panel.lines for row in line.rows]

    @property
    def exact(self) -> bool:
        return any(row.error == 0 for row in self.rows)

    @property
    def faulty(self) -> bool:
        return any(not row.error < math.inf for row in self.rows)

    def _span(self) -> tuple[float, float]:
        """The decades to show, with room for the tolerance, and below for what is exact."""
        values = [v for row in self.rows for v in (row.error, row.torch_error) if 0 < v < math.inf]
        values += [bound for _, bound in self.bounds()]
        low, high = min(values, default=1e-7), max(values, default=1e-4)
        bottom = 10 ** (math.floor(math.log10(low) - 0.1) - 0.9 * self.exact)
        return bottom, 10 ** (math.log10(high) + 0.5 + 0.5 * self.faulty)

    def height(self, row: ModuleParity) -> float:
        """Where a row's error is drawn: what a logarithm has no place for is at the edges."""
        if row.error == 0:
            return self.at_exact
        return row.error if row.error < math.inf else self.at_fault

    @property
    def at_exact(self) -> float:
        return float(self.low * 10**0.35)

    @property
    def at_fault(self) -> float:
        return float(self.high * 10**-0.25)

    def segments(self, line: Line, values: Iterable[float]) -> Iterator[tuple[list[int], list[float]]]:
        """Points to be joined: a line is broken between an encoder and a decoder, and where a value is missing."""
        xs: list[int] = []
        ys: list[float] = []
        last = None
        for row, value in zip(line.rows, values, strict=True):
            here = self.stacks[row.path]
            if xs and (here != last or math.isnan(value)):
                yield xs, ys
                xs, ys = [], []
            if not math.isnan(value):
                xs.append(self.at[row.name])
                ys.append(value)
            last = here
        if xs:
            yield xs, ys

    def truths(self) -> list[tuple[Line, list[float]]]:
        """PyTorch's own distance from float64: it depends on the case alone, so it is drawn once for each."""
        by_case = {line.report.module_case: line for line in reversed(self.panel.lines)}
        return [
            (line, [row.torch_error if row.torch_error > 0 else math.nan for row in line.rows])
            for line in by_case.values()
            if any(row.torch_error > 0 for row in line.rows)
        ]

    def bounds(self) -> list[tuple[str, float]]:
        """Each tolerance that modules have, with its name."""
        found: dict[float, str] = {}
        for line in self.panel.lines:
            tolerance = line.report.module_tolerance
            if tolerance is not None and tolerance.scaled:
                found.setdefault(tolerance.scaled, line.report.environment.precision)
        return [(f"{precision}: {short(bound)}", bound) for bound, precision in found.items()]

    def borders(self) -> Iterator[tuple[int, str]]:
        """The first layer of each part of the model, and the part's name."""
        last = ""
        for x, row in enumerate(self.layers):
            stack = self.stacks[row.path]
            if stack != last:
                yield x, stack
            last = stack

    def named(self) -> list[tuple[int, str]]:
        """The layers that have a name along the axis."""
        step = math.ceil(len(self.layers) / MOST_LABELS) or 1
        return [(x, short_name(self.layers[x])) for x in range(0, len(self.layers), step)]

    def axis_title(self) -> str:
        lists = dict.fromkeys(filter(None, (_list_of(row) for row in self.layers)))
        shown = ", ".join(list(lists)[:3]) + (", ..." if len(lists) > 3 else "")
        return f"layers, in the order in which they return{': ' + shown if shown else ''}"

    def subtitle(self) -> list[str]:
        """What is drawn, on which case, and what is not."""
        cases = dict.fromkeys(f'"{line.report.module_case}"' for line in self.panel.lines)
        lines = ["there is no curve"]
        if cases:
            lines = [f"{ERROR} of each layer's output, on the case{'s' * (len(cases) > 1)} {', '.join(cases)}"]
        return lines + [f"not drawn: {name}: {why}" for name, why in self.panel.undrawn.items()]


def short_name(row: ModuleParity) -> str:
    """A layer on the axis: its number in its list, "3", or "1.0" in lists of lists; a name where it is in none."""
    parts = row.path.split(".")
    numbers = [part for part in parts if part.isdigit()]
    name = ".".join(numbers) if is_entry(row.path) else parts[-1] or "the model"
    return shortened(name, LONGEST) + (f" #{row.call + 1}" if row.call else "")


def _list_of(row: ModuleParity) -> str:
    """ "encoder.layer.N" for an entry of a list, "" for anything else."""
    if not is_entry(row.path):
        return ""
    return ".".join("N" if part.isdigit() else part for part in row.path.split("."))


def short(value: float) -> str:
    """ "1e-4" where Python says "0.0001"."""
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{value:g}" if value >= 1e-2 else f"{float(digits):g}e{int(power)}"


def shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else "..." + text[3 - longest :]
