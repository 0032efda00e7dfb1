# SPDX-License-Identifier: Apache-2.0
"""`ComponentReports`: what the verification of several components found, a `ParityReport` for each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from paritas.errors import Disagreement, PortError
from paritas.verify.report.report import NEITHER, REPORT_VERSION, ParityReport
from paritas.verify.report.rows import Verdict, badness, plain


class ComponentReports(Mapping[str, ParityReport]):
    """The reports of a port's components by name. It agrees where each of them does."""

    def __init__(self, reports: Mapping[str, ParityReport]) -> None:
        self._reports = dict(reports)

    def __getitem__(self, name: str) -> ParityReport:
        return self._reports[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._reports)

    def __len__(self) -> int:
        return len(self._reports)

    @property
    def verdict(self) -> Verdict:
        """That of the worst component."""
        found = {report.verdict for report in self.values()}
        return "diverges" if "diverges" in found else "incomplete" if "incomplete" in found else "agrees"

    @property
    def agrees(self) -> bool:
        return self.verdict == "agrees"

    def __bool__(self) -> bool:
        raise TypeError(NEITHER)

    def check(self) -> ComponentReports:
        """These reports, where all agree. Raises `Disagreement` with the text of those that do not."""
        if not self.agrees:
            raise Disagreement("\n".join(f"{name}: {report}" for name, report in self.items() if not report.agrees))
        return self

    def again_with(self, options: str) -> ComponentReports:
        """These reports, to be made again with these options of `paritas verify`."""
        return ComponentReports({name: report.again_with(options) for name, report in self.items()})

    @property
    def error(self) -> float:
        """The largest of any component."""
        return max((report.error for report in self.values()), key=badness)

    def __repr__(self) -> str:
        words = ", ".join(f"{name}: {report.verdict} {report.error:.2e}" for name, report in self.items())
        return f"<ComponentReports {words}>"

    def __str__(self) -> str:
        return "\n".join(f"{name}: {report}" for name, report in self.items())

    def pairs(self, directory: str) -> list[tuple[str, ParityReport]]:
        """Each report with what it is shown under: the directory and the component."""
        return [(f"{directory}, {name}", report) for name, report in self.items()]

    def to_json(self) -> str:
        """parity.json, read back by `from_json`."""
        data = {
            "format_version": REPORT_VERSION,
            "verdict": self.verdict,
            "error": self.error,
            "components": {name: json.loads(report.to_json()) for name, report in self.items()},
        }
        return json.dumps(plain(data), indent=1, allow_nan=False, ensure_ascii=False)

    def to_markdown(self, directory: str = "DIR") -> str:
        """PARITY.md: the verdict of each component, and then what each one's own says."""
        rows = [f"- {name}: {report.verdict}, error {report.error:.2e}" for name, report in self.items()]
        parts = [report.to_markdown(directory).replace("# Parity:", f"# {name}:", 1) for name, report in self.items()]
        return "\n".join([f"# Parity: {self.verdict}", "", *rows, "", *parts])

    def to_html(self, directory: str = "DIR") -> str:
        """PARITY.html: the page of all of them."""
        from paritas.verify.report.html import joined

        return joined(self.pairs(directory))


def report_from_json(text: str) -> ParityReport | ComponentReports:
    """What a parity.json holds. Raises `PortError` for text that is no report."""
    try:
        data: Any = json.loads(text)
        found = data.get("components")
        if found is None:
            return ParityReport.from_json(text)
        if not isinstance(found, dict) or not found:
            raise PortError("This is no parity report: it has no component.")
        return ComponentReports({name: ParityReport.from_json(json.dumps(one)) for name, one in found.items()})
    except (AttributeError, ValueError, RecursionError) as error:
        raise PortError(f"This is no parity report: {type(error).__name__}: {error}") from None
