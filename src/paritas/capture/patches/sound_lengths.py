# SPDX-License-Identifier: Apache-2.0
"""How many frames convolutions make of so many samples, where a model computes it with fractions: Moonshine."""

from __future__ import annotations

from typing import Any

from paritas.capture.patches import patch


@patch(
    "frames of a sound",
    "transformers.models.moonshine.modeling_moonshine.MoonshinePreTrainedModel._get_feat_extract_output_lengths",
    upstream="transformers 5.23, modeling_moonshine.py, MoonshinePreTrainedModel._get_feat_extract_output_lengths",
)
def whole_lengths(original: Any) -> Any:
    """Lengths are computed with fractions, of which int() makes a constant of each; whole numbers divide alike."""

    def lengths(self: Any, samples: Any) -> Any:
        return (((samples - 127) // 64 - 6) // 3 - 2) // 2 + 1

    return lengths
