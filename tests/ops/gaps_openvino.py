# SPDX-License-Identifier: Apache-2.0
"""Where OpenVINO 2026.4's CPU plugin differs from torch, and why that stays. An entry fails when its case passes."""

from __future__ import annotations

from gaps import Gap, ModuleGap, SampleGap

GAPS: list[Gap] = []

SAMPLE_GAPS: list[SampleGap] = []

MODULE_GAPS: list[ModuleGap] = []
