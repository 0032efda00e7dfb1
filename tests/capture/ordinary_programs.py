# SPDX-License-Identifier: Apache-2.0
"""What ordinary programs do beside arithmetic: how they take their inputs, what they return, what they are made of.

`RIGHT` are answered as PyTorch answers them, in value, type and structure; `REFUSED` are refused in one clear sentence.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from paritas.errors import CaptureError, InputsNeeded, LoweringError, SourceError

torch.manual_seed(0)
X, Y = torch.randn(2, 5, 6), torch.randn(3, 7, 6)
XS, YS = {"x": X}, {"x": Y}
BOTH = [XS, YS]
INPUT = [{"input": X}, {"input": Y}]


class Op(nn.Module):
    """A function of one tensor as a model."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


class Module(nn.Module):
    """A function of a module and its inputs as a model, with the parts that it needs."""

    def __init__(self, **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


# --- writing in place ---------------------------------------------------------------------------


def add_in_place(x):
    x += 1
    return x * 2


def set_items(x):
    x[:, 0] = 0
    return x.sum(1)


def write_through_a_view(x):
    x[..., 0].add_(1)
    return x, x.sum()


def overwrite_all(x):
    x.zero_()
    return torch.ones(2) + x.sum()


def fill_by_mask(x):
    x.masked_fill_(x > 0, -1.0)
    return x.mean(-1)


def loop_into_zeros(x):
    out = torch.zeros_like(x)
    for i in range(3):
        out[:, i] = x[:, i] * i
    return out


class Residual(Module):
    def forward(self, x):
        kept = x
        x = F.relu_(self.a(x))
        x += kept
        return self.b(x)


# --- what is kept between calls -----------------------------------------------------------------


class CountsInABuffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("n", torch.zeros(()))

    def forward(self, x):
        self.n += 1
        return x * self.n


class CountsInAnAttribute(Module):
    def forward(self, x):
        self.n += 1
        return x * self.n


class Accumulates(Module):
    def forward(self, x):
        self.cache = x if self.cache is None else self.cache + x
        return self.cache * 1


class RemembersItsLast(Module):
    def forward(self, x):
        self.last = self.layer(x)
        return self.last * 2


class MakesItsTable(Module):
    def forward(self, x):
        if self.table is None:
            self.table = torch.arange(6.0)
        return x + self.table


class NormalisesByTheBatch(Module):
    def forward(self, x):
        b = self.b
        return F.batch_norm(x, b.running_mean, b.running_var, b.weight, b.bias, True, 0.1)


# --- arguments ----------------------------------------------------------------------------------


class Scaled(nn.Module):
    def forward(self, x, scale: float = 1.0, *, shift: float = 0.0, mode: str = "a"):
        return x * scale + shift if mode == "a" else x


class Two(nn.Module):
    def forward(self, a, b):
        return a - 2 * b


class Optional(nn.Module):
    def forward(self, x, mask=None):
        return x if mask is None else x * mask


class ByName(nn.Module):
    def forward(self, x, **more):
        return x + more["y"] - more.get("z", 0)


class Many(nn.Module):
    def forward(self, *xs):
        return xs[0] - xs[1]


class Nested(nn.Module):
    def forward(self, batch):
        return batch["a"] + batch["b"][0] * batch["b"][1]


# --- outputs ------------------------------------------------------------------------------------


@dataclasses.dataclass
class Result:
    logits: Any
    more: Any = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    logits: Any
    size: int


class Pair(NamedTuple):
    first: Any
    second: Any


Old = namedtuple("Old", ["a", "b"])


class ReturnsADataclass(Module):
    def forward(self, x):
        return Result(self.layer(x), more={"n": x.shape[1], "p": Pair(x.mean(), None)})


# --- modules ------------------------------------------------------------------------------------


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
        self.out.weight = self.table.weight

    def forward(self, ids):
        return self.out(self.table(ids))


def pruned():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    return model


def hooked(inner: bool):
    layer = nn.Linear(6, 4)
    layer.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    layer.register_forward_hook(lambda module, args, out: out * 2)
    return nn.Sequential(layer, nn.ReLU()) if inner else layer


class Mapped(nn.Module):
    def forward(self, x):
        return torch.vmap(lambda a, b: (a @ b.T).softmax(-1).sum(0))(x, x)


class MappedLayer(Module):
    def forward(self, x):
        return torch.vmap(self.layer, in_dims=1, out_dims=1)(x)


class Derivative(nn.Module):
    def forward(self, x):
        return torch.func.jvp(lambda a: a.sin(), (x,), (torch.ones_like(x),))[1]


class OtherWeights(Module):
    def forward(self, x):
        weights = {name: value * 2 for name, value in self.layer.named_parameters()}
        return torch.func.functional_call(self.layer, weights, (x,))


class Recurrent(Module):
    def forward(self, x):
        return self.layer(x)


class RecurrentFrom(Module):
    def forward(self, x, h, c=None):
        return self.layer(x, h if c is None else (h, c))


class Packs(Module):
    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, state = self.layer(packed)
        return nn.utils.rnn.pad_packed_sequence(out, batch_first=True)[0], state


class PacksByMask(Module):
    def forward(self, x, mask):
        packed = nn.utils.rnn.pack_padded_sequence(x.transpose(0, 1), mask.sum(1))
        return nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0], padding_value=-1.0)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.e = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)

    def forward(self, src, pad=None):
        return self.e(src, src_key_padding_mask=pad)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x, pad):
        return self.a(x, x, x, key_padding_mask=pad)


