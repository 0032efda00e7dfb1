# SPDX-License-Identifier: Apache-2.0
"""OpenVINO's whole numbers: exact in all 32 bits, and refused beyond."""

from __future__ import annotations

import pytest
import torch
from cases_whole import CASES
from making import Case, case, program_of, values
from running import failures
from under_test import OPENVINO

from paritas.errors import InputError, LoweringError


@pytest.mark.parametrize("one", [pytest.param(one, id=f"{n}-{one}") for n, one in enumerate(CASES)])
def test_whole_numbers_are_exact(one: Case) -> None:
    wrong = failures(one, OPENVINO)
    assert not wrong, f"{one}\n" + "\n".join(wrong)


_TWICE = values([2**31 - 1, 2**30 + 1], "int64")
_PLACES = values([0, 0], "int64")
_FULL = values([[2**31 - 1, 2**24 + 1], [-(2**31) + 1, 1], [7, 2**31 - 5]], "int64")


@pytest.mark.parametrize(
    "one",
    [
        case("aten.sum.default", _FULL),
        case("aten.sum.dim_IntList", _FULL, [1]),
        case("aten.sum.default", values([2**31 - 1, 1], "int32")),
        case("aten.cumsum.default", _FULL, 0),
        case("aten.prod.dim_int", _FULL, 0),
        case("aten.cumprod.default", _FULL, 1),
        case("aten.pow.Tensor_Scalar", _FULL, 2),
        case("aten._to_copy.default", values([1.0, -3e9]), dtype=torch.int64),
        case("aten.bitwise_left_shift.Tensor", values([2**20, 3], "int64"), values([12, 1], "int64")),
        case("aten.dot.default", values([2**20, 3], "int64"), values([2**20, 3], "int64")),
        case("aten.square.default", values([2**20, 3], "int64")),
        case("aten.lcm.default", values([2**30 - 1, 3], "int64"), values([2**20, 3], "int64")),
        case("aten.scatter_add.default", _TWICE, 0, _PLACES, _TWICE),
        case("aten.index_add.default", _TWICE, 0, values([0, 0], "int64"), _TWICE),
        case("aten.index_put.default", _TWICE, [values([0, 0], "int64")], _TWICE, True),
        case("aten.scatter_reduce.two", _TWICE, 0, _PLACES, _TWICE, "prod"),
        case("aten.conv1d.default", values([[[2**20, 3]]], "int64"), values([[[2**20, 3]]], "int64")),
        case("aten.div.Tensor_mode", values([-(2**31), 7], "int64"), -1, rounding_mode="trunc"),
        case("aten.floor_divide.default", values([-(2**31), 7], "int64"), values([-1, 7], "int64")),
        case("aten.outer.default", values([2**20, 3], "int64"), values([2**20, 3], "int64")),
    ],
    ids=str,
)
def test_results_beyond_32_bits_are_refused_with_their_operator(one: Case) -> None:
    with OPENVINO.running(program_of(one)) as session, pytest.raises(InputError, match=one.target):
        session.run({f"x{i}": value.numpy() for i, value in enumerate(one.tensors())})


@pytest.mark.parametrize(
    "one",
    [
        case("aten.sum.default", values([2**31 - 1, 7, -7], "int64")),
        case("aten.cumsum.default", values([[2**31 - 1], [-(2**31) + 1], [7]], "int64"), 0),
        case("aten.sum.dim_IntList", values([[], []], "int64"), [1]),
        case("aten.prod.default", values([2**16, 2**14, -2], "int64")),
        case("aten._to_copy.default", values([2.0**31 - 128, -(2.0**31), -0.5]), dtype=torch.int64),
        case("aten.bitwise_left_shift.Tensor", values([-(2**20), 3], "int64"), values([11, 1], "int64")),
        case("aten.cumprod.default", values([2**16, 0, 2**31 - 1, 2**31 - 1], "int64"), 0),
        case("aten.lcm.default", values([2**30, -(2**29), 0], "int64"), values([2**20, 3, 0], "int64")),
        case("aten.index_put.default", _TWICE, [_PLACES], _TWICE),
        case("aten.scatter_add.default", _TWICE, 0, _PLACES, values([-1, -7], "int64")),
    ],
    ids=str,
)
def test_results_at_the_end_of_32_bits_are_right(one: Case) -> None:
    assert not failures(one, OPENVINO)


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


@pytest.mark.parametrize(
    "one",
    [
        case("aten.add.Tensor", values([2**31 - 1], "int32"), values([1], "int64")),
        case("aten.mul.Tensor", values([2**16], "int32"), values([2**16], "int64")),
        case("aten.sub.Tensor", values([-(2**31)], "int32"), values([1], "int64")),
        case("aten.add.Tensor", values([127], "int8"), values([2**31 - 1], "int64")),
    ],
    ids=str,
)
def test_inputs_of_fewer_bits_whose_results_have_more_are_refused(one: Case) -> None:
    with OPENVINO.running(program_of(one)) as session, pytest.raises(InputError, match="32 bits"):
        session.run({f"x{i}": value.numpy() for i, value in enumerate(one.tensors())})
