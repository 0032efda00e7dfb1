# SPDX-License-Identifier: Apache-2.0
"""Commands on a pipeline of diffusers: each of its networks becomes a port, and is verified."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paritas.cli.outcome import DIVERGES, OK, console, print_json
from paritas.cli.progress import Stages
from paritas.errors import InputError, PortError, SourceError

if TYPE_CHECKING:
    from paritas.verify import ComponentReports
    from paritas.verify.bisect.report import BisectReport

#: What diffusers calls the list of a pipeline's components.
INDEX = "model_index.json"

#: What a saved pipeline says of its ports, as `paritas.diffusers` writes it.
PORTS = "ports.json"

#: Of a pipeline: all have an owner.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def is_pipeline(source: str) -> bool:
    """Whether that names a directory with a pipeline."""
    try:
        return (Path(source) / INDEX).is_file()
    except (OSError, ValueError):  # too long for a name
        return False


def index_of(source: str) -> Path | None:
    """What a pipeline says of its components, in its directory or of a hub id; None for anything else.

    Of a hub id it is read from the hub's cache, and fetched where nothing of it is there.
    """
    if is_pipeline(source):
        return Path(source, INDEX)
    if not _HUB_ID.fullmatch(source) or Path(source).exists():
        return None
    import huggingface_hub as hub

    try:
        for name in (INDEX, "config.json"):  # the latter is a model's
            if isinstance(found := hub.try_to_load_from_cache(source, name), str):
                return Path(found) if name == INDEX else None
        return Path(hub.hf_hub_download(source, INDEX))
    except Exception:  # there is none, or nobody to ask: who loads it as a model says so  # noqa: BLE001 - the hub's
        return None


def is_saved(directory: Path) -> bool:
    """Whether that is a pipeline whose networks are ports."""
    return is_pipeline(str(directory)) and (directory / PORTS).is_file()


def by_network(option: str, text: str | None) -> str | dict[str, str] | None:
    """`openvino`, or `unet=openvino,vae=mindspore`: one for all networks, or one for each that is named.

    Raises `InputError`.
    """
    if text is None or "=" not in text:
        return text
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value):
            raise InputError(f"{option} {text!r} is not NETWORK=VALUE,NETWORK=VALUE, as in unet=int8,vae=fp16.")
        if name in found:
            raise InputError(f"{option} names {name} twice.")
        found[name] = value
    return found


def port_pipeline(
    source: str,
    index: Path,
    out: Path,
    engine: str,
    *,
    dynamic: bool,
    verify: bool,
    level: str,
    call: list[str] | None,
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Port, write, compare each network and the picture; the exit code. index: what `index_of` found of the source."""
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise PortError(f"{out} is there already: name another directory.")
    if unknown := [name for name, value in options.items() if value and name not in ("mode", "target", "weights")]:
        raise InputError(f"A pipeline is ported without --{', --'.join(unknown)}.")
    if is_saved(index.parent):
        raise InputError(f"{source} is ported already. Port the original again:   paritas port SOURCE --out DIR")
    engines, weights = by_network("--engine", engine), by_network("--weights", options.pop("weights"))
    check_networks(index, {"--engine": engines, "--weights": weights})
    given = {name: value for name, value in {**options, "weights": weights}.items() if value}
    with Stages(f"{source} to {engine}", quiet=quiet) as stages:
        stages("load")
        from paritas.diffusers.command import call_from, port_directory

        made = port_directory(
            source, out, engine=engines, call=call_from(call or []), dynamic=dynamic, verify=verify, level=level,
            progress=stages, detail=stages.detail, **given,
        )  # fmt: skip
    if as_json:
        report = None if made.report is None else json.loads(made.report.to_json())
        print_json({"directory": str(out), "verdict": made.verdict, "engines": made.engines, "report": report})
        return OK if made.verdict in ("agrees", "not verified") else DIVERGES
    screen = console()
    for name, where in made.engines.items():
        screen.print(f"{name}: {where}", markup=False)
    if made.report is not None:
        show(str(out), made.report)
    screen.print(
        f"Written: {out}" + (", with PARITY.md and PARITY.html" if made.report is not None else ""), markup=False
    )
    code = f"paritas.diffusers.DiffusionPipeline.from_pretrained({json.dumps(str(out))})"
    screen.print(f"To use it:   {code}", markup=False, soft_wrap=True)
    return OK if made.verdict in ("agrees", "not verified") else DIVERGES


