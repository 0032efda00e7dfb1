# SPDX-License-Identifier: Apache-2.0
"""A cluster of Ray's, which serving, tables and searches use alike."""

from __future__ import annotations

from typing import Any

from paritas.errors import InputError, first_line
from paritas.extras import require


def connected(address: str, door: str) -> Any:
    """Ray, connected. address: "local" begins a new one on this machine. door: what needs it, as its user calls it.

    Raises `InputError` where there is no cluster.
    """
    require("ray", door)
    import ray

    if ray.is_initialized():
        return ray
    try:
        # "local" is Ray's own word: without an address it would join the cluster that was here last.
        page: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        ray.init(address=address, **page, log_to_driver=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"--ray {address}: there is no cluster: {first_line(error)}") from error
    return ray
