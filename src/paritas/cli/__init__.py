# SPDX-License-Identifier: Apache-2.0
"""The command line. No logic of its own: each command is one file in `commands`."""

from paritas.cli.app import app, main

__all__ = ["app", "main"]
