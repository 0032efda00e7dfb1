# SPDX-License-Identifier: Apache-2.0
"""A re-implementation beside its original: the same weights, the same inputs, module by module, in float64.

Both are PyTorch, so both can be computed in float64 throughout. There, what two right implementations differ by is
1e-15, and any difference above it is a fault of one of them.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paritas.apps.reimplementation.hooks import WatchedCall, callable_paths, definition, watching
from paritas.apps.reimplementation.isolated import alone, found_of
from paritas.apps.reimplementation.module_pairs import Twins, twins
from paritas.apps.reimplementation.report import Comparison, Difference, ModuleTwin, OutputTwin, Side
from paritas.apps.reimplementation.rules import Rules, read
from paritas.apps.reimplementation.suggest_rules import with_suggestion
from paritas.apps.reimplementation.weight_map import WeightReport, carry, plan, state_of, ties_of
from paritas.capture.inputs import bind, example_inputs
from paritas.capture.source import resolve
from paritas.errors import InputError, ParitasError, reason_of
from paritas.pytree import describe_output, leaf_names
from paritas.run.torch.float64 import InFloat64
from paritas.verify.compare import compare as compare_arrays
from paritas.verify.compare import distance
from paritas.verify.report.rows import Environment
from paritas.verify.tolerance import Tolerance, whole_model, widened

Source = str | os.PathLike[str] | torch.nn.Module


def compare(
    original: Source,
    other: Source,
    *,
    rules: Rules | str | os.PathLike[str] | Mapping[str, Any] | Sequence[tuple[str, str]] | None = None,
    inputs: Any = None,
    tolerance: Tolerance | None = None,
    write: str | os.PathLike[str] | None = None,
) -> Comparison:
    """Compare `other`, a re-implementation in PyTorch, with `original`, weight by weight and module by module.

    Modules are compared twice: each model on its own values, and each module of `other` on the values that its
    twin got, so that an error cannot travel.

    Args:
        original, other: modules, hub ids or directories; neither is changed.
        rules: which weight is which, see `rules.py`; weights of the same name need none.
        inputs: one mapping of the original's arguments, tensors by name, or several; generated for a transformers
            model.
        tolerance: instead of `whole_model("float64")`, for modules and for outputs in float64.
        write: a safetensors file for the original's weights under the other model's names.

    Returns:
        Rows of outputs and modules, the innermost that differ, and which weight went where.

    Raises:
        SourceError: there is no such model.
        InputsNeeded: a model needs inputs that nobody can make up.
        InputError: rules or inputs do not fit.
    """
    rules = read(rules)
    (original, _), (other, _) = resolve(original), resolve(other)
    cases = _cases(original, inputs)
    notes: list[str] = []
    ours, theirs = _twin(original, notes), _twin(other, notes)
    weights = _carried(ours, theirs, rules)
    if write is not None:
        _write(Path(write), other, theirs, weights)
    pairs = twins(callable_paths(ours), callable_paths(theirs), weights.transfers, rules)
    walk = _Walk(ours, theirs, pairs, weights, rules, tolerance or whole_model("float64"))
    tolerances = {"float64": walk.tolerance, "float32": whole_model("float32")}
    outputs, unseen = _compared(cases, walk, _singles(original, other, ours, theirs), tolerances)
    walk.look_inside(_worst(cases, outputs, unseen))
    return Comparison(
        original=_name(original),
        other=_name(other),
        environment=Environment.here("PyTorch", package="torch"),
        weights=weights,
        tolerances=tolerances,
        precision="float64",
        outputs=tuple(outputs),
        modules=tuple(walk.rows),
        cases=tuple(f"{name}: {_shapes(given)}" for name, given in cases.items()),
        unseen={**unseen, **walk.unseen, **_unreached(ours, theirs, cases, rules)},
        apart=pairs.apart,
        other_apart=pairs.other_apart,
        notes=(*notes, *(f"{path} is not compared: {why}" for path, why in pairs.left_out.items())),
    )


def suggested(original: Source, other: Source, rules: Any = None) -> str:
    """Rules as TOML: those for the weights that `rules` do not place yet, guessed. Raises `InputError` for none."""
    (one, _), (two, _) = resolve(original), resolve(other)
    notes: list[str] = []
    weights = _carried(_twin(one, notes), _twin(two, notes), read(rules))
    if weights.suggestion:
        return weights.suggestion
    raise InputError(
        "All weights have their places: there is nothing to suggest."
        if weights.complete
        else f"No rule can be guessed for the {len(weights.unmatched)} unmatched and {len(weights.missing)} missing "
        f"weights, of which {len(weights.misfits)} do not fit: compare without --suggest to see them."
    )


def _name(model: torch.nn.Module) -> str:
    return f"{type(model).__module__}.{type(model).__qualname__}"


def _shapes(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}{list(value.shape)}" for name, value in given.items() if isinstance(value, torch.Tensor))


def _cases(model: torch.nn.Module, inputs: Any) -> dict[str, dict[str, Any]]:
    """Name -> arguments of the original. Of a mask that can hide the end of a row, there is a case that does."""
    if inputs is not None:
        several = inputs if isinstance(inputs, list) else [inputs]
        names = [f"given {n}" for n in range(1, len(several) + 1)] if len(several) > 1 else ["given"]
        return {name: _as_tensors(bind(model, one)) for name, one in zip(names, several, strict=True)}
    example = example_inputs(model)
    cases: dict[str, dict[str, Any]] = {"example": example}
    mask = example.get("attention_mask")
    if mask is not None and mask.dim() == 2 and mask.shape[1] > 1:
        padded = mask.clone()
        padded[-1, mask.shape[1] // 2 :] = 0
        cases["right padding"] = {**example, "attention_mask": padded}
    return cases


def _as_tensors(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value
        for name, value in given.items()
    }


def _twin(model: torch.nn.Module, notes: list[str]) -> torch.nn.Module:
    """The model in float64, a copy."""
    try:
        return copy.deepcopy(model).double().eval()
    except Exception as error:
        raise ParitasError(
            f"This {type(model).__name__} cannot be copied to float64 ({type(error).__name__}: {error}). Comparing "
            "needs a copy of each model, so that yours stay as they are."
        ) from error


# --- weights -----------------------------------------------------------------------------------


def _carried(ours: torch.nn.Module, theirs: torch.nn.Module, rules: Rules) -> WeightReport:
    """The original's weights written into the other model, as far as they fit."""
    (state, unsaved), (other, other_unsaved) = state_of(ours), state_of(theirs)
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    other_shapes = {name: tuple(value.shape) for name, value in other.items()}
    report = plan(
        shapes, other_shapes, rules, optional=unsaved | other_unsaved, ties=ties_of(state), other_ties=ties_of(other)
    )
    lost = carry(report.transfers, state, other)
    report = dataclasses.replace(report, misfits=(*report.misfits, *lost))
    return with_suggestion(report, shapes, other_shapes)


