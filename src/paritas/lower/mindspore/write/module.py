# SPDX-License-Identifier: Apache-2.0
"""From a program to a file: methods into classes, equal classes into one, classes into a readable module."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence

import torch

from paritas.capture.modules import Region, module_tree
from paritas.capture.normalise import name_of
from paritas.dtypes import dtype_name
from paritas.errors import LoweringError
from paritas.lower.composed import SHARED
from paritas.lower.decompose import decomposed
from paritas.lower.mindspore import halves
from paritas.lower.mindspore.empty import guards_of
from paritas.lower.mindspore.fuse import FUNCTIONS, fused
from paritas.lower.mindspore.prelude import library
from paritas.lower.mindspore.widen import widened
from paritas.lower.mindspore.write import steps
from paritas.lower.mindspore.write.comments import worth_reading, wrap_comment
from paritas.lower.mindspore.write.constructors import Constructor, call, constructor
from paritas.lower.mindspore.write.context import Context, Functions, Method, Weights
from paritas.lower.mindspore.write.emitter import DTYPES
from paritas.lower.mindspore.write.functions import function_names
from paritas.lower.mindspore.write.method import write
from paritas.lower.mindspore.write.names import class_name, usable
from paritas.lower.mindspore.write.places import Places, is_index
from paritas.lower.mindspore.write.source import literal, printable, wrap
from paritas.lower.mindspore.write.steps import Step, in_order
from paritas.lower.mindspore.write.weights import collect, constant_source
from paritas.lower.registry import lowerings, preflight
from paritas.program import Guard, Program

#: A list may lack so many items and half of the others: "1000" alone is no list of a thousand.
_MISSING = 16


@dataclasses.dataclass(frozen=True)
class Module:
    """A generated module, and what has to be loaded into it."""

    source: str
    class_name: str  # of the whole model
    weights: Mapping[str, torch.Tensor]  # the checkpoint, with its own names
    constants: Mapping[str, torch.Tensor]  # buffers outside the checkpoint, by attribute path
    #: "attribute path:call" -> the nodes that its cell returns.
    outputs: Mapping[str, tuple[str, ...]]
    #: Attribute path -> call by call, where its nodes are computed.
    steps: Mapping[str, list[list[Step]]]
    #: Attribute path -> the checkpoint's name, where the source cannot say it.
    renamed: Mapping[str, str]
    guards: tuple[Guard, ...] = ()  # what was asked of sizes while operators were decomposed


@dataclasses.dataclass
class _Cell:
    path: str
    methods: list[Method] = dataclasses.field(default_factory=list)
    #: Attribute or index -> cell.
    children: dict[str, _Cell] = dataclasses.field(default_factory=dict)
    parameters: list[str] = dataclasses.field(default_factory=list)  # names in the checkpoint
    constants: list[str] = dataclasses.field(default_factory=list)
    class_name: str = ""
    given: tuple = ()  # constructor arguments

    @property
    def is_list(self) -> bool:
        """Whether its modules are items of a list. One inside another cell can hold nothing else."""
        owns = self.path and (self.parameters or self.constants)
        if owns or not self.children or not all(map(is_index, self.children)):
            return False
        return self.length <= 2 * len(self.children) + _MISSING

    @property
    def length(self) -> int:
        return max(int(index) for index in self.children) + 1


def generate(program: Program, *, target: str = "cpu") -> Module:
    """The program as MindSpore source for `target` ("cpu" | "ascend").

    Raises `UnsupportedOps` before anything else, `LoweringError` for arguments no lowering covers.
    """
    asked = len(program.guards)
    program = decomposed(program, lowerings("mindspore"), SHARED)
    guards = (*program.guards[asked:], *guards_of(program))
    known = preflight(program, "mindspore")
    if target == "cpu" and program.autocast:
        program = halves.in_float32(program)
    program = fused(widened(program)) if target == "cpu" else fused(program, FUNCTIONS)
    weights = collect(program)
    tree = module_tree(program.graph, program.module_classes.get("", program.source.model_class))
    unnamed = _unnamed(tree, weights)
    cells = _cells(tree, weights, unnamed)
    lists = {path: cell.length for path, cell in cells.items() if cell.is_list and path}
    context = Context(
        program,
        known,
        weights,
        lists,
        unnamed,
        _places(cells),
        target,
        Functions(),
        function_names(list(program.graph.nodes)),
    )
    returned: dict[str, tuple[str, ...]] = {}
    for region in tree.regions():
        if region.path in lists or region.path in unnamed or not (region.outputs or region.parent is None):
            continue
        others = {k: v for m in cells[region.path].methods for k, v in m.primitives.items()}
        method = _written(context, region, others)
        same = next((m for m in cells[region.path].methods if m.body == method.body), None)
        if same is None:
            method.name = (
                "construct" if not cells[region.path].methods else f"construct_{len(cells[region.path].methods)}"
            )
            cells[region.path].methods.append(method)
        else:
            method.name = same.name
        context.written[region.key] = method
        if region.parent is not None:
            returned[f"{context.places.named(region.path)}:{region.call}"] = tuple(node.name for node in method.outputs)
    # A cell's calls as the module makes them, which is not always the order of the graph.
    places, written = context.places, context.written
    made: dict[str, list[list[Step]]] = {}
    paths = {region.key: places.named(region.path) for region in tree.regions()}
    for key in in_order(tree.key, {key: method.steps for key, method in written.items()}):
        path = paths[key] if key in paths else steps.of_function(written[key].name)
        made.setdefault(path, []).append(written[key].steps)
    for name, value in context.constants.items():
        cells[name.rpartition(".")[0]].constants.append(name)
        weights.values[name] = value  # type: ignore[index]
    classes = _Classes(context)
    classes.define(cells[""])
    constants = {places.named(n): weights.values[n] for cell in cells.values() for n in cell.constants}
    checkpoint = {name: weights.values[name] for name in weights.persistent_order}
    renamed = {places.named(name): name for name in checkpoint if not _sayable(name)}
    return Module(
        classes.file(_reached(cells, context)),
        cells[""].class_name,
        checkpoint,
        constants,
        returned,
        made,
        renamed,
        guards,
    )


def _written(context: Context, region: Region, primitives: Mapping[str, str]) -> Method:
    """The method of a region; without functions where one hides the tensor that a size is read off."""
    try:
        return write(context, region, primitives)
    except LoweringError:
        if not any(isinstance(node, torch.fx.Node) for node in region.items):
            raise
        return write(dataclasses.replace(context, functions=None), region, primitives)


def _reached(cells: Mapping[str, _Cell], context: Context) -> dict[str, Method]:
    """The functions that the cells call, and those that these call: those that are called first."""
    assert context.functions is not None
    known, found = context.functions.methods, {}
    queue = [name for cell in cells.values() for method in cell.methods for name in method.called]
    while queue:
        name = queue.pop()
        if name not in found:
            found[name] = known[name]
            queue += known[name].called
    return {name: method for name, method in known.items() if name in found}


def _unnamed(tree: Region, weights: Weights) -> frozenset[str]:
    """Modules that can be no attribute and need not be: they own nothing, and their caller computes what they do.

    CLIP's ResNets call the pooling before a shortcut "-1", so that the convolution behind it can be "0".
    """
    owners = {weights.owner(name)[0] for name in weights.names.values()}
    return frozenset(
        region.path
        for region in tree.regions()
        if region.path
        and not _nameable(region.path.rpartition(".")[2])
        and not any(f"{owner}.".startswith(f"{region.path}.") for owner in owners)
    )


def _nameable(part: str) -> bool:
    return is_index(part) or part.isidentifier()


def _places(cells: Mapping[str, _Cell]) -> Places:
    held = {
        path: [*cell.children, *(name.rpartition(".")[2] for name in (*cell.parameters, *cell.constants))]
        for path, cell in cells.items()
    }
    return Places(held, {path for path, cell in cells.items() if cell.is_list})


#: The longest name of a Parameter that MindSpore 2.10 lets anybody assign.
_LONGEST = 1024


def _sayable(name: str) -> bool:
    """Whether `parameter.name = name` keeps it."""
    return len(name) <= _LONGEST and name == name.strip()


def _cells(tree: Region, weights: Weights, unnamed: frozenset[str]) -> dict[str, _Cell]:
    """One cell for every module that is called or owns a weight, and for those around it."""
    cells: dict[str, _Cell] = {"": _Cell("")}

    def at(path: str) -> _Cell:
        if path not in cells:
            cells[path] = _Cell(path)
            parent, _, attribute = path.rpartition(".")
            at(parent).children[attribute] = cells[path]
        return cells[path]

    # In the original's order: the order of the checkpoint, then of the calls.
    for name in weights.persistent_order:
        at(weights.owner(name)[0]).parameters.append(name)
    for region in sorted(tree.regions(), key=lambda r: r.path.count(".")):
        if region.outputs and region.path not in unnamed:
            at(region.path)
    for name in dict.fromkeys(weights.names.values()):
        if name not in weights.persistent:
            at(weights.owner(name)[0]).constants.append(name)
    return cells


class _Classes:
    """Class definitions, each distinct text once."""

    def __init__(self, context: Context) -> None:
        self.program, self.weights, self.places = context.program, context.weights, context.places
        self.reserved = context.functions.methods if context.functions is not None else {}
        self.by_text: dict[tuple[str, str], str] = {}
        self.texts: dict[str, str] = {}  # class name -> definition, in the order of definition
        self.cells: list[_Cell] = []

    def define(self, cell: _Cell) -> None:
        """Name the cell's class, having defined it and its children's unless an equal one is there."""
        self.cells.append(cell)
        for child in cell.children.values():
            self.define(child)
        if cell.is_list and cell.path:
            return
        base = class_name(self.program.module_classes.get(cell.path, ""), cell.path)
        body = "\n".join(self._body(cell))
        found = self.by_text.get((base, body))
        if found is None:
            found, count = base, 1
            while found in self.texts or found in self.reserved:
                count += 1
                found = f"{base}_{count}"
            self.by_text[base, body] = found
            parent = "nn.CellList" if cell.is_list else "nn.Cell"
            self.texts[found] = f"class {found}({parent}):\n{body}\n"
        cell.class_name = found

    def _body(self, cell: _Cell) -> list[str]:
        original = self.program.module_classes.get(cell.path, "")
        lines = [f'    """{_quotable(original)}"""', ""] if original else []
        leaf = bool(cell.path) and not cell.children  # the model itself is built without arguments
        shapes = {self.places.of(n): tuple(self.weights.values[n].shape) for n in cell.parameters}
        how = self._constructor(cell, shapes) if leaf else Constructor((), (), {})
        numbers = {name: value for method in cell.methods for name, value in method.numbers.items()}
        how = how.with_numbers(numbers)
        arguments, cell.given = how.shapes, how.values
        primitives: dict[str, str] = {}
        for method in cell.methods:
            primitives |= method.primitives
        if cell.children or cell.parameters or cell.constants or primitives or numbers:
            lines.append(f"    def __init__(self{''.join(', ' + a for a in how.arguments)}):")
            lines += self._init(cell, arguments, primitives)
            lines += [f"        self.{name} = {name}" for name in numbers]
            lines.append("")
        for method in cell.methods:
            lines += _method(method)
            lines.append("")
        if not lines:
            lines = ["    pass"]
        return lines[:-1] if lines[-1] == "" else lines

    def _init(self, cell: _Cell, arguments: Mapping[str, str], primitives: Mapping[str, str]) -> list[str]:
        lines = wrap(f"super().__init__({self._list(cell)})", 8) if cell.is_list else ["        super().__init__()"]
        for name in cell.parameters:
            attribute = self.places.of(name)
            value = self.weights.values[name]
            shape = arguments.get(attribute) or literal(tuple(value.shape))
            frozen = "" if self._trainable(name) else ", requires_grad=False"
            lines += wrap(
                f'self.{attribute} = Parameter(initializer("zeros", {shape}, {self._dtype(value)}){frozen})', 8
            )
        for name in cell.constants:
            attribute, value = self.places.of(name), self.weights.values[name]
            made = constant_source(value) or f"ops.zeros({literal(tuple(value.shape))}, {self._dtype(value)})"
            lines += wrap(f'self.register_buffer("{attribute}", {made}, persistent=False)', 8)
        if not cell.is_list:
            for child in cell.children.values():
                lines += wrap(f"self.{self.places.of(child.path)} = {self._build(child)}", 8)
        for attribute, expression in primitives.items():
            lines += wrap(f"self.{attribute} = {expression}", 8)
        return lines + ([] if cell.path else self._checkpoint_names())

    def _checkpoint_names(self) -> list[str]:
        """Where an attribute cannot be called as in the checkpoint, its parameter still is."""
        names = self.weights.persistent_order
        renamed = [n for n in names if self.places.named(n) != n and _sayable(n)]
        return [f"        self{self.places.access(n)}.name = {literal(n)}" for n in renamed]

    def _build(self, cell: _Cell) -> str:
        if cell.is_list:
            return f"nn.CellList({self._list(cell)})"
        return call(cell.class_name, cell.given)

    def _constructor(self, cell: _Cell, shapes: Mapping[str, tuple[int, ...]]) -> Constructor:
        """By the original's own arguments, or by the shapes of its weights."""
        original = self.program.module_classes.get(cell.path, "")
        grouped = any(name in self.grouped for name in cell.parameters)
        found = constructor(original, shapes, grouped) if shapes else None
        if found is not None:
            return found
        named = _arguments(list(shapes))
        return Constructor(tuple(named.values()), tuple(shapes.values()), named)

    @functools.cached_property
    def grouped(self) -> frozenset[str]:
        """Weights of convolutions in groups."""
        return frozenset(
            self.weights.names[node.args[1].name]
            for node in self.program.graph.nodes
            if name_of(node).startswith("aten.conv")
            and any(type(argument) is int and argument > 1 for argument in node.args[6:])
            and node.args[1].name in self.weights.names
        )

    def _list(self, cell: _Cell) -> str:
        # An index that is not called and owns nothing (an activation, a dropout) still counts.
        built = [
            self._build(cell.children[str(i)]) if str(i) in cell.children else "nn.Identity()"
            for i in range(cell.length)
        ]
        if len(built) > 1 and len(set(built)) == 1:
            return f"[{built[0]} for _ in range({len(built)})]"
        return f"[{', '.join(built)}]"

    def _trainable(self, name: str) -> bool:
        return name in self.program.trainable

    def _dtype(self, value: torch.Tensor) -> str:
        return DTYPES[dtype_name(value.dtype)]

    def file(self, functions: Mapping[str, Method]) -> str:
        methods = [*functions.values(), *(m for cell in self.cells for m in cell.methods)]
        helpers = {name for method in methods for name in method.helpers}
        source = self.program.source
        name = source.id if source.kind == "hub" else source.id.rstrip("/").rpartition("/")[-1]
        what = source.model_class.rpartition(".")[-1] + (f" ({name})" if name else "")
        head = [
            f'"""{_quotable(what)} for MindSpore.',
            "",
            "Generated by Paritas from the original's graph. Class, attribute and parameter names are the",
            "original's, so its model.safetensors loads unchanged; comments are the original's source lines.",
            '"""',
            "",
            "import mindspore as ms",
            "from mindspore import Parameter, Tensor, nn, ops",
            "from mindspore.common.initializer import initializer",
            "",
        ]
        body = "\n\n".join(self.texts.values())
        parts = [library.source(helpers), *(_function(method) for method in functions.values()), body]
        below = "\n\n".join(part for part in parts if part)
        apart = "\n" if below.startswith(("class ", "def ")) else ""
        text = "\n".join(head) + "\n" + apart + below
        return _without_unused_imports(text)


