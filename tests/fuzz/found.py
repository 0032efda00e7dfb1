# SPDX-License-Identifier: Apache-2.0
"""What random statements have found, cut down: each was silently wrong, or another library's exception, once.

An entry is what `python -m tests.fuzz` prints: the lines, what is returned, the inputs, the seed of their values.
"""

from __future__ import annotations

from typing import Any

from tests.fuzz.sample import Given, Line, Sample


def found(
    lines: list[str],
    outputs: tuple[str, ...],
    inputs: dict[str, Given],
    seed: int = 0,
    modules: dict[str, str] | None = None,
    inner: tuple[int, int] = (0, 0),
) -> Sample:
    made = []
    for text in lines:
        name, equals, right = text.partition(" = ")
        made.append(Line(right, name) if equals and name.isidentifier() else Line(text))
    return Sample(inputs, tuple(made), outputs, modules or {}, seed, inner)


def _entry(lines: list[str], seed: int = 0, modules: dict[str, str] | None = None, **inputs: Any) -> Sample:
    """The same, shorter: the last line that defines something is what is returned."""
    made = found(lines, (), dict(inputs), seed, modules)
    return Sample(made.inputs, made.lines, ([x.name for x in made.lines if x.name][-1],), made.modules, seed)


FOUND = [
    _entry(["v1 = x0 * x0.size(1) ** -0.5"], x0=Given((2, 2, 3, 4), "float32")),
    _entry(["v0 = x0 / math.sqrt(x0.size(1))"], x0=Given((2, 3), "float32")),
    _entry(["v0 = x0 % -2.5"], seed=3, x0=Given((4, 6), "int64")),
    _entry(["v0 = x0 // 3"], seed=4, x0=Given((5, 6), "int64")),
    _entry(["v0 = x0.sum(1)"], seed=4, x0=Given((5, 6), "int64")),
    _entry(["v0 = x0.all(1)"], x0=Given((4, 6), "uint8")),
    _entry(
        ["v0 = F.scaled_dot_product_attention(x0, x1, x2, is_causal=True)"],
        seed=347712782,
        x0=Given((2, 2, 3, 4), "float32"),
        x1=Given((2, 2, 5, 4), "float32"),
        x2=Given((2, 2, 5, 4), "float32"),
    ),
    _entry(
        ["v0 = F.batch_norm(x0, x1, x2)"],
        seed=347712782,
        x0=Given((2, 3, 4, 2), "float32"),
        x1=Given((3,), "float32"),
        x2=Given((3,), "float32", low=0.5, high=2.0),
    ),
    _entry(["v20 = torch.nonzero(x20 > 0).sum()"], seed=887059619, x20=Given((3,), "float32")),
    _entry(["v20 = x20[x20 > 9].sum()"], x20=Given((3,), "float32")),
    _entry(
        ["v0 = F.conv_transpose2d(x0, x1, None, stride=3)"],
        x0=Given((2, 4, 5, 3), "float32"),
        x1=Given((4, 3, 3, 3), "float32"),
    ),
    # A batch of 1 is repeated for the capture; where that froze it, the port refused its own example.
    _entry(["v0 = x0 / math.sqrt(x0.size(0))"], x0=Given((1, 3), "float32")),
    _entry(["v0 = F.max_pool2d(x0, 2, stride=3, ceil_mode=True)"], x0=Given((2, 3, 7, 5), "float32")),
    _entry(["v0 = x0.double()"], x0=Given((3,), "float32")),
    # What followed a reduction, or a layer of rank 4, took the constants of other elements.
    _entry(["v0 = x0.mean(-1) + torch.tensor([0.5, -1.0, 2.0, 3.0])"], x0=Given((3, 4, 5), "float32")),
    _entry(
        ["v0 = self.m0(x0) * torch.tensor([0.5, -1.0, 2.0, 3.0])[:, None, None]"],
        modules={"m0": "nn.Linear(5, 4)"},
        x0=Given((2, 4, 3, 5), "float32"),
    ),
    # The engine's own erf is 0 of small numbers.
    _entry(["v0 = x0 * 1e-7", "v1 = torch.erf(v0)"], x0=Given((3, 4), "float32")),
    _entry(["v0 = x0.repeat_interleave(torch.tensor([2, 0, 1]), 0)"], x0=Given((3, 2), "float32")),
    # Abs wrote into the joined vector, which is read again.
    _entry(["v0 = torch.cat([x0, x0 - 9.0])", "v1 = v0.abs() + v0"], x0=Given((3,), "float32")),
    # Masks that hold nowhere: nothing is taken, and nothing is written.
    _entry(
        ["v0 = x0 * 2", "v0[x0[:, 0] > 99] = x1[x1[:, 0] > 99]"],
        x0=Given((4, 3), "float32"),
        x1=Given((5, 3), "float32"),
    ),
    _entry(["v0 = x0.masked_scatter(x0 > 99, x1[x1 > 99])"], x0=Given((4, 3), "float32"), x1=Given((5, 3), "float32")),
]
