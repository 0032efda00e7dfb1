# SPDX-License-Identifier: Apache-2.0
"""Functions of the generated code that are larger than an expression, copied into the ports that use them."""
