# SPDX-License-Identifier: Apache-2.0
"""Write the generated parts of README.md and docs/ again; what is between them is written by hand.

    python docs/generate.py             # all
    python docs/generate.py cli.md      # those of one page
    python docs/generate.py --picture   # README's picture of a report, taken by Debian's chromium

A part begins with `<!-- generated: KIND NAME -->` and ends with `<!-- end -->`. Kinds: `benchmark` (a table of
benchmarks/results), `support` (docs/support.json in short), `pipelines` (a part of
docs/PIPELINES.md), `towers` (a part of docs/clip.md), `cli` (every command, by typer), `class` (what the
generator writes for a class of transformers) and `anatomy` (a stage of examples/gate.py on its way).
"""

from __future__ import annotations

import functools
import json
import re
import runpy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "src")]

PART = re.compile(r"(<!-- generated: (\w+) ?([\w.-]*) -->\n).*?(<!-- end -->)", re.S)


def pages() -> list[Path]:
    """The documents that have generated parts."""
    known = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [page for page in known if PART.search(page.read_text(encoding="utf-8"))]


def regenerated(text: str) -> str:
    """A page's text with every part as it would be written now. Raises `KeyError` for a kind or name that is none."""
    return PART.sub(lambda part: f"{part[1]}{KINDS[part[2]](part[3])}\n{part[4]}", text)


def benchmark(name: str) -> str:
    import tables

    return tables.shown(name)


def pipelines(name: str) -> str:
    import pipeline_tables

    return pipeline_tables.shown(name)


def towers(name: str) -> str:
    import open_clip_tables

    return open_clip_tables.shown(name)


def support(_name: str) -> str:
    """What docs/SUPPORT.md comes to, by engine."""
    from paritas.apps.zoo.sweep import TITLES

    found = json.loads((ROOT / "docs" / "support.json").read_text(encoding="utf-8"))
    types = len({entry["model_type"] for entry in found["entries"]})
    lines = [
        f"{len(found['entries'])} tiny random models of {types} model types of transformers and diffusers:",
        "",
        "| | agree at fp32 | with an error of at most 1e-5 | diverge | refused |",
        "|---|---|---|---|---|",
    ]
    for cell, counts in found["summary"].items():
        share = 100 * counts["agrees"] / counts["entries"]
        agree = f"{counts['agrees']} ({share:.1f}%)"
        others = (counts.get(key, 0) for key in ("within 1e-05", "diverges", "refused"))
        lines.append("| " + " | ".join(map(str, (TITLES[cell], agree, *others))) + " |")
    return "\n".join(lines)


def cli(_name: str) -> str:
    """Every command with its arguments and options, as `paritas COMMAND --help` has them."""
    import typer.main
    from typer.cli import get_docs_for_click

    from paritas.cli import app
    from paritas.cli.app import EPILOG

    command = typer.main.get_command(app)
    with command.make_context("paritas", [], resilient_parsing=True) as context:
        text = get_docs_for_click(obj=command, ctx=context, name="paritas")
        for name in command.list_commands(context):  # typer ends the list's sentences with an ellipsis
            words = command.get_command(context, name).get_short_help_str(limit=500)
            text = re.sub(rf"^\* `{name}`: .*", f"* [`{name}`](#paritas-{name}): {words}", text, flags=re.M)
    text = text.removeprefix("# `paritas`\n").replace(f"{EPILOG}\n\n", "").replace("```console\n$ ", "```text\n")
    text = re.sub(r"\*\*Examples\*\*\n\n((?:  paritas .*\n\n)+)", _as_block, text)
    return text.strip()


def _as_block(examples: re.Match[str]) -> str:
    lines = [line.strip() for line in examples[1].splitlines() if line.strip()]
    return "\n".join(["**Examples**:", "", "```sh", *lines, "```", "", ""])


def generated_class(name: str) -> str:
    """The class of that name in the MindSpore port of a CLIP text encoder of one layer."""
    import transformers

    from paritas.capture import capture
    from paritas.lower.mindspore.write.module import generate

    config = transformers.CLIPTextConfig(
        num_hidden_layers=1, vocab_size=99, bos_token_id=0, pad_token_id=1, eos_token_id=2
    )
    source = generate(capture(transformers.CLIPTextModel(config).eval())).source
    written = re.search(rf"^class {name}\(.*?(?=\n\n\n)", source, re.S | re.M)
    if written is None:
        raise KeyError(name)
    return _fenced("python", written[0])


