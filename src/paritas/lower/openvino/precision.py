# SPDX-License-Identifier: Apache-2.0
"""Where a program computes in other widths than the engine: what is rounded once more, and what is only told."""

from __future__ import annotations

from collections.abc import Sequence

import openvino
import torch
from torch.fx import Node

from paritas.capture.modules import is_size
from paritas.capture.normalise import name_of
from paritas.lower.openvino.emit import HALF
from paritas.lower.openvino.rounding import rounded_to_half
from paritas.program import Note, Program

#: Operators that compute nothing: what comes out is as wide as what goes in.
MOVES = """
    reshape view _unsafe_view view_as reshape_as flatten unflatten unsqueeze squeeze permute transpose swapaxes
    swapdims movedim moveaxis t numpy_T mT expand expand_as broadcast_to broadcast_tensors slice narrow select unbind
    split split_with_sizes chunk tensor_split cat concat concatenate stack hstack vstack dstack repeat tile
    repeat_interleave flip roll index index_select gather take embedding clone alias contiguous detach lift_fresh_copy
    pad reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d
    tril triu diagonal where masked_select unfold pixel_shuffle pixel_unshuffle channel_shuffle view_as_real
    view_as_complex real imag neg abs relu max_pool1d max_pool2d max_pool3d maximum minimum amax amin sort topk zeros
    ones empty zeros_like ones_like empty_like new_zeros new_ones new_empty getitem
""".split()  # noqa: SIM905
#: Casts, which round by themselves.
CASTS = ("_to_copy", "to", "convert_element_type", "type_as", "copy")


def short_name(node: Node) -> str:
    """Of "aten.add.Tensor", "add"."""
    name = name_of(node)
    return name.split(".")[1] if "." in name else name


def rounds(node: Node) -> bool:
    """Whether a half-precision result of the node is one that torch has rounded."""
    return short_name(node) not in MOVES and short_name(node) not in CASTS


def rounded(value: openvino.Output, node: Node) -> openvino.Output:
    """A result of the node as torch rounds it, held as float32. Only for a float32 program."""
    meta = node.meta.get("val")
    if isinstance(meta, torch.Tensor) and meta.dtype in HALF and rounds(node):
        return rounded_to_half(value, meta.dtype)
    return value


def notes_of(program: Program) -> tuple[Note, ...]:
    """What is computed in float32 here and in float64 by torch, and what loses NaN, each with the first line."""
    notes = []
    doubles = [node for node in program.graph.nodes if node.op == "call_function" and _computes_doubles(node)]
    if doubles:
        notes.append(Note("lower", f"float64 is computed in float32: {_told(program, doubles)}"))
    pools = [node for node in program.graph.nodes if node.op == "call_function" and _steps_over_nan(node)]
    if pools:
        notes.append(
            Note(
                "lower",
                f"OpenVINO's largest of a window steps over NaN, where torch's is NaN: {_told(program, pools)}; "
                "check_finite=True refuses inputs that hold one",
            )
        )
    return tuple(notes)


def _steps_over_nan(node: Node) -> bool:
    """Whether it loses a NaN, for which looking would cost as much again."""
    source = node.args[0].meta.get("val") if node.args and isinstance(node.args[0], Node) else None
    floats = isinstance(source, torch.Tensor) and source.is_floating_point()
    return floats and short_name(node).startswith("max_pool")


def _computes_doubles(node: Node) -> bool:
    value = node.meta.get("val")
    wide = isinstance(value, torch.Tensor) and value.dtype in (torch.float64, torch.complex128)
    if not wide or is_size(node) or short_name(node) in MOVES:
        return False
    # A cast keeps what float32 had; whole numbers have more bits than that.
    source = node.all_input_nodes[0].meta.get("val") if node.all_input_nodes else None
    from_whole = isinstance(source, torch.Tensor) and source.dtype in (torch.int32, torch.int64)
    return short_name(node) not in CASTS or from_whole


def _told(program: Program, nodes: Sequence[Node]) -> str:
    first = nodes[0]
    more = f", and {len(nodes) - 1} more" if len(nodes) > 1 else ""
    return f"{name_of(first)} at {program.origin(first.name)}{more}"
