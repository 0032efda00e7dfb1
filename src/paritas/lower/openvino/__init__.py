# SPDX-License-Identifier: Apache-2.0
"""Lowering to OpenVINO: every node by the rule of its operator (`ops/`), `graph` to a model, `convert` to files."""

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # see `paritas.run`

from paritas.lower.openvino.adopt import adopt as adopt  # noqa: E402 - OpenVINO reads that when it is imported
from paritas.lower.openvino.convert import lower as lower  # noqa: E402
