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
        watching=("diffusers.pipelines.", "diffusers_modules."),
        registries=frozenset({"_diffusers_hook"}),  # made by every `cache_context`, also where no cache is used
    )
)
