# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501, F841 - a template is one line, and names what it draws
"""Statements that look at many elements for each result: reductions, orders, products, layers."""

from __future__ import annotations

from tests.fuzz.draw import Draw
from tests.fuzz.pointwise import Template

INF = "float('inf')"


def _over_dims(name: str, kind: str) -> Template:
    return lambda g: f"{(x := g.tensor(kind))}.{name}({g.dims(x)}{g.keep()})"


def _over_all(name: str, kind: str) -> Template:
    return lambda g: f"{g.tensor(kind, (0, 3))}.{name}()"


def _over_dim(name: str, kind: str, part: str = "", rank: int = 1) -> Template:
    return lambda g: f"{(x := g.tensor(kind, (rank, 4)))}.{name}({g.dim(x)}{g.keep()}){part}"


def _along(name: str, kind: str, part: str = "") -> Template:
    return lambda g: f"{(x := g.tensor(kind, (1, 4)))}.{name}({g.dim(x)}){part}"


REDUCED: list[Template] = [
    *(_over_dims(name, kind) for name in ("sum", "amax", "amin") for kind in ("f", "i", "n")),
    *(_over_dims(name, "f") for name in ("mean", "logsumexp", "nansum", "nanmean", "std", "var")),
    *(_over_dims(name, "a") for name in ("any", "all", "count_nonzero")[:2]),
    lambda g: f"torch.count_nonzero({(x := g.a((1, 3)))}, {g.dim(x)})",
    *(_over_all(name, kind) for name in ("sum", "max", "min", "prod", "argmax", "argmin") for kind in ("f", "i")),
    *(_over_all(name, "f") for name in ("mean", "std", "var", "norm", "median", "logsumexp")[:5]),
    *(_over_dim(name, kind) for name in ("prod", "argmax", "argmin") for kind in ("f", "i")),
    *(
        _over_dim(name, kind, part)
        for name in ("max", "min")
        for kind in ("f", "i")
        for part in (".values", ".indices")
    ),
    *(_over_dim(name, "f", ".values") for name in ("median", "mode", "nanmedian")),
    *(_over_dim(name, "b") for name in ("any", "all", "sum", "argmax")[:3]),
    *(_over_dim(name, "u") for name in ("sum", "amax", "argmax")),
    *(_along(name, kind) for name in ("cumsum", "cumprod") for kind in ("f", "i")),
    *(_along(name, "f", part) for name in ("cummax", "cummin") for part in (".values", "[0]")),
    _along("cumsum", "b"),
    _along("logcumsumexp", "f"),
    lambda g: (
        f"{(x := g.f((1, 3)))}.{g.pick('var', 'std')}({g.dim(x)}, {g.pick('unbiased=False', 'correction=0', 'correction=2')})"
    ),
    lambda g: f"torch.var_mean({(x := g.f((1, 3)))}, {g.dim(x)})[{g.pick(0, 1)}]",
    lambda g: f"torch.aminmax({(x := g.f((1, 3)))}, dim={g.dim(x)})[{g.pick(0, 1)}]",
    lambda g: f"{(x := g.f((1, 3)))}.norm({g.pick(1, 2, 3)}, {g.dim(x)}{g.keep()})",
    lambda g: f"torch.linalg.vector_norm({(x := g.f((1, 3)))}, {g.pick(1, 2, 0.5, INF)}, {g.dim(x)})",
    lambda g: f"torch.linalg.norm({g.f(2)})",
    lambda g: f"{(x := g.n((1, 3)))}.sum({g.dim(x)}, dtype=torch.{g.pick('float32', 'int64')})",
    lambda g: f"{(x := g.i((1, 3)))}.float().mean({g.dim(x)})",
    lambda g: f"{(x := g.n((1, 3)))}.mean({g.dim(x)}, dtype=torch.float32)",
    lambda g: f"({(x := g.n((1, 3)))} > 0).sum({g.dim(x)})",
    lambda g: f"({(x := g.n((1, 3)))} > 0).float().mean()",
    lambda g: f"{g.tensor('f', shape=(3, 5))}.kthvalue({g.int(1, 5)}, 1).values",
    lambda g: f"torch.quantile({g.f(shape=(3, 5))}, {g.pick(0.5, 0.25, 1.0)}, dim={g.pick(0, 1)})",
    lambda g: f"torch.diff({(x := g.tensor('n', shape=(3, 5)))}, dim={g.dim(x)})",
    lambda g: f"torch.trace({g.f(2)})",
    lambda g: f"torch.histc({g.f(1)}, 4, -2, 2)",
    lambda g: f"torch.bincount({g.index((6,), 4)}, minlength=5)",
    lambda g: (
        f"torch.{g.pick('amax', 'amin', 'sum', 'mean')}({g.f(shape=(2, 3, 4))}, {g.pick((0, 1), (-1, 0), (0, 1, 2))})"
    ),
]

