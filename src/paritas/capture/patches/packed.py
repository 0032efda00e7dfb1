# SPDX-License-Identifier: Apache-2.0
"""Packed sequences, traced as what they stand for: padded tensors and the length of each sequence.

How a batch is packed depends on the lengths' values, which no graph of free sizes has. What a recurrent layer makes
of it does not: outputs at a sequence's own steps are those of the padded tensor, its last state is the one at its
last step, and a layer that runs backwards begins there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.modules import rnn as layers
from torch.nn.utils import rnn as packing

from paritas.capture.forward import counts
from paritas.capture.patches import around
from paritas.errors import CaptureError

#: Added to a gate, it is open or closed exactly: of a sequence that has ended, a cell stays as it is.
_CERTAIN = 1e4


class Padded:
    """What `pack_padded_sequence` returns while a model is traced: data [batch, length, width], lengths [batch]."""

    def __init__(self, values: torch.Tensor, lengths: torch.Tensor) -> None:
        self.values, self.lengths = values, lengths

    def __getattr__(self, name: str) -> Any:
        raise CaptureError(
            f"The model reads {name} of a PackedSequence. A port can run recurrent layers on packed sequences and "
            "unpack what they return; work on the padded tensor for anything else."
        )

    def beyond(self) -> torch.Tensor:
        """[batch, length], True where a sequence has ended."""
        return torch.arange(self.values.shape[1])[None] >= self.lengths[:, None]

    def turned(self, values: torch.Tensor) -> torch.Tensor:
        """Each sequence backwards, its padding where it was."""
        steps = torch.arange(values.shape[1])[None]
        places = torch.where(self.beyond(), steps, self.lengths[:, None] - 1 - steps)
        return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))

    def last(self, values: torch.Tensor) -> torch.Tensor:
        """[1, batch, width]: what stands at each sequence's last step."""
        places = (self.lengths - 1)[:, None, None].expand(-1, 1, values.shape[2])
        return values.gather(1, places).transpose(0, 1)


def pack(input: torch.Tensor, lengths: Any, batch_first: bool, enforce_sorted: bool) -> Padded:
    if not isinstance(lengths, torch.Tensor):
        if not all(type(length) is int for length in lengths):
            raise CaptureError(
                "pack_padded_sequence is given lengths that are read out of a tensor. Pass it the tensor itself: "
                "lengths, not lengths.tolist()."
            )
        lengths = torch.tensor(list(lengths))
    values = input if batch_first else input.transpose(0, 1)
    lengths = lengths.to(torch.int64)
    if not counts(lengths, values.shape[1], enforce_sorted):
        # Computed inside the model: torch would shorten the output to the longest sequence, or raise.
        fits = (lengths.max() == values.shape[1]) & (lengths.min() > 0)
        if enforce_sorted:
            before = torch.cat([lengths[:1], lengths[:-1]])  # as many as lengths, whose number stays free
            fits = fits & (lengths <= before).all()
        values = torch.where(fits, values, torch.nan)
    return Padded(values, lengths)


def unpack(sequence: Padded, batch_first: bool, padding_value: float, total_length: int | None) -> Any:
    if not isinstance(sequence, Padded):
        raise CaptureError("A PackedSequence that was not made in the model's forward cannot be captured.")
    values = torch.where(sequence.beyond()[..., None], padding_value, sequence.values)
    if total_length is not None:
        more = total_length - values.shape[1]
        values = torch.nn.functional.pad(values, (0, 0, 0, more), value=padding_value)
    return (values if batch_first else values.transpose(0, 1)), sequence.lengths


