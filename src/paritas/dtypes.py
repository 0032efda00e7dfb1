# SPDX-License-Identifier: Apache-2.0
"""Names of dtypes: torch's own, such as "float32", are those of manifests, reports and ports."""

from __future__ import annotations

from typing import Any

#: As many write them.
SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def dtype_name(dtype: Any) -> str:
    """The name of a dtype of torch: "float32" of `torch.float32`."""
    return str(dtype).removeprefix("torch.")


def named_dtype(asked: Any) -> str:
    """The name of what a user calls a dtype: "fp32", "float32" or `torch.float32`."""
    return SHORT.get(str(asked), dtype_name(asked))
