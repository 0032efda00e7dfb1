# SPDX-License-Identifier: Apache-2.0
"""MindSpore's convolutions on a CPU, of which oneDNN has to be told before it computes anything in a process.

MindSpore hands oneDNN plain NCHW, for which AVX512 has only a reference kernel, 250 times slower; capped to AVX2 it
multiplies matrices. Those of other models are then slower too, on some processors: it is capped where a convolution is
to come. In a pipeline a text encoder without one is computed first, so that all that is to come is looked at.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from paritas.program import Artifact

if TYPE_CHECKING:
    import torch

_ISA_AVX2 = 0x7

_TOO_LATE = (
    "MindSpore has computed in this process before a model with convolutions was loaded, so oneDNN can no longer "
    "be told to use its fast ones: they may take 100 times as long. Load the model with convolutions first."
)


def expect(*coming: torch.nn.Module | Artifact) -> None:
    """Cap oneDNN if one of these has a convolution that it computes. Says nothing where it is too late."""
    if any(_convolves(one) for one in coming):
        _cap_isa()


def loaded(source: str) -> None:
    """The same for a module that is executed now, which warns where it is too late."""
    if _in_source(source) and not _cap_isa():
        warnings.warn(_TOO_LATE, RuntimeWarning, stacklevel=3)


def _convolves(one: torch.nn.Module | Artifact) -> bool:
    if isinstance(one, Artifact):
        from paritas.run.mindspore.module import source_of

        return _in_source(source_of(one))
    from torch import nn
    from torch.nn.modules.conv import _ConvNd

    return any(
        isinstance(module, _ConvNd)
        and (module.groups > 1 or (not isinstance(module, nn.Conv1d) and module.kernel_size != module.stride))
        for module in one.modules()
    )


def _in_source(source: str) -> bool:
    return "ops.Conv2D(" in source


@functools.cache
def _cap_isa() -> bool:
    """Whether oneDNN now uses its fast convolution for plain layouts; too late after its first operator."""
    found = importlib.util.find_spec("mindspore")  # which need not be imported yet
    library = Path(found.origin if found and found.origin else "").parent / "lib" / "libdnnl.so.3"
    with contextlib.suppress(OSError, AttributeError):
        return ctypes.CDLL(str(library)).dnnl_set_max_cpu_isa(_ISA_AVX2) == 0
    return False
