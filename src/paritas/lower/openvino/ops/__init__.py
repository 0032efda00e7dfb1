# SPDX-License-Identifier: Apache-2.0
"""One function per exact ATen overload, a file per family; every file here is found by itself."""
