# SPDX-License-Identifier: Apache-2.0
"""What the small model draws: shapes, each as a caption and as a picture, both made from the same `Scene`."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from typing import Any

import numpy as np

SIZE = 256  # of a picture, in pixels

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 48, 52), "orange": (245, 135, 31), "yellow": (250, 208, 44), "green": (47, 158, 78),
    "blue": (40, 98, 214), "purple": (132, 70, 190), "pink": (244, 134, 178), "black": (30, 31, 36),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "star", "heart")
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (250, 249, 246),
    "grey": (158, 164, 172),
    "black": (18, 19, 23),
}
SIZES = ("small", "medium", "large")

#: Where one thing is, as parts of the width and the height.
PLACES: dict[str, tuple[float, float]] = {
    "middle": (0.5, 0.5), "top": (0.5, 0.25), "bottom": (0.5, 0.75), "left": (0.25, 0.5), "right": (0.75, 0.5),
    "top left": (0.25, 0.25), "top right": (0.75, 0.25), "bottom left": (0.25, 0.75), "bottom right": (0.75, 0.75),
}  # fmt: skip
#: Where several are; of `beside` and `above` the first is another thing than the second.
GROUPS: dict[str, tuple[tuple[float, float], ...]] = {
    "beside": ((0.27, 0.5), (0.73, 0.5)),
    "above": ((0.5, 0.27), (0.5, 0.73)),
    "two": ((0.27, 0.5), (0.73, 0.5)),
    "three": ((0.18, 0.5), (0.5, 0.5), (0.82, 0.5)),
    "four": ((0.28, 0.28), (0.72, 0.28), (0.28, 0.72), (0.72, 0.72)),
}
LAYOUTS = (*PLACES, *GROUPS)

SPOTS = (*PLACES, "left of two", "right of two", "upper of two", "lower of two", "two", "three", "four")
"""Where a thing that a caption names can be."""

#: In how many of ten thousand scenes: half of them are about two things and how they stand to each other.
_SHARES = {"beside": 2500, "above": 2500, "two": 700, "three": 700, "four": 700, "middle": 900}

#: Radius in parts of the shorter side: the smallest and the largest.
_RADII = {"small": (0.105, 0.125), "medium": (0.16, 0.195), "large": (0.32, 0.37)}
_GROUP_RADII = {"beside": (0.15, 0.185), "above": (0.15, 0.185), "two": (0.15, 0.185), "three": (0.12, 0.14),
                "four": (0.13, 0.16)}  # fmt: skip

_PLACE_WORDS = {
    "middle": ("", "in the middle", "in the center"),
    "top": ("at the top",), "bottom": ("at the bottom",),
    "left": ("on the left",), "right": ("on the right",),
    **{f"{v} {h}": (f"in the {v} {h} corner", f"at the {v} {h}") for v in ("top", "bottom") for h in ("left", "right")},
}  # fmt: skip
_BESIDE = (("left of", False), ("to the left of", False), ("right of", True), ("to the right of", True))
_ABOVE = (("above", False), ("over", False), ("below", True), ("under", True))

_OTHER_WORDS = (
    "a an the one two three four left right of to above over below under at in on top bottom middle center corner "
    "background and picture drawing"
)
WORDS = tuple(
    dict.fromkeys(
        (
            *COLOURS,
            *BACKGROUNDS,
            *SHAPES,
            *(f"{shape}s" for shape in SHAPES),
            "shape",
            "shapes",
            *SIZES,
            "big",
            *_OTHER_WORDS.split(),
        )
    )
)
"""Every word that captions have."""


@dataclasses.dataclass(frozen=True)
class Thing:
    colour: str
    shape: str


@dataclasses.dataclass(frozen=True)
class Scene:
    """first: the thing, or the one on the left or above; second: of `beside` and `above` alone."""

    layout: str
    first: Thing
    second: Thing | None = None
    size: str = "medium"
    background: str = "white"

    @property
    def held_out(self) -> bool:
        """Whether no training sees this combination: one of ten, in every size and on every background."""
        key = f"{self.layout} {self.first} {self.second}"
        return hashlib.sha256(key.encode()).digest()[0] < 26

    @property
    def spots(self) -> tuple[int, int]:
        """Where the first and the second are, as indices of `SPOTS`."""
        places = {"beside": ("left of two", "right of two"), "above": ("upper of two", "lower of two")}
        first, second = places.get(self.layout, (self.layout, self.layout))
        return SPOTS.index(first), SPOTS.index(second)

    @property
    def labels(self) -> tuple[int, ...]:
        """What can be seen: layout, the first's colour and shape, the second's, size, background, as indices."""
        second = self.second or self.first
        return (
            LAYOUTS.index(self.layout),
            *(list(COLOURS).index(thing.colour) for thing in (self.first, second)),
            *(SHAPES.index(thing.shape) for thing in (self.first, second)),
            SIZES.index(self.size),
            list(BACKGROUNDS).index(self.background),
        )


LABELS = (len(LAYOUTS), len(COLOURS), len(COLOURS), len(SHAPES), len(SHAPES), len(SIZES), len(BACKGROUNDS))
"""How many values each of `Scene.labels` has."""


def draw(rng: np.random.Generator, held_out: bool = False, even: bool = False) -> Scene:
    """A random scene, of those held out or of the others. even: layouts, sizes and backgrounds are as frequent."""
    while (scene := _any(rng, even)).held_out != held_out:
        pass
    return scene


def _any(rng: np.random.Generator, even: bool) -> Scene:
    number = int(rng.integers(10_000))
    layout = ""
    for layout, share in _SHARES.items():  # noqa: B007 - the one it stops at
        number -= share
        if number < 0:
            break
    else:
        layout = list(PLACES)[1 + int(rng.integers(len(PLACES) - 1))]
    if even:
        layout = (*LAYOUTS, *["middle"] * (len(SIZES) - 1))[rng.integers(len(LAYOUTS) + len(SIZES) - 1)]
    background = ("white", "grey", "black", "white", "white", "white")[rng.integers(3 if even else 6)]
    colours = [colour for colour in COLOURS if colour != background]

    def thing() -> Thing:
        return Thing(colours[rng.integers(len(colours))], SHAPES[rng.integers(len(SHAPES))])

    first, second, size = thing(), None, "medium"
    if layout in ("beside", "above"):
        while (second := thing()) == first:
            pass
    elif layout == "middle":
        size = SIZES[rng.integers(3)]
    return Scene(layout, first, second, size, background)


# --- in words -------------------------------------------------------------------------------------------------


def caption(scene: Scene, rng: np.random.Generator, left_open: str = "") -> str:
    """One of the captions of a scene. left_open: "colour" or "shape", which it does not say."""
    return " ".join(word for word, _ in told(scene, rng, left_open))


def told(scene: Scene, rng: np.random.Generator, left_open: str = "") -> list[tuple[str, int | None]]:
    """The words of a caption, each with the place, as an index of `SPOTS`, of the thing that it is about."""

    def named(thing: Thing, place: int, *, size: str = "", open_: str = "", plural: str = "") -> list[Any]:
        colour = "" if open_ == "colour" else thing.colour
        words = [*filter(None, (size, colour)), ("shape" if open_ == "shape" else thing.shape) + plural]
        if not plural:
            words.insert(0, "an" if words[0][0] in "aeiou" else "a")
        return [(word, place) for word in words]

    first, second = scene.spots
    if scene.second:
        phrase, turned = (_BESIDE if scene.layout == "beside" else _ABOVE)[rng.integers(4)]
        one, other = named(scene.first, first), named(scene.second, second, open_=left_open)
        words = [*other, *_plain(phrase), *one] if turned else [*one, *_plain(phrase), *other]
    elif scene.layout in GROUPS:
        words = [(scene.layout, first), *named(scene.first, first, open_=left_open, plural="s")]
    else:
        size = {"small": "small", "medium": "", "large": ("large", "big")[rng.integers(2)]}[scene.size]
        where = _PLACE_WORDS[scene.layout]
        words = named(scene.first, first, size=size, open_=left_open)
        words += [(word, first) for word in where[rng.integers(len(where))].split()]
    if scene.background != "white" or not rng.integers(4):
        words += _plain(f"on a {scene.background} background")
    return words


def _plain(words: str) -> list[tuple[str, int | None]]:
    return [(word, None) for word in words.split()]


def learnt(prompt: str) -> bool:
    """Whether a prompt is built as captions are: a model that has learnt from them guesses at others."""
    colour, shape = "|".join(COLOURS), "|".join((*SHAPES, "shape"))
    thing = rf"an? ((?:{colour}) )?(?:{shape})"
    several = rf"(?:two|three|four) ((?:{colour}) )?(?:{shape})s"
    sized = rf"an? (?:(?:small|large|big) )?((?:{colour}) )?(?:{shape})(?: in the (?:middle|center))?"
    where = "|".join({words for phrases in _PLACE_WORDS.values() for words in phrases if words})
    relation = "|".join(phrase for phrase, _ in (*_BESIDE, *_ABOVE))
    scene = f"{sized}|{thing} (?:{where})|{thing} (?:{relation}) {thing}|{several}"
    pattern = rf"(?:{scene})(?: on an? (?:{'|'.join(BACKGROUNDS)}) background)?"
    return re.fullmatch(pattern, " ".join(re.findall(r"[^\W_]+", prompt.lower()))) is not None


# --- as pictures ----------------------------------------------------------------------------------------------


def picture(
    scene: Scene, rng: np.random.Generator, height: int = SIZE, width: int = SIZE, left_open: str = ""
) -> np.ndarray:
    """The scene, uint8 [height, width, 3], with places and sizes a little different each time.

    left_open: as of `caption`. What is not said of several things alike is another with each of them.
    """
    canvas = np.empty((height, width, 3), np.float32)
    canvas[:] = BACKGROUNDS[scene.background]
    side = min(height, width)
    radius = side * rng.uniform(*_GROUP_RADII.get(scene.layout, _RADII[scene.size]))
    shift = rng.uniform(-0.03, 0.03, 2) * side  # all together, then each by itself
    places = GROUPS[scene.layout] if scene.layout in GROUPS else (PLACES[scene.layout],)
    for index, (x, y) in enumerate(places):
        thing = scene.second if scene.second and index else scene.first
        if left_open and index and not scene.second:
            thing = _other(thing, scene, rng, left_open)
        centre = np.array([x * width, y * height]) + shift + rng.uniform(-0.012, 0.012, 2) * side
        _paint(canvas, thing, centre, radius)
    return np.round(canvas).astype(np.uint8)


def _other(thing: Thing, scene: Scene, rng: np.random.Generator, left_open: str) -> Thing:
    """A thing that is another than the scene's in what is left open."""
    if left_open == "shape":
        shapes = [shape for shape in SHAPES if shape != thing.shape]
        return dataclasses.replace(thing, shape=shapes[rng.integers(len(shapes))])
    colours = [colour for colour in COLOURS if colour not in (thing.colour, scene.background)]
    return dataclasses.replace(thing, colour=colours[rng.integers(len(colours))])


