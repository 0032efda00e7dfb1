# SPDX-License-Identifier: Apache-2.0
"""`ParityReport`: what verification found, as a value that prints itself as text, JSON, Markdown and HTML."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal, Self

from paritas.errors import Disagreement, PortError
from paritas.printable import printable
from paritas.store.manifest import Wrong, record
from paritas.verify.report.conclusion import in_words
from paritas.verify.report.generation import lines as generation_lines
from paritas.verify.report.gradients import lines as gradient_lines
from paritas.verify.report.markdown import markdown
from paritas.verify.report.rows import Findings, plain
from paritas.verify.report.training import lines as training_lines

#: 1 called the errors of PyTorch and of the port `own` and `ours`.
REPORT_VERSION = 2

#: `assert port.verify()` would pass for a port that diverges.
NEITHER = "A report is neither true nor false. Ask report.agrees, or let report.check() raise with what it found."


@dataclasses.dataclass(frozen=True)
class ParityReport(Findings):
    """The outcome of a verification. Rules on outputs of an unobserved run; the modules say where to look."""

    def __repr__(self) -> str:
        compared = sum(not row.unjudged for row in self.outputs)
        return printable(
            f"<ParityReport of {self.subject or 'a port'} on {self.environment.engine}: {self.verdict}, error "
            f"{self.error:.2e}, {compared} outputs compared>"
        )

    def __bool__(self) -> bool:
        raise TypeError(NEITHER)

    def check(self) -> Self:
        """This report, for one that agrees. Raises `Disagreement`, an AssertionError, with its text for any other."""
        if not self.agrees:
            raise Disagreement(str(self))
        return self

    def again_with(self, options: str) -> Self:
        """This report, to be made again with these options of `paritas verify` beside its level."""
        return dataclasses.replace(self, again=options)

    def to_frame(
        self, of: Literal["outputs", "generation", "modules", "nodes", "gradients", "training"] = "outputs"
    ) -> Any:
        """The rows as a `pandas.DataFrame`, with what follows from them: `agrees`, and the outputs' `ratio`.

        Raises `PandasMissing`.
        """
        from paritas.verify.report.notebook import frame

        return frame(self, of)

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict in a few lines, and PARITY.html to be opened below."""
        from paritas.verify.report.notebook import cell

        return printable(cell(self))

    def __str__(self) -> str:
        compared = [row for row in self.outputs if not row.unjudged]
        count = f"{len(compared)} outputs compared in {len({r.case for r in compared})} cases"
        if self.training and not self.outputs:
            count = f"{len(self.training) - 1} steps of training compared"
        lines = [
            f"{self.verdict}: {count}, error {self.error:.2e} ({self._figure})",
            f"  {self.subject + ': ' if self.subject else ''}{self.environment}",
            f"  tolerance: {self.tolerance}",
        ]
        lines[1:1] = [f"  {words}" for words in in_words(self)]
        if self.environment.machine:
            lines.insert(-1, f"  {self.environment.machine}, {self.environment.date}")
        if self.worst_output is not None:
            lines.append(f"  worst output: {self.worst_output}")
            if self.worst_output.hint:
                lines.append(f"    {self.worst_output.hint}")
        lines += [f"  not judged: {r}" for r in self.outputs if r.unjudged and r is not self.worst_output]
        lines += [f"  not compared: {name}: {why}" for name, why in self.unseen.items()]
        if self.generation:
            lines += generation_lines(self)
        if self.training:
            lines += training_lines(self)
        if self.text is not None:
            lines.append(f"  text: {self.text}")
        if self.picture is not None:
            lines.append(f"  picture: {self.picture}")
        if self.level != "outputs":
            lines += self._module_lines()
        if self.level == "nodes":
            lines += self._node_lines()
        if self.search is not None:
            lines += [f"  {line}" for line in self.search.lines()]
        if self.gradient_case:
            lines += gradient_lines(self)
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    @property
    def _figure(self) -> str:
        return "of a loss, to float64" if self.training and not self.outputs else "max|got-want| / mean|want|"

    def _module_lines(self) -> list[str]:
        lines = [f"  modules: {len(self.modules)} compared, {len(self.unseen_modules)} not seen; {self.observed}"]
        if self.first_divergence:
            lines.append(f"  first divergence: {self.first_divergence}")
            if self.verdict == "agrees":
                lines.append("    the outputs of the unobserved run agree nevertheless, and they rule")
        elif self.worst_module:
            lines.append(f"  worst module: {self.worst_module}")
        lines += [f"  not seen: {name}: {why}" for name, why in list(self.unseen_modules.items())[:5]]
        if len(self.unseen_modules) > 5:
            lines.append(f"  not seen: {len(self.unseen_modules) - 5} more")
        return lines

    def _node_lines(self) -> list[str]:
        lines = [
            f"  nodes: {len(self.nodes)} compared, {len(self.unseen_nodes)} not by themselves; {self.observed_nodes}"
        ]
        if not self.nodes:
            return lines + [f"  not seen: {why}" for why in list(dict.fromkeys(self.unseen_nodes.values()))[:5]]
        if not self.guilty:
            return [*lines, "  every node that was compared makes of the original's inputs what the original makes"]
        lines += [f"  {len(self.guilty)} guilty, the first: {self.guilty[0]}"]
        lines += [f"  guilty: {row}" for row in self.guilty[1:10]]
        if self.verdict == "agrees":
            lines.append("    the outputs of the unobserved run agree nevertheless, and they rule")
        return lines

    # --- JSON -------------------------------------------------------------------------------

    def to_json(self) -> str:
        """parity.json: valid JSON (infinities and NaN as strings), read back by `from_json` to an equal report."""
        data = {
            "format_version": REPORT_VERSION,
            "verdict": self.verdict,
            "error": self.error,
            **dataclasses.asdict(self),
        }
        return json.dumps(plain(data), indent=1, allow_nan=False, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ParityReport:
        """Raises `PortError` for text that is no report, or is one of a newer Paritas."""
        try:
            return _restored(json.loads(text))
        except Wrong as wrong:
            raise PortError(f"This is no parity report: {wrong}") from None
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise PortError(f"This is no parity report: {type(error).__name__}: {error}") from None

    # --- Markdown ---------------------------------------------------------------------------

    def to_markdown(self, directory: str = "DIR") -> str:
        """PARITY.md: the verdict, its tables, the tolerance with its reason, and how to do it again."""
        return printable(markdown(self, directory))

    # --- HTML -------------------------------------------------------------------------------

    def to_html(self, directory: str = "DIR") -> str:
        """PARITY.html: everything that the report knows, as one page that needs nothing from outside."""
        from paritas.verify.report.html import page

        return page(self, directory)


def _restored(data: dict[str, Any]) -> ParityReport:
    version = data.pop("format_version")
    if version > REPORT_VERSION:
        raise PortError(f"This report has format {version}; this Paritas reads up to {REPORT_VERSION}.")
    if version == 1:
        rows = (row for name in _MEASURED for row in data.get(name, ()))
        for row in rows:
            row["torch_error"], row["port_error"] = row.pop("own"), row.pop("ours")
    known = {field.name for field in dataclasses.fields(ParityReport)}  # the verdict and the error follow
    return record(ParityReport, {key: value for key, value in data.items() if key in known}, "report")


#: Where the rows are.
_MEASURED = ("outputs", "modules", "nodes", "gradients", "gradient_nodes", "generation")
