# SPDX-License-Identifier: Apache-2.0
"""MindSpore as an engine: a generated module in Graph or PyNative mode."""
