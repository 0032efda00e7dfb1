# SPDX-License-Identifier: Apache-2.0
"""A port that goes on with texts, as openvino-genai's continuous batching takes it, in a process of its own.

Paged attention has no mask: each token sees itself and all before it. So a port's masks are computed first, and one
that is of another form, a sliding window for one, is not opened so. The process is its own as a step of openvino-genai
2026.4 keeps Python's lock for as long as it computes, and the server has connections to hear meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paritas import files
from paritas.errors import EngineError
from paritas.extras import install, missing
from paritas.leftovers import make, remove
from paritas.workers import Limits, Worker

MODEL = "openvino_model.xml"

#: Tokens in a page of keys and values, on the CPU.
PAGE = 32


class Paged:
    """The process, from its start to its end. Raises `EngineError` where the port cannot be opened so, which says why.

    context: tokens of the longest text, for which the masks are proved. together: texts that are computed at once.
    whole: how many texts of that length the pages hold; where more are wanted, some are computed again later.
    """

    def __init__(
        self,
        directory: Path,
        properties: Mapping[str, str],
        device: str = "",
        *,
        context: int,
        together: int = 64,
        whole: int = 4,
    ) -> None:
        if missing("genai"):
            raise EngineError(f"openvino-genai is not installed: {install('genai')}")
        self._view = make("paged")
        self._worker = Worker(
            "paritas.run.openvino.paged_worker", Limits(seconds=math.inf, gib=math.inf), {}, listens=True
        )
        try:
            if not without_empty_rows(directory, self._view):
                raise EngineError("its attention has another form than that of a text that is gone on with")
            self._worker.tell(
                {
                    "directory": str(self._view),
                    "properties": dict(properties),
                    "device": device or "CPU",
                    "context": context,
                    "together": together,
                    "pages": whole * (math.ceil(context / PAGE) + 1),
                }
            )
            answer = self.next()
            if "failed" in answer:
                raise EngineError(str(answer["failed"]))
        except BaseException:
            self.close()
            raise

    def add(self, number: int, ids: Sequence[int], options: Mapping[str, Any]) -> None:
        """Begin a text. options: by the names of openvino-genai's `GenerationConfig`."""
        self._worker.tell({"add": number, "ids": list(ids), "options": dict(options)})

    def cancel(self, number: int) -> None:
        self._worker.tell({"cancel": number})

    def next(self) -> dict[str, Any]:
        """What it says next: {"failed": why} once it has ended, else {"told": [[number, tokens, end], ...]}.

        end: "" for a text that goes on, "stop", "length", or "error: ...". Blocks; of one thread.
        """
        answer = self._worker.answer()
        return {"failed": answer} if isinstance(answer, str) else answer

    def stop(self) -> None:
        """End the process, while another thread still waits for what it says next."""
        if (pid := self._worker.pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def close(self) -> None:
        self._worker.end()
        remove(self._view)


def without_empty_rows(directory: Path, view: Path) -> bool:
    """Write a port's files to `view` as links, and its model without the factors of rows that see nothing.

    Where there is no padding, no row of attention sees nothing, and what openvino-genai turns into paged attention may
    have no other use of a mask. The weights stay where they are. False where there is no attention.
    """
    root = ElementTree.fromstring(files.text(directory / MODEL, 1 << 28))
    layers, edges = root.find("layers"), root.find("edges")
    if layers is None or edges is None:
        return False
    kinds = {layer.get("id"): layer.get("type") for layer in layers}
    into: dict[str | None, dict[str | None, ElementTree.Element]] = {}
    for edge in edges:
        into.setdefault(edge.get("to-layer"), {})[edge.get("to-port")] = edge
    dropped: dict[str | None, ElementTree.Element] = {}
    for name, kind in kinds.items():
        given = [into.get(name, {}).get(port) for port in ("0", "1")] if kind == "Multiply" else []
        if len(given) == 2 and given[0] is not None and given[1] is not None:
            sources = [kinds.get(edge.get("from-layer")) for edge in given if edge is not None]
            if sources == ["ScaledDotProductAttention", "ReduceMax"]:
                dropped[name] = given[0]
    for edge in list(edges):
        if edge.get("to-layer") in dropped:
            edges.remove(edge)
        elif (attention := dropped.get(edge.get("from-layer"))) is not None:
            edge.set("from-layer", attention.get("from-layer", ""))
            edge.set("from-port", attention.get("from-port", ""))
    for layer in list(layers):
        if layer.get("id") in dropped:
            layers.remove(layer)
    ElementTree.ElementTree(root).write(view / MODEL)
    for file in directory.iterdir():
        if file.name != MODEL and file.is_file():
            (view / file.name).symlink_to(file.resolve())
    return "ScaledDotProductAttention" in kinds.values()


def said_in(directory: Path) -> dict[str, str]:
    """The properties with which a port was verified."""
    found: dict[str, str] = json.loads(files.text(directory / "ov_config.json", 1 << 20))
    return found
