# SPDX-License-Identifier: Apache-2.0
"""Three thousand songs that nobody has sung: verses made of lines about a subject, the same ones every time.

They are ours, made by this file of the words in `data/songs.json`, under the licence of Paritas. Each song is about one
or two subjects, which is what a search is measured by: a query that shares no word with them asks for a subject.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import random
from collections.abc import Iterator
from importlib import resources
from typing import Any

#: How many songs there are.
SONGS = 3000


def shipped(name: str) -> Any:
    """A file of JSON that comes with Paritas."""
    return json.loads(resources.files("paritas.apps.search").joinpath("data", name).read_text(encoding="utf-8"))


@functools.cache
def _words() -> dict[str, Any]:
    """Of each subject: titles, what there is, what it does, where, and lines that say what it is about."""
    found: dict[str, Any] = shipped("songs.json")
    return found


def queries() -> list[tuple[str, str]]:
    """What is asked, in words that no song has, and the subject that is meant."""
    return [(query, subject) for query, subject in _words()["queries"]]


@dataclasses.dataclass(frozen=True)
class Song:
    title: str
    artist: str
    year: int
    subjects: tuple[str, ...]
    lyrics: str

    def columns(self) -> dict[str, Any]:
        """What is known of it beside its text."""
        return {"title": self.title, "artist": self.artist, "year": self.year}


def songs(count: int = SONGS, *, seed: int = 0) -> Iterator[Song]:
    """The songs. A verse has four lines and is about one subject; a song has three or four verses."""
    rng = random.Random(seed)
    words = _words()
    artists = [f"The {one.title()} {name}" for one in words["adjectives"] for name in words["names"]]
    rng.shuffle(artists)
    artists, titles = artists[:160], set[tuple[str, str]]()
    for _ in range(count):
        subjects = tuple(rng.sample(list(words["subjects"]), rng.choice((1, 1, 2))))
        artist = rng.choice(artists)
        title = rng.choice(words["subjects"][subjects[0]]["title"])
        while (title, artist) in titles:
            title = f"{rng.choice(words['adjectives']).title()} {title.removeprefix('The ')}"
        titles.add((title, artist))
        verses = [_verse(rng, subjects[place % len(subjects)]) for place in range(rng.choice((3, 4)))]
        year = rng.choice((*range(1962, 2025), *range(1990, 2025)))
        yield Song(title, artist, year, subjects, "\n\n".join(verses))


def _verse(rng: random.Random, subject: str) -> str:
    words = _words()["subjects"][subject]
    what, does, where, says = (rng.sample(words[part], 2) for part in ("what", "does", "where", "says"))
    lines = [
        f"{what[0]} {does[0]}",
        where[0],
        says[0] if rng.random() < 0.5 else f"and {what[1]} {does[1]}",
        rng.choice((says[1], f"{where[1]}, {says[1]}", f"oh, {says[1]}")),
    ]
    if rng.random() < 0.3:
        lines[0], lines[2] = lines[2], lines[0]
    return "\n".join(line[0].upper() + line[1:] for line in lines)
