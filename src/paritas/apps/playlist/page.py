# SPDX-License-Identifier: Apache-2.0
"""The page of `paritas demo playlist`: a prompt becomes nine songs, a song its lyrics with the verse that was found."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Sequence
from typing import Any

from paritas import leftovers
from paritas.apps import frame
from paritas.apps.frame import ONE_AT_A_TIME, Told, seconds
from paritas.apps.playlist.collection import Collection, as_csv, as_m3u, written
from paritas.apps.search.embedding import MODEL
from paritas.apps.search.searching import Hit
from paritas.errors import InputError

INTRO = "Say what the songs should be about: they are found by what their verses mean, whatever the words."

PROMPT = "Running wild and free"

EXAMPLES = (
    "Running wild and free",
    "Missing somebody who is gone for good",
    "A party that goes on till morning",
    "I can't sleep",
    "Being young once, and old now",
)

LICENCE = "The songs were made by Paritas, of its own words, and are under its licence; nobody has sung them"


def page(collection: Collection, *, said: Callable[[str], None] = lambda line: None) -> Any:
    """The page, a `gradio.Blocks`. said: called with a line for the terminal."""
    gr = frame.gradio()
    folder = leftovers.make("playlist-files")
    years, artists = collection.years(), collection.artists()

    with frame.page("Playlist", INTRO, engine=collection.asked_engine, said=said) as (blocks, around):
        found = gr.State([])
        with gr.Row(equal_height=False, elem_classes=["bench", "playlist"]):
            with gr.Column(scale=5):
                prompt = gr.Textbox(PROMPT, label="What the songs are about", lines=2, max_lines=5)
                gr.Examples([[one] for one in EXAMPLES], [prompt], label="Examples")
                make = gr.Button("Make a playlist", variant="primary")
                note = around.said_here()
                with gr.Column(elem_classes=["settings"]):
                    with gr.Row(visible=years is not None):
                        low, high = years or (0, 0)
                        first = gr.Number(low, label="From year", precision=0, minimum=low, maximum=high, min_width=100)
                        last = gr.Number(high, label="To year", precision=0, minimum=low, maximum=high, min_width=100)
                    artist = gr.Dropdown(
                        artists, value=[], label="Only these artists", multiselect=True, visible=bool(artists)
                    )
            with gr.Column(scale=7):
                songs = gr.Radio([], label="Songs", visible=False, elem_classes=["songs"])
                lyrics = gr.HTML(_empty(), elem_classes=["lyrics"], padding=False)
                plan = gr.HTML("", visible=False, elem_classes=["map"], padding=False)
                with gr.Row(visible=False) as files:
                    m3u = gr.DownloadButton("Playlist (M3U)", min_width=140, elem_classes=["one-line"])
                    table = gr.DownloadButton("Table (CSV)", min_width=140, elem_classes=["one-line"])
        if collection.is_own:
            around.foot(f"Songs of {collection.name}")
        else:
            around.foot(MODEL, LICENCE)

        def playlist(text: str, since: float | None, until: float | None, only: list[str], request: Any) -> Any:
            if not (text or "").strip():
                raise InputError("Say what the songs should be about, or choose an example.")
            limits = (since if since != low else None, until if until != high else None) if years else (None, None)
            if None not in limits and limits[0] > limits[1]:  # type: ignore[operator]
                raise InputError(f"No year is from {int(limits[0])} to {int(limits[1])}.")  # type: ignore[arg-type]
            collection.searcher()
            started = time.perf_counter()
            hits = collection.search(text, limits, only or [])
            took = time.perf_counter() - started
            if not hits:
                raise InputError("No song is left by these years and artists.")

            def link(hit: Hit) -> str:
                return _link(request, hit)

            choices = [(_named(place, hit), hit.document) for place, hit in enumerate(hits, 1)]
            hint = collection.state
            told = Told(f"{len(hits)} songs in {seconds(took)}", hint, plain=True)
            return (
                hits,
                gr.Radio(choices, value=hits[0].document, visible=True),
                _lyrics(hits[0], hits),
                gr.HTML(_map(collection.map(text, hits), hits), visible=True),
                gr.Row(visible=True),
                gr.DownloadButton(value=written(folder, "playlist.m3u8", as_m3u(hits, link))),
                gr.DownloadButton(value=written(folder, "playlist.csv", as_csv(hits, link))),
                told,
            )

        def chosen(number: int | None, hits: list[Hit]) -> Any:
            hit = next((one for one in hits if one.document == number), None)
            return _lyrics(hit, hits) if hit else gr.skip()

        def linked(request: Any) -> Any:
            """A link names a song: its lyrics are there when the page opens."""
            named = request.query_params.get("song", "")
            if not named.isdigit():
                return gr.skip()
            hit = collection.song(int(named))
            return _lyrics(hit, []) if hit else f'<p class="none">There is no song {html.escape(named)}.</p>'

        for function in (playlist, linked):  # Gradio knows by the type itself that it is to hand the request over
            function.__annotations__["request"] = gr.Request

        outputs = [found, songs, lyrics, plan, files, m3u, table]
        for event in (make.click, prompt.submit):
            event(
                around.answers(len(outputs))(playlist), [prompt, first, last, artist], [*outputs, note, around.top],
                api_name="playlist" if event == make.click else False, show_progress="minimal",
                show_progress_on=[lyrics], **ONE_AT_A_TIME,
            )  # fmt: skip
        songs.input(chosen, [songs, found], [lyrics], api_name=False, show_progress="hidden")
        blocks.load(linked, None, [lyrics], api_name=False, show_progress="hidden")
    collection.start()
    return blocks


def _link(request: Any, hit: Hit) -> str:
    """Where a song is: its own column `url`, if it has one, or this page."""
    for name in ("url", "link"):
        own = hit.columns.get(name)
        if isinstance(own, str) and own.startswith(("https://", "http://")):
            return own
    return f"{str(getattr(request, 'base_url', '') or '/').rstrip('/')}/?song={hit.document}"


def _about(hit: Hit) -> str:
    return ", ".join(str(hit.columns[name]) for name in ("artist", "year") if hit.columns.get(name) not in (None, ""))


def _named(place: int, hit: Hit) -> str:
    about = _about(hit)
    return f"{place}. {hit.title}" + (f" · {about}" if about else "")


def _empty() -> str:
    return '<p class="none">The playlist stands here: nine songs, and of each the verse that was found.</p>'


def _lyrics(hit: Hit, hits: Sequence[Hit]) -> str:
    """A song's text, with the passage that was found marked, and others that are near it less so."""
    marks = sorted({(start, stop) for start, stop, _ in hit.passages})
    parts, at = [], 0
    for start, stop in marks:
        if start < at:
            continue
        best = (start, stop) == (hit.start, hit.stop)
        parts.append(html.escape(hit.text[at:start]))
        kind, name = ("found", ' aria-label="The verse that was found"') if best else ("near", "")
        parts.append(f'<mark class="{kind}"{name}>{html.escape(hit.text[start:stop])}</mark>')
        at = stop
    parts.append(html.escape(hit.text[at:]))
    link = _own_link(hit)
    score = f'<span class="score">likeness {hit.score:.2f}</span>' if hit.passages else ""
    return (
        f'<article><h2>{html.escape(hit.title)}</h2><p class="about">{html.escape(_about(hit))} '
        f'<a href="{html.escape(link)}">Link to this song</a> {score}</p>'
        f'<p class="text">{"".join(parts)}</p></article>'
    )


