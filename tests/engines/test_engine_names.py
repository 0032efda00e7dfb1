# SPDX-License-Identifier: Apache-2.0
"""Engines are found as people write them, and what is none says which one may have been meant."""

from __future__ import annotations

import pytest

from paritas.errors import UnknownEngine
from paritas.making import build_options
from paritas.run.engine import about


@pytest.mark.parametrize(
    ("written", "name"),
    [("openvino", "openvino"), ("OpenVINO", "openvino"), ("MINDSPORE", "mindspore"), ("PyTorch", "torch")],
)
def test_in_any_case(written: str, name: str) -> None:
    assert about(written).name == name


def test_what_is_asked_for_by_another_spelling_is_built_by_the_name() -> None:
    pytest.importorskip("openvino")
    assert build_options("OpenVINO")[0].engine == "openvino"


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("ov", "Did you mean 'openvino'?"),
        ("ms", "Did you mean 'mindspore'?"),
        ("openvno", "Did you mean 'openvino'?"),
        ("pytorhc", "Did you mean 'torch'?"),
        ("tensorrt", "'tensorrt'. Paritas knows: torch, openvino, mindspore"),
        ("", "''. Paritas knows"),
    ],
)
def test_what_is_none_says_which_may_be_meant(written: str, hint: str) -> None:
    with pytest.raises(UnknownEngine) as caught:
        about(written)
    assert hint in str(caught.value)
