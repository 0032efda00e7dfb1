# SPDX-License-Identifier: Apache-2.0
"""What verification says: rows and a verdict, and how they are written as text, JSON, Markdown, HTML and curves."""
