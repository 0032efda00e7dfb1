# SPDX-License-Identifier: Apache-2.0
"""Weights of fewer bits, by NNCF: a generation reads every weight for every token, so their bytes are its time."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
from collections.abc import Iterator

import openvino

from paritas.errors import LoweringError
from paritas.program import Note

#: What may be asked for, and what that means.
WEIGHTS = {
    "int8": "8 bits and a scale for each row of a matrix",
    "int4": "4 bits and a scale for each 128 weights, 8 bits in the first and the last matrix",
}


def compress(model: openvino.Model, weights: str) -> tuple[openvino.Model, Note]:
    """The model with the weights of its matrix products and tables in fewer bits, and what to tell of it.

    Nothing is calibrated and nothing trained: each weight is rounded (NNCF, `compress_weights`, asymmetric). What
    that costs is for `verify` to say. Raises `LoweringError` if NNCF is missing.
    """
    try:
        import nncf
    except ImportError:
        raise LoweringError(
            f"weights={weights!r} needs NNCF, which is not installed: pip install 'paritas[compress]'"
        ) from None
    mode = {"int8": nncf.CompressWeightsMode.INT8_ASYM, "int4": nncf.CompressWeightsMode.INT4_ASYM}[weights]
    with _quiet():
        compressed = nncf.compress_weights(model, mode=mode)
    version = importlib.metadata.version("nncf")
    text = f"weights are {weights} (NNCF {version}): {WEIGHTS[weights]}. The port is not the original any more"
    return compressed, Note("lower", text)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF prints tables and bars; what matters of them is in the note."""
    import io

    logger = logging.getLogger("nncf")
    before, logger.disabled = logger.disabled, True
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.disabled = before
