# SPDX-License-Identifier: Apache-2.0
"""The MindSpore names that generated code may use. A name that a new lowering needs is added here;
one that nothing writes any more goes (tests/lower keeps that true).

Only functions of tensors belong in this list: `ops.Custom`, `ops.PyFunc`, `ops.Print`, `ms.load` and
their like run code or touch files, and would break the promise that loading a port does neither.
"""

from __future__ import annotations

# Lists as text, which reads as lists do and fits on the lines of a page.
DTYPE_NAMES = frozenset(
    f"ms.{name}"
    for name in """
    float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool_
    complex64 complex128
    """.split()  # noqa: SIM905
)

FUNCTIONS = frozenset(
    """
    ops.flash_attention_score ops.rms_norm
    nn.CellList nn.Identity ops.Argmax ops.Argmin ops.AvgPool ops.BatchMatMul ops.BiasAdd ops.Complex
    ops.Conv2D ops.CumProd ops.CumSum ops.Erf ops.FloorDiv ops.FloorMod ops.GatherNd ops.LSTM ops.LayerNorm
    ops.MatMul ops.MaxPool ops.Maximum ops.Range ops.ReduceAll ops.ReduceAny ops.ReduceMax ops.ReduceMean
    ops.ReduceMin ops.ReduceProd ops.ReduceSum ops.Rsqrt ops.Sigmoid ops.Slice ops.Softmax ops.Sort ops.Tanh
    ops.TensorScatterAdd ops.TensorScatterElements ops.TensorScatterMax ops.TensorScatterMin
    ops.TensorScatterMul ops.TensorScatterUpdate ops.TopK ops.TruncateDiv ops.TruncateMod ops.abs ops.acos
    ops.acosh ops.arange ops.argmax ops.argmin ops.asin ops.asinh ops.assign ops.atan ops.atan2 ops.atanh ops.bessel_i0
    ops.bessel_i0e ops.bessel_i1 ops.bessel_i1e ops.bitwise_and ops.bitwise_left_shift ops.bitwise_or
    ops.bitwise_right_shift ops.bitwise_xor ops.broadcast_to ops.cast ops.cat ops.ceil ops.cholesky ops.conj
    ops.cos ops.cosh ops.cummax ops.cummin ops.dense ops.det ops.dropout ops.erf ops.erfc ops.exp ops.exp2
    ops.expand_dims
    ops.expm1 ops.fft ops.fftn ops.flip ops.floor ops.full ops.full_like ops.gather ops.gather_elements
    ops.gcd ops.gelu ops.ifft ops.ifftn ops.imag ops.inverse ops.invert ops.irfft ops.irfftn ops.lgamma
    ops.log ops.log1p ops.log2 ops.logical_and ops.logical_not ops.logical_or ops.logical_xor ops.masked_fill
    ops.matmul ops.maximum ops.minimum ops.nonzero ops.ones ops.ones_like ops.pow ops.qr ops.real ops.relu
    ops.reshape ops.rfft ops.rfftn ops.round ops.rsqrt ops.select ops.sigmoid ops.sign ops.silu ops.sin
    ops.sinh ops.slice ops.slogdet ops.split ops.sqrt ops.squeeze ops.stack ops.stop_gradient ops.svd ops.tan ops.tanh
    ops.tile ops.transpose ops.trunc ops.where ops.zeros ops.zeros_like
    """.split()  # noqa: SIM905
)

METHODS = frozenset(
    """
    append astype expand_dims register_buffer reshape shape squeeze swapaxes transpose
    """.split()  # noqa: SIM905
)
