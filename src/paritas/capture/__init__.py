# SPDX-License-Identifier: Apache-2.0
"""Capture: a PyTorch module becomes a `Program`, a functional ATen graph whose nodes know their origin."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from paritas.caches import TOKENS, is_state
from paritas.capture import autocast, generation, guards, indices, ones, ranges, stored
from paritas.capture import inputs as example
from paritas.capture.around import Behind
from paritas.capture.export import export
from paritas.capture.forward import Call, Traced, parameter_names
from paritas.capture.forward_names import forward_names
from paritas.capture.modules import is_size, module_calls, module_tree
from paritas.capture.normalise import dims_of, equal_inputs, name_of, normalise
from paritas.capture.origin import origin
from paritas.capture.outputs import output_specs, renamed, returned
from paritas.capture.size_limits import guards as reaches
from paritas.capture.size_limits import limits
from paritas.capture.source import weights
from paritas.capture.state import (
    Answer,
    check_second_answer,
    first_answer,
    plain_paths,
    remarks_on,
    unchanged,
    without_inference_mode,
)
from paritas.dtypes import dtype_name
from paritas.errors import CaptureError, FrozenDimension
from paritas.program import EACH, Guard, Note, Program, Source, TensorSpec
from paritas.pytree import with_symbols

__all__ = ["assemble", "capture"]

#: Operators that notes name one by one.
_MOST_UNCHECKED = 5


def capture(
    model: torch.nn.Module,
    inputs: Any = None,
    *,
    dynamic: bool | Mapping[str, Mapping[int, Any]] = True,
    source: Source | None = None,
    exact: bool = False,
    train: bool = False,
) -> Program:
    """Record `model.forward(**inputs)` as one graph.

    inputs: example tensors by name of forward's parameters; generated for a transformers model. dynamic:
    True for every dimension that the model leaves free, False for none, or the dimensions by name.
    exact: for sizes like the example's, those of 1 too, which are constants then. train: as the modules are, in
    training mode or not, instead of all in evaluation mode; what they draw are operators, see `capture.training`, and
    casts of a `torch.autocast` around it are nodes, see `capture.autocast`.
    Raises `InputsNeeded`, `CaptureError` with torch's reason and the model's source line, and
    `FrozenDimension` if a dimension named in `dynamic` came out as a constant.
    """
    with without_inference_mode(model), unchanged(model), plain_paths(model):
        return _captured(model if train else model.eval(), inputs, dynamic, source, exact, train)


def _counted(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone() if tensor.is_inference() else tensor


def _captured(
    model: torch.nn.Module,
    inputs: Any,
    dynamic: bool | Mapping[str, Mapping[int, Any]],
    source: Source | None,
    exact: bool,
    train: bool = False,
) -> Program:
    given = example.example_inputs(model) if inputs is None else example.bind(model, inputs)
    call = example.call_of(model, given, widen=dynamic is not False and not exact)
    call = dataclasses.replace(call, tensors={name: _counted(tensor) for name, tensor in call.tensors.items()})
    notes = [Note("capture", f"{name}={value!r} is fixed") for name, value in call.fixed.items() if value is not None]
    if call.prepared:
        text = f"{', '.join(call.prepared)}: computed from the other inputs where the original is at hand"
        notes.append(Note("capture", text + ", and to be given where it is not"))
    first = first_answer(model, call)
    call = dataclasses.replace(call, written=first.written)
    notes += [Note("capture", remark) for remark in remarks_on(model, call, first)]
    exported, traced, kept, remarks = _exported(model, call, dynamic, train)
    notes += [Note("capture", remark) for remark in remarks]
    if behind := check_second_answer(model, call, first):
        names = ", ".join(one.name for one in behind[:5])
        remark = f"it leaves {names} for somebody to read, where a port leaves nothing"
        notes.append(Note("capture", remark))
    chosen = {name: value for name, value in call.fixed.items() if name not in given}

    def assembled(
        exported: torch.export.ExportedProgram,
        traced: Traced,
        dynamic: bool | Mapping[str, Mapping[int, Any]],
        notes: Sequence[Note],
    ) -> tuple[Program, str]:
        return _assemble(
            model, exported, call, dynamic=dynamic, source=source, notes=notes, first=first, traced=traced,
            chosen=chosen, train=train, behind=behind,
        )  # fmt: skip

    program, differs = assembled(exported, traced, kept, notes)
    if not exact and example.froze_what_was_repeated(given, program.inputs):
        return _captured(model, inputs, dynamic, source, exact=True, train=train)
    if differs and program.sizes:
        # The code looked at its sizes in a way that nothing could note, a text of them or their type.
        if dynamic is not True:
            raise FrozenDimension(
                f"Captured with free dimensions, the graph of {type(model).__name__} answers the example otherwise "
                f"than PyTorch: {differs}. Its code looks at sizes in a way that cannot be traced. Pass dynamic=False."
            )
        exported, traced, remarks = export(model, call, None, train=train)
        notes += [Note("capture", remark) for remark in remarks]
        notes.append(
            Note(
                "capture",
                f"all dimensions are fixed: with free ones the graph answers the example otherwise: {differs}",
            )
        )
        program, differs = assembled(exported, traced, False, notes)
    if differs:
        text = f"the graph answers the example otherwise than the model: {differs}"
        program = dataclasses.replace(program, notes=(*program.notes, Note("capture", text)))
    return program


def _exported(
    model: torch.nn.Module, call: Call, dynamic: bool | Mapping[str, Mapping[int, Any]], train: bool
) -> tuple[torch.export.ExportedProgram, Traced, bool | Mapping[str, Mapping[int, Any]], list[str]]:
    """The graph, with as many free dimensions as torch.export manages, and why they are fewer than all.

    What `dynamic` names is not reduced: it was asked for.
    """
    if dynamic is True and any(structure["kind"] == "cache" for structure in call.nesting.values()):
        # One symbol for all batches from the start: a reshape of a cache's keys to the batch of the tokens
        # would else prove nothing but that both are the example's.
        with contextlib.suppress(CaptureError):
            exported, traced, remarks = export(model, call, example.one_batch(call.tensors), train=train)
            return exported, traced, dynamic, remarks
    try:
        exported, traced, remarks = export(model, call, example.dynamic_shapes(call.tensors, dynamic), train=train)
        return exported, traced, dynamic, remarks
    except CaptureError as error:
        if dynamic is not True:
            raise
        reason = error
    for shapes, what in (
        (example.batch_only(call.tensors), "all dimensions but the batch are fixed"),
        (None, "all dimensions are fixed"),
    ):
        try:
            exported, traced, remarks = export(model, call, shapes, train=train)
        except CaptureError:
            continue
        lines = [line.strip() for line in str(reason).splitlines()[1:3]]
        remark = f"{what}, since torch.export cannot keep them free: {' '.join(lines)}"
        return exported, traced, False, [remark, *remarks]
    raise reason


def assemble(
    model: torch.nn.Module,
    exported: torch.export.ExportedProgram,
    tensors: Mapping[str, torch.Tensor],
    fixed: Mapping[str, Any],
    *,
    dynamic: bool | Mapping[str, Mapping[int, Any]],
    source: Source | None = None,
    notes: Sequence[Note] = (),
) -> Program:
    """The `Program` of a graph that `model(**tensors, **fixed)` was exported to. Brings the graph into normal form."""
    call = Call(dict(tensors), dict(fixed))
    return _assemble(model, exported, call, dynamic=dynamic, source=source, notes=notes)[0]


def _assemble(
    model: torch.nn.Module,
    exported: torch.export.ExportedProgram,
    call: Call,
    *,
    dynamic: bool | Mapping[str, Mapping[int, Any]],
    source: Source | None,
    notes: Sequence[Note],
    first: Answer | None = None,
    traced: Traced | None = None,
    chosen: Mapping[str, Any] | None = None,
    train: bool = False,
    behind: Sequence[Behind] = (),
) -> tuple[Program, str]:
    """The program, and how its graph differs from the model on the example, if it does."""
    first = first or first_answer(model, call)
    structure = returned(exported, traced, first, call.tensors)
    placeholders = _mark_inputs(exported, call.tensors)
    facts = guards.found(exported)
    with autocast.left():
        normalise(exported)
    specs, frozen = _input_specs(model, placeholders, call.tensors, dynamic)
    equal = equal_inputs(exported)
    specs = _with_equal_sizes(specs, equal)
    structure = with_symbols(structure, lambda size: {"kind": "size", "value": renamed(size, equal)})
    largest, reached = limits(exported), reaches(exported)
    specs = _with_forgotten(model, specs, call)
    counted = traced.counts if traced is not None else {}
    orders = {placeholders[name].name: size[len(EACH) :] for name, size in counted.items() if size.startswith(EACH)}
    specs, unchecked = _with_ranges(exported, specs, placeholders, largest, reached, orders)
    sizes = _sizes(placeholders, equal)
    defaults = example.defaults(model, call, first)
    packed = [
        Note("capture", f"{name} are lengths of packed sequences: the largest must be the padded size")
        for name, size in counted.items()
        if not size.startswith(EACH)
    ]
    nodes = [node for node in exported.graph.nodes if node.op == "call_function"]
    name = f"{type(model).__module__}.{type(model).__qualname__}"
    tree = module_tree(exported.graph, name)
    names = forward_names(model, exported, tree, call)
    program = Program(
        exported=exported,
        inputs=tuple(
            dataclasses.replace(
                spec, default=defaults.get(spec.name), counts=renamed(counted.get(spec.name, ""), equal)
            )
            for spec in specs
        ),
        outputs=output_specs(exported, structure),
        structure=structure,
        origins={node.name: origin(node) for node in nodes if not is_size(node)},
        modules=module_calls(tree),
        constants=dict(call.fixed),
        source=source or Source("module", model_class=name),
        notes=(*notes, *frozen, *unchecked, *packed),
        examples=dict(call.tensors),
        limits=largest,
        weights=weights(model, as_saved=False),
        stored=stored.of(exported.state_dict),
        trainable=frozenset(name for name, p in model.named_parameters() if p.requires_grad),
        module_classes={
            path: f"{type(m).__module__}.{type(m).__qualname__}"
            for path, m in model.named_modules(remove_duplicate=False)
        },
        arguments=names.arguments,
        results=names.results,
        nesting=call.nesting,
        prepared=call.prepared,
        written=call.written,
        behind=tuple(behind),
        signature=example.signature(model, chosen or {}),
        guards=(
            *guards.as_guards(ones.decided(facts, model, exported, placeholders, call, equal), equal, sizes),
            *dict.fromkeys(Guard(renamed(one.holds, equal), one.where) for one in reached.values()),
        ),
        sizes=sizes,
        train=train,
        autocast=autocast.asked() if train else "",
    )
    return program, names.differs


def _mark_inputs(
    exported: torch.export.ExportedProgram, tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.fx.Node]:
    """Each input's placeholder; marks it, so that later stages tell inputs from weights without a signature."""
    users = [spec.arg for spec in exported.graph_signature.input_specs if spec.kind.name == "USER_INPUT"]
    named = {arg.name for arg in users if type(arg).__name__ == "TensorArgument"}
    nodes = [node for node in exported.graph.nodes if node.op == "placeholder" and node.name in named]
    if len(nodes) != len(tensors):
        raise CaptureError(
            f"The model has {len(tensors)} tensor inputs ({', '.join(tensors)}), its graph {len(nodes)} "
            f"({', '.join(n.name for n in nodes)})."
        )
    for plain, node in zip(parameter_names(tensors).values(), nodes, strict=True):
        node.meta["paritas_input"] = plain
    return dict(zip(tensors, nodes, strict=True))


