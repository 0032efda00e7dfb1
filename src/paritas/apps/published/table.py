# SPDX-License-Identifier: Apache-2.0
"""What `paritas parity` found: tables as the documents have them, in Markdown, HTML, JSON and for the terminal."""

from __future__ import annotations

import dataclasses
import datetime
import html
import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from paritas.apps.published.figures import PUBLISHED_COLUMNS
from paritas.apps.published.models import CLIP_TABLE, ENCODER_TABLE, Model, published
from paritas.apps.published.rows import BAR, Column, Distance, Row, worst
from paritas.apps.published.run import Results, packages
from paritas.bench.race import describe_machine
from paritas.run import engine
from paritas.verify.tolerance import AS_ACCURATE

if TYPE_CHECKING:
    from rich.console import RenderableType

#: What the three outputs of the CLIP Handbook's table are.
OUTPUTS = ("image_features", "text_features", "probs")

_SHORT = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16"}

_WORDS = {"within": f"at most {BAR:.0e}", "accurate": "as accurate as PyTorch", "missed": "missed", "failed": "failed"}


@dataclasses.dataclass(frozen=True)
class Table:
    """One table: a title, what is to be said about it, a head and rows of text."""

    title: str
    words: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def to_json(results: Results, absent: Sequence[str]) -> str:
    """Every figure of every row, the documents' among them."""
    value = {
        "machine": describe_machine(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": _versions(),
        "bar": BAR,
        "summary": {column.name: _counts(results, column) for column in _columns(results)},
        "rows": [_row_json(row) for row in results.rows],
        "absent": [*absent, *results.missing],
        "peak_gib": dict(results.peaks),
    }
    return json.dumps(value, indent=1, allow_nan=False) + "\n"


def to_markdown(results: Results, absent: Sequence[str]) -> str:
    """The summary, a table for each engine, mode and dtype of the encoders, and those of the CLIP models."""
    lines = ["# Numerical parity", "", *_about(results), ""]
    for table in _tables(results):
        lines += [f"## {table.title}", "", *([table.words, ""] if table.words else [])]
        lines += ["| " + " | ".join(table.head) + " |", "|" + "---|" * len(table.head)]
        lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in table.rows]
        lines.append("")
    lines += [f"- {text}" for text in (*_remarks(results), *absent, *results.missing)]
    return "\n".join(lines).rstrip() + "\n"


def to_html(results: Results, absent: Sequence[str]) -> str:
    """The same as one page that loads nothing from elsewhere."""
    parts = [f"<p>{_paragraph(text)}</p>" for text in _about(results) if text]
    for table in _tables(results):
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.head)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>\n" for row in table.rows
        )
        words = f"<p>{_paragraph(table.words)}</p>" if table.words else ""
        parts.append(f"<h2>{html.escape(table.title)}</h2>{words}<table><tr>{head}</tr>\n{body}</table>")
    said = (*_remarks(results), *absent, *results.missing)
    parts.append("<ul>" + "".join(f"<li>{html.escape(text)}</li>" for text in said) + "</ul>")
    return _PAGE.format(body="\n".join(parts))


def terminal(results: Results, absent: Sequence[str]) -> RenderableType:
    """The summary, and the rows that missed."""
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    parts: list[RenderableType] = []
    if results.rows:
        summary = _summary(results)
        table = RichTable(title=summary.title, title_justify="left")
        for cell in summary.head:
            table.add_column(cell, overflow="fold")
        for cells in summary.rows:
            table.add_row(*map(Text, cells))
        parts += [table, Text(summary.words.replace("`", ""), style="dim")]
    for row in results.rows:
        if row.verdict in ("missed", "failed"):
            said = row.fault or f"{row.ratio:.2g} times PyTorch's own error against float64"
            parts.append(Text(f"{row.model.name}, {row.column.name}: {row.verdict}: {said}", style="red"))
    parts += [Text(text) for text in (*_remarks(results), *absent, *results.missing)]
    return Group(*parts)


# --- the tables --------------------------------------------------------------------------------