ORDERED: list[Template] = [
    *(
        (
            lambda kind: (
                lambda g: f"{(x := g.tensor(kind, (1, 3)))}.sort({g.dim(x)}, descending={g.pick(True, False)}).values"
            )
        )(k)
        for k in ("f", "i", "u", "b")
    ),
    lambda g: f"torch.sort({(x := g.n((1, 3)))}, dim={g.dim(x)}, stable=True).indices",
    lambda g: f"torch.sort({(x := g.n((1, 3)))}, dim={g.dim(x)}, stable=True, descending=True).indices",
    lambda g: f"torch.argsort({(x := g.n((1, 3)))}, dim={g.dim(x)}, stable=True)",
    lambda g: f"{(x := g.n((1, 3)))}.gather({(d := g.dim(x))}, {x}.argsort({d}, descending={g.pick(True, False)}))",
    lambda g: f"{(x := g.n((1, 3)))}.topk({g.int(1, g.size(x, -1))}, largest={g.pick(True, False)}).values",
    lambda g: f"{(x := g.n((1, 3)))}.gather({(d := g.dim(x))}, {x}.topk(1, {d}).indices)",
    lambda g: f"torch.msort({g.n((1, 3))})",
    lambda g: f"torch.searchsorted({g.f(1)}.sort().values, {g.f(2)}{g.pick('', ', right=True')})",
    lambda g: f"torch.bucketize({g.f(2)}, torch.tensor([-1.0, 0.0, 0.5, 2.0]){g.pick('', ', right=True')})",
    lambda g: (
        f"torch.unique({g.i(1)}, return_inverse=True)[1]" if g.rng.random() < 0.3 else f"torch.unique({g.i(1)}).sum()"
    ),
    lambda g: f"torch.isin({g.i(2)}, torch.tensor([1, -2, 3]))",
]

PRODUCTS: list[Template] = [
    lambda g: f"{g.f(shape=(3, 4))} {g.pick('@', '@')} {g.f(shape=g.pick((4, 5), (4,), (2, 4, 5)))}",
    lambda g: (
        f"torch.matmul({g.f(shape=g.pick((2, 3, 4), (4,), (5, 2, 3, 4)))}, {g.f(shape=g.pick((4, 5), (4,), (2, 4, 3)))})"
    ),
    lambda g: f"torch.mm({g.f(shape=(3, 4))}, {g.f(shape=(4, 2))})",
    lambda g: (
        f"torch.mm({g.i(shape=(3, 4))}, {g.i(shape=(4, 2))})"
        if g.rng.random() < 0.3
        else f"{g.f(shape=(3, 4))}.mv({g.f(shape=(4,))})"
    ),
    lambda g: f"torch.bmm({g.f(shape=(2, 3, 4))}, {g.f(shape=(2, 4, 5))})",
    lambda g: (
        f"torch.baddbmm({g.f(shape=(2, 3, 5))}, {g.f(shape=(2, 3, 4))}, {g.f(shape=(2, 4, 5))}, beta={g.pick(0, 1, 0.5)}, alpha={g.pick(1, 2)})"
    ),
    lambda g: (
        f"torch.addmm({g.f(shape=g.pick((5,), (3, 5)))}, {g.f(shape=(3, 4))}, {g.f(shape=(4, 5))}, alpha={g.pick(1, 0.5)})"
    ),
    lambda g: f"torch.dot({g.f(shape=(4,))}, {g.f(shape=(4,))})",
    lambda g: f"torch.outer({g.f(1)}, {g.f(1)})",
    lambda g: f"torch.kron({g.f(2)}, {g.f(2)})",
    lambda g: (
        f"torch.tensordot({g.f(shape=(2, 3, 4))}, {g.f(shape=(3, 4, 5))}, {g.pick(2, '([1, 2], [0, 1])', '([2], [1])')})"
    ),
    lambda g: f"torch.cross({g.f(shape=(2, 3))}, {g.f(shape=(2, 3))}, dim=1)",
    lambda g: f"torch.cdist({g.f(shape=(3, 4))}, {g.f(shape=(5, 4))}{g.pick('', ', p=1')})",
    lambda g: f"torch.einsum('bij,bjk->bik', {g.f(shape=(2, 3, 4))}, {g.f(shape=(2, 4, 5))})",
    lambda g: f"torch.einsum('bhqd,bhkd->bhqk', {g.f(shape=(2, 2, 3, 4))}, {g.f(shape=(2, 2, 5, 4))})",
    lambda g: f"torch.einsum({g.pick('ij->ji', 'ij->', 'ij->i', 'ii->i', 'ij->j')!r}, {g.f(shape=(3, 3))})",
    lambda g: f"torch.einsum({g.pick('i,j->ij', 'i,i->', 'i,i->i')!r}, {g.f(shape=(4,))}, {g.f(shape=(4,))})",
    lambda g: f"torch.einsum('...ij,jk->...ik', {g.f(shape=(2, 3, 4))}, {g.f(shape=(4, 2))})",
    lambda g: (
        f"F.linear({g.f(shape=g.pick((3, 4), (4,), (2, 3, 4)))}, {g.f(shape=(5, 4))}{g.pick('', f', {g.f(shape=(5,))}')})"
    ),
    lambda g: f"F.bilinear({g.f(shape=(3, 4))}, {g.f(shape=(3, 5))}, {g.f(shape=(2, 4, 5))})",
    lambda g: f"F.cosine_similarity({(x := g.f((2, 3)))}, {g.same(x)}, dim={g.dim(x)})",
    lambda g: f"F.pairwise_distance({(x := g.f(2))}, {g.same(x)})",
    lambda g: f"torch.linalg.{g.pick('inv', 'det')}({g.f(shape=(3, 3))} + 5 * torch.eye(3))",
    lambda g: f"torch.matrix_power({g.f(shape=(3, 3))}, {g.pick(0, 1, 2, 3)})",
    lambda g: f"torch.fft.{g.pick('rfft', 'fft')}({g.f(shape=(2, 6))}).abs()",
    lambda g: f"torch.fft.irfft(torch.fft.rfft({g.f(shape=(2, 6))}))",
]


