# SPDX-License-Identifier: Apache-2.0
"""Operators of Paritas' own: recurrences over tokens, which the captured models' loops become."""

from making import case, tensor, values

import paritas.capture.patches.scans  # noqa: F401 - registers them

_STEPS = values([[[0.3, -0.2], [0.1, 0.7], [1.1, 0.0]], [[0.2, 0.4], [-0.3, 0.5], [0.9, 0.6]]])

#: batch 2, tokens 3, heads 2, width 4, states 5.
SCANS = [
    case(
        "paritas.selective_scan.default", tensor(2, 3, 2, 4), _STEPS, tensor(2, 5), tensor(2, 3, 2, 5),
        tensor(2, 3, 2, 5), tensor(2, 2, 4, 5),
    ),
    case(
        "paritas.selective_scan.default", tensor(2, 1, 2, 4), tensor(2, 1, 2), tensor(2, 1), tensor(2, 1, 1, 5),
        tensor(2, 1, 1, 5), tensor(2, 2, 4, 5),
    ),
    case(
        "paritas.gated_delta_rule.default", tensor(2, 3, 2, 5), tensor(2, 3, 2, 5), tensor(2, 3, 2, 4), _STEPS,
        tensor(2, 3, 2), tensor(2, 2, 5, 4),
    ),
    case(
        "paritas.gated_delta_rule.default", tensor(2, 1, 2, 5), tensor(2, 1, 2, 5), tensor(2, 1, 2, 4),
        tensor(2, 1, 2), tensor(2, 1, 2), tensor(2, 2, 5, 4),
    ),
]  # fmt: skip
