# SPDX-License-Identifier: Apache-2.0
"""Which weight of one model is which of another: ordered name rules, as written in a TOML file."""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from paritas.errors import InputError


@dataclasses.dataclass(frozen=True)
class WeightRule:
    """What becomes of the original's weights whose whole name matches one of `sources`.

    sources: regular expressions; several of them name the parts that `concat` joins, in this order. targets: names
    in the other model, with the first pattern's groups as \\1, \\2; several of them are the pieces that `split` cuts,
    or copies. transpose: swap the last two dimensions of what has two, before anything else. split, concat: the
    dimension. heads: the pieces alternate head by head, [head 0 of q, of k, of v, head 1 of q, ..].
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    transpose: bool = False
    split: int | None = None
    concat: int | None = None
    heads: int = 0

    def targets_of(self, name: str) -> tuple[int, tuple[str, ...]] | None:
        """Which of `sources` matches, and the names that this weight goes to."""
        for position, pattern in enumerate(self.sources):
            if found := re.fullmatch(pattern, name):
                return position, tuple(found.expand(target) for target in self.targets)
        return None

    def __str__(self) -> str:
        how = ["transposed"] if self.transpose else []
        if self.split is not None:
            how.append(f"split into {len(self.targets)} along {self.split}")
        if self.concat is not None:
            how.append(f"{len(self.sources)} joined along {self.concat}")
        if self.heads:
            how.append(f"by {self.heads} heads")
        return ", ".join(how)


@dataclasses.dataclass(frozen=True)
class Excuse:
    """Names that are left out on purpose, and why."""

    pattern: str
    because: str


@dataclasses.dataclass(frozen=True)
class Rules:
    """All that a comparison of two models has to be told. What is called alike on both sides needs no rule.

    skip: weights of the original that the other model does without. keep: weights of the other model that the
    original has not. modules: (pattern, replacement) on module paths, for pairs that the weights do not show.
    apart: modules of the original that are not compared. inputs, outputs: the original's name -> the other's.
    """

    weights: tuple[WeightRule, ...] = ()
    skip: tuple[Excuse, ...] = ()
    keep: tuple[Excuse, ...] = ()
    modules: tuple[tuple[str, str], ...] = ()
    apart: tuple[Excuse, ...] = ()
    inputs: Mapping[str, str] = dataclasses.field(default_factory=dict)
    outputs: Mapping[str, str] = dataclasses.field(default_factory=dict)


def excused(name: str, excuses: Iterable[Excuse]) -> str:
    """The reason for which `name` is left out, "" if it is not."""
    return next((e.because for e in excuses if re.fullmatch(e.pattern, name)), "")


def read(rules: Rules | str | os.PathLike[str] | Mapping[str, Any] | Sequence[tuple[str, str]] | None) -> Rules:
    """Rules out of a TOML file, its content as a mapping, or (pattern, replacement) pairs for weights.

    The tables of the file are `[[weight]]`, `[[skip]]`, `[[keep]]`, `[[module]]`, `[inputs]` and `[outputs]`.
    Raises `InputError` naming the file, the table and what is wrong with it.
    """
    if rules is None:
        return Rules()
    if isinstance(rules, Rules):
        return rules
    if isinstance(rules, Mapping):
        return _rules(rules, "rules")
    if isinstance(rules, str | os.PathLike):
        path = Path(rules)
        try:
            return _rules(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
        except FileNotFoundError:
            raise InputError(f"There is no file of rules {path}.") from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"{path} is no TOML file: {error}") from None
    return _rules({"weight": [{"from": pattern, "to": to} for pattern, to in rules]}, "rules")


_TABLES = {
    "weight": {"from", "to", "transpose", "split", "concat", "heads"},
    "skip": {"from", "because"},
    "keep": {"to", "because"},
    "module": {"from", "to", "because"},
}


def _rules(data: Mapping[str, Any], where: str) -> Rules:
    unknown = sorted(set(data) - {*_TABLES, "inputs", "outputs"})
    if unknown:
        raise InputError(
            f"{where} has a table {unknown[0]!r}. Known: [[{']], [['.join(_TABLES)}]], [inputs], [outputs]."
        )
    rows = {name: list(_rows(data.get(name, []), name, where)) for name in _TABLES}
    modules = [(_one(row, "from", at), _text(row["to"], at)) for row, at in rows["module"] if "to" in row]
    apart = [_excuse(row, "from", at) for row, at in rows["module"] if "to" not in row]
    return Rules(
        weights=tuple(_weight(row, at) for row, at in rows["weight"]),
        skip=tuple(_excuse(row, "from", at) for row, at in rows["skip"]),
        keep=tuple(_excuse(row, "to", at) for row, at in rows["keep"]),
        modules=tuple(modules),
        apart=tuple(apart),
        inputs=_names(data.get("inputs", {}), f"{where}: [inputs]"),
        outputs=_names(data.get("outputs", {}), f"{where}: [outputs]"),
    )


def _rows(given: Any, table: str, where: str) -> Iterable[tuple[Mapping[str, Any], str]]:
    if not isinstance(given, list) or not all(isinstance(row, Mapping) for row in given):
        raise InputError(f"{where}: {table} must be a list of tables, [[{table}]].")
    for number, row in enumerate(given, 1):
        at = f"{where}: [[{table}]] {number}"
        if odd := sorted(set(row) - _TABLES[table]):
            raise InputError(f"{at} has a key {odd[0]!r}. Known: {', '.join(sorted(_TABLES[table]))}.")
        yield row, at


def _weight(row: Mapping[str, Any], at: str) -> WeightRule:
    rule = WeightRule(
        sources=_several(row, "from", at),
        targets=_several(row, "to", at),
        transpose=bool(row.get("transpose", False)),
        split=_number(row, "split", at),
        concat=_number(row, "concat", at),
        heads=_number(row, "heads", at) or 0,
    )
    for pattern in rule.sources:
        _compiled(pattern, at)
        _expandable(pattern, rule.targets, at)
    if rule.split is not None and (len(rule.targets) < 2 or rule.concat is not None):
        raise InputError(f"{at}: split cuts one weight into the several that `to` names, and does not join.")
    if rule.concat is not None and (len(rule.sources) < 2 or len(rule.targets) > 1):
        raise InputError(f"{at}: concat joins the several weights that `from` names into the one of `to`.")
    if rule.concat is None and len(rule.sources) > 1:
        raise InputError(f"{at}: `from` names several weights, so it needs concat = DIMENSION.")
    if rule.heads and rule.split is None and rule.concat is None:
        raise InputError(f"{at}: heads says how pieces alternate, so it needs split or concat.")
    return rule


def _excuse(row: Mapping[str, Any], key: str, at: str) -> Excuse:
    because = _text(row.get("because", ""), at)
    if not because.strip():
        raise InputError(f'{at} leaves something out, which needs its reason: because = "..."')
    return Excuse(_one(row, key, at), because)


def _several(row: Mapping[str, Any], key: str, at: str) -> tuple[str, ...]:
    value = row.get(key)
    values = tuple(value) if isinstance(value, list) else (value,)
    if not values or not all(isinstance(v, str) and v for v in values):
        raise InputError(f"{at} needs {key} = 'name', or a list of names.")
    return values


def _one(row: Mapping[str, Any], key: str, at: str) -> str:
    (pattern, *more) = _several(row, key, at)
    if more:
        raise InputError(f"{at} takes one {key}.")
    _compiled(pattern, at)
    return pattern


def _text(value: Any, at: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{at}: {value!r} is no text.")
    return value


def _number(row: Mapping[str, Any], key: str, at: str) -> int | None:
    value = row.get(key)
    if value is not None and type(value) is not int:
        raise InputError(f"{at}: {key} is a whole number, not {value!r}.")
    return value


def _compiled(pattern: str, at: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InputError(f"{at}: {pattern!r} is no regular expression: {error}.") from None


def _expandable(pattern: str, targets: Sequence[str], at: str) -> None:
    groups = re.compile(pattern).groups
    for target in targets:
        highest = max((int(number) for number in re.findall(r"\\(\d+)", target)), default=0)
        if highest > groups:
            raise InputError(f"{at}: {target!r} asks for group {highest}; {pattern!r} has {groups}.")


def _names(given: Any, at: str) -> dict[str, str]:
    if not isinstance(given, Mapping) or not all(isinstance(v, str) and v for v in given.values()):
        raise InputError(f"{at} must give, for each name of the original, the other model's.")
    return dict(given)
