# SPDX-License-Identifier: Apache-2.0
"""Lowering to OpenVINO: `prepare` the graph, through OpenVINO's `frontend`, `convert` to files."""

from paritas.lower.openvino.convert import lower as lower
