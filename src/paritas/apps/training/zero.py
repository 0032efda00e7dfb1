# SPDX-License-Identifier: Apache-2.0
"""ZeRO by accelerate and DeepSpeed: what `accelerate launch` is told, and whether it is really so.

accelerate (1.15) on a CPU trains in plain DistributedDataParallel, without a word, where DeepSpeed was asked for
(`use_cpu: true`), or in one process each (`use_cpu: false`): `on_the_cpu` mends that, and `active` says what is.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from paritas.apps.training.wish import Wish
from paritas.errors import EngineError, InputError, reason_of
from paritas.extras import require

#: By what of DeepSpeed's is compiled with the machine's own compiler before the first run, for whom.
_BUILDERS = {"": "ShareMemCommBuilder", "optimizer": "CPUAdamBuilder"}


def launcher(wish: Wish, script: list[str]) -> list[str]:
    """The command: `accelerate launch`, with its file of a configuration in `wish.run`."""
    require("zero", "paritas train --zero")
    path = Path(wish.run, "accelerate.json")
    path.write_text(json.dumps(configuration(wish), indent=1))
    return [
        sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(path), "--main_process_port", "0",
        "--num_cpu_threads_per_process", "1", "-m", *script,
    ]  # fmt: skip


def configuration(wish: Wish) -> dict[str, Any]:
    """As `accelerate config` writes it: DeepSpeed by accelerate's plugin, or by a file of its own."""
    if wish.config:
        deepspeed = {"deepspeed_config_file": wish.config, "zero3_init_flag": False}
    else:
        deepspeed = {
            "zero_stage": wish.zero,
            "offload_optimizer_device": "cpu" if "optimizer" in wish.offload else "none",
            "offload_param_device": "cpu" if "param" in wish.offload else "none",
            "zero3_init_flag": False,
            "zero3_save_16bit_model": True,
        }
    whole = {} if wish.config else {"mixed_precision": "no"}  # what the file says accelerate wants to hear nothing of
    return whole | {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "DEEPSPEED",
        "deepspeed_config": deepspeed,
        "machine_rank": 0,
        "main_training_function": "main",
        "num_machines": 1,
        "num_processes": wish.processes,
        "use_cpu": False,  # or DeepSpeed would be left out
    }


def stage_of(path: str) -> int:
    """The stage that a configuration of DeepSpeed's asks for. Raises `InputError`."""
    try:
        given = json.loads(Path(path).read_text())
        stage = given.get("zero_optimization", {}).get("stage", 0)
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is no configuration of DeepSpeed's: {reason_of(error)}") from None
    if stage not in (1, 2, 3):
        raise InputError(f"{path} asks for no ZeRO: its zero_optimization has the stage {stage!r}, and not 1, 2 or 3.")
    gathers = "stage3_gather_16bit_weights_on_model_save"
    if stage == 3 and not given["zero_optimization"].get(gathers):
        raise InputError(f"{path}: its zero_optimization needs {gathers}: true, or the model cannot be put together.")
    return int(stage)


def built(wish: Wish) -> dict[str, str]:
    """Compile what DeepSpeed would compile in the middle of the first run, once per machine; what finds it again.

    A run that is killed while it compiles leaves a lock, on which every later one waits for ever: here the lock of the
    system is asked first, and what nobody holds is removed.
    """
    from paritas.dropin import kept

    folder = (kept.directory() or Path(tempfile.gettempdir(), "paritas", "ports")).parent / "deepspeed"
    folder.mkdir(parents=True, exist_ok=True)
    found = {"TORCH_EXTENSIONS_DIR": str(folder), "DS_ACCELERATOR": "cpu", "DS_SKIP_CUDA_CHECK": "1"}
    with _alone(folder / "paritas.lock"):
        for stale in folder.glob("*/*/lock"):
            stale.unlink()
        for stale in folder.glob("*/lock"):
            stale.unlink()
        for builder in [name for key, name in _BUILDERS.items() if not key or key in wish.offload]:
            code = f"from deepspeed.ops.op_builder.cpu import {builder} as B; B().load(verbose=False)"
            done = subprocess.run(
                [sys.executable, "-c", code], env={**os.environ, **found}, capture_output=True, text=True, check=False,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise EngineError(f"DeepSpeed could not compile its {builder.removesuffix('Builder')}: {last}")
    return found


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    import fcntl

    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def on_the_cpu() -> Iterator[None]:
    """accelerate takes DeepSpeed's processes for such on a machine without an accelerator too."""
    import torch
    from accelerate import state
    from accelerate.utils import DistributedType

    made, of_accelerator = state.PartialState.__init__, state.AcceleratorState.__init__

    def partial(self: Any, cpu: bool = False, **more: Any) -> None:
        made(self, False, **{k: v for k, v in more.items() if k != "backend" or v})

    def whole(self: Any, mixed_precision: Any = None, cpu: bool = False, *rest: Any, **more: Any) -> None:
        of_accelerator(self, mixed_precision, False, *rest, **more)

    def backend(self: Any, cpu: bool = False, sagemaker_dp: bool = False, backend: Any = None) -> tuple[str, Any]:
        return "gloo", DistributedType.MULTI_CPU

    if torch.accelerator.is_available():
        yield
        return
    with (
        mock.patch.object(state.PartialState, "_prepare_backend", backend),
        mock.patch.object(state.PartialState, "__init__", partial),
        mock.patch.object(state.AcceleratorState, "__init__", whole),
    ):
        yield


def check_active(accelerator: Any, engine: Any, wish: Wish) -> None:
    """Raise `EngineError` unless DeepSpeed divides what this model's training holds, as it was asked to."""
    import torch

    found = getattr(accelerator.distributed_type, "value", accelerator.distributed_type)
    stage = engine.zero_optimization_stage() if hasattr(engine, "zero_optimization_stage") else None
    size = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    if str(found).upper() != "DEEPSPEED" or stage != wish.zero or size != wish.processes:
        raise EngineError(
            f"ZeRO-{wish.zero} in {wish.processes} processes was asked for, and is not what trains: accelerate says "
            f"{found}, the model is a {type(engine).__name__} of stage {stage}, in {size} processes."
        )


def held(engine: Any) -> dict[str, int]:
    """Bytes that this process holds for the training: of the optimizer's state, and of how many parameters."""
    import torch

    optimizer = engine.optimizer
    inner = getattr(optimizer, "optimizer", optimizer)
    state = sum(
        value.numel() * value.element_size()
        for values in inner.state.values()
        for value in values.values()
        if isinstance(value, torch.Tensor) and value.numel() > 1
    )
    return {"stage": int(engine.zero_optimization_stage()), "optimizer_bytes": int(state)}
