# SPDX-License-Identifier: Apache-2.0
"""docs/PIPELINES.md: every official pipeline of diffusers, and those of its community, on every engine.

    python benchmarks/pipeline_tables.py    # official_pipelines.json again, from the installed diffusers

What is shown comes from `benchmarks/results/pipelines*.json` (`pipelines.py`) and `community.json` (`community.py`).
"""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
from collections import defaultdict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from community_titles import NEEDS, TITLES
from results import FOLDER

OFFICIAL = Path(__file__).with_name("official_pipelines.json")

ENGINES = {"openvino": "OpenVINO", "mindspore": "MindSpore"}


def shown(name: str) -> str:
    """A part of the page: "official", "first", "community" or "moved". Raises `KeyError` for another."""
    return {"official": official, "first": first, "community": community, "moved": moved}[name]()


# --- the official ones ---------------------------------------------------------------------------------------


def official() -> str:
    known = json.loads(OFFICIAL.read_text(encoding="utf-8"))
    rows = _swept()
    lines = [_counted(rows, known), "", _head("pipeline", "", "changed by 1 %")]
    for name in known["classes"]:
        found = rows.get(name, {})
        reason = known["broken"].get(name, "")
        if not found and not reason:
            lines.append(f"| `{name}` | | | | not run |")
            continue
        cells = [_cell(found.get(engine)) for engine in ENGINES]
        followed, others = _changed(found.values())
        cells.append(followed)
        why = [reason, known["ways_round"].get(name, ""), *_remarks(found), others]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {'; '.join(dict.fromkeys(filter(None, why)))} |")
    return "\n".join(lines)


def _swept() -> dict[str, dict[str, Mapping[str, Any]]]:
    """By pipeline and engine: of MindSpore Graph mode, where both were run."""
    found: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for path in sorted(FOLDER.glob("pipelines*.json")):
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            before = found[row["pipeline"]].get(row["engine"])
            if before is None or row.get("mode") != "pynative":
                found[row["pipeline"]][row["engine"]] = row
    return found


def _counted(rows: Mapping[str, Mapping[str, Mapping[str, Any]]], known: Mapping[str, Any]) -> str:
    told = [f"{len(known['classes'])} classes in diffusers {known['diffusers']}, of which {len(rows)} were run."]
    for engine, title in ENGINES.items():
        run = [found[engine] for found in rows.values() if engine in found]
        if run:
            told.append(f"{title}: {sum(map(_agrees, run))} of {len(run)} that were run agree with PyTorch.")
    return " ".join(told)


def _changed(found: Collection[Mapping[str, Any]]) -> tuple[str, str]:
    """("2 of 3", what is to be said of the third): of how many networks a change of weights moves outputs as in
    PyTorch."""
    networks = next((row["perturbed"] for row in found if row.get("perturbed")), None)
    if networks is None:
        return "", ""
    followed = [name for name, one in networks.items() if one["state"] == "followed"]
    others = [f"`{name}` {_UNMOVED[one['state']]}" for name, one in networks.items() if one["state"] in _UNMOVED]
    more = {name: networks[name]["by"] for name in followed if networks[name]["by"] > 0.01}
    others += [f"`{name}` was changed by {100 * by:.0f} %" for name, by in more.items()]
    return f"{len(followed)} of {len(networks)}", ", ".join(others)


#: Why a change of a network's weights shows nothing, by its state.
_UNMOVED = {"not asked": "is not asked in this call", "no part": "has no part in the outputs, in PyTorch either"}


def _agrees(row: Mapping[str, Any]) -> bool:
    return bool(row.get("agrees", row.get("state") == "agrees"))


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    seconds = row.get("seconds", row.get("first_seconds"))
    took = "" if seconds is None else f", {seconds:.0f} s"
    if _agrees(row):
        if row.get("error") is None:
            return f"agrees{took}"
        return f"{row['error']:.1e}{took}" if row["error"] else f"{row.get('levels', 0):g} levels{took}"
    return f"**{row.get('state') or 'differs'}**"


