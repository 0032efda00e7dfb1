# SPDX-License-Identifier: Apache-2.0
"""transformers' own Trainer, whose model an engine computes: all but forward and backward is the original's code."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
import transformers

from paritas.dropin.dispatch import original
from paritas.dropin.training import trainable
from paritas.errors import Diverged, InputError
from paritas.extras import require

require("train", "paritas.Trainer")

#: Arguments that ask for what the engine does not do, by what else to do.
UNSUPPORTED = {
    "fp16": "MindSpore's CPU shares float32 weights with torch",
    "bf16": "MindSpore's CPU has no bfloat16 kernels",
    "fp16_full_eval": "it evaluates with the weights that are trained, in float32",
    "bf16_full_eval": "it evaluates with the weights that are trained, in float32",
    "torch_compile": "the model is compiled by MindSpore",
    "activation_checkpointing": "a compiled graph keeps what its backward needs",
    "use_liger_kernel": "its kernels are CUDA's",
    "neftune_noise_alpha": "its noise is drawn in a hook, and a graph has no module to call it",
    "deepspeed": "its optimizer moves the weights, which the engine reads where they are",
    "fsdp": "it shards the weights, which the engine reads where they are",
    "parallelism_config": "it shards the weights, which the engine reads where they are",
}


class Trainer(transformers.Trainer):
    """`transformers.Trainer`, with the model's forward and backward on an engine.

    Its arguments are the original's, and `engine`: one that has gradients, "mindspore". A model is trained in place:
    `trainer.model` stays an instance of its class, its checkpoints are the original's.

    Raises:
        InputError: arguments ask for what the engine does not do; each is named.
        Diverged: the loss is NaN or infinite; names the step, and the module that it began in.
    """

    def __init__(
        self,
        model: Any = None,
        args: transformers.TrainingArguments | None = None,
        *rest: Any,
        engine: str = "mindspore",
        **options: Any,
    ) -> None:
        self._paritas_engine = engine
        if args is not None:
            refuse(args)
        if model is not None:
            trainable(model, engine)
        super().__init__(model, args, *rest, **options)
        if self.args.world_size > 1:
            raise InputError(f"paritas.Trainer trains in one process, and {self.args.world_size} were started.")

    def call_model_init(self, trial: Any = None) -> Any:
        return trainable(super().call_model_init(trial), self._paritas_engine)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss: Any = found[0] if return_outputs else found
        if model.training and not torch.isfinite(loss).all():
            raise Diverged(
                f"The loss is {loss.detach().item()} at step {self.state.global_step + 1}: {began(model, inputs)}. "
                "Checkpoints that were saved before stand."
            )
        return found


def refuse(args: transformers.TrainingArguments) -> None:
    """Raise `InputError` that names every argument which asks for what the engine does not do."""
    asked = [name for name in UNSUPPORTED if getattr(args, name, None)]
    if asked:
        reasons = "; ".join(f"{name}={getattr(args, name)!r}: {UNSUPPORTED[name]}" for name in asked)
        raise InputError(f"paritas.Trainer does not support {', '.join(asked)}. {reasons}.")


def began(model: Any, inputs: Any) -> str:
    """Where numbers stop being finite, in words: a weight, an input, or the first module in PyTorch's order."""
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            return f"the weight {name} is not finite"
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point() and not torch.isfinite(value).all():
            return f"the input {name} is not finite"
    found: list[str] = []
    handles = [module.register_forward_hook(_watch(path, found)) for path, module in model.named_modules() if path]
    try:
        with original(), torch.no_grad(), torch.random.fork_rng(devices=[]):
            model(**inputs)
    except Exception:  # noqa: BLE001 - whatever it raises, the places that it came through are what is wanted
        pass
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        return "every module returns finite numbers, so that it is the loss itself"
    return f"{found[0]} is the first module that returns numbers which are not finite"


def _watch(path: str, found: list[str]) -> Any:
    def look(module: Any, _: Any, out: Any) -> None:
        if any(not torch.isfinite(tensor).all() for tensor in itertools.islice(_floats(out), 8)):
            found.append(f"{path} ({type(module).__name__})")

    return look


def _floats(out: Any) -> Iterator[torch.Tensor]:
    if isinstance(out, torch.Tensor):
        if out.is_floating_point():
            yield out
    elif isinstance(out, dict):
        for value in out.values():
            yield from _floats(value)
    elif isinstance(out, (tuple, list)):
        for value in out:
            yield from _floats(value)