def _attention(g: Draw) -> str:
    q, k = g.f(shape=(2, 2, 3, 4)), g.f(shape=(2, 2, 5, 4))
    v = g.same(k)
    way = g.int(0, 4)
    more = ["", ", scale=0.3", f", attn_mask={g.f(shape=(3, 5))}" if way == 2 else "", "", ""][way]
    if way == 3:
        more = f", attn_mask={g.b(shape=(2, 1, 3, 5))} | torch.eye(3, 5).bool()"
    return f"F.scaled_dot_product_attention({q}, {k}, {v}{more}{', is_causal=True' if way == 4 else ''})"


def _conv(g: Draw) -> str:
    n, groups = g.pick(1, 2, 2, 3), g.pick(1, 1, 2)
    x = g.f(shape=(g.pick(1, 2), 4, *[g.int(5, 7) for _ in range(n)]))
    kernel = tuple(g.int(1, 3) for _ in range(n))
    more = f"stride={g.pick(1, 2)}, padding={g.pick(0, 1, 0)}, dilation={g.pick(1, 1, 2)}"
    if g.rng.random() < 0.2:
        more = f"padding={g.pick('same', 'valid')!r}, dilation={g.pick(1, 2)}"
    if n < 3 and g.rng.random() < 0.2:
        more = f"padding=1, padding_mode={g.pick('circular', 'reflect', 'replicate')!r}"
    if g.rng.random() < 0.15:  # weights that are inputs
        return f"F.conv{n}d({x}, {g.f(shape=(6, 4 // groups, *kernel))}, groups={groups})"
    bias = g.pick(True, True, False)
    return f"{g.module(f'nn.Conv{n}d(4, 6, {kernel}, groups={groups}, bias={bias}, {more})')}({x})"


def _conv_transpose(g: Draw) -> str:
    n, groups = g.pick(1, 2), g.pick(1, 2)
    x = g.f(shape=(2, 4, *[g.int(3, 5) for _ in range(n)]))
    stride = g.pick(1, 2, 3)
    extra = g.pick(0, 1) if stride > 1 else 0
    more = f"stride={stride}, padding={g.pick(0, 1)}, output_padding={extra}, groups={groups}, dilation={g.pick(1, 2)}"
    return f"{g.module(f'nn.ConvTranspose{n}d(4, 6, {g.int(2, 3)}, {more})')}({x})"


def _pool(g: Draw) -> str:
    n = g.pick(1, 2, 2)
    x = g.f(shape=(2, 3, *[g.int(5, 8) for _ in range(n)]))
    kernel, stride = g.int(2, 3), g.pick(1, 2, 3)
    more = f"{kernel}, stride={stride}, padding={g.pick(0, 1)}, ceil_mode={g.pick(True, False)}"
    if g.rng.random() < 0.5:
        return f"F.avg_pool{n}d({x}, {more}, count_include_pad={g.pick(True, False)})"
    return f"F.max_pool{n}d({x}, {more}{g.pick('', ', dilation=2')})"


