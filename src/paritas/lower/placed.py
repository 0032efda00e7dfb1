# SPDX-License-Identifier: Apache-2.0
"""What a lowering says of a node names the node's operator and source line, also where the lowering itself breaks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from paritas.errors import LoweringError, ParitasError, reason_of


@contextlib.contextmanager
def placed(engine: str, where: str) -> Iterator[None]:
    """where: "aten.foo.default at file.py:3  y = foo(x)". What is raised inside leaves as a `LoweringError`."""
    try:
        yield
    except LoweringError as error:
        if where in str(error):
            raise
        raise LoweringError(f"{str(error).rstrip('.')}. It is needed by {where}.") from error
    except ParitasError:
        raise
    except Exception as error:
        raise LoweringError(f"{engine} cannot lower {where} with these arguments: {reason_of(error)}.") from error
