# SPDX-License-Identifier: Apache-2.0
"""transformers' own Trainer, whose model an engine computes: all but forward and backward is the original's code."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from paritas.dropin.dispatch import original
from paritas.dropin.training import trainable, wished, with_float16
from paritas.errors import Diverged, InputError
from paritas.extras import require
from paritas.run.engine import about
from paritas.transformers import checkpoints

require("train", "paritas.Trainer")

#: Arguments that ask for what the engine does not do, by what else to do.
UNSUPPORTED = {
    "fp16_full_eval": "it evaluates with the weights that are trained, in float32",
    "bf16_full_eval": "it evaluates with the weights that are trained, in float32",
    "torch_compile": "the model is compiled by MindSpore",
    "torch_compile_backend": "the model is compiled by MindSpore",
    "torch_compile_mode": "the model is compiled by MindSpore",
    "tf32": "it is a precision of CUDA's",
    "auto_find_batch_size": "it looks for torch's own errors of memory, which MindSpore does not raise",
    "debug": "it looks on from hooks, and a graph has no module to call them",
    "use_liger_kernel": "its kernels are CUDA's",
    "neftune_noise_alpha": "its noise is drawn in a hook, and a graph has no module to call it",
    "deepspeed": "its optimizer moves the weights, which the engine reads where they are",
    "fsdp": "it shards the weights, which the engine reads where they are",
    "parallelism_config": "it shards the weights, which the engine reads where they are",
}


class _OnEngine:
    """What a Trainer of transformers does otherwise where an engine computes its model."""

    state: Any
    args: Any
    model: Any

    def __init__(
        self,
        model: Any = None,
        args: transformers.TrainingArguments | None = None,
        *rest: Any,
        engine: str | None = None,
        **options: Any,
    ) -> None:
        self._paritas_engine = engine
        if args is not None and not about(engine or wished()[0]).is_original:
            refuse(args)
        if model is not None:
            trainable(model, self._paritas_engine)
        super().__init__(model, args, *rest, **options)  # type: ignore[call-arg] # of the class beside it

    def call_model_init(self, trial: Any = None) -> Any:
        made: Any = super().call_model_init(trial)  # type: ignore[misc] # of the class beside it
        return trainable(made, self._paritas_engine)

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()  # type: ignore[misc] # of the class beside it
        with_float16(self.accelerator)  # type: ignore[attr-defined]

    def train(self, resume_from_checkpoint: Any = None, *rest: Any, **options: Any) -> Any:
        if resume_from_checkpoint is True and Path(self.args.output_dir).is_dir():
            found = checkpoints.last_whole(Path(self.args.output_dir))
            resume_from_checkpoint = True if found is None else str(found)
        elif resume_from_checkpoint not in (None, True, False):
            checkpoints.check_whole(Path(resume_from_checkpoint))
        return super().train(resume_from_checkpoint, *rest, **options)  # type: ignore[misc]

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        checkpoints.check_fits(Path(resume_from_checkpoint), self.model if model is None else model)
        super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.args.should_save:  # what a longer run left there is not to vouch for what is written now
            run = Path(self._get_output_dir(trial=trial))  # type: ignore[attr-defined]
            (run / f"checkpoint-{self.state.global_step}" / checkpoints.STATE).unlink(missing_ok=True)
        super()._save_checkpoint(model, trial)  # type: ignore[misc]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        found: Any = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)  # type: ignore[misc]
        loss: Any = found[0] if return_outputs else found
        if model.training and not torch.isfinite(loss).all():
            raise Diverged(
                f"The loss is {loss.detach().item()} at step {self.state.global_step + 1}: {began(model, inputs)}. "
                "Checkpoints that were saved before stand."
            )
        return found


class Trainer(_OnEngine, transformers.Trainer):
    """`transformers.Trainer`, with the model's forward and backward on an engine.

    Its arguments are the original's, and `engine`: one that has gradients, "mindspore", by default; "torch" is the
    original itself. A model is trained in place: `trainer.model` stays an instance of its class, its checkpoints are
    the original's.

    Raises:
        InputError: arguments ask for what the engine does not do; each is named. A checkpoint to go on with is cut, or
            of another model.
        Diverged: the loss is NaN or infinite; names the step, and the module that it began in.
    """


class Seq2SeqTrainer(_OnEngine, transformers.Seq2SeqTrainer):
    """`transformers.Seq2SeqTrainer`, as `Trainer` is `transformers.Trainer`.

    With `predict_with_generate` an evaluation's texts are written by PyTorch, from the same weights.
    """

    def prediction_step(self, model: Any, *rest: Any, **options: Any) -> Any:
        if not self.args.predict_with_generate:
            return super().prediction_step(model, *rest, **options)
        with original():
            return super().prediction_step(model, *rest, **options)


def refuse(args: transformers.TrainingArguments) -> None:
    """Raise `InputError` that names every argument which asks for what the engine does not do."""
    asked = [name for name in UNSUPPORTED if getattr(args, name, None)]
    if asked:
        reasons = "; ".join(f"{name}={getattr(args, name)!r}: {UNSUPPORTED[name]}" for name in asked)
        raise InputError(f"paritas.Trainer does not support {', '.join(asked)}. {reasons}.")
    if args.device.type != "cpu":
        raise InputError(
            f"The model would be moved to {args.device}, and MindSpore reads its weights on the CPU: use_cpu=True."
        )


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