def part(rng: np.random.Generator, side: int) -> np.ndarray:
    """A part of a picture at `SIZE`, uint8 [side, side, 3], where one or two things are, or parts of them."""
    background = list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
    colours = [colour for colour in COLOURS if colour != background]
    canvas = np.empty((side, side, 3), np.float32)
    canvas[:] = BACKGROUNDS[background]
    radius, other = SIZE * np.exp(rng.uniform(np.log(0.085), np.log(0.38), 2))
    angle = rng.uniform(0, 2 * np.pi)
    away = np.array([np.cos(angle), np.sin(angle)])
    centre = side / 2 + away * radius * rng.uniform(0, 1.3)
    things = [(centre, radius)]
    if rng.random() < 0.35:
        things.append((centre - away * (1.2 * (radius + other) + rng.uniform(0, 20)), other))
    for where, size in things:
        thing = Thing(colours[rng.integers(len(colours))], SHAPES[rng.integers(len(SHAPES))])
        _paint(canvas, thing, where, size)
    return np.round(canvas).astype(np.uint8)


def _paint(canvas: np.ndarray, thing: Thing, centre: np.ndarray, radius: float) -> None:
    reach = 1.25 * radius
    if (centre < -reach).any() or (centre > reach + np.array(canvas.shape[1::-1])).any():
        return
    x0, y0 = np.maximum(np.floor(centre - reach), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(centre + reach), (canvas.shape[1], canvas.shape[0])).astype(int)
    x = (np.arange(x0, x1, dtype=np.float32) + 0.5 - centre[0]) / radius
    y = (np.arange(y0, y1, dtype=np.float32) + 0.5 - centre[1]) / radius
    distance = _DISTANCES[thing.shape](*np.meshgrid(x, y)) * radius  # in pixels, negative inside
    cover = np.clip(0.5 - distance, 0, 1)[..., None]
    window = canvas[y0:y1, x0:x1]
    window += cover * (np.array(COLOURS[thing.colour], np.float32) - window)


