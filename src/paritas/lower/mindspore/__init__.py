# SPDX-License-Identifier: Apache-2.0
"""Lowering to MindSpore. `lower.lower` is the entry; it is not imported here, so that `grammar` needs no torch."""

from paritas.lower.mindspore.check import grammar

__all__ = ["grammar"]
