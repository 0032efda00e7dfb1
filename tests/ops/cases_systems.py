# SPDX-License-Identifier: Apache-2.0
"""Systems of equations, common divisors, and what MindSpore has no kernel for."""

from making import case, ints, matrix, tensor, values

_GOOD = [
    [[4.0, 1.0, 2.0], [1.0, 5.0, -1.0], [2.0, -1.0, 6.0]],
    [[3.0, 0.5, 0.0], [0.5, 2.0, 1.0], [0.0, 1.0, 4.0]],
]
_ODD = [[[0.0, 2.0, 1.0], [1.0, -3.0, 2.0], [4.0, 0.5, -1.0]]]
_ONE = [[[-4.0]], [[0.5]]]
_RIGHT = [[[1.0, -2.0], [0.5, 3.0], [2.0, 1.0]]]

SYSTEMS = [
    case("aten.linalg_inv.default", values(_ODD)),
    case("aten.linalg_inv.default", values(_ONE)),
    case("aten.inverse.default", values(_GOOD, "float64")),
    case("aten.linalg_inv_ex.default", tensor(2, 3, 3, dtype="float64")),
    case("aten.linalg_det.default", values(_ODD)),
    case("aten.linalg_det.default", values(_ONE)),
    case("aten.linalg_slogdet.default", values(_ODD)),
    case("aten.logdet.default", values(_GOOD)),
    case("aten.linalg_solve.default", values(_ODD[0]), values([1.0, -2.0, 0.5])),
    case("aten.linalg_solve.default", values(_ODD), matrix(2, 3).as_("float32"), left=False),
    case("aten.linalg_solve_ex.default", values(_GOOD, "float64"), values(_RIGHT, "float64")),
    case("aten.cholesky.default", values(_GOOD), True),
    case("aten.linalg_cholesky.default", values(_GOOD)),
    case("aten.linalg_cholesky_ex.default", values([[[4.0]]])),
    case("aten.linalg_qr.default", values(_RIGHT)),
    case("aten.linalg_qr.default", values(_RIGHT), "complete"),
    case("aten.qr.default", values(_GOOD)),
    case("aten.linalg_svdvals.default", values(_RIGHT)),
    case("aten.linalg_eigvalsh.default", values(_ODD)),
    case("aten.linalg_eigvalsh.default", values(_ODD), "U"),
    case("aten.linalg_pinv.atol_rtol_float", values([[1.0, 2.0], [2.0, 4.0], [0.0, 1e-9]])),
    case("aten.linalg_pinv.atol_rtol_tensor", values(_RIGHT)),
    case("aten.linalg_pinv.default", values(_RIGHT), 0.9),
    case("aten.pinverse.default", values(_RIGHT)),
]

#: Of numbers that torch and MindSpore's own functions round away, or whose kernel it lacks.
WITHOUT_KERNELS = [
    case(
        "aten.gcd.default",
        values([12, -18, 0, 2**40, -7], "int64"),
        values([18, 12, 0, 3 * 2**30, 0], "int64"),
    ),
    case("aten.lcm.default", values([[4], [-6], [0]], "int16"), values([6, -9, 5], "int16")),
    case("aten._unique2.default", values([[3, -1, 3], [7, -1, 0]], "int64"), True, True, True),
    case("aten._unique2.default", values([2.0, -1.0, 2.0, 5.5])),
    case("aten.unique_consecutive.default", values([1, 1, 0, 1], "bool"), True, True),
    case("aten.log1p.default", values([1e-12, -1e-10, 3.0, -0.999, 0.0, 1e-5])),
    case("aten.expm1.default", values([1e-12, -1e-10, 3.0, -40.0, 0.0, 1e-5])),
    case("aten.log1p.default", values([1e-12, -1e-10, 0.4, 7.0], "float64")),
    case("aten.expm1.default", values([1e-12, -1e-10, 0.4, 7.0], "float64")),
    case("aten.softplus.default", values([-26.0, -3.0, 0.0, 4.0], "float64")),
    case("aten.gelu.default", values([-6.0, -0.5, 1e-9, 2.5], "float64")),
    case("aten.gelu.default", values([-6.0, -0.5, 1e-9, 2.5], "float64"), approximate="tanh"),
    case("aten.pow.Tensor_Scalar", values([3, -7, 2, 1], "int64"), 2**24 + 1),
    case("aten.pow.Tensor_Tensor", values([[3], [-1]], "int64"), values([2**31 - 1, -5, 0], "int64")),
    case("aten.clamp_max.default", values([0, 200, 5, 255], "uint8"), -7),
    case("aten.bitwise_left_shift.Tensor_Scalar", values([1, -7], "int16"), 2**24 + 1),
    case("aten.conv2d.default", ints(2, 4, 5, 6), ints(6, 2, 3, 2), ints(6), [2, 1], [1, 0], [1, 2], 2),
    case("aten.conv_transpose2d.input", ints(4, 3, 4), ints(4, 3, 3, 2), ints(6), [2, 3], [1, 0], [1, 2], 2),
    case("aten.conv1d.default", tensor(2, 3, 9, dtype="float64"), tensor(4, 3, 3, dtype="float64")),
    case("aten.adaptive_max_pool1d.default", tensor(2, 3, 7).dynamic(2), [3]),
    case("aten.adaptive_max_pool2d.default", tensor(1, 2, 5, 6).dynamic(2, 3), [3, 4]),
    case("aten.adaptive_max_pool3d.default", tensor(1, 2, 4, 5, 3), [2, 3, 2]),
    case("aten.max_pool2d_with_indices.default", tensor(1, 2, 7, 6).dynamic(2), [3, 2], [2, 2], [1, 0]),
    case("aten.max_pool3d_with_indices.default", tensor(1, 2, 4, 5, 3), [2, 2, 2]),
    case("aten.angle.default", values([-2.0, 0.0, 3.0, float("nan")])),
]