def _write(path: Path, other: torch.nn.Module, theirs: torch.nn.Module, weights: WeightReport) -> None:
    """The other model's checkpoint with the original's weights, in its own dtypes; written beside, and moved."""
    from safetensors.torch import save_file

    from paritas.capture.source import weights as once

    if not weights.complete:
        raise InputError(
            f"{path} is not written: {len(weights.unmatched)} weights are unmatched, {len(weights.missing)} missing, "
            f"{len(weights.misfits)} mis-shaped. Compare without writing to see which."
        )
    state, _ = state_of(theirs)
    named = {name: state[name].to(value.dtype).contiguous() for name, value in once(other, as_saved=False).items()}
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(named, beside, metadata={"format": "pt"})
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _unreached(
    ours: torch.nn.Module, theirs: torch.nn.Module, cases: Mapping[str, Mapping[str, Any]], rules: Rules
) -> dict[str, str]:
    """Parameters that no output depends on in any case: whether they are right, this comparison cannot say."""
    reached: set[str] = set()
    parameters = {n: p for n, p in ours.named_parameters() if p.is_floating_point()}
    for given in cases.values():
        with contextlib.suppress(Exception), InFloat64(), torch.enable_grad():
            for parameter in parameters.values():
                parameter.requires_grad_(True)
            flat, _ = describe_output(ours(**_wide(given)))
            wanted = [value for value in flat if value.requires_grad]
            gradients = torch.autograd.grad(
                sum(value.sum() for value in wanted), list(parameters.values()), allow_unused=True
            )
            reached |= {n for n, g in zip(parameters, gradients, strict=True) if g is not None}
    if not reached:
        return {}  # a model that forbids gradients: nothing can be said
    return {name: "no output depends on it with these inputs" for name in parameters if name not in reached}


# --- running -----------------------------------------------------------------------------------


class _Refused(Exception):
    """A model does not take a case."""


@dataclasses.dataclass(frozen=True)
class _Both:
    """What the two models returned: flat tensors by name."""

    ours: Mapping[str, torch.Tensor]
    theirs: Mapping[str, torch.Tensor]


def _wide(given: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for name, value in given.items()
    }