LAYERS: list[Template] = [
    *[_attention] * 3,
    *[_conv] * 6,
    *[_conv_transpose] * 3,
    *[_pool] * 6,
    lambda g: (
        f"F.adaptive_{g.pick('avg', 'max')}_pool{(n := g.pick(1, 2))}d({g.f(shape=(2, 3, *[6] * n))}, {g.pick(1, 2, 3, 4)})"
    ),
    lambda g: f"F.lp_pool1d({g.positive(3)}, {g.pick(2, 3)}.0, 1)",
    lambda g: f"F.layer_norm({(x := g.f(shape=(2, 3, 4)))}, {g.pick((4,), (3, 4))})",
    lambda g: (
        f"F.layer_norm({g.f(shape=(2, 4))}, (4,), {g.f(shape=(4,))}, {g.f(shape=(4,))}, eps={g.pick(1e-5, 1e-2)})"
    ),
    lambda g: f"F.group_norm({g.f(shape=(2, 4, *g.pick((), (3,), (3, 2))))}, {g.pick(1, 2, 4)}, {g.f(shape=(4,))})",
    lambda g: f"F.instance_norm({g.f(shape=(2, 3, 5))})",
    lambda g: f"F.rms_norm({g.f(shape=(2, 3, 4))}, (4,){g.pick('', f', {g.f(shape=(4,))}')})",
    lambda g: (
        f"F.batch_norm({g.f(shape=g.pick((2, 3), (2, 3, 4), (2, 3, 4, 2)))}, {g.f(shape=(3,))}, {g.tensor('f', shape=(3,), low=0.5, high=2.0)})"
    ),
    lambda g: f"F.local_response_norm({g.f(shape=(2, 5, 4))}, {g.pick(2, 3)})",
    lambda g: (
        f"F.interpolate({g.f(shape=(1, 2, 4, 5))}, scale_factor={g.pick(2, 2.0, 0.5, 1.5)}, mode={g.pick('nearest', 'bilinear', 'bicubic', 'area', 'nearest-exact')!r})"
    ),
    lambda g: (
        f"F.interpolate({g.f(shape=(1, 2, 4, 5))}, size={g.pick((3, 7), (8, 8))}, mode={g.pick('bilinear', 'bicubic')!r}, align_corners={g.pick(True, False)}, antialias={g.pick(False, True)})"
    ),
    lambda g: f"F.interpolate({g.f(shape=(2, 3, 5))}, size={g.pick(3, 9)}, mode={g.pick('linear', 'nearest')!r})",
    lambda g: (
        f"F.grid_sample({g.f(shape=(1, 2, 4, 5))}, {g.tensor('f', shape=(1, 3, 3, 2), low=-1.2, high=1.2)}, mode={g.pick('bilinear', 'nearest')!r}, padding_mode={g.pick('zeros', 'border', 'reflection')!r}, align_corners={g.pick(True, False)})"
    ),
    lambda g: f"F.affine_grid({g.f(shape=(1, 2, 3))}, (1, 2, 3, 4), align_corners={g.pick(True, False)})",
    lambda g: f"F.unfold({g.f(shape=(1, 2, 5, 5))}, {g.pick(2, 3)}, padding={g.pick(0, 1)}, stride={g.pick(1, 2)})",
    lambda g: f"F.fold({g.f(shape=(1, 8, 9))}, (4, 4), 2)",
    lambda g: f"F.dropout({g.f()}, 0.5, training=False)",
    lambda g: f"F.mse_loss({(x := g.f((1, 3)))}, {g.same(x)}, reduction={g.pick('mean', 'sum', 'none')!r})",
    lambda g: f"F.{g.pick('l1_loss', 'smooth_l1_loss', 'huber_loss')}({(x := g.f((1, 3)))}, {g.same(x)})",
    lambda g: f"F.binary_cross_entropy_with_logits({(x := g.f((1, 3)))}, {g.same(x, low=0.0, high=1.0)})",
    lambda g: (
        f"F.binary_cross_entropy({(x := g.tensor('f', (1, 3), low=0.01, high=0.99))}, {g.same(x, low=0.0, high=1.0)})"
    ),
    lambda g: (
        f"F.cross_entropy({g.f(shape=(4, 5))}, {g.index((4,), 5)}, {g.pick('', 'label_smoothing=0.1, ', 'ignore_index=1, ')}reduction={g.pick('mean', 'sum', 'none')!r})"
    ),
    lambda g: f"F.nll_loss({g.f(shape=(4, 5))}.log_softmax(-1), {g.index((4,), 5)})",
    lambda g: (
        f"F.kl_div({(x := g.f(2))}.log_softmax(-1), {g.same(x)}.softmax(-1), reduction={g.pick('batchmean', 'sum')!r})"
    ),
    lambda g: f"F.triplet_margin_loss({(x := g.f(2))}, {g.same(x)}, {g.same(x)})",
    lambda g: f"F.soft_margin_loss({(x := g.f(2))}, {g.same(x)}.sign())",
]