def recurrent(cls, **how):
    return lambda: Recurrent(layer=cls(6, 4, **how))


def padding(batch, length, begin):
    mask = torch.zeros(batch, length, dtype=torch.bool)
    mask[1, begin:] = True
    return mask


def packs(cls, **how):
    return lambda: Packs(layer=cls(6, 4, batch_first=True, **how))


def falling(batch, length):
    return torch.arange(length)[None] < length - torch.arange(batch)[:, None]


LENGTHS = [{"x": X, "lengths": torch.tensor([5, 3])}, {"x": Y, "lengths": torch.tensor([2, 7, 4])}]


def op(function):
    return lambda: Op(function)


#: name -> the model, and inputs: those of the capture, then others.
def in_windows(x):
    """A swin transformer's padding to whole windows, and back."""
    batch, length, width = x.shape
    padded = F.pad(x, (0, (-width) % 4, 0, (-length) % 4)).unsqueeze(-1)
    rows, columns = padded.shape[1] // 4, padded.shape[2] // 4
    windows = padded.view(batch, rows, 4, columns, 4, 1).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 1).softmax(1)
    together = windows.view(batch, rows, columns, 4, 4, 1).permute(0, 1, 3, 2, 4, 5)
    return together.reshape(batch, rows * 4, columns * 4)[:, :length, :width]


def warped(x):
    theta = torch.tensor([[[0.8, 0.1, 0.0], [-0.2, 1.1, 0.3]]]).expand(x.shape[0], 2, 3)
    image = x.unsqueeze(1)
    return F.grid_sample(image, F.affine_grid(theta, image.shape, align_corners=False), align_corners=False)


class AttendsToThePast(nn.Module):
    """Layers that look whether the mask they are given is the causal one."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Transformer(6, 2, 1, 1, 8, batch_first=True)

    def forward(self, x):
        return self.layers(x, x, tgt_mask=nn.Transformer.generate_square_subsequent_mask(x.shape[1]))


class BranchesOnItsCounter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("n", torch.tensor(0))

    def forward(self, x):
        self.n += 1
        return x * 2 if self.n > 3 else x


class HasASwitch(nn.Module):
    """A codebook that was initialised from data once, and says so in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("is_initialised", torch.tensor(True))
        self.register_buffer("levels", torch.tensor(3))

    def forward(self, x):
        if not self.is_initialised:
            return x * 0
        return x[..., : self.levels.item()] + self.levels


