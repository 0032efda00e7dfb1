# SPDX-License-Identifier: Apache-2.0
"""The page of pictures and captions, in a browser at two widths."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from browsers import DESKTOP, PHONE, browser, free_port
from paritas.apps.captions.matching import PARTS, Matcher, overlay
from paritas.errors import InputError

CAPTIONS = ["a photo of a dog", "a diagram", "noise"]


@pytest.fixture(scope="module")
def matcher(folder: Path) -> Matcher:
    return Matcher("tiny", str(folder / "ViT-B-32.safetensors"), "openvino")


@pytest.fixture(scope="module")
def picture(folder: Path) -> Any:
    return Image.open(folder / "CLIP.png")


@pytest.mark.slow
def test_probabilities_are_pytorchs(matcher: Matcher, picture: Any) -> None:
    found = matcher.probabilities([picture, picture.rotate(90)], CAPTIONS)
    want = matcher.probabilities([picture, picture.rotate(90)], CAPTIONS, "torch")
    assert found.shape == (2, 3) and np.abs(found - want).max() < 1e-5 and np.allclose(found.sum(axis=1), 1)


@pytest.mark.slow
def test_what_counts_is_where_the_picture_is_covered(matcher: Matcher, picture: Any) -> None:
    found = matcher.parts(picture, CAPTIONS, 1)
    assert found.shape == (PARTS, PARTS) and found.max() > 0
    assert np.abs(found - matcher.parts(picture, CAPTIONS, 1, "torch")).max() < 1e-4
    seen = matcher.seen(picture)
    assert overlay(seen, found).size == seen.size == (32, 32)
    assert overlay(seen, np.zeros_like(found)).size == (32, 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pictures", "captions", "text"),
    [(0, CAPTIONS, "no picture yet"), (1, ["a"], "two captions at least"), (30, CAPTIONS, "At most 24"),
     (1, ["a", "b" * 500], "500 letters")],
)  # fmt: skip
def test_what_cannot_be_compared_is_said(
    pictures: int, captions: list[str], text: str, matcher: Matcher, picture: Any
) -> None:
    with pytest.raises(InputError, match=text):
        matcher.probabilities([picture] * pictures, captions)


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page(size: tuple[int, int], matcher: Matcher, folder: Path) -> None:
    pytest.importorskip("gradio")
    expect = pytest.importorskip("playwright.sync_api").expect
    from paritas.apps import frame
    from paritas.apps.captions import page as captions_page

    large = folder / "large.png"
    Image.open(folder / "CLIP.png").resize((320, 240), Image.Resampling.NEAREST).save(large)
    blocks = captions_page.page(matcher)
    address = frame.serve(blocks, "127.0.0.1", free_port())
    try:
        with browser(size=size, patience=60) as (page, wrong):
            page.goto(address)
            page.get_by_role("button", name="Compare", exact=True).click()
            expect(page.get_by_role("alert")).to_contain_text("There is no picture yet")
            page.locator(".pictures input[type=file]").first.set_input_files([str(large), str(folder / "CLIP.png")])
            expect(page.locator(".pictures img").first).to_be_visible()
            page.get_by_label("Captions").fill("\n".join(CAPTIONS))
            page.get_by_role("button", name="Compare", exact=True).click()
            expect(page.get_by_role("heading", name="Picture 2")).to_be_visible()
            rows = page.get_by_label("Picture 1").locator("li")
            expect(rows).to_have_count(3)
            assert page.locator(".bars .best").count() == 2
            shares = [float(text.removesuffix(" %")) for text in page.locator(".bars .share").all_inner_texts()]
            assert abs(sum(shares[:3]) - 100) < 0.3
            expect(page.locator(".took")).to_contain_text("2 pictures and 3 captions in")
            page.get_by_role("button", name="Show where", exact=True).click()
            expect(page.locator(".parts img").first).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
            if folder := os.environ.get("PARITAS_PICTURES"):  # type: ignore[assignment]
                page.wait_for_timeout(1500)
                page.screenshot(path=f"{folder}/clip-{size[0]}.png", full_page=True)
            assert not wrong
    finally:
        blocks.close(verbose=False)
