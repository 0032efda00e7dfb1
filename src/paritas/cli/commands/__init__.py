# SPDX-License-Identifier: Apache-2.0
"""One command a file, which calls the pipeline or an application and prints."""
