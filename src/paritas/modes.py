# SPDX-License-Identifier: Apache-2.0
"""One port in several modes of its engine."""

from __future__ import annotations

import dataclasses

from paritas.ports import Port
from paritas.run.engine import engine as find_engine


def with_mode(port: Port, mode: str) -> Port:
    """The same port in another of its engine's modes; shares the directory, not the session."""
    runtime = find_engine(port.manifest.engine)
    device, config = getattr(port.session, "device", ""), getattr(port.session, "config", None)
    session = runtime.load(port.artifact, mode=mode, device=device, config=config)
    manifest = dataclasses.replace(port.manifest, mode=mode)
    other = Port(
        dataclasses.replace(port.artifact, manifest=manifest),
        session,
        program=port._program,
        original=port._original,
        check_finite=port.check_finite,
    )
    other._keep = port  # type: ignore[attr-defined]  # whose temporary directory is in use
    return other