def _run(model: torch.nn.Module, given: Mapping[str, Any], side: str) -> dict[str, torch.Tensor]:
    try:
        with torch.no_grad():
            flat, structure = describe_output(model(**given))
    except ParitasError:
        raise
    except Exception as error:
        raise _Refused(f"the {side} refuses it: {reason_of(error)}") from error
    return dict(zip(leaf_names(structure), flat, strict=True))


def _renamed(given: Mapping[str, Any], theirs: torch.nn.Module, rules: Rules) -> dict[str, Any]:
    """The arguments as the other model calls them. Raises `_Refused` for one that it does not know."""
    parameters = inspect.signature(theirs.forward).parameters
    named = {rules.inputs.get(name, name): value for name, value in given.items()}
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return named
    unknown = [name for name in named if name not in parameters]
    if unknown:
        raise _Refused(
            f"{type(theirs).__name__}.forward takes {', '.join(parameters) or 'nothing'}, and no {unknown[0]}: say "
            f'in the rules which is which, under [inputs]: {unknown[0]} = "..."'
        )
    return named


class _Walk:
    """The float64 copies of both models: cases run through them, and for one of them every pair of modules."""

    def __init__(
        self,
        ours: torch.nn.Module,
        theirs: torch.nn.Module,
        pairs: Twins,
        weights: WeightReport,
        rules: Rules,
        tolerance: Tolerance,
    ) -> None:
        self.ours, self.theirs, self.rules, self.tolerance = ours, theirs, rules, tolerance
        self.pairs, self.weights = pairs, weights
        self.rows: list[ModuleTwin] = []
        self.unseen: dict[str, str] = {}

    def run(self, given: Mapping[str, Any]) -> _Both:
        """What both models return in float64. Raises `_Refused`."""
        wide = _wide(given)
        other = _renamed(wide, self.theirs, self.rules)
        with InFloat64():
            return _Both(_run(self.ours, wide, "original"), _run(self.theirs, other, "re-implementation"))

    def look_inside(self, given: Mapping[str, Any] | None) -> None:
        """Compare every pair of modules on this case: fills `rows` and `unseen`."""
        if given is None:
            return
        ours, theirs = zip(*self.pairs.pairs, strict=True)
        with watching(self.ours, ours) as calls, watching(self.theirs, theirs) as other_calls:
            self.run(given)
        self._compare_modules(calls, other_calls)

    def _compare_modules(self, calls: list[WatchedCall], other_calls: list[WatchedCall]) -> None:
        other_path = dict(self.pairs.pairs)
        theirs = {(call.path, call.number): call for call in other_calls}
        ours = {(call.path, call.number): call for call in calls}
        for call in calls:
            twin = theirs.pop((other_path[call.path], call.number), None)
            if twin is None:
                self._note_uncalled(call.path, "the original", other_path[call.path], "the other")
                continue
            self.rows.append(self._row(call, twin, ours))
        original_path = {two: one for one, two in self.pairs.pairs}
        for path, _ in theirs:
            self._note_uncalled(path, "the other", original_path[path], "the original")
        # What is part of a module that agrees was seen there.
        right = [row.original.path for row in self.rows if row.alone.agrees]
        for name in list(self.unseen):
            path = name.removeprefix("module ")
            if any(path.startswith(outer + "." if outer else "") for outer in right):
                del self.unseen[name]

    def _note_uncalled(self, path: str, here: str, twin: str, there: str) -> None:
        # Its weights may be used all the same, without a call; its caller is compared.
        self.unseen.setdefault(f"module {path}", f"called more often in {here} than {twin} in {there}")

    def _row(self, call: WatchedCall, twin: WatchedCall, ours: Mapping[tuple[str, int], WatchedCall]) -> ModuleTwin:
        one, two = self.ours.get_submodule(call.path), self.theirs.get_submodule(twin.path)
        free = found_of(call.tensors, twin.tensors, self.tolerance, inside=bool(call.path))
        whole = self._whole(twin.path)
        by_itself = Difference(unseen=whole)
        own: tuple[str, ...] = ()
        first = ""
        if not whole:
            inner = self._inner(call, twin, ours)
            by_itself, own, first = alone((one, call), (two, twin), inner, self.tolerance)
        if free.unseen and by_itself.unseen:
            self.unseen[f"module {call.path or 'the model'}"] = by_itself.unseen
        return ModuleTwin(
            Side(call.path, type(one).__name__, definition(one), call.site if call.path else ""),
            Side(twin.path, type(two).__name__, definition(two), twin.site if twin.path else ""),
            call.number,
            free if self.weights.complete else Difference(unseen="not all weights are the original's"),
            by_itself,
            own,
            first,
        )

    def _inner(
        self, call: WatchedCall, twin: WatchedCall, ours: Mapping[tuple[str, int], WatchedCall]
    ) -> dict[str, WatchedCall]:
        """The twins inside a module, by their paths in the other model from there; of a first call only."""
        found: dict[str, WatchedCall] = {}
        for path, other in self.pairs.pairs:
            inside = path != call.path and path.startswith(call.path + "." if call.path else "")
            below = other.startswith(twin.path + "." if twin.path else "") and other != twin.path
            if inside and below and (path, 0) in ours and not call.number:
                found[other[len(twin.path) :].lstrip(".")] = ours[path, 0]
        return found

    def _whole(self, path: str) -> str:
        """Why a module of the other model cannot be compared: not all of its weights are the original's."""
        prefix = path + "." if path else ""
        wrong = [*self.weights.missing, *(misfit.target for misfit in self.weights.misfits)]
        lacking = [name for name in wrong if name.startswith(prefix)]
        return f"{lacking[0]} is not the original's" if lacking else ""