def _tables(results: Results) -> Iterator[Table]:
    if not results.rows:
        return
    yield _summary(results)
    for column in _columns(results):
        rows = [r for r in results.rows if r.column == column and r.model.table == ENCODER_TABLE]
        if rows:
            yield _encoders(column, rows)
    for column in _columns(results):
        rows = [r for r in results.rows if r.column == column and r.model.table == CLIP_TABLE]
        if rows:
            yield _clip(column, rows)


def _summary(results: Results) -> Table:
    columns, models = _columns(results), _models(results)
    cells = {(row.model.name, row.column): _cell(row) for row in results.rows}
    rows = [(_name(model), *(cells.get((model.name, column), "") for column in columns)) for model in models]
    counts = {column: _counts(results, column) for column in columns}
    for verdict, words in _WORDS.items():
        if any(verdict in found for found in counts.values()):
            rows.append((words, *(str(counts[column].get(verdict, 0)) for column in columns)))
    words = (
        "`max|got-want| / mean|want|` of the worst output, against PyTorch eager in float32; in brackets, at half "
        "precision: how many times PyTorch's own error at that precision the port's is, both against float64. * a "
        f"float32 row above {BAR:.0e} that is at most {AS_ACCURATE:g} times as far from float64 as PyTorch is; ! a "
        "row that is further."
    )
    return Table("Summary", words, ("model", *map(_title, columns)), tuple(rows))


def _cell(row: Row) -> str:
    if row.fault:
        return f"failed: {row.fault}"
    mark = {"missed": " !", "accurate": " *" if row.column.dtype == "float32" else ""}.get(row.verdict, "")
    ratio = f" ({row.ratio:.2f}x)" if row.column.dtype != "float32" else ""
    return f"{row.error:.1e}{ratio}{mark}"


def _encoders(column: Column, rows: Sequence[Row]) -> Table:
    theirs = column.name in PUBLISHED_COLUMNS
    head = ("model", *(("published, 2.2.10", "published, 2.3") if theirs else ()), "here")
    made = []
    for row in rows:
        pair = next(iter(published(row.model, column.name)), (None, None)) if theirs else ()
        figures = (row.fault,) if row.fault else (_figure(row.error),)
        rest = ("", "", "", "failed") if row.fault else _against_truth(row)
        made.append((_name(row.model), *map(_published, pair), *figures, *rest))
    words = "`max|got-want| / mean|want|`, of the worst output." if theirs else ""
    title = f"{_title(column)}: encoders"
    return Table(
        title, words, (*head, "here, to float64", "PyTorch, to float64", "ratio, worst output", "verdict"), tuple(made)
    )


def _against_truth(row: Row) -> tuple[str, str, str, str]:
    own, torch = worst(row.to_truth), worst(row.torch_to_truth)
    return _figure(own), _figure(torch), f"{row.ratio:.2f}" if row.ratio else "", _WORDS[row.verdict]


def _clip(column: Column, rows: Sequence[Row]) -> Table:
    made: list[tuple[str, ...]] = []
    for row in rows:
        if row.fault:
            made.append((_name(row.model), "", "", "", row.fault, "", "", "", "", "failed"))
            continue
        for output, (to_torch, own, torch) in zip(OUTPUTS, row.outputs, strict=True):
            theirs = [figures[output] for figures in published(row.model, column.name)]
            made.append(
                (
                    _name(row.model),
                    output,
                    " / ".join(f"{absolute:.8f}" for absolute, _ in theirs),
                    " / ".join(f"{relative:.5%}" for _, relative in theirs),
                    f"{to_torch.absolute:.1e}",
                    f"{to_torch.relative:.1e}",
                    _figure(to_torch.error),
                    _figure(own.error),
                    _figure(torch.error),
                    _WORDS[row.verdict],
                )
            )
    words = (
        "abs: `mean|pt-got|`; rel: `mean(|pt-got| / (|pt| + 1e-6))`; max/mean: `max|pt-got| / mean|pt|`. Published: "
        "the handbook's, MindSpore in Graph mode on Ascend against PyTorch on a GPU; two figures where one "
        "architecture is in its `clip` and in its `open_clip` table: both are open_clip's here."
    )
    head = ("model", "output", "published abs", "published rel", "abs", "rel", "max/mean")
    return Table(
        f"{_title(column)}: CLIP and open_clip",
        words,
        (*head, "max/mean to float64", "PyTorch, to float64", "verdict"),
        tuple(made),
    )