def _dtype(value: torch.Tensor) -> str:
    return dtype_name(value.dtype)


def _input_specs(
    model: torch.nn.Module,
    placeholders: Mapping[str, torch.fx.Node],
    tensors: Mapping[str, torch.Tensor],
    dynamic: bool | Mapping[str, Mapping[int, Any]],
) -> tuple[tuple[TensorSpec, ...], list[Note]]:
    specs, refused = [], []
    fixed: dict[tuple[str, int, int], list[str]] = {}  # of layers alike, one note
    for name, node in placeholders.items():
        dims = dims_of(node.meta["val"])
        specs.append(TensorSpec(name, _dtype(node.meta["val"]), dims))
        for axis, size in enumerate(dims):
            if not isinstance(size, int) or (axis and is_state(name)):
                continue
            if dynamic is True:
                alike = ".".join("*" if part.isdigit() else part for part in name.split("."))
                fixed.setdefault((alike, axis, size), []).append(name)
            elif dynamic is not False and axis in dynamic.get(name, {}):
                refused.append(f"  {name} dimension {axis} is constant {size} in the graph")
    if refused:
        raise FrozenDimension(
            "Asked to be dynamic, but the model's code depends on the size:\n" + "\n".join(refused) + "\n"
            "Leave these out of dynamic=, or pass dynamic=True to keep what can vary and have the rest reported."
        )
    notes = []
    for (alike, axis, size), names in fixed.items():
        where = names[0] if len(names) == 1 else f"{alike} ({len(names)} inputs)"
        text = f"{where} dimension {axis} is fixed at {size}: the model does not leave it free"
        notes.append(Note("capture", text))
    return tuple(specs), notes


