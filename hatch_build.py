# SPDX-License-Identifier: Apache-2.0
"""The README as a package index shows it: there a relative link leads nowhere.

With a `Source` among `[project.urls]` in pyproject.toml, files become links there and pictures are shown from there.
Without one, a link is its text, which names the file in the source distribution, and a picture its caption.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]\n]*)\]\((?P<target>[^)\s]+)\)")
_CODE = re.compile(r"(^```.*?^```$)", re.S | re.M)


def published(text: str, source: str) -> str:
    """A document of the repository's root, to be read elsewhere. source: where the repository is, "" if nowhere."""

    def link(found: re.Match[str]) -> str:
        target = found["target"]
        if "://" in target or target.startswith("#"):
            return found[0]
        if not source:
            return f"*{found['text']}*" if found["picture"] else found["text"]
        kind = "raw" if found["picture"] else "blob"
        return f"{found['picture']}[{found['text']}]({source.rstrip('/')}/{kind}/main/{target})"

    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in _CODE.split(text))


class ReadmeHook(MetadataHookInterface):
    """Called by hatchling for the field that pyproject.toml leaves open."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        source = str(metadata.get("urls", {}).get("Source", ""))
        metadata["readme"] = {"content-type": "text/markdown", "text": published(text, source)}
