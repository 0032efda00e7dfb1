# SPDX-License-Identifier: Apache-2.0
"""The port of a causal language model, made once for all tests of what is deployed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.deploy.causal import saved, tokenizer_of_bytes

import paritas


@pytest.fixture(scope="session")
def causal(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """(the directory of a port, its original, its tokenizer): ported without naming a task."""
    place, tokenizer = tmp_path_factory.mktemp("causal"), tokenizer_of_bytes()
    tokenizer.chat_template = (
        "{{ bos_token }}{% for message in messages %}[{{ message.role }}] {{ message.content | trim }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    model = saved("llama", tokenizer, place / "original")
    paritas.port(place / "original").save(place / "port")
    return place / "port", model, tokenizer
