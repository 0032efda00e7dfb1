# SPDX-License-Identifier: Apache-2.0
"""What docs/clip.md says of every architecture and of speed: from `benchmarks/results/open_clip_*.json`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from results import FOLDER

ENGINES = {"openvino": "OpenVINO", "mindspore": "MindSpore Graph"}

#: Contenders of benchmarks/open_clip_speed.py.
NAMES = {**ENGINES, "torch": "PyTorch", "openvino bf16": "OpenVINO in bfloat16"}


def shown(name: str) -> str:
    """A part of the page: "all" architectures, or "speed". Raises `KeyError` for another."""
    return {"all": _architectures, "speed": _speed}[name]()


def _architectures() -> str:
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


def _speed() -> str:
    """Images a second of each model beside PyTorch, and streams of pictures; what was measured by now."""
    told = []
    for path in sorted(FOLDER.glob("open_clip_speed_race_*.json")):
        known = json.loads(path.read_text(encoding="utf-8"))
        told += [
            f"{known['model']}, pictures in batches of {known['batch']}, {known['machine']}, {known['date']}:",
            "",
            "| | images/s | beside PyTorch | cosine to PyTorch's, at least | GiB at most |",
            "|---|---|---|---|---|",
        ]
        for name, row in known["rows"].items():
            cells = (NAMES.get(name, name), f"{row['rate']:.1f}", f"{row['ratio']:.2f}x", f"{row['cosine']:.6f}")
            told.append(f"| {' | '.join(cells)} | {row['peak'] / 2**30:.1f} |")
        told.append("")
    for path in sorted(FOLDER.glob("open_clip_speed_stream_*.json")):
        known = json.loads(path.read_text(encoding="utf-8"))
        for name, row in known["rows"].items():
            told += [
                f"{row['pictures']:,} JPEG pictures of {row['side']} pixels through {known['model']} on "
                f"{NAMES.get(name, name)}, read and transformed meanwhile: {row['rate']:.1f} a second, "
                f"{row['share']:.1%} of the model's own rate; {row['early peak'] / 2**20:.0f} MiB at most after a "
                f"tenth, {row['peak'] / 2**20:.0f} in the end ({known['date']}).",
                "",
            ]
    return "\n".join(told[:-1]) or "Not measured by now."
