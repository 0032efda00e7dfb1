# SPDX-License-Identifier: Apache-2.0
"""Cases without elements, which end a process where a kernel meets them, and of fewer axes than a kernel expects."""

from making import case, inf, ints, matrix, scalar, tensor, vector

EMPTY = [
    case("aten.take.default", matrix(3, 2), ints(0)),
    case("aten.take.default", scalar(2.0), ints(0)),
    case("aten.take.default", tensor(0), ints(0)),
    case("aten.index_select.default", matrix(3, 4), 1, ints(0)),
    *(
        case("aten.linalg_solve_triangular.default", a, b, upper=upper, left=left)
        for a, b, left in (
            (tensor(2, 0, 0), tensor(2, 0, 3), True),
            (tensor(2, 0, 0), tensor(2, 3, 0), False),
            (tensor(2, 1, 1), tensor(2, 0, 1), False),
        )
        for upper in (True, False)
    ),
    case("aten.matmul.default", matrix(3, 0), matrix(0, 4)),
    case("aten.linear.default", matrix(0, 3), matrix(4, 3), vector(4)),
    case("aten.cdist.default", matrix(0, 5), matrix(4, 5), 2.0, 1),
    *(case(f"aten.{name}.default", tensor(0, 0)) for name in ("sum", "mean", "prod", "any", "all")),
    *(case("aten.linalg_norm.default", tensor(0, 0), ord) for ord in (1, inf)),
    case("aten.pixel_shuffle.default", tensor(0, 4, 2, 2), 2),
    case("aten.im2col.default", tensor(0, 2, 4, 4), [2, 2], [1, 1], [0, 0], [1, 1]),
    case("aten.group_norm.default", matrix(2, 4), 2, vector(4)),
    case("aten.group_norm.default", matrix(3, 4).dynamic(0), 1),
    case("aten.prelu.default", scalar(-2.0), vector(1)),
]
