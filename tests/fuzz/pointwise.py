# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: B023, E501, F841 - a template is one line, and names what it draws
"""Statements whose elements are computed one by one: arithmetic, functions, comparisons, casts, masks, in place."""

from __future__ import annotations

from collections.abc import Callable

from tests.fuzz.draw import Draw

Template = Callable[[Draw], str]


def _method(name: str, kind: str) -> Template:
    return lambda g: f"{g.tensor(kind)}.{name}()"


def _function(name: str, kind: str) -> Template:
    return lambda g: f"{name}({g.tensor(kind)})"


_FLOAT = (
    "exp log log1p log2 log10 exp2 expm1 sqrt rsqrt sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf erfc "
    "sigmoid floor ceil round trunc frac reciprocal isnan isinf isfinite nan_to_num deg2rad rad2deg lgamma logit "
    "digamma erfinv sinc i0"
)
_ANY = "abs neg sign sgn square relu logical_not positive signbit bool float int long double clone contiguous"
_WHOLE = (
    "exp sqrt sin tanh sigmoid reciprocal log floor ceil round trunc bitwise_not rsqrt atan erf expm1 isnan isfinite"
)

UNARY: list[Template] = [
    *(_method(name, "f") for name in _FLOAT.split()),
    *(_function(f"torch.{name}", "f") for name in _FLOAT.split()),
    *(_method(name, kind) for name in _ANY.split() for kind in ("n", "i")),
    *(_method(name, "i") for name in _WHOLE.split()),
    *(_method(name, "u") for name in ("bitwise_not", "float", "int", "square", "abs", "sqrt")),
    *(_method(name, "b") for name in ("float", "int", "long", "logical_not", "bitwise_not", "sum", "any", "all")),
    lambda g: f"~{g.tensor(g.pick('i', 'b', 'u'))}",
    lambda g: f"-{g.n()}",
    lambda g: f"abs({g.n()})",
    lambda g: f"{g.f()}.round(decimals={g.int(-1, 2)})",
    lambda g: f"{g.f()}.nan_to_num({g.scalar()})",
]

_ACTIVATIONS = (
    "relu relu6 elu selu celu gelu silu mish hardtanh hardswish hardsigmoid leaky_relu logsigmoid softplus softsign "
    "tanhshrink softshrink hardshrink"
)
ACTIVATIONS: list[Template] = [
    *(_function(f"F.{name}", "f") for name in _ACTIVATIONS.split()),
    lambda g: f"F.gelu({g.f()}, approximate='tanh')",
    lambda g: f"F.elu({g.f()}, alpha={g.pick(0.5, 2.0, 1.5)})",
    lambda g: f"F.celu({g.f()}, alpha={g.pick(0.5, 2.0)})",
    lambda g: f"F.leaky_relu({g.f()}, {g.pick(0.2, -0.1, 1.5)})",
    lambda g: f"F.hardtanh({g.f()}, {g.pick(-0.5, -2.0)}, {g.pick(0.5, 1.5)})",
    lambda g: f"F.softplus({g.f()}, beta={g.pick(0.5, 2.0)}, threshold={g.pick(1.0, 20.0)})",
    lambda g: f"F.threshold({g.f()}, {g.pick(0.5, -1.0)}, {g.pick(7.0, -3.0)})",
    lambda g: f"F.softshrink({g.f()}, {g.pick(0.1, 1.0)})",
    lambda g: f"F.hardshrink({g.f()}, {g.pick(0.1, 1.0)})",
    lambda g: f"F.prelu({g.f(rank=3)}, {g.f(shape=(1,))})",
    lambda g: f"F.rrelu({g.f()}, training=False)",
    lambda g: f"F.glu({g.f(shape=(3, 4))}, {g.pick(1, -1)})",
    *(
        (lambda name: lambda g: f"{name}({(x := g.f((1, 4)))}, dim={g.dim(x)})")(name)
        for name in ("F.softmax", "F.log_softmax", "F.softmin", "torch.softmax")
    ),
    lambda g: f"{(x := g.i((1, 3)))}.softmax({g.dim(x)}, dtype=torch.float32)",
    lambda g: f"F.normalize({(x := g.f((1, 4)))}, p={g.pick(1.0, 2.0, 3.0)}, dim={g.dim(x)})",
]

