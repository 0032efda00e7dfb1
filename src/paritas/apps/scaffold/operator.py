# SPDX-License-Identifier: Apache-2.0
"""`paritas scaffold op`: the function, the schema and the test case of an operator that has no lowering yet.

What is written refuses loudly until somebody fills it in, and its case fails until it is right.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import keyword
import os
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import paritas
from paritas.apps.scaffold.cases import example_cases
from paritas.errors import InputError
from paritas.lower.registry import Lowering, lowerings

#: Engines whose lowering is a function for each operator: where these are.
OPS = {
    path.parent.name: Path(f"src/paritas/lower/{path.parent.name}/ops")
    for path in sorted(Path(paritas.__file__).parent.glob("lower/*/scaffold.py"))
}
CASES = Path("tests/ops")

WIDTH = 110
DECOMPOSITION_LINES = 30


@dataclasses.dataclass(frozen=True)
class Edit:
    """One file of the checkout, with what is added to it and its whole text afterwards."""

    path: Path
    added: str
    text: str


@dataclasses.dataclass(frozen=True)
class Scaffold:
    """Everything that one operator needs, not yet written. next: the command that runs its cases."""

    target: str
    schema: str
    edits: tuple[Edit, ...]
    next: str

    def __str__(self) -> str:
        return "\n\n".join(f"{edit.path}:\n{edit.added.rstrip()}" for edit in self.edits)

    def write(self, root: Path) -> None:
        """Every file is written beside, then all are moved into place."""
        moves = []
        try:
            for edit in self.edits:
                beside = root / edit.path.with_name(f".{edit.path.name}.{os.getpid()}")
                moves.append((beside, root / edit.path))
                beside.write_text(edit.text, encoding="utf-8")
            for beside, path in moves:
                beside.replace(path)
        finally:
            for beside, _ in moves:
                beside.unlink(missing_ok=True)


def scaffold(
    target: str, *, engine: str = "mindspore", file: str = "", calls: str = "", root: Path | None = None
) -> Scaffold:
    """What to add for `target`, an exact overload such as "aten.foo.default", to the checkout at `root`.

    file: the family's file ("special.py"); that of the most similar operators if not given. calls: a function of
    the engine ("ops.foo") that computes it, which then becomes the body; one of MindSpore's is allowed in generated
    code. Raises `InputError` for an operator that is not there or is lowered already, and outside a source checkout.
    """
    if engine not in OPS:
        raise InputError(f"Operators are written for {' and '.join(OPS)}, not for {engine!r}.")
    root = root or _checkout()
    overload = _overload(target)
    known = lowerings(engine)
    if target in known:
        raise InputError(f"{target} is lowered to {engine} already, by {_place(known[target], root)}.")
    schema = str(overload._schema).split("::", 1)[1]
    home = OPS[engine] / _named_file(file, root, engine) if file else _family(target, known, engine)
    name = _function_name(target, (root / home).read_text(encoding="utf-8"))
    function = _function(target, engine, name, schema, overload, calls)
    edits = [_appended(root, home, function, engine)]
    if calls and (names := _style(engine).NAMES):
        edits += _allowed(root, Path(names), calls)
    if not _has_cases(root, target):
        edits.append(_with_cases(root, target, home, known, overload))
    return Scaffold(target, schema, tuple(edits), f"python -m pytest tests/ops -k {target.split('.')[1]}")


# --- which operator ----------------------------------------------------------------------------


def _checkout() -> Path:
    root = Path(paritas.__file__).resolve().parents[2]
    if not (all((root / ops).is_dir() for ops in OPS.values()) and (root / CASES / "cases.py").is_file()):
        raise InputError(
            f"paritas scaffold writes into a source checkout, and this Paritas is installed in {root}. Clone it, "
            "`make setup`, and run it there."
        )
    return root


def _overload(target: str) -> Any:
    """Raises `InputError` with what there is instead."""
    namespace, _, rest = target.partition(".")
    name, _, overload = rest.partition(".")
    packet = getattr(getattr(torch.ops, namespace, None), name, None) if namespace == "aten" and name else None
    if not isinstance(packet, torch._ops.OpOverloadPacket):
        known = [str(s).split("::")[1] for s in torch._C._dispatch_get_all_op_names() if s.startswith("aten::")]
        near = difflib.get_close_matches(name or target, sorted({k.split(".")[0] for k in known}), 4)
        hint = f" Is it {', '.join(f'aten.{n}' for n in near)}?" if near else ""
        raise InputError(f"There is no operator {target!r} in ATen.{hint}")
    if overload not in packet.overloads():
        have = ", ".join(f"{namespace}.{name}.{o}" for o in packet.overloads())
        raise InputError(f"{target!r} is no overload: {namespace}.{name} has {have}.")
    found = getattr(packet, overload)
    tensors = [*found._schema.arguments, *found._schema.returns]
    if not any("Tensor" in str(a.type) for a in tensors) or any(a.is_out for a in found._schema.arguments):
        raise InputError(
            f"{target} is in no captured graph: it "
            + ("writes into an argument" if any(a.is_out for a in tensors) else "computes no tensor")
            + ". A report of what is missing names the overload."
        )
    return found


def _place(function: Lowering, root: Path) -> str:
    function = inspect.unwrap(function)
    code = function.__code__
    path = Path(code.co_filename)
    where = path.relative_to(root) if path.is_relative_to(root) else path.name
    return f"{function.__name__} at {where}:{code.co_firstlineno}"


def _file_of(function: Lowering) -> str:
    return Path(inspect.unwrap(function).__code__.co_filename).name


def _named_file(file: str, root: Path, engine: str) -> str:
    name, ops = Path(file).name, OPS[engine]
    if not (root / ops / name).is_file():
        families = ", ".join(sorted(p.name for p in (root / ops).glob("[a-z]*.py") if p.stem != "registry"))
        raise InputError(f"There is no {ops / name}. The families: {families}.")
    return name


def _family(target: str, known: Mapping[str, Lowering], engine: str) -> Path:
    """The file in which the operators of the most similar names, and then of the same signature, are lowered."""
    own = {path.name for path in Path(__file__).parents[2].glob(f"lower/{engine}/ops/[a-z]*.py")}
    homes = {other: _file_of(function) for other, function in known.items() if _file_of(function) in own}
    name = target.split(".")[1]
    near = difflib.get_close_matches(name, [o.split(".")[1] for o in homes], 3, 0.75)
    votes = Counter(home for other, home in homes.items() if other.split(".")[1] in near)
    if not votes:
        kind = _kinds(_overload(target)._schema)
        votes = Counter(
            home for other, home in homes.items() if other.startswith("aten.") and _kinds(_schema(other)) == kind
        )
    return OPS[engine] / (votes.most_common(1)[0][0] if votes else _style(engine).FIRST)


def _style(engine: str) -> Any:
    """How a lowering to that engine is written."""
    return importlib.import_module(f"paritas.lower.{engine}.scaffold")


def _schema(target: str) -> Any:
    namespace, name, overload = target.split(".")
    return getattr(getattr(getattr(torch.ops, namespace), name), overload)._schema


def _kinds(schema: Any) -> list[str]:
    return [str(a.type) for a in (*schema.arguments, *schema.returns)]


# --- the function ------------------------------------------------------------------------------


def _function_name(target: str, text: str) -> str:
    _, name, overload = target.split(".")
    taken = set(re.findall(r"^(?:def |from .* import .*\b)?(\w+)", text, re.M)) | set(re.findall(r"\w+(?= =)", text))
    taken |= set(re.findall(r"^def (\w+)", text, re.M))
    plain = name if overload == "default" or name not in taken else f"{name}_{overload.lower()}"
    while plain in taken or keyword.iskeyword(plain):
        plain += "_"
    return plain


def _function(target: str, engine: str, name: str, schema: str, overload: Any, calls: str) -> str:
    lines = ["", "", f'@lowers("{target}")']
    lines += _definition(name, overload._schema, engine)
    if calls:
        tensors = [_spelled(a.name) for a in overload._schema.arguments if not a.has_default_value()]
        given = ", ".join(tensors)
        lines.append(f"    {_style(engine).body(calls, given)}")
    else:
        lines += [f"    # {line}".rstrip() for line in (*_wrapped(schema), *_decomposition(overload))]
        lines.append('    raise emit.refuse("its lowering is a scaffold that waits for its body")')
    return "\n".join([*lines, ""])


def _definition(name: str, schema: Any, engine: str) -> list[str]:
    parts, named, types = ["emit: Emitter"], False, _types(str(schema))
    for argument in schema.arguments:
        if argument.kwarg_only and not named:
            parts.append("*")
            named = True
        default = f" = {_default(argument.default_value)}" if argument.has_default_value() else ""
        parts.append(f"{_spelled(argument.name)}: {_type(types[argument.name], engine)}{default}")
    result = _style(engine).result([str(r.type) for r in schema.returns] == ["Tensor"])
    line = f"def {name}({', '.join(parts)}) -> {result}:"
    if len(line) <= WIDTH:
        return [line]
    inside = f"    {', '.join(parts)}"
    lines = [inside] if len(inside) <= WIDTH else [f"    {part}," for part in parts]
    return [f"def {name}(", *lines, f") -> {result}:"]


def _types(schema: str) -> dict[str, str]:
    """What a schema's text says of each argument, such as "SymInt[2]?"; its own fields do not tell SymInt from int."""
    inside = schema[schema.index("(") + 1 : schema.rindex(") ->")]
    found = re.findall(r"([A-Za-z]\w*(?:\([^)]*\))?[][\d?]*) (\w+)(?:=(?:\[[^]]*\]|[^,]*))?(?:, |$)", inside)
    return {name: kind for kind, name in found}


