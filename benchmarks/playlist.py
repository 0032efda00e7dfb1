# SPDX-License-Identifier: Apache-2.0
"""How soon does `paritas demo playlist` show its first songs, and how long does a query on the page take?

    python benchmarks/playlist.py [--starts 3] [--queries 20] [--engine openvino] [--publish]
    python benchmarks/playlist.py --starts 1 --queries 3        # proves that all of it runs

The command is a process of its own, and the page is open in headless Chromium. First: from the command to nine songs on
the screen, with nothing kept (the model is ported, the songs are read) and with what the first start has left behind.
Then queries, from the click to the songs of the new prompt on the screen. The bars: 10 s, and 300 ms.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

SIZE = {"width": 1280, "height": 800}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=3, help="later starts (3)")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--publish", action="store_true")
    given = parser.parse_args()
    from playwright.sync_api import sync_playwright

    from paritas.apps.search.songs import queries

    asked = [query for query, _ in queries()]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"]
        chromium = started.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        rows = []
        for number in range(given.starts + 1):
            rows.append(row := start(chromium, Path(folder), given.engine, asked, given.queries))
            name = "later start" if number else "first start"
            print(f"{name}: page after {row['page']:.2f} s, nine songs after {row['shown']:.2f} s", flush=True)
        chromium.close()
    first, later = rows[0], rows[1:]
    times = sorted(one for row in rows for one in row["queries"])
    figures = {
        "engine": given.engine,
        "first": first["shown"],
        "first_page": first["page"],
        "later": statistics.median(row["shown"] for row in later) if later else None,
        "query_p50": statistics.median(times),
        "query_worst": times[-1],
        "queries": len(times),
    }
    middle, worst = 1e3 * figures["query_p50"], 1e3 * times[-1]
    print(f"{len(times)} queries: {middle:.0f} ms in the middle, {worst:.0f} ms at most")
    if given.publish:
        import results

        results.write("playlist", figures)
    return 0


def start(chromium: Any, folder: Path, engine: str, asked: list[str], count: int) -> dict[str, Any]:
    """Seconds from the command until the page is there, until nine songs are, and of each query after that."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "PARITAS_CACHE": str(folder / "kept"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "paritas", "demo", "playlist", "--engine", engine, "--port", str(port)]
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit(f"paritas demo playlist has ended with {process.returncode}.") from None
                time.sleep(0.02)
        page = chromium.new_page(viewport=SIZE)
        page.set_default_timeout(120_000)
        page.goto(f"http://127.0.0.1:{port}/")
        button = page.get_by_role("button", name="Make a playlist", exact=True)
        button.wait_for()
        there = time.perf_counter() - began
        query(page, button, asked[0])
        shown = time.perf_counter() - began
        page.locator(".took:not(.waiting)").wait_for()
        waited(page)
        return {"page": there, "shown": shown, "queries": [query(page, button, one) for one in asked[1 : count + 1]]}
    finally:
        process.terminate()
        process.wait()


def query(page: Any, button: Any, prompt: str) -> float:
    """Ask, and wait until nine songs are shown that were not there before. In seconds."""
    page.get_by_label("What the songs are about").fill(prompt)
    page.evaluate("document.querySelectorAll('.songs label').forEach(one => one.dataset.old = '1')")
    before = page.evaluate("[...document.querySelectorAll('.songs label')].map(one => one.innerText).join('|')")
    began = time.perf_counter()
    button.click()
    page.wait_for_function(
        """before => {
            const songs = [...document.querySelectorAll('.songs label')];
            return songs.length === 9 && songs.map(one => one.innerText).join('|') !== before;
        }""",
        arg=before,
        polling=10,
    )
    return time.perf_counter() - began


def waited(page: Any) -> None:
    """Until all songs are read: what is measured then is a query, and not the reading beside it."""
    for _ in range(600):
        if "Reading songs" not in page.locator("body").inner_text():
            return
        page.wait_for_timeout(200)


if __name__ == "__main__":
    sys.exit(main())
