# SPDX-License-Identifier: Apache-2.0
"""Lower: a `Program` becomes an engine's files in a directory. Each engine's `lower` is named in `run/engine.py`."""
