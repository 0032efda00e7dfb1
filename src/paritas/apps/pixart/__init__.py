# SPDX-License-Identifier: Apache-2.0
"""Text to picture with PixArt-α: a small model that is trained here, and a page for it and for the real ones."""
