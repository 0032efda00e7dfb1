# SPDX-License-Identifier: Apache-2.0
"""Tests of transformers' Trainer run where accelerate can be imported: see test_trainer_apart.py."""

from __future__ import annotations

import importlib.util

collect_ignore = [] if importlib.util.find_spec("accelerate") else ["inside"]
