# SPDX-License-Identifier: Apache-2.0
"""What the core of drop-ins has to know of diffusers."""

from __future__ import annotations

from paritas.dropin.library import Library, register

register(
    Library(
        "diffusers",
        models=("diffusers.models.", "diffusers.pipelines.", "diffusers_modules."),
        bases=(
            "diffusers.models.modeling_utils",
            "diffusers.models.cache_utils",
            "diffusers.configuration_utils",
            "diffusers.loaders",
            "diffusers.utils",
        ),
        # Of configurations: where one came from, and what was left out of it, listed in no order that lasts.
        bookkeeping=frozenset({"_use_default_values", "_class_name", "_diffusers_version", "_name_or_path"}),
        watching=("diffusers.pipelines.", "diffusers_modules."),
        registry="_diffusers_hook",
    )
)