_OPERATORS = ("+", "-", "*", "/", "//", "%")
_BINARY = (
    "torch.add torch.sub torch.mul torch.div torch.floor_divide torch.remainder torch.fmod torch.maximum torch.minimum "
    "torch.true_divide"
)
_BINARY_FLOAT = (
    "torch.fmax torch.fmin torch.atan2 torch.hypot torch.logaddexp torch.logaddexp2 torch.copysign torch.heaviside "
    "torch.xlogy"
)
_COMPARE = ("==", "!=", "<", "<=", ">", ">=")
_COMPARED = ("eq", "ne", "lt", "le", "gt", "ge")


def _operator(sign: str) -> Template:
    return lambda g: f"{(x := g.n())} {sign} {g.like(x, g.pick('n', '', ''))}"


def _with_scalar(sign: str) -> Template:
    return lambda g: f"{g.tensor(g.pick('f', 'i', 'n'))} {sign} {g.divisor() if sign in '// %' else g.scalar()}"


def _scalar_with(sign: str) -> Template:
    return lambda g: f"{g.scalar()} {sign} {g.tensor(g.pick('f', 'i'))}"


def _called(name: str, kind: str) -> Template:
    return lambda g: f"{name}({(x := g.tensor(kind))}, {g.like(x)})"


BINARY: list[Template] = [
    *(_operator(sign) for sign in _OPERATORS * 3),
    *(_with_scalar(sign) for sign in _OPERATORS * 2),
    *(_scalar_with(sign) for sign in _OPERATORS),
    *(_operator(sign) for sign in _COMPARE),
    *(_with_scalar(sign) for sign in _COMPARE),
    *(_called(name, kind) for name in _BINARY.split() for kind in ("f", "i")),
    *(_called(name, "f") for name in _BINARY_FLOAT.split()),
    *((lambda name: lambda g: f"{(x := g.n())}.{name}({g.like(x)})")(name) for name in _COMPARED),
    lambda g: f"torch.div({(x := g.n())}, {g.like(x)}, rounding_mode={g.pick('floor', 'trunc')!r})",
    lambda g: f"torch.div({g.n()}, {g.divisor()}, rounding_mode={g.pick('floor', 'trunc')!r})",
    lambda g: f"{g.i()} // {g.pick(2, -2, 3, -3, 7)}",
    lambda g: f"{g.i()} % {g.pick(2, -2, 3, -3, 7)}",
    lambda g: f"{g.i()} {g.pick('<<', '>>')} {g.int(0, 4)}",
    lambda g: f"{(x := g.i())} {g.pick('<<', '>>')} {g.same(x, low=0, high=6)}",
    lambda g: f"{(x := g.tensor(g.pick('i', 'u', 'b')))} {g.pick('&', '|', '^')} {g.like(x)}",
    lambda g: f"{g.i()} {g.pick('&', '|', '^')} {g.pick(1, 3, -2, 255)}",
    lambda g: f"torch.logical_{g.pick('and', 'or', 'xor')}({(x := g.a())}, {g.like(x)})",
    lambda g: f"torch.bitwise_{g.pick('and', 'or', 'xor')}({(x := g.i())}, {g.like(x)})",
    lambda g: f"{g.positive()} ** {g.f(0)}",
    lambda g: f"{g.n()} ** {g.pick(2, 3, 2.0, 0, 1)}",
    lambda g: f"{g.positive()} ** {g.pick(0.5, -1, -0.5, 2.5)}",
    lambda g: f"{g.pick(2, 0.5, 3.0)} ** {g.f()}",
    lambda g: f"torch.pow({(x := g.i(low=-4, high=5))}, {g.same(x, low=0, high=4)})",
    lambda g: f"torch.{g.pick('add', 'sub')}({(x := g.n())}, {g.like(x)}, alpha={g.pick(2, -1, 3)})",
    lambda g: f"{g.pick(1, 2.5, -3)} - {g.n()}",
    lambda g: f"torch.rsub({g.f()}, {g.scalar()})",
    lambda g: f"torch.lerp({(x := g.f())}, {g.same(x)}, {g.pick(0.3, 1.5, g.same(x))})",
    lambda g: f"torch.addcmul({(x := g.f())}, {g.same(x)}, {g.like(x)}, value={g.pick(1, 0.5, -2)})",
    lambda g: f"torch.addcdiv({(x := g.f())}, {g.same(x)}, {g.same(x)}, value={g.pick(1, 0.5)})",
    lambda g: f"torch.isclose({(x := g.f())}, {g.same(x)})",
    lambda g: f"torch.gcd({(x := g.i(low=-30, high=30))}, {g.same(x, low=-30, high=30)})",
    lambda g: f"{g.b()} * {g.n(0)}",
    lambda g: f"{(x := g.n())} * {g.like(x, 'b')}",
    lambda g: f"{(x := g.b())} + {g.like(x)}",
    lambda g: f"{g.b()} + {g.pick(1, 2.5, True)}",
    lambda g: f"{(x := g.n())} - {x}.float().mean()",
    lambda g: f"{(x := g.f((1, 4)))} / {x}.shape[{g.dim(x)}]",
    lambda g: f"{(x := g.i((1, 3)))} + {x}.shape[{g.dim(x)}]",
    lambda g: f"{(x := g.f((1, 4)))} * {x}.size({g.dim(x)}) ** -0.5",
    lambda g: f"{(x := g.f((1, 4)))} / math.sqrt({x}.size({g.dim(x)}))",
    lambda g: f"{(x := g.n((1, 3)))} * ({x}.shape[{g.dim(x)}] / {g.pick(2, 3)})",
    lambda g: f"{(x := g.n((1, 3)))} + {x}.numel() // {g.pick(2, 3)}",
]

