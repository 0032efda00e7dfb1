# SPDX-License-Identifier: Apache-2.0
"""Where MindSpore 2.10's CPU backend differs from torch, and why that stays. An entry fails when its case passes."""

from __future__ import annotations

from typing import NamedTuple

from making import Case


class Gap(NamedTuple):
    """The cases of `target` whose name contains `part`."""

    target: str
    part: str
    reason: str

    def covers(self, case: Case) -> bool:
        return case.target == self.target and self.part in str(case)


_BY_DOUBLE = "MindSpore computes this in float64, which holds integers up to 2**53; sizes and ids are smaller"
_NAN_ORDER = (
    "MindSpore's Sort and TopK take NaN for the smallest value, torch for the largest; scores have no NaN"
)

GAPS = [
    Gap("aten.floor_divide.default", "9007199254740993", _BY_DOUBLE),
    Gap("aten.sum.default", "9007199254740993", _BY_DOUBLE),
    Gap("aten.topk.default", "nan", _NAN_ORDER),
    Gap("aten.sort.default", "nan", _NAN_ORDER),
    Gap(
        "aten.div.Tensor_mode",
        "float32[4]:inf:-inf",
        "torch divides floats by way of fmod, so floor(inf / 2) is NaN there; MindSpore says inf",
    ),
    Gap(
        "aten.div.Tensor",
        "[nan,1.0,2.0]",
        "MindSpore's Div gives -inf for NaN / 0 between tensors; to check every quotient would double its cost",
    ),
    Gap(
        "aten.gelu.default",
        "nan:inf",
        "torch's vectorised gelu gives NaN for +inf where its scalar one, and MindSpore, give inf",
    ),
]


def gap_of(case: Case) -> Gap | None:
    return next((gap for gap in GAPS if gap.covers(case)), None)