def _without_unused_imports(text: str) -> str:
    head, _, body = text.partition("from mindspore.common.initializer import initializer\n")
    names = [n for n in ("Parameter", "Tensor", "nn", "ops") if re.search(rf"(?<![\w.]){n}\b", body)]
    lines = ["import mindspore as ms"] if re.search(r"(?<![\w.])ms\.", body) else []
    lines.append(f"from mindspore import {', '.join(names)}")
    if "initializer(" in body:
        lines.append("from mindspore.common.initializer import initializer")
    return head.split("import mindspore as ms")[0] + "\n".join(lines) + "\n" + body


def _method(method: Method) -> list[str]:
    return [*wrap(f"def {method.name}({', '.join(['self', *method.arguments])}):", 4), *_lines(method, 8)]


def _function(method: Method) -> str:
    head = wrap(f"def {method.name}({', '.join(method.arguments)}):", 0)
    return "\n".join([*head, *_lines(method, 4)]) + "\n"


def _lines(method: Method, indent: int) -> list[str]:
    lines: list[str] = []
    for line in worth_reading(method.lines, method.comments):
        lines += wrap_comment(line, indent) if line.startswith("# ") else wrap(line, indent)
    return lines


def _arguments(attributes: Sequence[str]) -> dict[str, str]:
    """Attributes of a class's parameters -> the arguments of its `__init__` that say their shapes."""
    found: dict[str, str] = {}
    for name in attributes:
        plain = name if usable(name) else f"{name.strip('_')}_shape"
        while plain in found.values() or (plain != name and plain in attributes):
            plain += "_"
        found[name] = plain
    return found


def _quotable(text: str) -> str:
    """`text` for a docstring, which nothing in it may end."""
    return printable(text.replace("\\", "/").replace('"', "'"))
