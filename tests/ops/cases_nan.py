# SPDX-License-Identifier: Apache-2.0
"""Cases of what engines lose: NaN, and the rows that one, or an infinity, makes NaN."""

from making import case, inf, nan, scalar, tensor, values, vector

_X = tensor(2, 3, 4, 5).with_(nan, 1.0, -inf)
_BOTH = values([[1.0, nan, 2.0, inf], [3.0, -inf, -inf, 0.0], [inf, 1.0, inf, 2.0], [nan, nan, 1.0, 2.0]])

NAN = [
    *(
        case(f"aten.{name}.default", _X)
        for name in (
            "relu",
            "relu6",
            "hardtanh",
            "hardsigmoid",
            "exp",
            "expm1",
            "elu",
            "celu",
            "selu",
            "amax",
            "amin",
        )
    ),
    *(case(f"aten.{name}.int", x, dim) for name in ("softmax", "log_softmax") for x in (_X, _BOTH) for dim in (1, -1)),
    *(case(f"aten.{name}.default", _X, [1, 3]) for name in ("amax", "amin", "logsumexp")),
    *(case("aten.linalg_vector_norm.default", _X, ord, [1]) for ord in (inf, -inf, 0)),
    case("aten.linalg_vector_norm.default", tensor(), 0),
    *(case(f"aten.{name}.dim", _BOTH, dim) for name in ("max", "min") for dim in (0, 1)),
    *(case(f"aten.arg{name}.default", x) for name in ("max", "min") for x in (_BOTH, _X)),
    *(case("aten.sort.default", _BOTH, 1, descending) for descending in (False, True)),
    *(case("aten.topk.default", _BOTH, 3, 1, largest) for largest in (True, False)),
    case("aten.soft_margin_loss.default", vector(4).filled(-200.0), vector(4).filled(1.0), 0),
    case(
        "aten.floor_divide.default",
        values([1262.73876953125, 7.0, -7.0, inf]),
        scalar(-0.0007700659334659576),
    ),
    case("aten.logit.default", _X, 0.25),
    case("aten.lgamma.default", values([1.0, 2.0, 0.5, 3.0])),
]
