# SPDX-License-Identifier: Apache-2.0
"""A network of a model's own, which is captured by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch


@dataclasses.dataclass(frozen=True)
class Component:
    """It shares the model's weights. inputs: makes what it is captured with, as `capture` takes it."""

    module: torch.nn.Module
    inputs: Callable[[], Any]
