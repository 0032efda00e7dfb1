# SPDX-License-Identifier: Apache-2.0
"""Tiny models of every architecture, each ported and verified in a process of its own."""
