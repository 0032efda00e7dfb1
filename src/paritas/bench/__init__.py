# SPDX-License-Identifier: Apache-2.0
"""Time per call against PyTorch eager: each contender in a process of its own, in turns."""
