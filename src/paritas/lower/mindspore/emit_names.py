# SPDX-License-Identifier: Apache-2.0
"""The MindSpore names that generated code may use. A name that a new lowering needs is added here.

Only functions of tensors belong in this list: `ops.Custom`, `ops.PyFunc`, `ops.Print`, `ms.load` and
their like run code or touch files, and would break the promise that loading a port does neither.
"""

from __future__ import annotations

DTYPE_NAMES = frozenset(
    f"ms.{name}"
    for name in (
        "float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool_ complex64 complex128"
    ).split()
)

FUNCTIONS = frozenset(
    """
    nn.CellList nn.Identity
    ops.Add ops.Argmax ops.BatchMatMul ops.BiasAdd ops.BroadcastTo ops.Cast ops.Concat ops.Conv2D ops.Dense ops.Div ops.Erf
    ops.Exp ops.ExpandDims ops.Gather ops.GatherD ops.GatherNd ops.GeLU ops.LayerNorm ops.MatMul ops.Maximum ops.Mul
    ops.ReduceAny ops.ReduceMax ops.ReduceMean ops.ReduceSum ops.Reshape ops.Rsqrt ops.Select ops.Sigmoid ops.Slice ops.Softmax
    ops.Split ops.Stack ops.Sub ops.Tile ops.Transpose
    ops.abs ops.arange ops.argmax ops.argmin ops.bitwise_and ops.bitwise_not ops.bitwise_or ops.bmm ops.broadcast_to
    ops.cast ops.cat ops.cos ops.dense ops.div ops.equal ops.erf ops.exp ops.expand_dims ops.floor ops.full
    ops.gather ops.gather_elements ops.gelu ops.greater ops.greater_equal ops.less ops.less_equal ops.log
    ops.logical_and ops.logical_not ops.logical_or ops.logical_xor ops.masked_fill ops.matmul ops.maximum ops.mean
    ops.minimum ops.mul ops.neg ops.not_equal ops.ones ops.ones_like ops.pow ops.relu ops.reshape ops.rsqrt
    ops.select ops.sigmoid ops.silu ops.sin ops.softmax ops.split ops.sqrt ops.square ops.squeeze ops.stack ops.strided_slice
    ops.sub ops.sum ops.tanh ops.tile ops.transpose ops.unsqueeze ops.where ops.zeros ops.zeros_like
    """.split()
)

METHODS = frozenset(
    """
    reshape transpose swapaxes astype expand_dims squeeze append register_buffer shape
    """.split()
)
