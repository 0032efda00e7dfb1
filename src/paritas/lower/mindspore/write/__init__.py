# SPDX-License-Identifier: Apache-2.0
"""The source text of a port: expressions, statements, methods, classes, and the weights beside them."""
