# SPDX-License-Identifier: Apache-2.0
"""What classes that stand in for those of a library share: ports that are kept, and tensors of other frameworks."""
