# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501, F841 - a template is one line, and names what it draws
"""Statements that move elements: views, indices, pieces, joins, gathers, scatters, pads."""

from __future__ import annotations

from tests.fuzz.draw import Draw
from tests.fuzz.pointwise import Template

VIEWS: list[Template] = [
    *[lambda g: f"{(x := g.a((0, 4)))}.reshape{g.target(x)}"] * 3,
    lambda g: f"{(x := g.a((1, 4)))}.view({x}.shape[0], -1)",
    lambda g: f"{(x := g.a((1, 4)))}.permute({g.rng.sample(range(g.rank(x)), g.rank(x))})",
    lambda g: f"{(x := g.a((2, 4)))}.transpose{g.two_dims(x)}",
    lambda g: f"{g.a(2)}.{g.pick('t()', 'T', 'mT')}",
    lambda g: f"{g.a((0, 4))}.{g.pick('flatten()', 'ravel()', 'reshape(-1)', 'view(-1)')}",
    lambda g: f"{g.a((3, 4))}.flatten({g.pick(0, 1, -2)}, {g.pick(-1, 2)})",
    lambda g: f"{(x := g.a((0, 3)))}.unsqueeze({g.int(-g.rank(x) - 1, g.rank(x))})",
    lambda g: f"{g.a((0, 4))}.squeeze()",
    lambda g: f"{(x := g.a((1, 4)))}.squeeze({g.dim(x)})",
    lambda g: f"{(x := g.tensor('a', shape=(1, 3, 1, 4)))}.squeeze({g.pick((0, 2), -2, 0)})",
    lambda g: f"{g.tensor('a', shape=(3, 1))}.expand({g.pick('3, 4', '-1, 5', '2, 3, 2')})",
    lambda g: f"{g.tensor('a', shape=(1, 4))}.expand_as({g.tensor('f', shape=(5, 4))})",
    lambda g: f"torch.broadcast_to({g.tensor('a', shape=(4,))}, (3, 4))",
    lambda g: f"{(x := g.a((1, 3)))}.repeat({', '.join(str(g.int(1, 3)) for _ in range(g.rank(x) + g.pick(0, 1)))})",
    lambda g: f"{g.a((1, 3))}.tile(({g.int(1, 3)}, {g.int(1, 2)}))",
    lambda g: f"{(x := g.a((1, 3)))}.repeat_interleave({g.int(1, 3)}{g.pick('', f', dim={g.dim(x)}')})",
    lambda g: f"{(x := g.a((1, 4)))}.roll({g.pick(1, -1, 2, 7)}, {g.dim(x)})",
    lambda g: f"{(x := g.a((2, 3)))}.roll(({g.int()}, {g.int()}), {g.two_dims(x)})",
    lambda g: f"{g.a((1, 3))}.roll({g.int()})",
    lambda g: f"{(x := g.a((1, 3)))}.roll({x}.shape[0] // 2, 0)",
    lambda g: f"{(x := g.a((1, 4)))}.flip({g.dim(x)})",
    lambda g: f"{(x := g.a((2, 4)))}.flip({g.two_dims(x)})",
    lambda g: f"torch.rot90({(x := g.a((2, 4)))}, {g.int(-1, 3)}, {sorted(g.rng.sample(range(g.rank(x)), 2))})",
    lambda g: f"{(x := g.a((2, 4)))}.movedim({g.dim(x)}, {g.dim(x)})",
    lambda g: f"{(x := g.a((2, 4)))}.swapaxes{g.two_dims(x)}",
    lambda g: f"{(x := g.a((1, 4)))}.narrow({(d := g.dim(x))}, {g.pick(0, g.size(x, d) - 1)}, 1)",
    lambda g: f"{(x := g.a((1, 4)))}.select({(d := g.dim(x))}, {g.pick(0, -1)})",
    lambda g: f"{g.tensor('a', shape=(3, 7))}.unfold({g.pick(1, -1)}, {g.int(2, 3)}, {g.int(1, 3)})",
    lambda g: f"{(x := g.a((2, 4)))}.diagonal({g.pick(0, 0, 1, -1)}{g.pick('', ', -2, -1')})",
    lambda g: f"torch.diag({g.a((1, 2))}{g.pick('', ', 1', ', -1')})",
    lambda g: f"torch.diag_embed({g.a((1, 3))}{g.pick('', ', 1', ', -1')})",
    lambda g: f"{g.a((2, 4))}.{g.pick('tril', 'triu')}({g.pick('', 1, -1, 2)})",
    lambda g: f"{g.tensor('a', shape=(2, 6))}.unflatten(1, {g.pick((2, 3), (-1, 2), (3, -1))})",
    lambda g: f"{g.a((2, 3))}.{g.pick('fliplr', 'flipud')}()",
    lambda g: f"torch.atleast_{g.pick(1, 2, 3)}d({g.a((0, 2))})",
    lambda g: (
        f"{g.f((1, 3))}.as_strided((2, 2), (1, {g.pick(0, 1)})) * 1" if g.rng.random() < 0.3 else f"{g.a((1, 3))}[None]"
    ),
    lambda g: f"F.pixel_{g.pick('shuffle', 'unshuffle')}({g.f(shape=(2, 4, 4, 6))}, 2)",
    lambda g: f"F.channel_shuffle({g.f(shape=(2, 6, 3, 2))}, {g.pick(2, 3)})",
]

