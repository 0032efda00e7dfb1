# SPDX-License-Identifier: Apache-2.0
"""Lowering to OpenVINO: one file for the graph (`prepare`), the frontend (`frontend`) and the result (`convert`)."""

from paritas.lower.openvino.convert import Lowered as Lowered
from paritas.lower.openvino.convert import lower as lower