def _circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 0.95


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    dx, dy = np.abs(x) - 0.74, np.abs(y) - 0.74
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - 0.1


def _polygon(corners: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The signed distance from a polygon, corners [n, 2]."""
    nearest = np.full(x.shape, np.inf, np.float32)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, 0), strict=True):
        ex, ey, wx, wy = bx - ax, by - ay, x - ax, y - ay
        along = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, (wx - ex * along) ** 2 + (wy - ey * along) ** 2)
        inside ^= ((ay > y) != (by > y)) & (x < ex * (y - ay) / (ey if ey else 1.0) + ax)
    return np.where(inside, -1, 1) * np.sqrt(nearest)


def _ring(radii: tuple[float, ...], count: int, up: float = 0.0) -> np.ndarray:
    angle = 2 * np.pi * np.arange(count) / count - np.pi / 2
    radius = np.resize(radii, count)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle) + up], 1)


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _polygon(_ring((1.06,), 3, up=0.22), x, y) - 0.08


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _polygon(_ring((1.06, 0.46), 10, up=0.06), x, y) - 0.05


def _heart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Two quarter circles on a square that stands on its corner: the distance is exact outside, which is what is seen.
    x, y = np.abs(x) / 1.75, (0.92 - y) / 1.75
    lobe = np.hypot(x - 0.25, y - 0.75) - np.sqrt(2) / 4
    low = np.maximum(x + y, 0) / 2
    point = np.sqrt(np.minimum(x**2 + (y - 1) ** 2, (x - low) ** 2 + (y - low) ** 2)) * np.sign(x - y)
    return np.where(x + y > 1, lobe, point) * 1.75


_DISTANCES = {"circle": _circle, "square": _square, "triangle": _triangle, "star": _star, "heart": _heart}
