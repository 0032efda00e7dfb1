# SPDX-License-Identifier: Apache-2.0
"""Tests of models of open_clip run where it can be imported: in a process of their own, see test_clip_apart.py."""

from __future__ import annotations

import importlib.util

collect_ignore = [] if importlib.util.find_spec("open_clip") else ["inside"]