def show(directory: str, report: ComponentReports) -> None:
    """A line for each port and for the picture, and all of those that do not agree."""
    screen = console()
    for name, one in report.items():
        if one.verdict == "agrees":
            what = str(one.picture) if one.picture is not None else f"error {one.error:.2e}"
            screen.print(f"{name}: agrees, {what}", markup=False)
        else:
            screen.print(f"{name}:", style="bold", markup=False)
            screen.print(str(one), markup=False, soft_wrap=True)
    place = shlex.quote(directory)
    for name in [name for name, one in report.items() if one.verdict == "diverges" and one.picture is None][:1]:
        if name != "picture":
            screen.print(
                f"To name the operator and its line:   paritas verify {place} --component {name} --level nodes",
                markup=False, soft_wrap=True,
            )  # fmt: skip


def check_networks(index: Path, given: dict[str, Any]) -> None:
    """Raise `InputError` for a name that is no component of a pipeline, before anything is loaded."""
    try:
        told = json.loads(index.read_text(encoding="utf-8"))
        known = [name for name, value in told.items() if isinstance(value, list) and value and value[0]]
    except (OSError, ValueError, AttributeError) as error:
        raise SourceError(f"{index} cannot be read: {error}") from None
    for option, values in given.items():
        names = values if isinstance(values, dict) else {}
        if unknown := sorted(name for name in names if name.partition(".")[0] not in known):
            raise InputError(f"{option} names {', '.join(unknown)}, and the components are {', '.join(known)}.")


def verify_pipeline(
    directory: Path,
    *,
    level: str,
    component: str,
    call: list[str] | None,
    original: str | None,
    seed: int,
    attach: bool,
    html: Path | None,
    png: Path | None,
    quiet: bool,
    as_json: bool,
    how: Mapping[str, Any],
    **others: Any,
) -> int:
    """Compare the ports of a saved pipeline and its picture with the original's; the exit code."""
    from paritas.cli.report import check_files, pairs, print_reports, write_files

    if unknown := [name for name, value in others.items() if value]:
        raise InputError(f"A pipeline is verified without --{', --'.join(unknown)}.")
    if attach and component:
        raise InputError("--attach writes the report of the whole pipeline: leave out --component.")
    check_files(html=html, png=png)
    with Stages(f"{directory}", quiet=quiet) as stages:
        stages("run")
        from paritas.diffusers.command import attach as attach_report
        from paritas.diffusers.command import call_from, opened

        pipeline = opened(directory, **{name: value for name, value in how.items() if value})
        stages("verify")
        report = pipeline.verify(
            call_from(call) if call else None, level, original=original, component=component, seed=seed,
            progress=stages.detail,
        )  # fmt: skip
        if attach:
            attach_report(directory, report)
        write_files(pairs(str(directory), report), html=html, png=png)
    if as_json:
        print_json({"directory": str(directory), "verdict": report.verdict, "report": json.loads(report.to_json())})
    else:
        print_reports(str(directory), report)
    return OK if report.verdict == "agrees" else DIVERGES


def bisect_pipeline(
    directory: Path, place: Path, *, component: str, original: str | None, seconds: float, stages: Any, **how: Any
) -> BisectReport:
    """The smallest part of one port that is wrong."""
    from paritas.diffusers.command import opened

    if not component:
        raise InputError(
            f"{directory} is a pipeline of several ports: say which, --component unet. To see which is wrong:   "
            f"paritas verify {directory}"
        )
    stages("run")
    pipeline = opened(directory, **{name: value for name, value in how.items() if value})
    stages("bisect")
    report: BisectReport = pipeline.bisect(
        component, None, place, original=original, seconds=seconds, progress=stages.detail
    )
    return report