#: The types of a schema that are no tensors. What is made of free sizes is no number of Python's.
_TYPES = {"SymInt": "Size", "Scalar": "Scalar", "int": "int", "float": "float", "bool": "bool", "str": "str"}


def _type(text: str, engine: str) -> str:
    if text.endswith("?"):
        inner = _type(text[:-1], engine)
        return inner if inner in ("Any", "Size", "Scalar") else f"{inner} | None"
    if text.endswith("]"):
        return f"Sequence[{_type(text[: text.rindex('[')], engine)}]"
    name = text.partition("(")[0]
    return _style(engine).TENSOR if name == "Tensor" else _TYPES.get(name, "Any")


def _wrapped(schema: str) -> list[str]:
    return textwrap.wrap(schema, WIDTH - 6, subsequent_indent="    ")


def _spelled(name: str) -> str:
    if keyword.iskeyword(name):
        raise InputError(f"An argument of it is named {name!r}, which Python cannot spell: write it with **options.")
    return name


def _default(value: Any) -> str:
    if isinstance(value, list):
        return repr(tuple(value))
    if isinstance(value, str):
        return f'"{value}"'
    return repr(value) if value is None or type(value) in (bool, int, float, str) else "None"


def _decomposition(overload: Any) -> list[str]:
    """How torch itself writes the operator in terms of others, as comments to start from."""
    from torch._decomp import decomposition_table

    found = decomposition_table.get(overload)
    if found is None:
        return ["torch has no decomposition of it: its documentation, or its kernel in ATen, says what it computes."]
    function = inspect.unwrap(found)
    try:
        source, line = inspect.getsourcelines(function)
        file = Path(inspect.getsourcefile(function) or "")
    except (OSError, TypeError):
        return ["torch has a decomposition of it, without source."]
    package = Path(torch.__file__).parent
    where = str(file.relative_to(package.parent)) if file.is_relative_to(package) else file.name
    lines = inspect.cleandoc("".join(source)).splitlines()
    begins = next((number for number, text in enumerate(lines) if text.startswith("def ")), 0)
    lines = lines[begins:]  # without its decorators
    kept = lines[:DECOMPOSITION_LINES]
    more = [f"... {len(lines) - DECOMPOSITION_LINES} lines more"] if len(lines) > DECOMPOSITION_LINES else []
    fits = [text if len(text) <= WIDTH - 8 else f"{text[: WIDTH - 12]} ..." for text in kept]
    return [f"How torch computes it, {where}:{line}:", *(f"    {text}" for text in fits), *more]


