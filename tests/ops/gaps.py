# SPDX-License-Identifier: Apache-2.0
"""Where MindSpore 2.10's CPU backend differs from torch, and why that stays. An entry fails when its case passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from making import Case, Given


class Gap(NamedTuple):
    """The cases of `target` whose name contains `part`."""

    target: str
    part: str
    reason: str

    def covers(self, case: Case) -> bool:
        return case.target == self.target and self.part in str(case)


GAPS = [
    *(
        Gap("aten.nonzero.default", part, "refused: how many rows there are, the value decides")
        for part in ("(float32:0.0)", "(float32:2.0)")
    ),
    *(
        Gap(f"aten.{name}", part, "a kernel whose size is free, which no layer has")
        for name, part in (
            ("conv1d.default", "float32[6,3,3]:dynamic"),
            ("conv2d.default", "float32[6,2,3,2]:dynamic"),
            ("conv2d.padding", "float32[6,4,3,2]:dynamic"),
            ("conv_transpose1d.default", "float32[3,4,3]:dynamic"),
            ("conv_transpose2d.input", "float32[4,3,3,2]:dynamic"),
        )
    ),
    Gap(
        "aten.max_pool2d.default",
        ":nan",
        "MindSpore's MaxPool steps over NaN, torch's answers with it; to look for it would cost as much again",
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


# --- samples of `test_conformance.py` ---

PASSES, MISSING, REFUSED, NOTED, FAILS, WRONG = "passes", "missing", "refused", "noted", "fails", "wrong"


class SampleGap(NamedTuple):
    """The samples of `target` for which `when` holds: refused by the lowering, failing loudly, or silently wrong."""

    target: str
    kind: str
    when: Callable[[Case], bool]
    reason: str

    def covers(self, case: Case) -> bool:
        return case.target == self.target and self.when(case)


class ModuleGap(NamedTuple):
    """The samples of `module_db` whose name begins so and contains `part`: refused, failing, or silently wrong."""

    name: str
    kind: str
    part: str
    reason: str

    def covers(self, sample: str) -> bool:
        return sample.startswith(f"{self.name}[") and self.part in sample


def _masked(case: Case) -> bool:
    """Whether an index is a mask."""
    return any(isinstance(i, Given) and i.dtype in ("bool", "uint8") for i in case.args[1])


_BY_VALUES = "how many elements the result has depends on values, which a graph of fixed shapes cannot say"

SAMPLE_GAPS = [
    *(
        Gap("aten.nonzero.default", part, "refused: how many rows there are, the value decides")
        for part in ("(float32:0.0)", "(float32:2.0)")
    ),
    SampleGap(
        "aten.index_put.default",
        REFUSED,
        lambda case: _masked(case) and len(case.args) > 3 and bool(case.args[3]),
        "adding where a mask says is not written yet",
    ),
    SampleGap(
        "aten.stft.default",
        REFUSED,
        lambda case: len(case.args) > 6 and case.args[6] is False,
        "both halves of the spectrum of a real signal: the second mirrors the first",
    ),
    SampleGap("aten.one_hot.default", REFUSED, lambda case: case.args[1:] in ((), (-1,)), _BY_VALUES),
    *(
        SampleGap(
            f"aten.{name}.default",
            WRONG,
            lambda case: case.args[0].dtype in ("float16", "bool") and case.args[0].shape == (8000,),
            "equal elements of a long row: torch keeps their order only if asked to (stable=True)",
        )
        for name in ("sort", "argsort")
    ),
    SampleGap(
        "aten.topk.default",
        WRONG,
        lambda case: case.args[0].dtype == "int64" and case.args[1:] == (3,),
        "which of several equal elements is among the largest, neither engine says",
    ),
    SampleGap(
        "aten.masked_select.default",
        REFUSED,
        lambda case: 0 in (*case.args[0].shape, *case.args[1].shape),
        "nothing is selected from nothing",
    ),
    SampleGap(
        "aten.unique_consecutive.default",
        REFUSED,
        lambda case: 0 in case.args[0].shape,
        "there are no runs in nothing",
    ),
    SampleGap("aten._unique2.default", REFUSED, lambda case: 0 in case.args[0].shape, "unique of nothing"),
    *(
        SampleGap(
            f"aten.where.{overload}",
            REFUSED,
            lambda case: case.args[0].dtype == "uint8",
            "a condition of bytes: torch makes no graph of it",
        )
        for overload in ("self", "Scalar", "ScalarOther", "ScalarSelf")
    ),
    *(
        SampleGap(
            f"aten.{name}",
            REFUSED,
            lambda case: bool(case.args[1].free),
            "a kernel whose size is free, which no layer has",
        )
        for name in (
            *(f"conv{rank}d.{overload}" for rank in (1, 2, 3) for overload in ("default", "padding")),
            "conv_transpose1d.default",
            "conv_transpose2d.input",
            "conv_transpose3d.input",
        )
    ),
    *(
        SampleGap(
            f"aten.{name}.default",
            WRONG,
            lambda case: case.args[0].dtype == "float16",
            "torch computes the places in float16, whose rounding moves them; here they are float32",
        )
        for name in ("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
    ),
    SampleGap(
        "aten.complex.default",
        REFUSED,
        lambda case: case.args[0].dtype == "float16",
        "MindSpore has no complex numbers of 32 bits",
    ),
    SampleGap("aten.argwhere.default", REFUSED, lambda case: case.args[0].shape == (), _BY_VALUES),
    SampleGap(
        "aten.batch_norm.default",
        REFUSED,
        lambda case: bool(case.args[5]) and case.args[3] is not None,
        "training: the running statistics change",
    ),
    SampleGap("aten.nonzero.default", REFUSED, lambda case: case.args[0].shape == (), _BY_VALUES),
    SampleGap(
        "aten.native_batch_norm.default",
        REFUSED,
        lambda case: bool(case.args[5]),
        "training: the running statistics change",
    ),
    SampleGap(
        "aten._native_batch_norm_legit.no_stats",
        WRONG,
        lambda case: case.args[0].dtype == "float16",
        "the saved mean and scale, which nothing reads, are float32 as on every other device of torch",
    ),
    SampleGap(
        "aten.soft_margin_loss.default",
        REFUSED,
        lambda case: case.args[0].dtype == "float16",
        "torch's exp overflows in float16, so that its loss is infinite",
    ),
    SampleGap(
        "aten.scaled_dot_product_attention.default",
        REFUSED,
        lambda case: len(case.args) > 4 and case.args[4] > 0,
        "dropout belongs to training, and its numbers are torch's own",
    ),
]

MODULE_GAPS: list[ModuleGap] = []