_FOUR = "torch.tensor([0.5, -1.0, 2.0, 3.0])"


def _constants(text: str, shape: tuple[int, ...]) -> Template:
    return lambda g: text.format(x=g.f(shape=shape), c=_FOUR)


def _module(text: str, shape: tuple[int, ...], part: str = "") -> Template:
    return lambda g: f"{g.module(text)}({g.f(shape=shape)}){part}"


MODULES: list[Template] = [
    _module("nn.Linear(4, 3)", (2, 4)),
    _module("nn.Linear(4, 4, bias=False)", (2, 3, 4)),
    _module("nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.LayerNorm(6), nn.Linear(6, 2))", (3, 4)),
    _module("nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4))", (3, 4)),
    _module("nn.Conv2d(2, 4, 3, padding=1, padding_mode='circular')", (1, 2, 4, 5)),
    _module("nn.Conv2d(2, 4, 3, padding=1, padding_mode='reflect')", (1, 2, 4, 5)),
    _module("nn.Conv1d(4, 4, 3, stride=2, groups=2)", (2, 4, 7)),
    _module("nn.ConvTranspose2d(2, 3, 2, stride=2)", (1, 2, 3, 3)),
    _module("nn.BatchNorm2d(3)", (2, 3, 4, 4)),
    _module("nn.GroupNorm(2, 4)", (2, 4, 3)),
    _module("nn.PReLU(3)", (2, 3, 4)),
    _module("nn.Softmax(1)", (2, 3, 4)),
    _module("nn.GRU(4, 3, batch_first=True)", (2, 3, 4), "[0]"),
    _module("nn.LSTM(4, 3)", (2, 3, 4), "[0]"),
    _module("nn.LSTM(4, 3, bidirectional=True, batch_first=True)", (2, 3, 4), "[1][0]"),
    _module("nn.RNN(4, 3)", (2, 3, 4), "[1]"),
    _module("nn.GRUCell(4, 3)", (2, 4)),
    _module("nn.LSTMCell(4, 3)", (2, 4), "[1]"),
    _module("nn.MaxPool2d(2)", (1, 2, 4, 4)),
    _module("nn.AdaptiveMaxPool2d((2, 3))", (1, 2, 5, 4)),
    # Numbers of the model's own behind a reduction or a layer: engines fuse these.
    _constants("{x}.mean(-1) + {c}", (3, 4, 5)),
    _constants("{x}.sum(0).relu() * {c}[:, None]", (3, 4, 5)),
    _constants("{x}.amax(2, keepdim=True) * {c}[:, None]", (3, 4, 5)),
    _constants("{x}.mean((2, 3)) * {c}", (2, 4, 3, 5)),
    _constants("F.layer_norm({x}, (5,)) * {c}[:, None]", (3, 4, 5)),
    lambda g: f"{g.module('nn.Linear(5, 4)')}({g.f(shape=(2, 4, 3, 5))}) * {_FOUR}[:, None, None]",
    _module("nn.AdaptiveAvgPool2d((2, None))", (1, 2, 4, 5)),
    _module("nn.Upsample(scale_factor=2)", (1, 2, 3, 3)),
    _module("nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)", (2, 3, 4)),
    _module("nn.Flatten()", (2, 3, 4)),
    _module("nn.Dropout(0.5)", (2, 3)),
    lambda g: (
        f"{g.module('nn.MultiheadAttention(4, 2, batch_first=True)')}({(x := g.f(shape=(2, 3, 4)))}, {x}, {x})[{g.pick(0, 1)}]"
    ),
    lambda g: f"{g.module('nn.Embedding(7, 4)')}({g.index((2, 3), 7)})",
    lambda g: f"{g.module('nn.EmbeddingBag(7, 4)')}({g.index((2, 3), 7)})",
    lambda g: f"{g.module('nn.Bilinear(3, 4, 2)')}({g.f(shape=(2, 3))}, {g.f(shape=(2, 4))})",
]
