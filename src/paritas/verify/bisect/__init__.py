# SPDX-License-Identifier: Apache-2.0
"""The smallest part of a port that is wrong by itself, and that part as a script."""