def _appended(root: Path, path: Path, added: str, engine: str) -> Edit:
    text = (root / path).read_text(encoding="utf-8").rstrip("\n") + "\n"
    homes = {"Sequence": "collections.abc", "Any": "typing"}
    for name in ("Sequence", "Any", "Emitter", _style(engine).TENSOR, "Size", "Scalar"):
        if re.search(rf"[ \[]{name}\b(?!\()", added):
            where = _style(engine).EMITTER if name == "Emitter" else homes.get(name, _style(engine).TYPES)
            text = _with_import(text, where, name)
    return Edit(path, added.lstrip("\n"), text + added)


def _with_import(text: str, module: str, name: str) -> str:
    """`text` with `from module import name` in its place among the others."""
    line = re.search(rf"^from {re.escape(module)} import (\([^)]*\)|.*)$", text, re.M)
    if line is not None:
        names = {part.strip() for part in line[1].strip("()").split(",") if part.strip()} | {name}
        ordered = sorted(names, key=lambda n: (not n.isupper(), n.islower(), n))
        return text[: line.start()] + f"from {module} import {', '.join(ordered)}" + text[line.end() :]
    ours = [m for m in re.finditer(r"^(?:from|import) (\S+)", text, re.M) if _section(m[1]) >= _section(module)]
    later = [m for m in ours if _section(m[1]) > _section(module) or m[1] > module]
    if later:
        gap = "\n" if _section(later[0][1]) > _section(module) else ""
        return f"{text[: later[0].start()]}from {module} import {name}\n{gap}{text[later[0].start() :]}"
    end = list(re.finditer(r"^from \S+ import (?:\([^)]*\)|.*)\n", text, re.M))[-1].end()
    return f"{text[:end]}from {module} import {name}\n{text[end:]}"


