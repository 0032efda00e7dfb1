# SPDX-License-Identifier: Apache-2.0
"""`python -m paritas` is `paritas`."""

from paritas.cli import main

main()
