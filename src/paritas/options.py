# SPDX-License-Identifier: Apache-2.0
"""For what a program is built: the value that travels from a call of `port()` to a lowering and to `port.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from paritas.calibration import Calibration, calibration
from paritas.errors import InputError


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """What an engine is asked for. `paritas.making.build_options` makes one that the engine has.

    dtype: to compute in, "" for the program's own. mode: "" where the engine has one way of running.
    weight_format: "int8" for weights that are rounded, "" for those of the original, and more as `Weights.text` writes
    it. device: as the engine calls it, "" for its own choice. config: properties of the engine's own, (name, value) in
    order of their names. calibration: on what weights are rounded, which `weight_format` has the digest of.
    """

    engine: str
    dtype: str = ""
    mode: str = ""
    target: str = "cpu"
    weight_format: str = ""
    device: str = ""
    config: tuple[tuple[str, str], ...] = ()
    calibration: Calibration | None = dataclasses.field(default=None, compare=False)

    @property
    def weights(self) -> str | dict[str, Any]:
        """What was asked for of weights, as `port()` takes it."""
        if self.calibration is None:
            return self.weight_format
        asked = parsed_weights(self.weight_format)
        given = {f.name: value for f in dataclasses.fields(asked) if (value := getattr(asked, f.name)) != f.default}
        return {**given, "dataset": self.calibration}


#: By which it is decided, for a `ratio`, which weights get more bits.
DATA_FREE = "weight_quantization_error"
SENSITIVITY = (
    DATA_FREE, "hessian_input_activation", "mean_activation_variance", "max_activation_variance",
    "mean_activation_magnitude",
)  # fmt: skip

#: What tables, the last matrix and what a `ratio` leaves are instead of int4.
BACKUP = ("int8_asym", "int8_sym", "none")

#: Samples that are looked at of a dataset.
SUBSET = 128


@dataclasses.dataclass(frozen=True)
class Weights:
    """How weights are stored or rounded, in NNCF's words.

    group_size: how many share a scale, -1 for all of a row, None for what is usual. ratio: the share of the weights
    that are int4; of the rest, those that suffer most by `sensitivity_metric`, and of tables and the last matrix unless
    `all_layers`, `backup_mode` says what they are. awq, scale_estimation, gptq, lora_correction: what makes up for
    rounding. dataset: the digest of what these look at, of which they read `subset_size` samples.
    """

    format: str = ""
    group_size: int | None = None
    symmetric: bool = False
    ratio: float | None = None
    sensitivity_metric: str = ""
    all_layers: bool = False
    backup_mode: str = ""
    awq: bool = False
    scale_estimation: bool = False
    gptq: bool = False
    lora_correction: bool = False
    subset_size: int | None = None
    dataset: str = ""

    @property
    def text(self) -> str:
        """ "int4", or "int4,group_size=64,symmetric,awq": what a port says of its weights."""
        said = [self.format]
        for field in dataclasses.fields(self)[1:]:
            if (value := getattr(self, field.name)) != field.default:
                said.append(field.name if value is True else f"{field.name}={value}")
        return ",".join(said)

    @property
    def corrections(self) -> list[str]:
        """What makes up for rounding, by name."""
        return [name for name in ("awq", "scale_estimation", "gptq", "lora_correction") if getattr(self, name)]

    @property
    def by_nncf(self) -> bool:
        """Whether it is more than rounding each weight by itself."""
        return self != Weights(self.format, self.group_size, self.symmetric)


def weights_of(weights: str | Mapping[str, Any]) -> tuple[Weights, Calibration | None]:
    """What is asked for of weights, and the dataset that goes with it: before any work.

    Raises `InputError` for a key that is none, and for what does not go together.
    """
    given = dict(parsed(weights) if isinstance(weights, str) else weights)
    if isinstance(weights, str) and "dataset" in given:
        raise InputError(
            f"weights={weights!r} names the digest of a dataset. Give what was rounded on: "
            '{"format": "int4", ..., "dataset": FILE}'
        )
    fields = {field.name: field.default for field in dataclasses.fields(Weights)}
    if unknown := given.keys() - fields.keys():
        raise InputError(
            f"weights has no {', '.join(map(repr, sorted(unknown)))}; it has {', '.join(map(repr, fields))}."
        )
    dataset = given.pop("dataset", None)
    # What is usual is nothing that was asked for.
    usual: dict[str, Any] = {"ratio": 1, "backup_mode": BACKUP[0]}
    given = {name: value for name, value in given.items() if value is not None and value != usual.get(name)}
    wanted = Weights(**{**given, "format": str(given.get("format", ""))})
    _check(wanted, dataset is not None)
    if dataset is None:
        return wanted, None
    samples = calibration(dataset, wanted.subset_size or SUBSET)
    return dataclasses.replace(wanted, dataset=samples.digest), samples


def parsed(text: str) -> dict[str, Any]:
    """The keys of what `Weights.text` has written."""
    found: dict[str, Any] = {}
    kinds: dict[str, Any] = {"group_size": int, "subset_size": int, "ratio": float}
    name, *rest = text.split(",")
    for part in rest:
        key, is_value, value = part.partition("=")
        try:
            found[key] = kinds.get(key, str)(value) if is_value else True
        except ValueError:
            raise InputError(f"{part} of weights={text!r} is no number.") from None
    return {"format": name, **found}


def parsed_weights(text: str) -> Weights:
    """What `Weights.text` has written."""
    return Weights(**parsed(text))


def _check(asked: Weights, has_data: bool) -> None:
    """Raise `InputError` for options that do not go together, for the first thing that is wrong."""
    group, name = asked.group_size, asked.format
    if (group is not None or asked.symmetric) and not name.startswith("int"):
        raise InputError(f"group_size and symmetric are of whole numbers, int8 or int4, not of weights={name!r}.")
    if group is not None and (type(group) is not int or (group % 2 and group != -1) or group < -1 or not group):
        raise InputError(f"group_size={group!r} is no even number of weights that share a scale, nor -1 for a row.")
    for field in ("symmetric", "all_layers", *_CORRECTIONS):
        if not isinstance(value := getattr(asked, field), bool):
            raise InputError(f"{field}={value!r} of weights is neither true nor false.")
    if asked.ratio is not None and not (isinstance(asked.ratio, float | int) and 0 < asked.ratio <= 1):
        raise InputError(f"ratio={asked.ratio!r} is no share of the weights above 0 and up to 1.")
    mixed = asked.ratio is not None
    more = Weights(asked.format, asked.group_size, asked.symmetric)
    others = [f.name for f in dataclasses.fields(asked) if getattr(asked, f.name) != getattr(more, f.name)]
    if (others or has_data) and name != "int4":
        raise InputError(
            f"{', '.join([*others, *(['dataset'] if has_data else [])])} is of weights='int4', not of {name!r}: 8 bits "
            "and more are rounded weight by weight, of which nothing has to be chosen or corrected."
        )
    for field, known in (("sensitivity_metric", SENSITIVITY), ("backup_mode", BACKUP)):
        if (value := getattr(asked, field)) and value not in known:
            raise InputError(f"{field}={value!r} is not possible: {', '.join(known)} are.")
    if asked.subset_size is not None and (type(asked.subset_size) is not int or asked.subset_size < 1):
        raise InputError(f"subset_size={asked.subset_size!r} is no number of samples.")
    if asked.sensitivity_metric and not mixed:
        raise InputError("sensitivity_metric chooses which weights get more bits: it needs a ratio below 1.")
    if asked.gptq and asked.lora_correction:
        raise InputError("gptq and lora_correction make up for the same error: ask for one of them.")
    wanting = [one for one in asked.corrections if one != "awq"]
    if asked.sensitivity_metric not in ("", DATA_FREE):
        wanting.append(f"sensitivity_metric={asked.sensitivity_metric}")
    if wanting and not has_data:
        raise InputError(
            f"{', '.join(wanting)} looks at what the model computes: give a dataset, a text file, a list of texts or "
            "of inputs."
        )
    looks = bool(asked.corrections) or (mixed and asked.sensitivity_metric != DATA_FREE)
    if (has_data or asked.subset_size) and not looks:
        raise InputError(
            "Nothing looks at the dataset: it is for awq, scale_estimation, gptq, lora_correction, and a ratio below 1."
        )
    if asked.subset_size and not has_data:
        raise InputError("subset_size is of a dataset, and none is given.")


_CORRECTIONS = ("awq", "scale_estimation", "gptq", "lora_correction")
