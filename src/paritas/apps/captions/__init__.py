# SPDX-License-Identifier: Apache-2.0
"""Pictures beside captions: which of them says best what is to be seen, and where."""
