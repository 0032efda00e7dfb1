# SPDX-License-Identifier: Apache-2.0
"""PyTorch's own samples of its operators and modules on every engine: docs/CONFORMANCE.md.

    .venv/bin/python benchmarks/conformance.py                                  # everything: an hour or more
    .venv/bin/python benchmarks/conformance.py --engine openvino --sweep float32 module_db
    .venv/bin/python benchmarks/conformance.py --write                          # the page anew, nothing is run

Each sweep is kept in benchmarks/results/conformance.json as soon as it is done; those of other versions are dropped.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import results

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "CONFORMANCE.md"
KINDS = ("passes", "missing", "refused", "noted", "fails", "wrong")

sys.path.insert(0, str(ROOT / "tests" / "ops"))


def run(engine: str, sweep: str, sizes: str, count: int) -> dict[str, Any]:
    """A sweep: how many of each kind, and what does not pass."""
    import conforming
    import modules
    from under_test import ENGINES

    gc.freeze()
    began = time.monotonic()
    under = ENGINES[engine]
    if sweep == "module_db":
        found: Iterable[Any] = modules.sweep(engine, count)
        rows = [(v.sample.name, v.kind, str(v.sample), v.words, _reason(modules.gap_of(v, under))) for v in found]
    else:
        found = conforming.sweep(under, sweep, free=sizes == "free", count=count)
        rows = [(v.case.target, v.kind, str(v.case), v.words, _reason(under.sample_gap_of(v.case))) for v in found]
    return {
        "samples": len(rows),
        "count": count,
        "of": len({target for target, *_ in rows}),
        "kinds": Counter(kind for _, kind, *_ in rows),
        "seconds": round(time.monotonic() - began),
        "other": [
            {
                "of": target,
                "kind": kind,
                "sample": name[:200],
                "words": " ".join(words.split())[:300],
                "reason": reason,
            }
            for target, kind, name, words, reason in rows
            if kind != "passes"
        ],
    }


def _reason(gap: Any) -> str:
    return gap.reason if gap is not None else ""


def page(found: dict[str, Any], machine: str) -> str:
    lines = [
        "# Conformance",
        "",
        "PyTorch's own samples of its operators (`op_db`: every ATen call that a sample makes, by exact overload) and "
        "of its modules (`module_db`, in eval mode, through `paritas.port`), on every engine, compared with PyTorch: "
        "shape, dtype, places of NaN, infinities, then every element. Written by `benchmarks/conformance.py`.",
        "",
        "*passes*: it agrees. *missing*: the engine has no rule for the operator, and says so by name and line; these "
        "are not in the percentage. *refused*: a clear error says what and where, before anything runs. *noted*: "
        "another number, and every port that holds the operator says so, with its line. *fails*: an error while it "
        "runs, or one that does not say so much. *wrong*: another answer, and nothing said. *integers* are samples of "
        "our own: negative, large and neighbouring numbers of 8 to 64 bits. *free*: with every size free that torch "
        "keeps free. *most*: at most so many samples of one operator, or module, drawn once; MindSpore's rows of 24 "
        "are of PyNative mode alone.",
        "",
        machine + ".",
        "",
        "| engine | of | sizes | most | samples | operators, modules | passes | " + " | ".join(KINDS[1:]) + " |",
        "|---" * 12 + "|",
    ]
    for key, one in found.items():
        engine, sweep, sizes = key.split("/")
        kinds = Counter(one["kinds"])
        rate = 100 * kinds["passes"] / max(one["samples"] - kinds["missing"], 1)
        cells = [
            engine,
            sweep,
            sizes,
            one["count"],
            one["samples"],
            one["of"],
            f"{kinds['passes']} ({rate:.2f} %)",
        ]
        lines.append("| " + " | ".join(map(str, [*cells, *(kinds[k] for k in KINDS[1:])])) + " |")
    for key, one in found.items():
        missing = sorted({other["of"] for other in one["other"] if other["kind"] == "missing"})
        shown = [other for other in one["other"] if other["kind"] != "missing"]
        if missing:
            names = ", ".join(f"`{name}`" for name in missing)
            lines += [
                "",
                f"## {' '.join(key.split('/'))}: missing",
                "",
                f"{len(missing)} operators: {names}.",
            ]
        if shown:
            lines += [
                "",
                f"## {' '.join(key.split('/'))}",
                "",
                "| operator or module | | why | samples |",
                "|---|---|---|---|",
            ]
            lines += _grouped(shown)
    return "\n".join(lines) + "\n"


def _grouped(other: list[dict[str, str]]) -> list[str]:
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for one in other:
        groups[one["of"], one["kind"], one["reason"] or one["words"][:160]].append(one["sample"])
    return [
        f"| `{target}` | {kind} | {_cell(why)} | {len(samples)}, as `{_cell(samples[0])[:120]}` |"
        for (target, kind, why), samples in sorted(groups.items())
    ]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("`", "'")


def main() -> None:
    from conforming import SWEEPS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", nargs="+", default=["openvino", "mindspore"])
    parser.add_argument("--sweep", nargs="+", default=[*SWEEPS, "module_db"])
    parser.add_argument("--sizes", nargs="+", default=["fixed", "free"])
    parser.add_argument("--count", type=int, default=24, help="at most so many samples of one operator or module")
    parser.add_argument("--write", action="store_true", help="only write the page")
    given = parser.parse_args()
    found = results.known("conformance", "sweeps")
    for engine in given.engine:
        for sweep in given.sweep:
            for sizes in ["free"] if sweep == "module_db" else given.sizes:
                if given.write:
                    continue
                key = f"{engine}/{sweep}/{sizes}"
                found[key] = run(engine, sweep, sizes, given.count)
                print(key, json.dumps(found[key]["kinds"]), f"{found[key]['seconds']} s", flush=True)
                results.write("conformance", {"sweeps": found})
    order = [
        f"{e}/{s}/{z}" for e in ("openvino", "mindspore") for s in (*SWEEPS, "module_db") for z in ("fixed", "free")
    ]
    PAGE.write_text(page({key: found[key] for key in order if key in found}, results.machine()))


if __name__ == "__main__":
    main()
