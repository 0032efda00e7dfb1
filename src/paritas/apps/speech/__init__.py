# SPDX-License-Identifier: Apache-2.0
"""Speech in and out: a pipeline of three models on an engine, and a page for it."""
