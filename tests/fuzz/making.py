# SPDX-License-Identifier: Apache-2.0
"""Random statements, several to a sample, and random programs of 3 to 15 of them."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence

from tests.fuzz import pointwise, rearranged, reduced
from tests.fuzz.draw import Draw
from tests.fuzz.pointwise import Template
from tests.fuzz.sample import Sample, trimmed

#: Families, and how often one of each is drawn.
FAMILIES: tuple[tuple[Sequence[Template], float], ...] = (
    (pointwise.UNARY, 2.0),
    (pointwise.ACTIVATIONS, 1.0),
    (pointwise.BINARY, 3.0),
    (pointwise.CHOICES, 2.0),
    (pointwise.IN_PLACE, 1.2),
    (rearranged.VIEWS, 2.0),
    (rearranged.INDEXED, 3.0),
    (rearranged.PIECES, 1.5),
    (rearranged.PADS, 0.7),
    (reduced.REDUCED, 2.5),
    (reduced.ORDERED, 1.2),
    (reduced.PRODUCTS, 1.2),
    (reduced.LAYERS, 1.8),
    (reduced.MODULES, 0.4),
)


def statement(rng: random.Random, first: int = 0, seed: int = 0) -> Sample:
    """One statement on inputs of its own. first: where the numbers in its names begin. seed: of its values."""
    while True:
        draw = Draw(rng, first=first)
        if _add(draw):
            name = draw.lines[-1].name
            return trimmed(Sample(draw.inputs, tuple(draw.lines), (name,), draw.modules, seed))


def takes_all(sample: Sample) -> bool:
    """Whether PyTorch runs it on all that it is called with: only then may it stand in one module with others."""
    from tests.fuzz.judge import eager, module_of

    try:
        module = module_of(sample)
        for _, feed in sample.feeds():
            eager(module, feed)
    except Exception:  # noqa: BLE001 - in whichever way PyTorch says so
        return False
    return True


def pack(statements: Sequence[Sample]) -> Sample:
    """Several statements, with different names, as one sample: a capture and a graph for all."""
    return Sample(
        {name: given for one in statements for name, given in one.inputs.items()},
        tuple(line for one in statements for line in one.lines),
        tuple(name for one in statements for name in one.outputs),
        {name: module for one in statements for name, module in one.modules.items()},
        statements[0].seed,
    )


def program(rng: random.Random) -> Sample:
    """3 to 15 statements that use each other's values; one in three has some of them in a module of their own."""
    while True:
        draw = Draw(rng, reuse=0.8)
        for _ in range(rng.randint(3, 15)):
            _add(draw)
        names = [line.name for line in draw.lines if line.name]
        if len(names) < 3:
            continue
        outputs = dict.fromkeys([names[-1], *rng.sample(names, rng.randint(0, min(2, len(names))))])
        sample = trimmed(Sample(draw.inputs, tuple(draw.lines), tuple(outputs), draw.modules, rng.getrandbits(30)))
        if not sample.inputs or len(sample.lines) < 3:
            continue
        if rng.random() < 0.35:
            first = rng.randrange(len(sample.lines) - 1)
            last = rng.randint(first + 1, len(sample.lines))
            if any(line.name for line in sample.lines[first:last]):
                return Sample(**{**vars(sample), "inner": (first, last)})
        return sample


def _add(draw: Draw) -> bool:
    """Whether a statement could be added: one that PyTorch refuses leaves nothing."""
    before = (dict(draw.inputs), list(draw.lines), dict(draw.modules), dict(draw.values))
    family = draw.rng.choices([f for f, _ in FAMILIES], [w for _, w in FAMILIES])[0]
    template = draw.rng.choice(family)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            draw.let(template(draw))
    except Exception:  # noqa: BLE001 - pieces that do not fit together, in whichever way PyTorch says so
        draw.inputs, draw.lines, draw.modules, draw.values = before
        return False
    return True