def _remarks(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is wrong on each engine, which is named."""
    told = {engine: _remark(found[engine]) for engine in ENGINES if engine in found and not _agrees(found[engine])}
    return [f"{ENGINES[engine]}: {remark}" for engine, remark in told.items() if remark]


def _remark(row: Mapping[str, Any]) -> str:
    return " ".join(str(row.get("note") or row.get("why") or "").split()).replace("|", "\\|")[:400]


def first() -> str:
    """The twelve rows of diffusers' first table of official pipelines."""
    known = json.loads(OFFICIAL.read_text(encoding="utf-8"))
    lines = ["| then | now | |", "|---|---|---|"]
    for row in known["first_table"]:
        classes = ", ".join(f"`{name}`" for name in row["classes"])
        lines.append(f"| {row['row']} | {classes or '–'} | {row['remark']} |")
    return "\n".join(lines)


def listed() -> dict[str, str]:
    """The pipeline classes of the installed diffusers, and their modules. Read, not imported."""
    spec = importlib.util.find_spec("diffusers")
    assert spec is not None and spec.origin is not None
    root = Path(spec.origin).parent
    bases: dict[str, list[str]] = defaultdict(list)
    where: dict[str, str] = {}
    for path in sorted((root / "pipelines").rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                bases[node.name] += [ast.unparse(base) for base in node.bases]
                where[node.name] = ".".join(path.relative_to(root).with_suffix("").parts)

    def derives(name: str, seen: tuple[str, ...] = ()) -> bool:
        return any(
            base == "DiffusionPipeline" or (base not in seen and derives(base, (*seen, name)))
            for base in bases.get(name, ())
        )

    others = ("Onnx", "Flax")
    return {name: where[name] for name in sorted(bases) if derives(name) and not any(o in name for o in others)}


# --- the community's -----------------------------------------------------------------------------------------


def community() -> str:
    rows: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    path = FOLDER / "community.json"
    for row in json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else ():
        rows[row["pipeline"]][row["engine"]] = row
    lines = [_states(rows), "", _head("community pipeline", "file |")]
    for file, title in TITLES.items():
        found = rows.get(file, {})
        cells = [_cell(found.get(engine)) for engine in ENGINES]
        needs = f"with {NEEDS[file]}" if file in NEEDS else ""
        said = "; ".join(filter(None, [needs, _said(found.values())]))
        lines.append(f"| {title} | `{file}` | {' | '.join(cells)} | {said} |")
    return "\n".join(lines)


def _states(rows: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    of = [[row["state"] for row in found.values()] for found in rows.values()]
    agree = sum("agrees" in states for states in of)
    hardware = sum("hardware" in states for states in of)
    broken = sum("fails in PyTorch" in states for states in of)
    other = len(TITLES) - agree - hardware - broken
    told = f"Of {len(TITLES)} files, {agree} run ported and agree with PyTorch, {broken} do not run in PyTorch either, "
    told += f"{hardware} are for other hardware"
    return f"{told}, {other} differ or were not run." if other else f"{told}."


def _said(found: Collection[Mapping[str, Any]]) -> str:
    told = [] if found else ["not run"]
    for row in found:
        if row["state"] == "hardware":
            told.append(f"other hardware: {row['why']}")
        elif row["state"] != "agrees":
            told.append(f"{row['state']}: {row.get('why', '')}"[:260])
        elif not row.get("spread", 1.0):
            told.append("its output is constant, whatever its networks compute")
        moved = [note.partition(": ")[2] for note in row.get("moved", ()) if note.partition(": ")[2]]
        told += [f"moved: {note}" for note in moved]
        told += [_short(note) for note in row.get("notes", ())]
    return "; ".join(dict.fromkeys(" ".join(one.split()).replace("|", "\\|") for one in told))


def _short(note: str) -> str:
    """Why PyTorch computes something, without the lists that a note may have."""
    return note.split(" (")[0][:140]


def moved() -> str:
    """What is found in its new place, as `paritas.diffusers.moved` has it beside its rules."""
    from paritas.diffusers.moved import MODULES, NAMES

    lines = ["| was | is |", "|---|---|"]
    lines += [f"| `{old}` | `{new}` |" for old, new in MODULES.items()]
    lines += [f"| `{module}.{name}` | `{'.'.join(place)}` |" for (module, name), place in NAMES.items()]
    return "\n".join(lines)


def _head(name: str, more: str, *after: str) -> str:
    columns = [name, *filter(None, more.split("|")), *ENGINES.values(), *after, ""]
    return "| " + " | ".join(one.strip() for one in columns) + " |\n" + "|---" * len(columns) + "|"


def main() -> None:
    known = json.loads(OFFICIAL.read_text(encoding="utf-8"))
    known |= {"diffusers": importlib.metadata.version("diffusers"), "classes": listed()}
    OFFICIAL.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
