# SPDX-License-Identifier: Apache-2.0
"""Histograms of element errors: every element is counted once, and in the right bin."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from made_reports import GOOD, counts, output, report

from paritas.verify import ParityReport
from paritas.verify.report import histogram as module
from paritas.verify.report.histogram import EDGES, SIZE, add, bins, count_errors

ONES = np.ones(4, np.float32)


def found(want: np.ndarray, got: np.ndarray) -> dict[str, int]:
    return {bar.label: bar.count for bar in bins(count_errors(want, got)) if bar.count}


@pytest.mark.parametrize(
    ("want", "got", "labels"),
    [
        (ONES, ONES, {"exact": 4}),
        (ONES, ONES + np.float32([0, 0.5, 2, 50]), {"exact": 1, "3.2e-1 to 1.0e0": 1, "1.0e0 to 3.2e0": 1,
                                                    "1.0e1 and above": 1}),
        (ONES.astype(float), np.array([1 + 1e-12, 1 + 2e-9, 1 - 2e-9, 1.02]),
         {"below 1.0e-9": 1, "1.0e-9 to 3.2e-9": 2, "1.0e-2 to 3.2e-2": 1}),
        (ONES * 100, ONES * 102, {"1.0e-2 to 3.2e-2": 4}),
        (np.float32([1, np.nan, np.inf, 1]), np.float32([1, np.nan, np.inf, np.nan]),
         {"exact": 1, "NaN or infinite": 3}),
        (np.zeros(3, np.float32), np.float32([0, 1, 1e-9]), {"exact": 1, "1.0e1 and above": 2}),
        (np.int64([2**62, 5]), np.int64([2**62 + 1, 5]), {"exact": 1, "below 1.0e-9": 1}),
        (np.array([True, False]), np.array([True, True]), {"exact": 1, "1.0e0 to 3.2e0": 1}),
        (np.array([1 + 1j]), np.array([1 + 2j]), {"exact": 1, "1.0e0 to 3.2e0": 1}),
        (np.float32(3), np.float32(3), {"exact": 1}),
        (np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32), {}),
    ],
)  # fmt: skip
def test_each_element_is_in_its_bin(want: np.ndarray, got: np.ndarray, labels: dict[str, int]) -> None:
    want, got = np.asarray(want), np.asarray(got)
    assert found(want, got) == labels
    assert sum(count_errors(want, got)) == want.size * (2 if want.dtype.kind == "c" else 1)


@pytest.mark.parametrize(
    ("want", "got"),
    [(None, ONES), (ONES, None), (ONES, ONES[:2]), (ONES, ONES[None]), (ONES, np.array(list("abcd")))],
)
def test_what_has_no_common_elements_has_no_histogram(want: np.ndarray | None, got: np.ndarray | None) -> None:
    assert count_errors(want, got) == ()


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    want = generator.standard_normal(999)
    got = want + generator.standard_normal(999) * 10.0 ** generator.integers(-12, 2, 999)
    whole = count_errors(want, got)
    monkeypatch.setattr(module, "CHUNK", 10)
    assert count_errors(want, got) == whole
    assert sum(whole) == 999 and sum(count > 0 for count in whole) > 15


def test_bins_have_a_name_each() -> None:
    labels = [bar.label for bar in bins(range(SIZE))]
    assert len(set(labels)) == SIZE == len(EDGES) + 3
    assert (labels[0], labels[-1]) == ("exact", "NaN or infinite")
    assert EDGES[0] == pytest.approx(1e-9) and EDGES[-1] == pytest.approx(10)


def test_histograms_are_added() -> None:
    assert add([]) == () and add([(), ()]) == ()
    assert add([counts(exact=1, at7=2), (), counts(at7=3, broken=1)]) == counts(exact=1, at7=5, broken=1)


def test_a_report_keeps_its_histograms_and_old_reports_have_none() -> None:
    back = ParityReport.from_json(GOOD.to_json())
    assert [row.histogram for row in back.outputs] == [row.histogram for row in GOOD.outputs]
    data = json.loads(GOOD.to_json())
    for row in data["outputs"]:
        del row["histogram"]
    old = ParityReport.from_json(json.dumps(data))
    assert all(row.histogram == () for row in old.outputs)
    assert old.verdict == GOOD.verdict and "Errors of the elements" not in old.to_html()


def test_a_fault_has_a_histogram_too() -> None:
    row = output(excess=math.inf, fault="NaN", histogram=counts(broken=2))
    assert ParityReport.from_json(report([row]).to_json()).outputs[0].histogram == counts(broken=2)
    assert dataclasses.replace(row, histogram=()).diverges
