# SPDX-License-Identifier: Apache-2.0
"""The command line. No logic of its own: each command is one file that calls the pipeline and prints."""

from paritas.cli.app import app, main

__all__ = ["app", "main"]
