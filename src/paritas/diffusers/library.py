# SPDX-License-Identifier: Apache-2.0
"""What the core of drop-ins has to know of diffusers."""

from __future__ import annotations

from typing import Any

from paritas.dropin.library import Library, register


def _only_weights(hook: Any) -> bool:
    """Casting layers' weights between calls, and offloading them to where they can be read."""
    if type(hook).__name__ in ("GroupOffloadingHook", "LazyPrefetchGroupOffloadingHook"):
        group = getattr(hook, "group", None)
        return group is not None and group.offload_to_disk_path is None and str(group.offload_device) == "cpu"
    return type(hook).__name__ in ("LayerwiseCastingHook", "PeftInputAutocastDisableHook")


def _cast_by(hook: Any) -> Any:
    return hook.compute_dtype if type(hook).__name__ == "LayerwiseCastingHook" else None


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
        only_weights=_only_weights,
        cast_by=_cast_by,
    )
)
