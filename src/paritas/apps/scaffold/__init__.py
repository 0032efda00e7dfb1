# SPDX-License-Identifier: Apache-2.0
"""What is to be written for an operator that an engine lacks: its function, and its cases."""
