# SPDX-License-Identifier: Apache-2.0
"""PyTorch as an engine: the reference that ports are held against, and the truth in float64."""
