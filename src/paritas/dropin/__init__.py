# SPDX-License-Identifier: Apache-2.0
"""What namespaces that stand in for a library share: its classes with ports behind them, one for each way of calling.

A namespace registers its `library.Library` and derives a mixin from `classes.Ported`; where calls have more than
tensors and numbers, it derives from `network.Network` too. Nothing here imports a library of models.
"""
