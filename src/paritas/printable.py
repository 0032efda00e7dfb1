# SPDX-License-Identifier: Apache-2.0
"""Text of a port or of a model, for a terminal: nothing in it moves the cursor, colours, or turns lines around."""

from __future__ import annotations

import json
import re

#: C0 and C1 controls but for tab and line feed, line separators, marks that turn the direction, lone surrogates.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str, *, as_json: bool = False) -> str:
    r"""`text` with every character that a terminal would obey instead of show written as its escape, "\x1b".

    as_json: as JSON writes it, in whose text such characters stand in strings only: "\u001b".
    """
    if as_json:
        return _CONTROLS.sub(lambda found: json.dumps(found[0])[1:-1], text)
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