RIGHT: dict[str, tuple[Callable[[], Any], list[Any]]] = {
    "a Sequential that begins in place": (lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 3)), INPUT),
    "x += 1": (op(add_in_place), BOTH),
    "padded to whole windows": (op(in_windows), [*BOTH, {"x": X[:1]}]),
    "an affine grid": (op(warped), BOTH),
    "linspace of a size": (op(lambda x: x * torch.linspace(-1, 1, x.shape[1])[:, None]), [*BOTH, {"x": X[:, :1]}]),
    "a causal mask handed to layers": (AttendsToThePast, BOTH),
    "a switch in a buffer": (HasASwitch, BOTH),
    "a result in float64": (op(lambda x: x.double() * 2), BOTH),
    "x[:, 0] = 0": (op(set_items), BOTH),
    "x.mul_ returned": (op(lambda x: x.mul_(3)), BOTH),
    "a view written": (op(write_through_a_view), BOTH),
    "clamp_ of a flat view": (op(lambda x: (x.view(-1).clamp_(min=0), x)), BOTH),
    "zero_": (op(overwrite_all), BOTH),
    "masked_fill_": (op(fill_by_mask), BOTH),
    "a loop into zeros": (op(loop_into_zeros), BOTH),
    "residual in place": (lambda: Residual(a=nn.Linear(6, 6), b=nn.LayerNorm(6)), BOTH),
    "its last output kept": (lambda: RemembersItsLast(layer=nn.Linear(6, 6), last=None), BOTH),
    "a table made once": (lambda: MakesItsTable(table=None), BOTH),
    "a size": (op(lambda x: (x * 2, x.shape[0])), BOTH),
    "sizes and words": (
        op(lambda x: {"y": x * 2, "n": x.shape[1] // 2 + 1, "s": x.shape, "k": "name", "none": None, "f": 1.5}), BOTH,
    ),
    "numel and dim": (op(lambda x: (x.sum(), x.numel(), x.dim(), x.size(1))), BOTH),
    "quotients of sizes": (op(lambda x: (x.sum(), x.shape[1] / x.shape[2], x.shape[0] * x.shape[1])), BOTH),
    "a comparison of sizes": (op(lambda x: (x.sum(), x.shape[1] % 2, max(x.shape[0], 4))), [XS]),
    "item()": (op(lambda x: (x * 2, x.sum().item())), BOTH),
    "a dataclass": (lambda: ReturnsADataclass(layer=nn.Linear(6, 3)), BOTH),
    "a frozen dataclass": (op(lambda x: Frozen(x + 1, x.shape[0])), BOTH),
    "a NamedTuple": (op(lambda x: Pair(x + 1, [x, (x.mean(),)])), BOTH),
    "a namedtuple": (op(lambda x: Old(x + 1, {"z": x})), BOTH),
    "an OrderedDict": (op(lambda x: OrderedDict(b=x, a=x + 1)), BOTH),
    "a dict in its order": (op(lambda x: {"b": x - 1, "a": x + 1}), BOTH),
    "whole numbers as keys": (op(lambda x: {0: x - 1, 3: x + 1}), BOTH),
    "the same tensor twice": (op(lambda x: [x + 1] * 2), BOTH),
    "the input": (op(lambda x: x), BOTH),
    "the input, twice": (op(lambda x: [x, x + 1, x]), BOTH),
    "torch.return_types": (op(lambda x: (x.max(1), torch.sort(x, -1))), BOTH),
    "a constant": (op(lambda x: (x, torch.arange(3))), BOTH),
    "empty containers": (op(lambda x: (x, (), [], {})), BOTH),
    "the same input twice": (Two, [{"a": X, "b": X}, {"a": X, "b": X + 1}]),
    "a transposed input": (op(lambda x: x.reshape(-1) * 2), [{"x": X.mT}, {"x": Y.mT}]),
    "numbers as arguments": (Scaled, [{"x": v, "scale": 3.0, "shift": 1.0} for v in (X, Y)]),
    "forward's defaults said": (Scaled, [XS, {"x": Y, "scale": 1.0, "mode": "a"}]),
    "another mode": (Scaled, [{"x": X, "mode": "b"}, {"x": Y, "mode": "b"}]),
    "a scalar tensor": (Scaled, [{"x": X, "scale": torch.tensor(2.0)}, {"x": Y, "scale": torch.tensor(5.0)}]),
    "None for an argument": (Optional, [XS, {"x": Y, "mask": None}]),
    "**kwargs": (ByName, [{"x": X, "y": X}, {"x": Y, "y": Y}]),
    "*args": (Many, [(X, X + 1), (Y, Y + 1)]),
    "by position": (Scaled, [(X,), (Y,)]),
    "by position with a number": (Scaled, [(X, 2.0), (Y, 2.0)]),
    "nested": (Nested, [{"batch": {"a": X, "b": [X, X + 1]}}, {"batch": {"a": Y, "b": [Y, Y + 1]}}]),
    "arrays of NumPy": (Two, [{"a": X.numpy(), "b": X.numpy()}, {"a": Y.numpy(), "b": Y.numpy()}]),
    "tied weights": (Tied, [{"ids": torch.arange(10).view(2, 5)}, {"ids": torch.arange(8).view(2, 4)}]),
    "pruned": (pruned, INPUT),
    "parametrised": (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 4))), INPUT),
    "weight_norm by hooks": (lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 4))), INPUT),
    "hooks of the model": (lambda: hooked(False), [(X,), (Y,)]),
    "hooks inside": (lambda: hooked(True), INPUT),
    "vmap": (Mapped, BOTH),
    "vmap of a layer": (lambda: MappedLayer(layer=nn.Linear(6, 3)), BOTH),
    "jvp": (Derivative, BOTH),
    "functional_call": (lambda: OtherWeights(layer=nn.Linear(6, 3)), BOTH),
    "LSTM": (recurrent(nn.LSTM), BOTH),
    "LSTM, two layers both ways": (recurrent(nn.LSTM, num_layers=2, bidirectional=True, batch_first=True), BOTH),
    "LSTM with projections": (recurrent(nn.LSTM, proj_size=3, bidirectional=True), BOTH),
    "LSTM without biases": (recurrent(nn.LSTM, bias=False), BOTH),
    "LSTM without a batch": (recurrent(nn.LSTM), [{"x": X[0]}, {"x": Y[0]}]),
    "LSTM from states": (
        lambda: RecurrentFrom(layer=nn.LSTM(6, 4)),
        [{"x": v, "h": v[None, 0, :, :4] / 2, "c": v[None, 0, :, 2:]} for v in (X, Y)],
    ),
    "projecting LSTM from states": (
        lambda: RecurrentFrom(layer=nn.LSTM(6, 4, proj_size=2)),
        [{"x": v, "h": v[None, 0, :, :2] / 2, "c": v[None, 0, :, 2:]} for v in (X, Y)],
    ),
    "GRU, two layers": (recurrent(nn.GRU, num_layers=2), BOTH),
    "GRU both ways": (recurrent(nn.GRU, bidirectional=True, batch_first=True), BOTH),
    "RNN": (recurrent(nn.RNN), BOTH),
    "RNN with relu": (recurrent(nn.RNN, nonlinearity="relu", bidirectional=True), BOTH),
    "packed LSTM": (packs(nn.LSTM), LENGTHS),
    "packed LSTM, two layers both ways": (packs(nn.LSTM, num_layers=2, bidirectional=True), LENGTHS),
    "packed GRU, two layers both ways": (packs(nn.GRU, num_layers=2, bidirectional=True), LENGTHS),
    "packed RNN": (packs(nn.RNN), LENGTHS),
    "packed by a mask": (
        lambda: PacksByMask(layer=nn.GRU(6, 4)), [{"x": v, "mask": falling(*v.shape[:2])} for v in (X, Y[:2])],
    ),
    "encoder without padding": (Encoder, [{"src": torch.randn(b, n, 8)} for b, n in ((2, 5), (3, 7))]),
    "attention with padding": (
        Attention, [{"x": torch.randn(b, n, 8), "pad": padding(b, n, 3)} for b, n in ((2, 5), (3, 7))],
    ),
    "compiled": (lambda: torch.compile(nn.Linear(6, 3)), INPUT),
    "compiled inside": (lambda: nn.Sequential(torch.compile(nn.Linear(6, 3)), nn.ReLU()), INPUT),
    "DataParallel": (lambda: nn.DataParallel(nn.Linear(6, 3)), INPUT),
    "symbolically traced": (lambda: torch.fx.symbolic_trace(nn.Sequential(nn.Linear(6, 3), nn.ReLU())), INPUT),
}  # fmt: skip

