# SPDX-License-Identifier: Apache-2.0
"""Playlists by what songs mean: the page of `paritas demo playlist`."""