# --- words -------------------------------------------------------------------------------------


def _about(results: Results) -> list[str]:
    packages = ", ".join(f"{name} {version}" for name, version in _versions().items() if name != "paritas")
    return [
        "The models of two documents that port them to MindSpore by hand, mindone.transformers and the "
        "MindSpore-CLIP Handbook, at their real sizes with seeded random weights, by the documents' own formulas; "
        "written by `paritas parity`. Their figures are from Ascend, with the checkpoints' weights: another machine "
        "and other weights, so a row says how exact each port is, not which of two is better.",
        "",
        "Because a distance between two roundings says little by itself, both sides are also measured against "
        f"float64 of the same graph and weights. The bar in float32 is {BAR:.0e} to PyTorch; at half precision, and "
        "where float32 is above it, the port is to be as accurate as PyTorch: at most "
        f"{AS_ACCURATE:g} times its error against float64, in every output. MindSpore is given weights in float16, "
        "OpenVINO the float32 model and the precision to compute in.",
        "",
        f"{describe_machine()}, {datetime.datetime.now(datetime.UTC).date().isoformat()}; {packages}.",
    ]


def _remarks(results: Results) -> list[str]:
    said = []
    for model in _models(results):
        if model.cap:
            said.append(f"{model.name}: {_cut(model)}, since all do not fit into the memory allowed")
        if model.remark:
            said.append(f"{model.name}: {model.remark}")
    return said


def _name(model: Model) -> str:
    return f"{model.name}, {_cut(model)}" if model.cap else model.name


def _cut(model: Model) -> str:
    from paritas.apps.published.models import MODELS

    whole = MODELS[model.name].depth if model.name in MODELS else model.depth
    return f"{model.cap} of {whole} layers"


def _title(column: Column) -> str:
    return f"{engine.about(column.engine).title(column.mode)} {_SHORT[column.dtype]}"


def _figure(value: float) -> str:
    return f"{value:.1e}" if value < math.inf else "overflow"


def _published(value: float | None) -> str:
    return "N.A." if value is None else f"{value:.4f}" if value >= 5e-4 else f"{value:.2e}"


def _columns(results: Results) -> list[Column]:
    return list(dict.fromkeys(row.column for row in results.rows))


def _models(results: Results) -> list[Model]:
    return list({row.model.name: row.model for row in results.rows}.values())


def _counts(results: Results, column: Column) -> dict[str, int]:
    verdicts = [row.verdict for row in results.rows if row.column == column]
    return {verdict: verdicts.count(verdict) for verdict in _WORDS if verdict in verdicts}


def _versions() -> dict[str, str]:
    return engine.versions(packages())


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "model": row.model.name,
        "about": row.model.title,
        "layers": row.model.cap or "all",
        "column": row.column.name,
        "verdict": row.verdict,
        "reason": row.fault,
        "error": _finite(row.error),
        "to_float64": _finite(worst(row.to_truth)),
        "torch_to_float64": _finite(worst(row.torch_to_truth)),
        "ratio": _finite(row.ratio),
        "published": published(row.model, row.column.name),
        "outputs": [
            {"to_torch": _plain(to_torch), "to_float64": _plain(own), "torch_to_float64": _plain(torch)}
            for to_torch, own, torch in row.outputs
        ],
    }


def _plain(found: Distance) -> dict[str, Any]:
    if found.fault:
        return {"fault": found.fault}
    return {key: _finite(getattr(found, key)) for key in ("error", "absolute", "relative")}


def _finite(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _paragraph(text: str) -> str:
    return html.escape(text).replace("`", "")


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Numerical parity</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
th, td {{ border: 1px solid #bbb; padding: .25rem .6rem; text-align: left; }}
th {{ background: #eee; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #151515; color: #ddd; }} th {{ background: #2a2a2a; }} }}
</style></head>
<body><h1>Numerical parity</h1>
{body}
</body></html>
"""