def _with_equal_sizes(specs: tuple[TensorSpec, ...], equal: Mapping[str, str]) -> tuple[TensorSpec, ...]:
    """One name for sizes that have to be equal, so that the check at the door sees to it."""
    return tuple(dataclasses.replace(s, dims=tuple(equal.get(str(d), d) for d in s.dims)) for s in specs)


def _with_forgotten(model: torch.nn.Module, specs: tuple[TensorSpec, ...], call: Call) -> tuple[TensorSpec, ...]:
    """The states that the original forgets unless one token follows, marked with the size that counts these."""
    states = [spec for spec in specs if ".recurrent_states." in spec.name]
    ids = next((spec for spec in specs if spec.name in TOKENS), None)
    if not states or ids is None or isinstance(ids.dims[1], int) or not generation.forgets(model, call.arguments()):
        return specs
    new = str(ids.dims[1])
    return tuple(dataclasses.replace(spec, forgets=new) if spec in states else spec for spec in specs)


def _with_ranges(
    exported: torch.export.ExportedProgram,
    specs: tuple[TensorSpec, ...],
    placeholders: Mapping[str, torch.fx.Node],
    largest: Mapping[str, int],
    guarded: Collection[torch.fx.Node],
    orders: Mapping[str, str],
) -> tuple[tuple[TensorSpec, ...], list[Note]]:
    """What every input of whole numbers may hold, and notes on the operators of which the door cannot tell."""
    found, unchecked = indices.door(exported, largest, orders)
    ranged = []
    for spec in specs:
        bounds = found.get(placeholders[spec.name].name)
        ranged.append(spec if bounds is None else _with_range(spec, bounds))
    seen = dict.fromkeys(
        f"{operator.what} is not noticed in {name_of(operator.node)} at {origin(operator.node)}: PyTorch raises there"
        for operator in unchecked
        if operator.node not in guarded
    )
    notes = [Note("capture", text) for text in list(seen)[:_MOST_UNCHECKED]]
    if len(seen) > _MOST_UNCHECKED:
        more = f"nor in {len(seen) - _MOST_UNCHECKED} more operators whose indices or divisors are computed"
        notes.append(Note("capture", more))
    return tuple(ranged), notes


def _with_range(spec: TensorSpec, bounds: indices.Bounds) -> TensorSpec:
    full = ranges.of_dtype(getattr(torch, spec.dtype))
    low = max(bounds.low, full.low) if bounds.low > full.low else None
    high = bounds.high + 1 if bounds.high < full.high else None
    if high is not None and low is None:
        low = full.low
    if low == 0 and high is not None:
        low = None  # as most have it
    return dataclasses.replace(spec, low=low, high=high, never=tuple(sorted(bounds.never)), ignored=bounds.ignored)


def _sizes(placeholders: Mapping[str, torch.fx.Node], equal: Mapping[str, str]) -> dict[str, int]:
    """Every symbol of the inputs' dimensions and its size in the example."""
    found: dict[str, int] = {}
    for node in placeholders.values():
        for size in node.meta["val"].shape:
            if isinstance(size, torch.SymInt):
                hints = size.node.shape_env.backed_var_to_val
                for symbol in size.node.expr.free_symbols:
                    found[equal.get(str(symbol), str(symbol))] = int(hints[symbol])
    return found
