# SPDX-License-Identifier: Apache-2.0
"""A page in headless Chromium, and what goes wrong in it: requests to other hosts, errors of scripts."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import pytest

DESKTOP, PHONE = (1280, 800), (390, 844)

#: What Gradio's player complains of by itself about a file that is no sound.
IGNORED = ("Waveform load error",)


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def browser(
    *, size: tuple[int, int] = DESKTOP, patience: float = 60, arguments: Sequence[str] = (), script: str = "",
    permissions: Sequence[str] = (),
) -> Iterator[tuple[Any, list[str]]]:  # fmt: skip
    """A page of Chromium's, and a list of what went wrong in it. patience: in seconds."""
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or "/usr/bin/chromium"
    if not os.path.exists(program):
        pytest.skip("there is no chromium: apt-get install chromium")
    basic = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"]
    wrong: list[str] = []

    def requested(request: Any) -> None:
        url = urlsplit(request.url)
        if url.scheme not in ("data", "blob") and url.hostname != "127.0.0.1":
            wrong.append(f"request: {request.url}")

    def said(line: Any) -> None:
        if line.type == "error" and not line.text.startswith(IGNORED):
            wrong.append(f"console: {line.text}")

    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=program, args=[*basic, *arguments])
        context = chromium.new_context(
            accept_downloads=True, permissions=list(permissions), viewport={"width": size[0], "height": size[1]}
        )
        page = context.new_page()
        page.set_default_timeout(1000 * patience)
        playwright.expect.set_options(timeout=1000 * patience)
        if script:
            page.add_init_script(script)
        page.on("request", requested)
        page.on("console", said)
        page.on("pageerror", lambda error: wrong.append(f"page: {error}"))
        try:
            yield page, wrong
        finally:
            chromium.close()
