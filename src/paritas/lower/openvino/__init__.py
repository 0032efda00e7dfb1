# SPDX-License-Identifier: Apache-2.0
"""Lowering to OpenVINO: every node by the rule of its operator (`ops/`), `graph` to a model, `convert` to files.

Nothing is imported here, so that `ports` needs no torch.
"""

import sys

# OpenVINO reads that when it is imported: see `paritas.run`.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
