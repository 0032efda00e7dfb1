# SPDX-License-Identifier: Apache-2.0
"""Where OpenVINO 2026.4's CPU plugin differs from torch, and why that stays. An entry fails when its case passes."""

from __future__ import annotations

from gaps import Gap, ModuleGap, SampleGap

_NO_COMPLEX = "refused: OpenVINO's inputs and outputs are real; inside a graph, complex numbers are pairs"
_NAN_LOST = "its Softmax leaves a row with a NaN or an infinity its other numbers, torch makes all of it NaN"
_NEGATIVE = "refused: torch's own shape of it is another for a negative dimension"
_SIZES = "refused: a scale that gives no whole size, while OpenVINO rounds it otherwise than torch"
_CUT_EMPTY = "refused: a padding that first cuts everything, or more than is left to reflect"

GAPS: list[Gap] = [
    *(
        Gap(f"aten.{name}", "complex64", _NO_COMPLEX)
        for name in (
            "view_as_real.default", "real.default", "imag.default", "resolve_conj.default", "abs.default", "mul.Tensor",
            "add.Tensor", "sub.Tensor", "div.Tensor", "neg.default", "unsqueeze.default", "slice.Tensor", "select.int",
            "reshape.default", "transpose.int", "cat.default", "expand.default", "index_select.default",
            "sum.dim_IntList", "_to_copy.default",
        )
    ),
    Gap("aten.view_as_complex.default", "", _NO_COMPLEX),
    Gap("aten._softmax.default", "nan", _NAN_LOST),
    Gap("aten._log_softmax.default", "nan", _NAN_LOST),
    Gap("aten.rnn_relu.input", "nan", "its relu takes a NaN for 0"),
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
    Gap("aten.index_add.default", "alpha=2", "refused: a factor is not written yet"),
    Gap("aten.scatter_reduce.two", "float32:1.0", "refused: a tensor without axes"),
    *(Gap("aten.pad.default", part, _CUT_EMPTY) for part in ("[3,-4]", "[3,-2]", "[-2,3], reflect", "[5,-4]")),
    Gap("aten.scaled_dot_product_attention.default", "float32[4,3,8]", "refused: operands of different ranks"),
    *(
        Gap(f"aten.upsample_{way}.vec", scales, _SIZES)
        for way in ("bilinear2d", "bicubic2d", "nearest2d", "trilinear3d", "nearest3d")
        for scales in (["[2.0,1.0,1.6]"] if "3d" in way else ["[1.7,0.6]"])
    ),
    Gap("aten.avg_pool2d.default", "True, False, 5)", "refused: a divisor where windows reach beyond the edge"),
]  # fmt: skip

SAMPLE_GAPS: list[SampleGap] = []

MODULE_GAPS: list[ModuleGap] = []
