# SPDX-License-Identifier: Apache-2.0
"""The MindSpore names that generated code may use. A name that a new lowering needs is added here.

Only functions of tensors belong in this list: `ops.Custom`, `ops.PyFunc`, `ops.Print`, `ms.load` and
their like run code or touch files, and would break the promise that loading a port does neither.
"""

from __future__ import annotations

# Lists as text, which reads as lists do and fits on the lines of a page.
DTYPE_NAMES = frozenset(
    f"ms.{name}"
    for name in """
    float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool_
    complex64 complex128
    """.split()  # noqa: SIM905
)

FUNCTIONS = frozenset(
    """
    nn.CellList nn.Identity ops.Add ops.Argmax ops.Argmin ops.AvgPool ops.BatchMatMul ops.BiasAdd
    ops.BroadcastTo ops.Cast ops.Concat ops.Conv2D ops.CumProd ops.CumSum ops.Dense ops.Div ops.Erf ops.Exp
    ops.ExpandDims ops.FloorDiv ops.FloorMod ops.Gather ops.GatherD ops.GatherNd ops.GeLU ops.LayerNorm
    ops.MatMul ops.MaxPool ops.Maximum ops.Minimum ops.Mul ops.ReduceAll ops.ReduceAny ops.ReduceMax
    ops.ReduceMean ops.ReduceMin ops.ReduceProd ops.ReduceSum ops.Reshape ops.Rsqrt ops.Select ops.Sigmoid
    ops.Slice ops.Softmax ops.Sort ops.Split ops.Stack ops.Sub ops.Tanh ops.TensorScatterAdd
    ops.TensorScatterElements ops.TensorScatterUpdate ops.Tile ops.TopK ops.Transpose ops.TruncateDiv
    ops.TruncateMod ops.abs ops.arange ops.argmax ops.argmin ops.atan ops.atan2 ops.bitwise_and
    ops.bitwise_or ops.bitwise_xor ops.bmm ops.broadcast_to ops.cast ops.cat ops.ceil ops.cos ops.dense
    ops.div ops.equal ops.erf ops.exp ops.expand_dims ops.expm1 ops.flip ops.floor ops.full ops.full_like
    ops.gather ops.gather_elements ops.gelu ops.greater ops.greater_equal ops.invert ops.less ops.less_equal
    ops.log ops.log1p ops.logical_and ops.logical_not ops.logical_or ops.logical_xor ops.masked_fill
    ops.matmul ops.maximum ops.mean ops.minimum ops.mul ops.neg ops.not_equal ops.ones ops.ones_like ops.pow
    ops.relu ops.reshape ops.round ops.rsqrt ops.select ops.sigmoid ops.sign ops.silu ops.sin ops.softmax
    ops.split ops.sqrt ops.square ops.squeeze ops.stack ops.strided_slice ops.sub ops.sum ops.tan ops.tanh
    ops.tile ops.transpose ops.trunc ops.unsqueeze ops.where ops.zeros ops.zeros_like
    ops.acos ops.acosh ops.asin ops.asinh ops.atanh ops.bessel_i0 ops.bessel_i0e ops.bessel_i1 ops.bessel_i1e
    ops.cosh ops.cummax ops.cummin ops.erfc ops.exp2 ops.lgamma ops.sinh ops.TensorScatterMax
    ops.TensorScatterMin ops.TensorScatterMul ops.log2 ops.svd
    ops.Complex ops.LSTM ops.conj ops.fft ops.fftn ops.ifft ops.ifftn ops.imag ops.irfft ops.irfftn ops.nonzero ops.real
    ops.rfft ops.rfftn ops.Range ops.stop_gradient ops.bitwise_left_shift ops.bitwise_right_shift
    ops.cholesky ops.det ops.gcd ops.inverse ops.qr ops.slogdet
    """.split()  # noqa: SIM905
)

METHODS = frozenset(
    """
    append astype expand_dims register_buffer reshape shape squeeze swapaxes transpose
    """.split()  # noqa: SIM905
)
