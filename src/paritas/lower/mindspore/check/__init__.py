# SPDX-License-Identifier: Apache-2.0
"""What generated code may consist of: checked before a port is executed, which may come from anyone."""