INDEXED: list[Template] = [
    *[lambda g: f"{(x := g.a((1, 4)))}[{g.slices(x)}]"] * 8,
    lambda g: f"{(x := g.a((1, 4)))}[{g.pick(0, -1)}]",
    lambda g: f"{(x := g.a((1, 4)))}[..., {g.pick(0, -1)}]",
    lambda g: f"{(x := g.a((2, 4)))}[:, {g.one_slice(g.shape(x)[1])}]",
    lambda g: f"{(x := g.a((2, 4)))}[{g.index((3,), g.shape(x)[0], True)}, {g.index((3,), g.shape(x)[1], True)}]",
    lambda g: f"{(x := g.a((2, 4)))}[{g.index((2, 1), g.shape(x)[0], True)}, {g.index((3,), g.shape(x)[1], True)}]",
    lambda g: f"{(x := g.a((3, 4)))}[{g.index((2,), g.shape(x)[0], True)}, :, {g.index((2,), g.shape(x)[2], True)}]",
    lambda g: f"{(x := g.a((3, 4)))}[:, {g.index((2,), g.shape(x)[1], True)}, {g.index((2,), g.shape(x)[2], True)}]",
    lambda g: f"{(x := g.a((1, 4)))}[{g.index((2, 2), g.shape(x)[0], True)}]",
    lambda g: f"{(x := g.a((2, 4)))}[torch.arange({x}.shape[0]), {g.pick(0, -1)}]",
    lambda g: f"{(x := g.a((1, 3)))}[torch.arange({x}.shape[0] - 1, -1, -1)]",
    lambda g: f"{(x := g.a((1, 3)))}[[0, -1]]",
    lambda g: f"{(x := g.a((2, 3)))}[:, [0, -1, 0]]",
    lambda g: f"{(x := g.f((1, 3)))}[{x} > 0].sum()",
    lambda g: f"{(x := g.n((1, 3)))}[{g.same(x, 'b')}].float().sum()",
    lambda g: f"{(x := g.f((1, 3)))}[{g.b(shape=(g.shape(x)[0],))}].sum()",
    lambda g: f"torch.masked_select({(x := g.f((1, 3)))}, {x} < 1).sum()",
    lambda g: f"torch.nonzero({g.f((1, 2))} > 0).sum()",
    lambda g: f"{(x := g.a((1, 4)))}.index_select({(d := g.dim(x))}, {g.index((3,), g.size(x, d))})",
    lambda g: f"{(x := g.a((1, 4)))}.gather({(d := g.dim(x))}, {g.index(g.shape(x), g.size(x, d))})",
    lambda g: (
        f"torch.take_along_dim({(x := g.a((1, 4)))}, {(d := g.dim(x), g.index(g.shape(x), g.size(x, d)))[1]}, {d})"
    ),
    lambda g: f"torch.take({(x := g.a((1, 3)))}, {g.index((2, 3), g.values[x].numel(), True)})",
    lambda g: f"{(x := g.n((1, 3)))}.scatter({(d := g.dim(x))}, {g.index(g.shape(x), 1)}, {g.pick(2, 7)})",
    lambda g: f"{(x := g.f((1, 3)))}.scatter_add({(d := g.dim(x))}, {g.index(g.shape(x), g.size(x, d))}, {g.same(x)})",
    lambda g: f"{(x := g.i((1, 3)))}.scatter_add({(d := g.dim(x))}, {g.index(g.shape(x), g.size(x, d))}, {g.same(x)})",
    lambda g: (
        f"{(x := g.f((1, 3)))}.scatter_reduce({(d := g.dim(x))}, {g.index(g.shape(x), g.size(x, d))}, {g.same(x)}, "
        f"{g.pick('sum', 'prod', 'amax', 'amin', 'mean')!r}{g.pick('', ', include_self=False')})"
    ),
    lambda g: (
        f"{(x := g.n((1, 3)))}.index_add(0, {g.index((2,), g.shape(x)[0])}, {g.tensor(g.kind(x), shape=(2, *g.shape(x)[1:]))})"
    ),
    lambda g: f"{(x := g.n((1, 3)))}.index_fill({(d := g.dim(x))}, {g.index((2,), g.size(x, d))}, 3)",
    lambda g: (
        f"{(x := g.n((1, 3)))}.index_copy(0, {g.index((1,), g.shape(x)[0])}, {g.tensor(g.kind(x), shape=(1, *g.shape(x)[1:]))})"
    ),
    lambda g: f"{(x := g.f((1, 3)))}.masked_scatter({g.same(x, 'b')}, {g.same(x)})",
    lambda g: (
        f"torch.select_scatter({(x := g.n((2, 3)))}, {g.tensor(g.kind(x), shape=g.shape(x)[1:])}, 0, {g.pick(0, -1)})"
    ),
    lambda g: (
        f"torch.slice_scatter({(x := g.tensor('n', shape=(4, 3)))}, {g.tensor(g.kind(x), shape=(2, 3))}, 0, 1, 3)"
    ),
    lambda g: f"torch.diagonal_scatter({(x := g.tensor('n', shape=(3, 3)))}, {g.tensor(g.kind(x), shape=(3,))})",
    lambda g: (
        f"{(x := g.n((1, 2)))}.index_put(({g.index((2,), g.shape(x)[0], True)},), {g.tensor(g.kind(x), shape=(2, *g.shape(x)[1:]))}, accumulate=True)"
    ),
    lambda g: f"F.one_hot({g.index((3, 2), 5)}, {g.pick(5, 7)})",
    lambda g: f"F.embedding({g.index((2, 3), 5)}, {g.f(shape=(5, 4))}{g.pick('', ', padding_idx=1')})",
    lambda g: f"F.embedding_bag({g.index((2, 3), 5)}, {g.f(shape=(5, 4))}, mode={g.pick('sum', 'mean', 'max')!r})",
]


