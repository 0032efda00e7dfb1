# SPDX-License-Identifier: Apache-2.0
"""Weights of 4 bits that are chosen, or made up for, by what the model computes: NNCF does it, on the finished model.

Rounding each weight by itself is `compress`, which reads them one by one. This holds what NNCF holds.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import openvino
import torch

from paritas import details
from paritas.caches import begun
from paritas.calibration import Calibration
from paritas.capture.tokenizer import tokenizer
from paritas.errors import InputError, LoweringError, first_line
from paritas.extras import require
from paritas.options import SUBSET, Weights
from paritas.program import Note, Program

#: Tokens of a sample that is cut out of a text, and the most that are taken of a text that is one.
WINDOW = 128

#: What NNCF says at no higher level, and a report has to.
_TELLING = "No matching patterns were found for applying AWQ"

#: Types of constants, as notes call them.
_BITS = {"u4": "4 bits", "i4": "4 bits", "u8": "8 bits", "i8": "8 bits"}


def compress_by_nncf(
    model: openvino.Model, asked: Weights, given: Calibration | None, program: Program
) -> tuple[openvino.Model, tuple[Note, ...]]:
    """What `nncf.compress_weights` makes of `model`, and what to tell of it.

    Raises `ExtraMissing`, `InputError` for a dataset that does not fit the model, and `LoweringError` with NNCF's
    reason.
    """
    require("nncf", f'weights="{asked.format}" with {", ".join(_beyond(asked))}')
    samples = [] if given is None else feeds(model, given, program, asked.subset_size or SUBSET)
    with _quietly() as said:
        import nncf

        known: Any = nncf
        options: dict[str, Any] = dict.fromkeys(asked.corrections, True)
        if asked.group_size is not None:
            options["group_size"] = asked.group_size
        if asked.ratio is not None:
            options["ratio"] = asked.ratio
        if asked.all_layers:
            options["all_layers"] = True
        if asked.sensitivity_metric:
            options["sensitivity_metric"] = known.SensitivityMetric(asked.sensitivity_metric)
        if asked.backup_mode:
            options["backup_mode"] = known.BackupMode(asked.backup_mode)
        if samples:
            options |= {"dataset": known.Dataset(samples), "subset_size": len(samples)}
        mode = known.CompressWeightsMode("int4_sym" if asked.symmetric else "int4_asym")
        try:
            made = known.compress_weights(model, mode=mode, **options)
        except Exception as error:
            raise LoweringError(f"NNCF cannot round these weights: {first_line(error)}") from error
    made.validate_nodes_and_infer_types()
    bits = Counter(_BITS[kind] for _, kind in _rounded(made))
    data = f", on {len(samples)} samples of a dataset (its digest: {asked.dataset})" if samples else ""
    counts = " and ".join(f"{count} in {name}" for name, count in sorted(bits.items()))
    text = (
        f"weights are {asked.format}, by NNCF {_version()} with {', '.join(_beyond(asked)) or 'nothing more'}{data}: "
        f"{counts}. The port is not the original any more"
    )
    return made, (Note("lower", text), *(Note("lower", f"NNCF: {line}") for line in dict.fromkeys(said)))


def _version() -> str:
    import importlib.metadata

    return importlib.metadata.version("nncf")


def _beyond(asked: Weights) -> list[str]:
    """What was asked for beside the format, as it is written, without what a note says otherwise."""
    return [part for part in asked.text.split(",")[1:] if not part.startswith(("dataset=", "subset_size="))]


def _rounded(model: openvino.Model) -> Iterator[tuple[str, str]]:
    """(name, type) of every constant of few bits that is a weight, and no zero point."""
    for node in model.get_ops():
        kind = node.get_element_type().get_type_name() if node.get_type_name() == "Constant" else ""
        name = node.get_friendly_name()
        if kind in _BITS and not name.endswith("/zero_point"):
            yield name, kind


# --- what the model is given ---------------------------------------------------------------------


def feeds(model: openvino.Model, given: Calibration, program: Program, most: int) -> list[dict[str, np.ndarray]]:
    """At most `most` samples as calls of `model`, an array per input: what follows from the tokens is made of them.

    Raises `InputError` for texts without a tokenizer, and for a sample that has not what the model wants.
    """
    found = list(_tokens(given, program, most)) if given.texts else list(given.samples[:most])
    return [_feed(model, sample, program, number) for number, sample in enumerate(found, 1)]


def _tokens(given: Calibration, program: Program, most: int) -> Iterator[Mapping[str, np.ndarray]]:
    source = program.source
    places = dict.fromkeys(filter(None, (given.tokenizer, source.id)))
    reason = "its source is in memory"
    for place in places:
        try:
            read = tokenizer(place)
            break
        except Exception as error:  # noqa: BLE001 - of any kind: there is none in this place
            reason = first_line(error)
    else:
        raise InputError(
            f"The model has no tokenizer for the texts of the dataset ({reason}). Give its inputs: "
            '"dataset": [{"input_ids": [[1, 5, 7]]}, ...]'
        )
    largest = min([WINDOW, *_limits(program)])
    if not given.is_file:
        for text in given.texts[:most]:
            encoded = read(text, verbose=False)
            yield {name: np.asarray(value)[None, :largest] for name, value in encoded.items()}
        return
    ids = np.asarray(read(given.texts[0], verbose=False)["input_ids"])
    starts = range(0, max(len(ids) - largest, 0) + 1, largest)
    # Over all of the text, as its beginning may be of one kind.
    chosen = starts if len(starts) <= most else [starts[i * len(starts) // most] for i in range(most)]
    for start in chosen:
        yield {"input_ids": ids[None, start : start + largest]}


def _limits(program: Program) -> Sequence[int]:
    return [size for size in program.limits.values() if size > 1]


def _feed(
    model: openvino.Model, sample: Mapping[str, np.ndarray], program: Program, number: int
) -> dict[str, np.ndarray]:
    wanted = {port.get_any_name(): port for port in model.inputs}
    first = next((value for name, value in sample.items() if name in wanted and value.ndim > 1), None)
    if first is None:
        raise InputError(
            f"Sample {number} of the dataset has {', '.join(sample) or 'nothing'}; the model takes {', '.join(wanted)}."
        )
    shape = first.shape[:2]
    follows: dict[str, np.ndarray] = {
        "attention_mask": np.ones(shape, np.int64),
        "position_ids": np.broadcast_to(np.arange(shape[1], dtype=np.int64), shape),
        "token_type_ids": np.zeros(shape, np.int64),
        "beam_idx": np.arange(shape[0], dtype=np.int32),
        "logits_to_keep": np.arange(shape[1], dtype=np.int64),  # of all tokens, where it says of which
    }
    if unknown := [name for name in sample if name not in wanted and name not in follows]:
        raise InputError(
            f"Sample {number} of the dataset has {', '.join(unknown)}, which the model does not take. It takes "
            f"{', '.join(wanted)}."
        )
    # What is of one size in every call, as how many logits are wanted, is as in the call that was captured.
    fixed = [spec for spec in program.inputs if not any(isinstance(dim, str) for dim in spec.dims)]
    usual = {s.name: _array(program.examples[s.name]) for s in fixed if s.name in program.examples}
    found: dict[str, np.ndarray] = {**follows, **usual, **sample}
    found |= begun(program, {name: found[name] for name in wanted if name in found})  # type: ignore[arg-type]
    if missing := [name for name in wanted if name not in found]:
        raise InputError(
            f"Sample {number} of the dataset has {', '.join(sample)}, from which {', '.join(missing)} does not follow: "
            "give all inputs of the model."
        )
    feed = {}
    for name, port in wanted.items():
        dtype = port.get_element_type().to_dtype()
        rank = port.get_partial_shape().rank
        if rank.is_static and rank.get_length() != found[name].ndim:
            raise InputError(
                f"Sample {number} of the dataset: {name} has {found[name].ndim} axes, and the model wants "
                f"{rank.get_length()}."
            )
        feed[name] = np.ascontiguousarray(found[name], dtype)
    return feed


def _array(value: torch.Tensor) -> np.ndarray:
    found: np.ndarray = (value.float() if value.is_floating_point() else value).detach().numpy()
    return found


# --- around a library that talks -----------------------------------------------------------------


@contextlib.contextmanager
def _quietly() -> Iterator[list[str]]:
    """What NNCF warns of, instead of on stdout; its bars are told to whoever shows ours.

    Its bars are live displays of their own, which rich before 14.1 refuses beside another one.
    """
    with _unreported():
        from nncf.common.logging import nncf_logger, track_progress
    said: list[str] = []

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if record.levelno >= logging.WARNING or _TELLING in text:
                said.append(text.rstrip(". "))

    kept, nncf_logger.handlers = nncf_logger.handlers, [Heard()]
    shown = {name: getattr(track_progress, name) for name in ("Progress", "WeightedProgress")}
    for name, own in shown.items():
        setattr(track_progress, name, _told(own))
    try:
        yield said
    finally:
        nncf_logger.handlers = kept
        for name, own in shown.items():
            setattr(track_progress, name, own)


def _told(own: Any) -> Any:
    class Told(own):
        def __init__(self, *columns: Any, **options: Any) -> None:
            super().__init__(*columns, **{**options, "disable": True, "auto_refresh": False})

        def refresh(self) -> None:
            for task in self.tasks:
                if task.total:
                    details.tell(f"NNCF: {task.description} {100 * task.completed / task.total:.0f} %")

    return Told


@contextlib.contextmanager
def _unreported() -> Iterator[None]:
    """While NNCF is imported it is told not to report its use over the network."""
    before = os.environ.get("NNCF_CI")
    os.environ["NNCF_CI"] = "1"
    try:
        import nncf  # noqa: F401

        yield
    finally:
        if before is None:
            del os.environ["NNCF_CI"]
        else:
            os.environ["NNCF_CI"] = before