def run(layer: Any, packed: Padded, hx: Any) -> Any:
    """A recurrent layer on a packed sequence: layer by layer, direction by direction."""
    if layer.training and layer.dropout:
        raise CaptureError("A recurrent layer with dropout is in training mode.")
    layer._update_flat_weights()  # those that are traced
    long = layer.mode == "LSTM"
    directions = 2 if layer.bidirectional else 1
    count = len(layer._flat_weights) // (layer.num_layers * directions)
    x, last = packed.values, []
    if x.shape[2] != layer.input_size or packed.lengths.shape[0] != x.shape[0]:
        raise RuntimeError(
            f"input {tuple(x.shape)} with {packed.lengths.shape[0]} lengths does not fit a layer of {layer.input_size} "
            "features"
        )
    ways: list[torch.Tensor] = []
    batch = x.shape[0]
    for index in range(layer.num_layers * directions):
        weights = list(layer._flat_weights[count * index : count * (index + 1)])
        reverse = bool(index % directions)
        given = packed.turned(x) if reverse else x
        states = _first(layer, hx, index, batch, x)
        if long:
            ended = packed.beyond()[..., None]
            beyond = ended.to(x.dtype)
            given = given.masked_fill(ended, 0.0)  # else large values there outdo what is certain
            gates = torch.tensor([-_CERTAIN, _CERTAIN, 0.0, 0.0], dtype=x.dtype)
            column = gates.repeat_interleave(layer.hidden_size)[:, None]
            weights[0] = torch.cat([weights[0], column], 1)
            y, _, c = torch._VF.lstm(
                torch.cat([given, beyond], 2), states, weights, layer.bias, 1, 0.0, False, False, True
            )
        else:
            kind = {"GRU": torch._VF.gru, "RNN_TANH": torch._VF.rnn_tanh, "RNN_RELU": torch._VF.rnn_relu}[layer.mode]
            y, _ = kind(given, states, weights, layer.bias, 1, 0.0, False, False, True)
        last.append((packed.last(y), c) if long else (packed.last(y),))
        ways.append(packed.turned(y) if reverse else y)
        if len(ways) == directions:
            x, ways = (ways[0] if directions == 1 else torch.cat(ways, 2)), []
    found = tuple(torch.cat(list(parts), 0) for parts in zip(*last, strict=True))
    return Padded(x, packed.lengths), found if long else found[0]


def _first(layer: Any, hx: Any, index: int, batch: Any, x: torch.Tensor) -> Any:
    if hx is not None:
        return tuple(part[index : index + 1] for part in hx) if layer.mode == "LSTM" else hx[index : index + 1]
    hidden = torch.zeros(1, batch, getattr(layer, "proj_size", 0) or layer.hidden_size, dtype=x.dtype)
    if layer.mode != "LSTM":
        return hidden
    return hidden, torch.zeros(1, batch, layer.hidden_size, dtype=x.dtype)


def _code_of_pack(input: Any, lengths: Any, batch_first: Any = False, enforce_sorted: Any = True) -> Any:
    from paritas.capture.patches.packed import pack

    return pack(input, lengths, batch_first, enforce_sorted)


def _code_of_unpack(sequence: Any, batch_first: Any = False, padding_value: Any = 0.0, total_length: Any = None) -> Any:
    from paritas.capture.patches.packed import unpack

    return unpack(sequence, batch_first, padding_value, total_length)


@around
@contextlib.contextmanager
def padded_instead_of_packed() -> Iterator[None]:
    """While it is open, sequences are packed as `Padded`, which recurrent layers take.

    The functions' code is replaced and not their names, since models import them by name.
    """
    functions: Any = ((packing.pack_padded_sequence, _code_of_pack), (packing.pad_packed_sequence, _code_of_unpack))
    codes = [function.__code__ for function, _ in functions]
    classes: Any = (layers.LSTM, layers.GRU, layers.RNN)
    forwards = [cls.forward for cls in classes]

    def taking(original: Any) -> Any:
        def forward(self: Any, input: Any, hx: Any = None) -> Any:
            return run(self, input, hx) if isinstance(input, Padded) else original(self, input, hx)

        return forward

    try:
        for function, replacement in functions:
            function.__code__ = replacement.__code__
        for cls, original in zip(classes, forwards, strict=True):
            cls.forward = taking(original)
        yield
    finally:
        for (function, _), code in zip(functions, codes, strict=True):
            function.__code__ = code
        for cls, original in zip(classes, forwards, strict=True):
            cls.forward = original