CHOICES: list[Template] = [
    lambda g: f"{g.n()}.clamp({g.pick(-1, 0, -1.5, 0.5)}, {g.pick(2, 1.5, 3)})",
    lambda g: f"{g.n()}.clamp(min={g.pick(-1, 0, -1.5, 0.5)})",
    lambda g: f"{g.n()}.clamp(max={g.pick(2, 1.5, 3, -0.5)})",
    lambda g: f"torch.clamp({g.i()}, {g.pick(-3, -2.5)}, {g.pick(4, 3.5)})",
    lambda g: f"torch.clamp({(x := g.n())}, {g.same(x)}, {g.same(x)})",
    lambda g: f"{(x := g.n())}.clamp_min({g.pick(0, 1, -0.5)})",
    lambda g: f"torch.where({(x := g.n())} > 0, {x}, {g.like(x)})",
    lambda g: f"torch.where({(x := g.n())} > 0, {x}, {g.scalar()})",
    lambda g: f"torch.where({g.b()}, {g.scalar()}, {g.scalar()})",
    lambda g: f"torch.where({(x := g.b())}, {g.like(x, 'n')}, {g.like(x, 'n')})",
    lambda g: f"{(x := g.n())}.masked_fill({g.like(x, 'b')}, {g.pick(0, 3, -1)})",
    lambda g: (
        f"{(x := g.f())}.masked_fill({g.like(x, 'b')}, {g.pick('float(-1e9)', 'torch.finfo(torch.float32).min', 0.5)})"
    ),
    lambda g: f"{(x := g.f((2, 4)))}.masked_fill(torch.ones({x}.shape[-2:], dtype=torch.bool).triu(1), 0.0)",
    lambda g: f"(~{(x := g.b())}).to({g.like(x, 'f')}.dtype) * -5.0",
    lambda g: (
        f"{g.tensor(g.pick('f', 'i', 'b', 'u'))}.to(torch.{g.pick('float32', 'float64', 'int64', 'int32', 'bool')})"
    ),
    lambda g: f"{g.f(low=0.0, high=255.0)}.to(torch.{g.pick('uint8', 'int16', 'int64')})",
    lambda g: f"{g.f(low=-120.0, high=120.0)}.to(torch.{g.pick('int8', 'int16', 'int32')})",
    lambda g: f"{g.f()}.{g.pick('half', 'bfloat16')}().float()",
    lambda g: f"{g.f()}.double().exp().float()",
    lambda g: f"{g.i()}.{g.pick('byte', 'char', 'short')}()",
    lambda g: f"{(x := g.n())}.type_as({g.like(x, 'n')})",
    lambda g: f"{(x := g.n())}.new_full({x}.shape, {g.pick(2, -1)})",
    lambda g: f"torch.{g.pick('zeros', 'ones')}_like({(x := g.n())}) + {x}",
    lambda g: f"torch.full_like({(x := g.n())}, {g.pick(2, -3)}) * {x}",
    lambda g: f"torch.full({(x := g.f((1, 3)))}.shape, {g.pick(1, 2.5, 'True')}) * {x}",
    lambda g: f"torch.arange({(x := g.f((1, 4)))}.shape[{g.dim(x)}]) * {g.pick(2, 0.5)}",
    lambda g: f"torch.arange({g.pick(0, 1, -3)}, {g.pick(6, 9)}, {g.pick(1, 2, 0.5)}) + {g.n(0)}",
    lambda g: f"torch.linspace(0, 1, {g.int(2, 6)}) * {g.f(0)}",
    lambda g: f"torch.tensor([{g.pick(1, 2.5)}, 2, -3]) * {g.n(0)}",
    lambda g: f"torch.eye({g.int(2, 4)}) * {g.f(0)}",
    lambda g: f"torch.complex({(x := g.f((1, 3)))}, {g.same(x)}).abs()",
    lambda g: (
        f"torch.view_as_real(torch.view_as_complex({(x := g.f(shape=(3, 4, 2)))}) * torch.view_as_complex({g.same(x)}))"
    ),
]


