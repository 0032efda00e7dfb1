# SPDX-License-Identifier: Apache-2.0
"""Where OpenVINO 2026.4's CPU plugin differs from torch, and why that stays. An entry fails when its case passes."""

from __future__ import annotations

from gaps import REFUSED, Gap, ModuleGap, SampleGap

_NAN_POOL = "its MaxPool steps over NaN; to look for it would cost as much again"
_WIDE_NUMBER = (
    "a number of more than 32 bits in the program itself is cut; among inputs it is refused at the door"
)
_NEGATIVE = "refused: torch's own shape of it is another for a negative dimension"
_CUT_EMPTY = "refused: a padding that first cuts everything, or more than is left to reflect"

GAPS: list[Gap] = [
    Gap(
        "aten.upsample_bicubic2d.vec",
        "dynamic(2,3), None, False, [1.7,0.6]",
        "places of pixels are computed in float32 with one rounding more than torch's: 1.04 times the tolerance",
    ),
    Gap("aten.max_pool2d.default", ":nan", _NAN_POOL),
    Gap("aten.rnn_relu.input", "nan", "its relu takes a NaN for 0"),
    Gap("aten.remainder.Scalar", "inf], 0.1)", "2**31 % 0.1 is off by 4e-7 of 0.1: the quotient has 35 bits"),
    Gap("aten.masked_fill.Scalar", "1099511627777", _WIDE_NUMBER),
    Gap("aten.floor_divide.default", "-1099511627776", _WIDE_NUMBER),
    Gap(
        "aten.lstm.input",
        "dynamic(0,1)",
        "one rounding apart in a state whose typical number is taken for the smallest one",
    ),
    Gap("aten.unique_consecutive.default", "True, True, -1", _NEGATIVE),
    Gap(
        "aten.unique_consecutive.default",
        "False, True, 0",
        "an output that was not asked for: torch returns an empty one, its graph says one that is not",
    ),
    *(Gap("aten.pad.default", part, _CUT_EMPTY) for part in ("[3,-4]", "[3,-2], reflect", "[-2,3], reflect", "[5,-4]")),
]  # fmt: skip

SAMPLE_GAPS: list[SampleGap] = []

_BY_VALUES = "torch.export itself refuses it: it branches on values, or has a size that depends on them"

MODULE_GAPS: list[ModuleGap] = [
    *(ModuleGap(f"AdaptiveMaxPool{rank}d", REFUSED, "", "there is no rule for it yet") for rank in (1, 2, 3)),
    ModuleGap("Bilinear", REFUSED, "", "there is no rule for it yet"),
    ModuleGap(
        "MultiLabelMarginLoss",
        REFUSED,
        "reduction=none <- float32[10]",
        "torch's own graph has another shape for a single row",
    ),
    ModuleGap("GaussianNLLLoss", REFUSED, "", _BY_VALUES),
    ModuleGap("CTCLoss", REFUSED, "", _BY_VALUES),
]