# --- outputs -----------------------------------------------------------------------------------


def _compared(
    cases: Mapping[str, Mapping[str, Any]], walk: _Walk, single: Any, tolerances: Mapping[str, Tolerance]
) -> tuple[list[OutputTwin], dict[str, str]]:
    """The outputs of all cases, and what could not be compared. Of models with other weights, nothing can."""
    rows: list[OutputTwin] = []
    unseen: dict[str, str] = {}
    for name, given in cases.items():
        try:
            wide = walk.run(given)
            if walk.weights.complete:
                found, gaps = _outputs(name, wide, single(given, walk.rules), walk.rules, tolerances)
                rows += found
                unseen |= gaps
        except _Refused as refusal:
            unseen[f'case "{name}"'] = str(refusal)
    if not walk.weights.complete:
        unseen["outputs"] = "not all weights are the original's, so the outputs say nothing"
    return rows, unseen


def _worst(
    cases: Mapping[str, Mapping[str, Any]], outputs: Sequence[OutputTwin], unseen: Mapping[str, str]
) -> Mapping[str, Any] | None:
    """The case to look inside: the one whose outputs differ most; None if both models take none."""
    badness = {name: 0.0 for name in cases if f'case "{name}"' not in unseen}
    for row in outputs:
        excess = math.inf if row.found.fault or math.isnan(row.found.excess) else row.found.excess
        badness[row.case] = max(badness[row.case], excess)
    agree = all(row.found.agrees for row in outputs)
    if not badness:
        return None
    return cases[next(iter(badness)) if agree else max(badness, key=badness.__getitem__)]


def _singles(original: torch.nn.Module, other: torch.nn.Module, ours: Any, theirs: Any) -> Any:
    """A function of a case: what both models return in float32, the other with the original's weights."""
    one, two = copy.deepcopy(original).float(), copy.deepcopy(other).float()
    for single, wide in ((one, ours), (two, theirs)):
        state, _ = state_of(wide)
        mine, _ = state_of(single)
        with torch.no_grad():
            for name, value in mine.items():
                value.copy_(state[name])

    def run(given: Mapping[str, Any], rules: Rules) -> _Both:
        narrow = {
            n: v.float() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for n, v in given.items()
        }
        return _Both(_run(one, narrow, "original"), _run(two, _renamed(narrow, two, rules), "re-implementation"))

    return run


def _outputs(
    case: str, wide: _Both, single: _Both, rules: Rules, tolerances: Mapping[str, Tolerance]
) -> tuple[list[OutputTwin], dict[str, str]]:
    rows: list[OutputTwin] = []
    gaps: dict[str, str] = {}
    for name, other in _paired(list(wide.ours), list(wide.theirs), rules).items():
        if other not in wide.theirs:
            gaps[f"output {name}"] = (
                f"the re-implementation returns {', '.join(wide.theirs)}; which it is, [outputs] says"
            )
            continue
        own = distance(wide.ours[name].numpy(), single.ours[name].numpy())
        for precision, both in (("float64", wide), ("float32", single)):
            tolerance = tolerances[precision]
            if precision == "float32":
                tolerance = widened(tolerance, own)
            result = compare_arrays(both.ours[name].numpy(), both.theirs[other].numpy(), tolerance)
            rows.append(OutputTwin(case, name, other, precision, Difference(result.excess, result.error, result.fault)))
    return rows, gaps


def _paired(ours: Sequence[str], theirs: Sequence[str], rules: Rules) -> dict[str, str]:
    """The original's outputs -> the other's: as the rules say, else by name, else in order."""
    if rules.outputs:
        return dict(rules.outputs)
    if set(ours) & set(theirs):
        return {name: name for name in ours}
    return {name: theirs[n] if n < len(theirs) else "" for n, name in enumerate(ours)}