def _own_link(hit: Hit) -> str:
    return _link(None, hit)


def _map(places: dict[str, Any], hits: Sequence[Hit]) -> str:
    """The songs as points on a plane, those of the playlist numbered, the prompt a cross."""
    wide, high, edge = 520, 340, 20

    def at(place: Any) -> tuple[float, float]:
        return edge + float(place[0]) * (wide - 2 * edge), edge + (1 - float(place[1])) * (high - 2 * edge)

    dots = "".join('<circle cx="{:.1f}" cy="{:.1f}" r="2.5"/>'.format(*at(one)) for one in places["others"])
    found = []
    for number, (place, hit) in enumerate(zip(places["found"], hits, strict=True), 1):
        x, y = at(place)
        name = html.escape(_named(number, hit))
        found.append(
            f'<g><title>{name}</title><circle cx="{x:.1f}" cy="{y:.1f}" r="11"/>'
            f'<text x="{x:.1f}" y="{y + 4:.1f}">{number}</text></g>'
        )
    x, y = at(places["prompt"])
    cross = f"M{x - 9:.1f} {y:.1f}H{x + 9:.1f}M{x:.1f} {y - 9:.1f}V{y + 9:.1f}"
    asked = f'<g class="asked"><title>Your words</title><path d="{cross}"/></g>'
    words = (
        "Each point is a song, the numbers are the playlist's, the cross is what you asked for. "
        f"The plane shows {100 * places['share']:.0f} % of how songs differ."
    )
    drawn = f'<g class="others">{dots}</g><g class="hits">{"".join(found)}</g>{asked}'
    return (
        f'<figure><svg viewBox="0 0 {wide} {high}" role="img" aria-label="Map of the songs">{drawn}</svg>'
        f"<figcaption>{words}</figcaption></figure>"
    )
