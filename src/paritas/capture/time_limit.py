# SPDX-License-Identifier: Apache-2.0
"""How long torch may reason about sizes before they are fixed instead."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator
from typing import Any

from paritas.errors import CaptureError

#: Seconds of one processor, all of a capture's questions together. A UNet's take 3; those of windows that are cut out
#: of padded, shifted and again padded images do not end.
SECONDS = 20.0


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Raise `CaptureError` out of a capture whose symbolic sizes have taken `SECONDS`; checked between questions."""
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    own: Any = ShapeEnv._maybe_evaluate_static
    seconds, spent = SECONDS, 0.0

    @functools.wraps(own)  # whose cache torch clears by name
    def timed(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal spent
        if spent > seconds:
            raise CaptureError(
                f"torch.export does not come to an end with free dimensions:\n"
                f"  its conditions on sizes took more than {seconds:g} s"
            )
        start = time.process_time()
        try:
            return own(self, *args, **kwargs)
        finally:
            spent += time.process_time() - start

    place: Any = ShapeEnv
    place._maybe_evaluate_static = timed
    try:
        yield
    finally:
        place._maybe_evaluate_static = own
