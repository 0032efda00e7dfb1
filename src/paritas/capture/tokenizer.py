# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of a checkpoint or of a port. Code that its directory names is not run, nor asked about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

#: One of them is where a tokenizer is.
FILES = ("tokenizer.json", "tokenizer_config.json")


def is_in(directory: Path) -> bool:
    """Whether there is one in a directory."""
    return any((directory / name).is_file() for name in FILES)


def tokenizer(name: str | Path) -> Any:
    """That of a directory, which may begin with "~", or of a hub id. Raises what transformers raises without one."""
    from transformers import AutoTokenizer

    path = Path(name).expanduser()
    here = path.is_dir()
    return AutoTokenizer.from_pretrained(str(path if here else name), local_files_only=here, trust_remote_code=False)
