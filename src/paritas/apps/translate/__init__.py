# SPDX-License-Identifier: Apache-2.0
"""Translation with models of fairseq: their checkpoints, a translator, and its quality."""
