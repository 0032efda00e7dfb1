# SPDX-License-Identifier: Apache-2.0
"""OpenVINO's whole numbers: exact in all 32 bits, and refused beyond."""

from __future__ import annotations

import pytest
from cases_whole import CASES
from making import Case, case, program_of, values
from running import failures
from under_test import OPENVINO

from paritas.errors import LoweringError


@pytest.mark.parametrize("one", [pytest.param(one, id=f"{n}-{one}") for n, one in enumerate(CASES)])
def test_whole_numbers_are_exact(one: Case) -> None:
    wrong = failures(one, OPENVINO)
    assert not wrong, f"{one}\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    "one",
    [
        case("aten.add.Tensor", values([1, 2], "int64"), 2**40),
        case("aten.mul.Tensor", values([1, 2], "int64"), 2654435761),
        case("aten.full_like.default", values([1, 2], "int64"), -(2**62)),
        case("aten.masked_fill.Scalar", values([1, 2], "int64"), values([True, False], "bool"), 2**63 - 1),
        case("aten.clamp.default", values([1, 2], "int64"), 2**40, 2**41),
    ],
    ids=str,
)
def test_constants_beyond_32_bits_are_refused(one: Case) -> None:
    with pytest.raises(LoweringError, match=rf"{one.target}.*takes more than 32 bits"):
        OPENVINO.lower(program_of(one))