@functools.cache
def _stages() -> dict[str, str]:
    """examples/gate.py on its way through every stage, each as text."""
    import torch

    import paritas
    from paritas.capture import capture
    from paritas.capture.modules import Region, module_tree

    example = ROOT / "examples" / "gate.py"
    made = runpy.run_path(str(example), run_name="gate")
    inputs = {"x": torch.linspace(-1, 1, 24).reshape(2, 3, 4)}
    program = capture(made["build"](), inputs)
    operators = [node for node in program.graph.nodes if node.op == "call_function"]
    rows = [
        f"| `{node.name}` | `{node.target}` | {program.origins[node.name].module or 'the model'} | "
        f"{program.origins[node.name]} |"
        for node in operators
    ]

    def tree(region: Region, depth: int = 0) -> list[str]:
        lines = [f"{'  ' * depth}{region.path or '(the model)'}: {region.class_name}"]
        for item in region.items:
            lines += tree(item, depth + 1) if isinstance(item, Region) else [f"{'  ' * (depth + 1)}{item.name}"]
        return lines

    with tempfile.TemporaryDirectory() as folder:
        told: dict[str, str] = {}
        for engine in ("mindspore", "openvino"):
            port = paritas.port(made["build"](), engine=engine, inputs=inputs)
            told[f"report-{engine}"] = _report(port.verify(level="nodes"))
            port.save(Path(folder, engine))
        written = Path(folder, "mindspore", "modeling_gate.py")
        source = written.read_text()
        told["mindspore"] = _fenced("python", source.strip())
        told["openvino"] = _fenced("text", _operations(Path(folder, "openvino", "openvino_model.xml")))
        told["port.json"] = _fenced("json", _manifest(Path(folder, "mindspore", "port.json")))
        told["files"] = _fenced("text", "\n".join(sorted(path.name for path in Path(folder, "mindspore").iterdir())))
        wrong = source.replace("ops.sigmoid(", "ops.tanh(")
        assert wrong != source, "nothing was broken"
        written.write_text(wrong)
        broken = paritas.load(Path(folder, "mindspore"), allow_modified=True)
        told["broken"] = _report(broken.verify(level="nodes", original=made["build"]()))
    return {
        "source": _fenced("python", example.read_text().partition("import torch\n\n\n")[2].strip()),
        "graph": _fenced("text", str(program.exported.graph).strip()),
        "origins": "\n".join(["| node | operator | module | line |", "|---|---|---|---|", *rows]),
        "modules": _fenced("text", "\n".join(tree(module_tree(program.graph, "Gate")))),
        **told,
    }


def _operations(model: Path) -> str:
    import openvino

    operations = openvino.Core().read_model(str(model)).get_ordered_ops()
    return "\n".join(f"{operation.get_type_name():14}{operation.get_friendly_name()}" for operation in operations)


def _manifest(path: Path) -> str:
    """port.json without what says nothing, and with the middle of long texts left out."""

    def short(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: short(entry) for key, entry in value.items() if entry not in (None, "", [], {}, ())}
        if isinstance(value, list):
            return [short(entry) for entry in value]
        return f"{value[:8]}..." if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) else value

    text = json.dumps(short(json.loads(path.read_text())), indent=2)
    # A list that fits on a line is one.
    return re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda inside: f"[{' '.join(inside[1].split())}]", text)


def _report(report: Any) -> str:
    """A report without the line that names the machine and the day."""
    lines = [line for line in str(report).splitlines() if not re.search(r"cores, .*, \d{4}-\d\d-\d\d", line)]
    return _fenced("text", "\n".join(lines))


def _fenced(kind: str, text: str) -> str:
    return f"```{kind}\n{text}\n```"


KINDS: dict[str, Callable[[str], str]] = {
    "benchmark": benchmark,
    "support": support,
    "cli": cli,
    "pipelines": pipelines,
    "towers": towers,
    "class": generated_class,
    "anatomy": lambda stage: _stages()[stage],
}


def picture() -> None:
    """docs/images/report.png: the page of a real checkpoint's port, as it opens in a browser."""
    from playwright.sync_api import sync_playwright

    import paritas
    from paritas.capture.source import minilm_directory

    source = minilm_directory()
    report = paritas.port(source, engine="openvino").verify(level="nodes")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        page = Path(folder, "report.html")
        page.write_text(report.to_html().replace(str(source), "all-MiniLM-L6-v2"), encoding="utf-8")
        browser = started.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1000, "height": 790}, device_scale_factor=1.5)
        tab.goto(page.as_uri())
        tab.screenshot(path=str(ROOT / "docs" / "images" / "report.png"))
        browser.close()


def main(wanted: list[str]) -> int:
    if wanted == ["--picture"]:
        picture()
        return 0
    for page in pages():
        if wanted and page.name not in wanted:
            continue
        text = page.read_text(encoding="utf-8")
        written = regenerated(text)
        print(page.relative_to(ROOT), "unchanged" if written == text else "written again")
        page.write_text(written, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