def _changed(change: Callable[[Draw, str], str], kind: str = "n", rank: tuple[int, int] = (1, 4)) -> Template:
    """A copy, changed in place."""

    def template(g: Draw) -> str:
        y = g.let(f"{g.tensor(kind, rank)}.clone()")
        g.do(change(g, y))
        return f"{y} * 1"

    return template


IN_PLACE: list[Template] = [
    _changed(lambda g, y: f"{y}.{g.pick('add_', 'mul_', 'sub_')}({g.pick(2, g.same(y), 3)})"),
    _changed(lambda g, y: f"{y}.{g.pick('relu_', 'neg_', 'zero_', 'abs_', 'square_')}()"),
    _changed(lambda g, y: f"{y}.{g.pick('sigmoid_', 'tanh_', 'exp_', 'sqrt_', 'floor_', 'round_')}()", "f"),
    _changed(lambda g, y: f"{y}.clamp_({g.pick(-1, 0)}, {g.pick(2, 3)})"),
    _changed(lambda g, y: f"{y}.fill_({g.pick(2, -1)})"),
    _changed(lambda g, y: f"{y}.masked_fill_({g.same(y, 'b')}, {g.pick(3, -1)})"),
    _changed(lambda g, y: f"{y}[{g.one_slice(g.shape(y)[0])}] = {g.pick(5, -2)}"),
    _changed(lambda g, y: f"{y}[..., {g.one_slice(g.shape(y)[-1])}] {g.pick('+=', '*=', '-=')} {g.pick(2, 3)}"),
    _changed(lambda g, y: f"{y}[..., {g.pick(0, -1)}] = {y}[..., {g.pick(-1, 0)}] * 2"),
    _changed(lambda g, y: f"{y}[{y} > 0] = {g.pick(0, -7)}"),
    _changed(lambda g, y: f"{y}[{g.slices(y)}] = {g.pick(1, 4)}"),
    _changed(lambda g, y: f"{y}[{g.index((2,), g.shape(y)[0], True)}] = {g.pick(1, 4)}"),
    _changed(lambda g, y: f"{y}.copy_({g.like(y)})"),
    _changed(lambda g, y: f"{y}.transpose(0, -1).mul_(2)", rank=(2, 3)),
    _changed(lambda g, y: f"{y}.select({(d := g.dim(y))}, {g.pick(0, -1)}).add_({g.pick(1, 3)})"),
    _changed(lambda g, y: f"{y}.view(-1)[::2].add_(1)"),
    _changed(lambda g, y: f"{y} //= {g.pick(2, 3, -2)}", "i"),
    _changed(lambda g, y: f"{y} %= {g.pick(2, 3)}", "n"),
    _changed(lambda g, y: f"{y}.index_fill_({(d := g.dim(y))}, {g.index((2,), g.size(y, d))}, 3)"),
    _changed(
        lambda g, y: (
            f"{y}.index_add_(0, {(i := g.index((3,), g.shape(y)[0]))}, {g.same(y)}.clone()[:1].expand(3, *{y}.shape[1:]))"
        )
    ),
    _changed(lambda g, y: f"{y}.scatter_add_({(d := g.dim(y))}, {g.index(g.shape(y), 1)}, {g.same(y)}.clone())"),
    _changed(lambda g, y: f"{y}.diagonal().fill_({g.pick(3, -1)})", rank=(2, 2)),
]
