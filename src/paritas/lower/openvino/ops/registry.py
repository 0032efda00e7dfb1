# SPDX-License-Identifier: Apache-2.0
"""`lowers` of this engine."""

from functools import partial

from paritas.lower import registry

lowers = partial(registry.lowers, "openvino")
