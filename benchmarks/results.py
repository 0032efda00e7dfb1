# SPDX-License-Identifier: Apache-2.0
"""Where results go: benchmarks/results/<name>.json, with the machine, the date and the versions."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paritas.bench.race import describe_machine

FOLDER = Path(__file__).with_name("results")


def machine() -> str:
    """ "AMD EPYC, 2 cores (avx512f); torch 2.13.0, mindspore 2.10.0; 2026-11-21"."""
    versions = ", ".join(f"{name} {version}" for name, version in _versions().items())
    return f"{describe_machine()}; {versions}; {_date()}"


def write(name: str, figures: Mapping[str, Any]) -> Path:
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.json"
    data = {"machine": describe_machine(), "date": _date(), "versions": _versions(), **figures}
    path.write_text(json.dumps(data, indent=1) + "\n")
    return path


def known(name: str, part: str) -> dict[str, Any]:
    """What an earlier run on this machine wrote as `part`, with the same versions; {} if there is none."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        return {}
    data = json.loads(path.read_text())
    same = data["machine"] == describe_machine() and data["versions"] == _versions()
    return dict(data[part]) if same else {}


def _versions() -> dict[str, str]:
    packages = ("paritas", "torch", "transformers", "mindspore", "openvino")
    return {name: importlib.metadata.version(name) for name in packages} | {"python": platform.python_version()}


def _date() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()
