# SPDX-License-Identifier: Apache-2.0
"""Whole numbers to their last digit, order with NaN and ties, and what else shares modules: `cases_exact.PACKED`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from cases_exact import PACKED
from conforming import verdicts
from gaps import PASSES, REFUSED
from making import Case, case, tensor
from under_test import MINDSPORE, UnderTest

pytest.importorskip("mindspore")

#: Compiling them all takes minutes; of these, every fourth is tried each time.
PYNATIVE = dataclasses.replace(MINDSPORE, modes=("pynative",))


def _agree(cases: Sequence[Case], engine: UnderTest) -> None:
    wrong = [str(verdict) for verdict in verdicts(cases, engine) if verdict.kind != PASSES]
    assert not wrong, "\n".join([f"{len(wrong)} of {len(cases)}", *wrong])


def test_some_agree_to_the_last_digit() -> None:
    _agree(PACKED[::4], PYNATIVE)


@pytest.mark.slow
def test_all_agree_to_the_last_digit_in_both_modes() -> None:
    _agree(PACKED, MINDSPORE)


def test_complex_numbers_are_refused_by_what_is_written_for_real_ones() -> None:
    x = tensor(3, dtype="complex64")
    names = ("log10", "log2", "linalg_vector_norm", "std.correction", "var.correction", "l1_loss")
    extra = {"l1_loss": (x,)}
    cases = [case(f"aten.{name}" if "." in name else f"aten.{name}.default", x, *extra.get(name, ())) for name in names]
    assert {str(v): v.kind for v in verdicts(cases, PYNATIVE) if v.kind != REFUSED} == {}