def _section(module: str) -> int:
    """Python's own modules, then others, then ours; `__future__` first of all."""
    root = module.partition(".")[0]
    return 0 if root == "__future__" else 1 if root in sys.stdlib_module_names else 2 + (root == "paritas")


def _allowed(root: Path, names: Path, calls: str) -> list[Edit]:
    """`calls` among the names that generated code may use, if it is not yet there."""
    if not re.fullmatch(r"(ops|mint|nn)(\.\w+)+", calls):
        raise InputError(f"--calls {calls!r} is no function of MindSpore, such as ops.erfc.")
    text = (root / names).read_text(encoding="utf-8")
    if re.search(rf"(?<![\w.]){re.escape(calls)}(?![\w.])", text):
        return []
    end = text.index('    """.split()', text.index("FUNCTIONS = "))
    return [Edit(names, f"    {calls}\n", f"{text[:end]}    {calls}\n{text[end:]}")]


# --- the cases ---------------------------------------------------------------------------------


def _has_cases(root: Path, target: str) -> bool:
    """Whether another engine's lowering has brought cases of this operator already."""
    return any(f'"{target}"' in path.read_text(encoding="utf-8") for path in (root / CASES).glob("cases_*.py"))


def _with_cases(root: Path, target: str, home: Path, known: Mapping[str, Lowering], overload: Any) -> Edit:
    family = {other for other, function in known.items() if _file_of(function) == home.name}
    path, end = _list_of(root, family)
    text = (root / path).read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    calls, names = example_cases(target, overload, root / CASES)
    added = "".join(map(_line_of, calls))
    text = _importing("".join([*lines[: end - 1], added, *lines[end - 1 :]]), names)
    return Edit(path, added, text)


def _line_of(call: str) -> str:
    if len(call) + 5 <= WIDTH:
        return f"    {call},\n"
    target, _, arguments = call.removeprefix("case(").removesuffix(")").partition(", ")
    return f"    case(\n        {target},\n        {arguments},\n    ),\n"


def _list_of(root: Path, family: set[str]) -> tuple[Path, int]:
    """The list that has most cases of a family: its file, and the line of its closing bracket."""
    import ast

    best: tuple[int, Path, int] = (-1, CASES / "cases_special.py", 0)
    names = {target.split(".")[1] for target in family}
    for path in sorted((root / CASES).glob("cases_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.List)):
                continue
            texts = [leaf.value for leaf in ast.walk(node.value) if isinstance(leaf, ast.Constant)]
            count = sum(isinstance(text, str) and (text in family or text in names) for text in texts)
            if count > best[0] and node.value.end_lineno:
                best = (count, path.relative_to(root), node.value.end_lineno)
    return best[1], best[2]


def _importing(text: str, names: set[str]) -> str:
    """`from making import ...` with these names too."""
    found = re.search(r"^from making import (.*)$", text, re.M)
    assert found is not None, "every table of cases begins with what it is written in"
    have = {name.strip() for name in found[1].strip("()").split(",")}
    line = "from making import " + ", ".join(sorted(have | names, key=lambda n: (n.islower(), n)))
    return text[: found.start()] + line + text[found.end() :]
