# SPDX-License-Identifier: Apache-2.0
"""Run: a directory becomes something that can be called."""

import sys

# OpenVINO 2026.4 tells its makers when it is imported, unasked. Without this module it takes a stub of its own.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
