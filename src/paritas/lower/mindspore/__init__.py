# SPDX-License-Identifier: Apache-2.0
"""Lowering to MindSpore. `lower.lower` is the entry; imports nothing here, so that `grammar` needs no torch."""
