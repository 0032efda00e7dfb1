# SPDX-License-Identifier: Apache-2.0
"""For what a program is built: the value that travels from a call of `port()` to a lowering and to `port.json`."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """What an engine is asked for. `paritas.making.build_options` makes one that the engine has.

    dtype: to compute in, "" for the program's own. mode: "" where the engine has one way of running.
    weight_format: "int8" for weights that are rounded, "" for those of the original. device: as the engine calls
    it, "" for its own choice. config: properties of the engine's own, (name, value) in order of their names.
    """

    engine: str
    dtype: str = ""
    mode: str = ""
    target: str = "cpu"
    weight_format: str = ""
    device: str = ""
    config: tuple[tuple[str, str], ...] = ()
