# SPDX-License-Identifier: Apache-2.0
"""Normalisation."""

from paritas.lower.registry import lowers


@lowers("mindspore", "aten.layer_norm.default")
def layer_norm(emit, input, normalized_shape, weight=None, bias=None, eps=1e-05, cudnn_enable=True):
    """layer_norm(Tensor input, SymInt[] normalized_shape, Tensor? weight=None, Tensor? bias=None, float eps=1e-05, bool cudnn_enable=True) -> Tensor"""  # noqa: E501
    if emit.target == "cpu" and len(normalized_shape) == 1 and weight is not None and bias is not None:
        return emit.help("layer_norm", input, weight, bias, eps)
    shape = emit.dims(normalized_shape)
    dtype = emit.dtype(input.dtype)
    weight = weight or emit.call("ops.ones", shape, dtype)
    bias = bias or emit.call("ops.zeros", shape, dtype)
    begin = input.rank - len(normalized_shape)
    result = emit.prim("ops.LayerNorm", begin, begin, eps)(input, weight, bias)
    return emit.typed(type(result)(f"{result.text}[0]", result.dtype, result.shape))