def _halves(name: str) -> Template:
    return lambda g: f"torch.{name}([{(x := g.a((1, 3)))}, {g.same(x, g.pick('', 'n'))}], dim={g.dim(x)})"


PIECES: list[Template] = [
    lambda g: f"{(x := g.a((1, 4)))}.chunk({g.int(1, 3)}, {g.dim(x)})[{g.pick(0, -1)}]",
    lambda g: f"{(x := g.a((1, 4)))}.split({g.int(1, 3)}, {g.dim(x)})[{g.pick(0, -1)}]",
    lambda g: (
        f"{g.tensor('a', shape=(2, 6))}.split({g.pick([1, 5], [2, 3, 1], [4, 2])}, {g.pick(1, -1)})[{g.pick(0, -1, 1)}]"
    ),
    lambda g: f"{(x := g.a((1, 4)))}.tensor_split({g.int(2, 3)}, {g.dim(x)})[{g.pick(0, 1)}]",
    lambda g: f"{(x := g.a((1, 4)))}.unbind({g.dim(x)})[{g.pick(0, -1)}]",
    lambda g: (
        f"torch.cat({(x := g.a((1, 3)))}.unbind(0)[::-1], -1)"
        if g.rng.random() < 0.4
        else f"torch.cat({g.f(2)}.chunk(2, -1)[::-1], -1)"
    ),
    *[_halves("cat"), _halves("stack"), _halves("cat"), _halves("concat")],
    lambda g: f"torch.{g.pick('vstack', 'hstack', 'dstack', 'column_stack')}([{(x := g.a((0, 3)))}, {g.same(x)}])",
    lambda g: f"torch.stack([{(x := g.n((0, 3)))}, {g.same(x)}, {x}], -1)",
    lambda g: (
        f"torch.meshgrid({(x := g.n(1))}, {g.tensor(g.kind(x), 1)}, indexing={g.pick('ij', 'xy')!r})[{g.pick(0, 1)}]"
    ),
    lambda g: f"torch.cartesian_prod({(x := g.f(1))}, {g.f(1)})",
    lambda g: f"torch.cat([{(x := g.f((1, 3)))}, torch.zeros_like({x})[:1]])",
    lambda g: f"torch.block_diag({g.f(2)}, {g.f(2)})",
    lambda g: f"torch.combinations({g.tensor('f', shape=(4,))}, {g.pick(2, 3)})",
]


def _pad(g: Draw) -> str:
    rank = g.pick(2, 3, 4)
    x = g.f(shape=[g.int(3, 5) for _ in range(rank)])
    mode = g.pick("constant", "constant", "reflect", "replicate", "circular")
    if mode == "constant":
        sides = [g.int(-1, 2) for _ in range(2 * g.int(1, rank))]
        return f"F.pad({x}, {tuple(sides)}{g.pick('', ', value=1.5', ', value=-2')})"
    sides = [g.int(0, 2) for _ in range(2 * max(1, rank - 2))]
    return f"F.pad({x}, {tuple(sides)}, mode={mode!r})"


PADS: list[Template] = [
    *[_pad] * 6,
    lambda g: f"F.pad({g.tensor(g.pick('i', 'b', 'u'), shape=(3, 4))}, ({g.int(0, 2)}, {g.int(0, 2)}))",
    lambda g: f"F.pad({(x := g.f(2))}, (0, 8 - {x}.shape[-1]))",
]