#: name -> the model, inputs of the capture, the error and what it says.
REFUSED: dict[str, tuple[Callable[[], Any], Any, type, str]] = {
    "a branch on a counter": (BranchesOnItsCounter, XS, CaptureError, "goes the way that they tell it"),
    "a counter in a buffer": (CountsInABuffer, XS, CaptureError, "writes to its buffers n"),
    "a counter in an attribute": (lambda: CountsInAnAttribute(n=0), XS, CaptureError, "second time. It keeps n"),
    "a sum over calls": (lambda: Accumulates(cache=None), XS, CaptureError, "second time. It keeps cache"),
    "the batch's own statistics": (
        lambda: NormalisesByTheBatch(b=nn.BatchNorm1d(5)), XS, LoweringError, "the running statistics change",
    ),
    "nothing but a size": (op(lambda x: x.shape[0]), XS, CaptureError, "returns no tensor"),
    "a PackedSequence": (
        op(lambda x: nn.utils.rnn.pack_sequence([x, x])), XS, CaptureError, "the output is a PackedSequence",
    ),
    "an object": (op(lambda x: (x, object())), XS, CaptureError, r"the output\[1\] is a builtins.object"),
    "inputs that do not run": (Two, {"a": X, "b": Y}, CaptureError, "does not run on these inputs in PyTorch either"),
    "an unknown argument": (Two, {"a": X, "c": X}, InputsNeeded, "no argument c. It takes: a, b"),
    "a missing argument": (Two, XS | {"a": X}, InputsNeeded, "no argument x"),
    "too many arguments": (Two, (X, X, X), InputsNeeded, "takes a, b, not 3 inputs by position"),
    "scripted": (lambda: torch.jit.script(nn.Linear(6, 3)), INPUT[0], SourceError, "is TorchScript"),
    "scripted inside": (
        lambda: nn.Sequential(torch.jit.script(nn.Linear(6, 3))), INPUT[0], SourceError, "at 0 is TorchScript",
    ),
    "traced": (lambda: torch.jit.trace(nn.Linear(6, 3), X), INPUT[0], SourceError, "is TorchScript"),
    "quantised": (
        lambda: torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(6, 3)), {nn.Linear}), INPUT[0],
        SourceError, "Linear at 0 is quantised",
    ),
    "exported": (
        lambda: torch.export.export(nn.Linear(6, 3), (X,)), INPUT[0], SourceError, "Pass the module that was exported",
    ),
    "lazy": (lambda: nn.LazyLinear(3), INPUT[0], SourceError, "weight has no values yet"),
    "on the meta device": (lambda: nn.Linear(6, 3, device="meta"), INPUT[0], SourceError, "it has no weights"),
}  # fmt: skip
