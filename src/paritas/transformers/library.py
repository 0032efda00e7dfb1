# SPDX-License-Identifier: Apache-2.0
"""What the core of drop-ins has to know of transformers."""

from __future__ import annotations

from paritas.dropin.library import Library, register

register(
    Library(
        "transformers",
        models=("transformers.models.", "transformers_modules."),
        bases=(
            "transformers.modeling_utils",
            "transformers.generation.utils",
            "transformers.integrations",
            "transformers.utils",
        ),
        bookkeeping=frozenset({
            "generation_config", "_is_hf_initialized", "_output_capturing_hooks_installed", "name_or_path",
            "_name_or_path", "_commit_hash", "warnings_issued", "transformers_version", "architectures",
        }),
        random=frozenset({"SpeechT5SpeechDecoderPrenet", "VitsModel", "VitsStochasticDurationPredictor"}),
    )
)  # fmt: skip
