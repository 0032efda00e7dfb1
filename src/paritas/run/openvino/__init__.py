# SPDX-License-Identifier: Apache-2.0
"""OpenVINO as an engine: a model compiled for its CPU plugin."""
