# SPDX-License-Identifier: Apache-2.0
"""What docs/clip.md says of every architecture: from `benchmarks/results/open_clip_models.json`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from results import FOLDER

ENGINES = {"openvino": "OpenVINO", "mindspore": "MindSpore Graph"}


def shown(_name: str) -> str:
    """How many agree on each engine, and a row for each architecture that was run."""
    known = json.loads((FOLDER / "open_clip_models.json").read_text(encoding="utf-8"))
    rows: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for row in known["rows"]:
        rows[row["model"]][row["engine"]] = row
    told = [f"{len(rows)} of open_clip's {known['architectures']} architectures were run by then ({known['date']})."]
    for engine, title in ENGINES.items():
        run = [found[engine] for found in rows.values() if engine in found]
        agree = sum(row["state"] == "agrees" for row in run)
        told.append(f"{title}: {agree} of {len(run)} agree with PyTorch.")
    lines = [
        " ".join(told),
        "",
        "| architecture | OpenVINO: image, text | MindSpore Graph: image, text | |",
        "|---|---|---|---|",
    ]
    for name in sorted(rows, key=str.lower):
        cells = [_cell(rows[name].get(engine)) for engine in ENGINES]
        notes = dict.fromkeys(row["why"].replace("|", "\\|") for row in rows[name].values() if row.get("why"))
        lines.append(f"| `{name}` | {' | '.join(cells)} | {'; '.join(notes)} |")
    return "\n".join(lines)


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return "not run"
    if "image" not in row:
        return str(row["state"])
    mark = "" if row["state"] == "agrees" else " !"
    return f"{row['image']:.1e}, {row['text']:.1e}{mark}"
