# SPDX-License-Identifier: Apache-2.0
"""The page of a report: what it says, that models cannot put anything into it, and how it behaves in a browser."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from made_reports import (
    BAD,
    FAULTY,
    GOOD,
    HOSTILE,
    SCRIPT,
    counts,
    looked_inside,
    module,
    node,
    output,
    report,
)

from paritas.verify import ParityReport
from paritas.verify.inputs.search import Sought
from paritas.verify.report.html import View, heights, joined, meter, number, page, severity
from paritas.verify.report.markdown import markdown
from paritas.verify.report.rows import GradientParity, NodeGradientParity


class Elements(HTMLParser):
    """The tags of a page with their attributes, and all text."""

    VOID = ("meta", "input", "br", "img", "line", "rect", "path", "use")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


REPORTS = {"good": GOOD, "bad": BAD, "faulty": FAULTY, "hostile": HOSTILE, "empty": report()}


@pytest.mark.parametrize("one", REPORTS.values(), ids=REPORTS)
def test_a_page_is_whole_and_needs_nothing_from_outside(one: ParityReport) -> None:
    text = one.to_html("ports/bert")
    elements = Elements(text)
    assert text.startswith("<!doctype html>") and not elements.open
    ids = [attributes["id"] for _, attributes in elements.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in elements.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        assert not [name for name in attributes if name.startswith("on") or name == "src"], (tag, attributes)
        for link in filter(None, (attributes.get("href"), attributes.get("xlink:href"))):
            assert link.startswith("#") and link[1:] in ids, link
    assert "url(http" not in text and "@import" not in text
    assert sum(tag == "script" for tag, _ in elements.tags) == 1


def test_a_page_says_what_the_report_knows() -> None:
    text = Elements(BAD.to_html("ports/bert")).text
    for words in (
        "✕ diverges a/model", "1 of 2 comparisons in 1 case left the tolerance", "computing in bfloat16",
        "though the weights are float32", "40 × tolerance", "pooler_output, case “batch 1”",
        BAD.tolerance.because, "1 of 3 nodes make something else", "activations.py:89 return self.act(input)",
        "encoder.layer.3.attention", "run: bfloat16 is emulated", "a machine", "2026-01-02", "PyTorch/f64", "port/f64",
        "paritas verify ports/bert --level nodes --html PARITY.html", "batch 1: x[1, 2]",
        "1 not by themselves: part of another node in the engine's program", "would pass with |got-want| <= 1",
    ):  # fmt: skip
        assert words in text, words
    for words in ("agrees a/model", "Every one of"):
        assert words not in text
    assert "✓ agrees a/model" in (good := Elements(GOOD.to_html()).text)
    assert "All of 2 comparisons in 1 case are within the tolerance." in good
    faulty = Elements(FAULTY.to_html()).text
    assert "NaN where the original has none" in faulty and 'case "long" : refused' in faulty


def test_a_page_has_whatever_the_markdown_has() -> None:
    text = Elements(BAD.to_html("DIR")).text
    figures = set(re.findall(r"\d\.\d\de-\d\d", markdown(BAD, "DIR")))
    assert len(figures) > 5 and not {f for f in figures if f not in text}


def test_gradients_and_the_search_are_on_the_page() -> None:
    off = GradientParity("a.weight", "parameter", (2, 3), excess=7.0, error=0.1)
    fine = GradientParity("b.bias", "parameter", (3,), excess=0.1, error=1e-6)
    node = NodeGradientParity(
        "mul_7", "aten.mul.Tensor", "a", "Mlp", "mlp.py:3  x * y", wrt="linear", excess=7.0, error=0.1
    )
    sought = Sought("60 s", 3, 60.0, tries=41, restarts=2, refused=0, unjudged=0)
    one = report([output()], gradients=(fine, off), gradient_case="longer", gradient_nodes=(node,), search=sought)
    text = one.to_html()
    assert "but 1 gradient is not" in text and one.verdict == "diverges"
    assert text.index("a.weight") < text.index("b.bias")
    assert "mul_7" in text and "x * y" in text and "41 tries" in text


def test_nothing_of_a_model_becomes_markup() -> None:
    text = HOSTILE.to_html(SCRIPT)
    assert SCRIPT not in text and "<script>document" not in text and "<img" not in text
    assert "&lt;script&gt;" in text
    elements = Elements(text)
    assert elements.text.count("document.title='executed'") > 20
    assert not [name for name, _ in elements.tags if name == "img"]


def test_the_policy_lets_only_our_script_run() -> None:
    import base64
    import hashlib

    text = GOOD.to_html()
    policy = next(a["content"] for tag, a in Elements(text).tags if a.get("http-equiv"))
    script = re.findall(r"<script>(.*?)</script>", text, re.S)
    (code,) = script
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    assert policy is not None and policy.startswith("default-src 'none';") and f"script-src 'sha256-{digest}'" in policy


def test_several_reports_are_one_page() -> None:
    text = Elements(joined([("ports/a", GOOD), ("ports/b", BAD)])).text
    assert "Parity of 2 ports" in text and "different originals" not in text
    assert "ports/a" in text and "ports/b" in text and "1 of 3" in text
    other = dataclasses.replace(GOOD, subject="another/model")
    both = Elements(joined([("a", GOOD), ("b", other)])).text
    assert "These are ports of 2 different originals" in both and "another/model" in both


def test_a_page_has_its_curve_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = GOOD.to_html()
    assert 'class="curves"' in text and 'href="#r0-m3"' in text
    assert "verify with --level modules" in report([output()]).to_html()


@pytest.mark.parametrize(
    ("row", "colour", "length"),
    [
        (module("a", 0.0), 1, 0), (module("a", 0.05), 2, 45), (module("a", 0.3), 3, 58), (module("a", 1.0), 4, 67),
        (module("a", 1.01), 5, 67), (module("a", 1e9), 5, 100), (module("a", float("inf"), fault="NaN"), 5, 100),
        (module("a", float("nan")), 5, 100), (output(excess=0.1, unjudged="why"), 0, 50), (None, 0, None),
    ],
)  # fmt: skip
def test_colours(row: Any, colour: int, length: int | None) -> None:
    assert severity(row) == colour
    if length is not None:
        assert meter(row) == length


def test_figures() -> None:
    values = (0.0, float("nan"), 1.234e-5, float("inf"))
    assert [number(value) for value in values] == ["0", "", "1.23e-05", "inf"]
    bars = View(0, "", report([output(histogram=counts(exact=1000, at7=1, broken=0))])).histograms[0][1]
    assert heights(bars)[0] == 1 and heights(bars)[7] == 0.02 and heights(bars)[-1] == 0
    assert heights(()) == []


def test_guilty_nodes_of_one_line_are_together() -> None:
    rows = (*(node(f"gelu_{i}", 5.0) for i in range(30)), node("mul", 2.0, target="aten.mul.Tensor"))
    one = looked_inside((), level="nodes", nodes=rows)
    assert [len(group) for group in View(0, "", one).guilty] == [30, 1]
    text = Elements(page(one)).text
    assert "31 of 31 nodes" in text and "from 2 lines of its source" in text and "18 more are in the table" in text


# --- in a browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    program = shutil.which("chromium") or "/usr/bin/chromium"
    if not os.path.exists(program):
        pytest.skip("there is no chromium: apt-get install chromium")
    arguments = [
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-background-networking",
    ]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@contextlib.contextmanager
def shown(chromium: Any, text: str, directory: Path, **options: Any) -> Iterator[Any]:
    """A page as a browser shows it from a file; nothing may be requested, complained about or executed."""
    file = directory / "PARITY.html"
    file.write_text(text, encoding="utf-8")
    wrong: list[str] = []
    context = chromium.new_context(**options)
    tab = context.new_page()
    tab.set_default_timeout(20_000)
    tab.on("request", lambda r: r.url.partition("#")[0] == file.as_uri() or wrong.append(f"request: {r.url}"))
    tab.on("console", lambda line: wrong.append(f"console: {line.text}"))
    tab.on("pageerror", lambda error: wrong.append(f"page: {error}"))
    tab.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
    tab.goto(file.as_uri())
    yield tab
    context.close()
    assert not wrong


def test_a_reader_finds_the_guilty_line(chromium: Any, tmp_path: Path) -> None:
    with shown(chromium, BAD.to_html(), tmp_path) as tab:
        assert tab.locator(".hero .mark").inner_text() == "✕ diverges"
        red, green, blue = map(int, re.findall(r"\d+", colour_of(tab.locator(".hero .mark")))[:3])
        assert red > 2 * max(green, blue)
        guilty = tab.locator(".guilty li")
        assert guilty.count() == 1 and guilty.is_visible()
        assert "activations.py:89 return self.act(input)" in guilty.inner_text()
        assert guilty.bounding_box()["y"] < tab.locator("#r0-outputs").bounding_box()["y"]
        tab.get_by_text("All 3 nodes").click()
        rows = tab.locator("#r0-all-nodes tbody tr")
        assert rows.first.inner_text().startswith("gelu_1")
        tab.get_by_role("searchbox").fill("activations")
        assert [rows.nth(at).is_visible() for at in range(3)] == [True, False, False]


def colour_of(element: Any) -> str:
    return element.evaluate("element => getComputedStyle(element).color")


def test_modules_open_by_click_and_by_key(chromium: Any, tmp_path: Path) -> None:
    with shown(chromium, GOOD.to_html(), tmp_path) as tab:
        first = tab.locator("#r0-m1")  # embeddings
        source = first.locator(":scope > .inner").get_by_text("modeling_made.py:7")
        assert not source.is_visible()
        first.locator(":scope > summary").click()
        assert source.is_visible()
        assert "x = self.embeddings(x)" in first.locator(":scope > .inner").inner_text()
        tab.keyboard.press("Enter")
        assert not source.is_visible()
        inside = tab.locator("#r0-m2")  # encoder.layer.0.attention
        assert not inside.is_visible()
        tab.get_by_role("button", name="Open all").click()
        assert inside.is_visible() and source.is_visible()
        tab.get_by_role("button", name="Close all").click()
        assert not inside.is_visible()


def test_what_left_the_tolerance_is_open_at_once(chromium: Any, tmp_path: Path) -> None:
    with shown(chromium, BAD.to_html(), tmp_path) as tab:
        first = BAD.modules.index(BAD.first_divergence)
        assert tab.locator(f"#r0-m{first}").is_visible()
        tab.get_by_role("button", name="Open what left the tolerance").click()
        assert tab.locator("details.s5 > summary:visible").count() == tab.locator("details.s5").count() > 10
        assert not tab.locator("#r0-m2").is_visible()


def test_the_curve_is_drawn_and_leads_to_the_modules(chromium: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with shown(chromium, GOOD.to_html(), tmp_path) as tab:
        curve = tab.locator(".curves svg")
        box = curve.bounding_box()
        assert box["width"] > 800 and box["height"] > 300
        links = curve.locator("a")
        assert links.count() == 14
        assert links.nth(3).locator("title").text_content().startswith("encoder.layer.2 (2): 0.03x tolerance")
        tab.get_by_role("button", name="Close all").click()
        links.nth(3).click()
        target = links.nth(3).get_attribute("href")
        assert target == "#r0-m7"
        tab.locator(f"{target} > .inner").wait_for(state="visible")
        assert tab.locator(f"{target} > summary").evaluate("element => element === document.activeElement")


def test_the_bars_are_all_elements(chromium: Any, tmp_path: Path) -> None:
    rows = [
        output(),
        output(case="batch 2"),
        output("pooler_output", histogram=counts(exact=1, at3=2, broken=3)),
    ]
    with shown(chromium, report(rows).to_html(), tmp_path) as tab:
        figures = tab.locator(".histogram")
        assert figures.count() == 2
        for at, elements in ((0, 30), (1, 6)):
            bars = figures.nth(at).locator(".bar")
            counted = bars.evaluate_all("bars => bars.map(bar => +bar.dataset.count)")
            assert sum(counted) == elements
            heights_seen = bars.evaluate_all("bars => bars.map(bar => bar.lastElementChild.getBBox().height)")
            assert [bool(height) for height in heights_seen] == [bool(count) for count in counted]
            assert f"{elements} elements" in figures.nth(at).inner_text()
        assert figures.nth(1).locator("svg").get_attribute("aria-label").endswith("NaN or infinite: 3")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_can_be_read_by_day_and_by_night(chromium: Any, tmp_path: Path, scheme: Any) -> None:
    with shown(chromium, BAD.to_html(), tmp_path, color_scheme=scheme) as tab:
        for selector, background in (("body", "body"), (".note", ".card"), (".hero .mark", ".hero .mark")):
            ink = tab.locator(selector).first.evaluate("e => getComputedStyle(e).color")
            paper = tab.locator(background).first.evaluate("e => getComputedStyle(e).backgroundColor")
            assert contrast(ink, paper) > 4.5, (selector, ink, paper)
        assert (brightness(tab.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")) < 0.5) == (
            scheme == "dark"
        )


def brightness(colour: str) -> float:
    """The relative luminance of WCAG."""
    shares = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return sum(weight * share for weight, share in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    dark, light = sorted(map(brightness, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def test_a_telephone_shows_it_without_scrolling_sideways(chromium: Any, tmp_path: Path) -> None:
    with shown(chromium, BAD.to_html(), tmp_path, viewport={"width": 390, "height": 800}) as tab:
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("several", [False, True])
def test_a_hostile_model_executes_nothing(chromium: Any, tmp_path: Path, several: bool) -> None:
    text = joined([(SCRIPT, HOSTILE), (SCRIPT, BAD)]) if several else HOSTILE.to_html(SCRIPT)
    with shown(chromium, text, tmp_path) as tab:
        tab.locator("main > details > summary").evaluate_all("all => all.forEach(summary => summary.click())")
        assert tab.locator(".guilty").last.is_visible()
        assert "executed" not in tab.title() or SCRIPT in tab.title()
        assert tab.locator("script").count() == 1 and tab.locator("img").count() == 0


def test_a_real_port(chromium: Any, openvino_port: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    one = ParityReport.from_json((openvino_port / "parity.json").read_text())
    with shown(chromium, one.to_html(str(openvino_port)), tmp_path) as tab:
        assert tab.locator(".hero .mark").inner_text() == "✓ agrees"
        assert "float32" in tab.locator(".tiles").inner_text()
        counted = tab.locator(".bar").evaluate_all("bars => bars.map(bar => +bar.dataset.count)")
        assert sum(counted) == sum(row.elements for row in one.outputs) > 0
        tab.get_by_role("button", name="Open all").click()
        assert tab.get_by_text("self.word_embeddings(input_ids)").last.is_visible()
