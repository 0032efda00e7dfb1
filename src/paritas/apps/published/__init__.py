# SPDX-License-Identifier: Apache-2.0
"""Models of documented hand ports at their real sizes, and tables of how far each engine is off on them."""
