# SPDX-License-Identifier: Apache-2.0
"""What `paritas train SCRIPT` was asked for, as it travels to the processes that train."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from paritas.errors import InputError
from paritas.run.engine import about

_VARIABLE = "PARITAS_TRAINING"

STAGES = (0, 1, 2, 3)
PRECISIONS = ("", "bf16", "fp16")


@dataclasses.dataclass(frozen=True)
class Wish:
    """engine: on which forward and backward are computed. processes: how many train together.

    zero: the stage of ZeRO, 0 for none. offload: "optimizer", "param". config: a configuration of DeepSpeed's, as JSON;
    "" for accelerate's plugin. out: where the trained model is to go. run: a folder for what the processes say.
    precision: what accelerate and TrainingArguments compute in where they are told nothing else, by their names.
    """

    script: str
    engine: str
    mode: str = ""
    processes: int = 1
    zero: int = 0
    offload: tuple[str, ...] = ()
    config: str = ""
    out: str = ""
    run: str = ""
    precision: str = ""

    def check(self) -> None:
        """Raise `InputError` for what does not go together."""
        one = about(self.engine)
        if not (one.is_original or one.trains):
            raise InputError(f'{one.name} computes no gradients: nothing can be trained on it. "mindspore" does.')
        if not Path(self.script).is_file():
            raise InputError(f"There is no file {self.script}: paritas train takes a script of Python's, or clip.")
        if self.processes < 1:
            raise InputError(f"--processes {self.processes}: a training has 1 or more.")
        if self.zero not in STAGES:
            raise InputError(f"--zero {self.zero}: ZeRO has the stages 1, 2 and 3.")
        if self.precision not in PRECISIONS:
            raise InputError(f"--mixed-precision {self.precision}: it is bf16 or fp16.")
        if self.precision and (self.zero or self.config):
            raise InputError(
                "--mixed-precision beside --zero: DeepSpeed has weights and scaling of its own for that. A file for "
                '--zero-config says so: {"bf16": {"enabled": true}}.'
            )
        if odd := set(self.offload) - {"optimizer", "param"}:
            raise InputError(f"--offload {', '.join(sorted(odd))}: what can leave the device are optimizer and param.")
        if self.offload and not self.zero:
            raise InputError("--offload is DeepSpeed's: pass --zero 2 or 3 too.")
        if "param" in self.offload and self.zero != 3:
            raise InputError(f"--offload param: only stage 3 has its parameters apart, and --zero is {self.zero}.")
        if self.offload and self.zero == 1:
            raise InputError("--offload optimizer: accelerate hands it on for the stages 2 and 3.")
        if self.zero and self.processes < 2 and not self.config:
            raise InputError(f"--zero {self.zero} divides what one process would hold: pass --processes 2 or more.")
        if (self.zero or self.config) and not one.is_original:
            raise InputError(
                f"--zero is DeepSpeed's, with --engine torch: {one.label} reads parameters where torch has them, and "
                "they cannot be divided. --processes alone divides the batch."
            )

    def environment(self) -> dict[str, str]:
        told = {"ACCELERATE_MIXED_PRECISION": self.precision} if self.precision else {}
        return {_VARIABLE: json.dumps(dataclasses.asdict(self)), **told}

    @staticmethod
    def of_this_process() -> Wish:
        given: dict[str, Any] = json.loads(os.environ[_VARIABLE])
        return Wish(**{**given, "offload": tuple(given["offload"])})
