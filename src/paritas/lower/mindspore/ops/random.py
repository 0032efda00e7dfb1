# SPDX-License-Identifier: Apache-2.0
"""Random numbers. A port cannot draw those that torch draws, and a port that draws others is another model.

So they are refused, unless nothing is left to chance. A model that needs noise gets it as an input.
"""

from paritas.lower.mindspore.ops.factories import filled
from paritas.lower.registry import lowers


def _refused(emit):
    return emit.refuse(
        "it draws random numbers, and MindSpore's are not torch's: no port could be compared with the original. "
        "Pass the noise to the model as an input, or switch it off"
    )


@lowers("mindspore", "aten.bernoulli.p")
def bernoulli(emit, self, p, *, generator=None):
    """bernoulli.p(Tensor self, float p, *, Generator? generator=None) -> Tensor"""
    if p not in (0, 1):
        raise _refused(emit)
    return filled(emit, p)


@lowers("mindspore", "aten.rand.default")
def rand(emit, size, *, dtype=None, layout=None, device=None, pin_memory=None):
    """rand(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor"""  # noqa: E501
    raise _refused(emit)


@lowers("mindspore", "aten.randn.default")
def randn(emit, size, *, dtype=None, layout=None, device=None, pin_memory=None):
    """randn(SymInt[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor"""  # noqa: E501
    raise _refused(emit)


@lowers("mindspore", "aten.rand_like.default")
def rand_like(
    emit, self, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None
):
    """rand_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None, MemoryFormat? memory_format=None) -> Tensor"""  # noqa: E501
    raise _refused(emit)


@lowers("mindspore", "aten.randn_like.default")
def randn_like(
    emit, self, *, dtype=None, layout=None, device=None, pin_memory=None, memory_format=None
):
    """randn_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None, MemoryFormat? memory_format=None) -> Tensor"""  # noqa: E501
    raise _refused(emit)


@lowers("mindspore", "aten.normal.float_float")
def normal(
    emit, mean, std, size, *, generator=None, dtype=None, layout=None, device=None, pin_memory=None
):
    """normal.float_float(float mean, float std, SymInt[] size, *, Generator? generator=None, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None) -> Tensor"""  # noqa: E501
    raise _refused(emit)
