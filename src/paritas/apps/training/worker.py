# SPDX-License-Identifier: Apache-2.0
"""One of the processes of `paritas train SCRIPT`: `python worker.py SCRIPT FLAGS`, with the wish in its environment.

The script runs as it would by itself, but that the model which it hands to transformers' Trainer or to accelerate is
computed by the engine. In the end that model is written whole, by the first process.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

if __name__ == "__main__":  # a launcher started it as a file: what is beside it is no module of the script's
    sys.path[:] = [place for place in sys.path if Path(place or ".").resolve() != Path(__file__).resolve().parent]

from paritas.apps.training import zero
from paritas.apps.training.wish import Wish
from paritas.errors import InputError, ParitasError, reason_of
from paritas.run.engine import about


def main(arguments: list[str]) -> None:
    wish = Wish.of_this_process()
    engine = about(wish.engine)
    if wish.processes > 1 and not engine.is_original:
        collectives = engine.join()  # before anything else: the launcher's own process ends here
        from paritas.dropin.collectives import join

        join(collectives, engine.name)
    rank = int(os.environ.get("RANK", "0"))
    signal.signal(signal.SIGTERM, lambda *_: _stopped(wish, rank))
    Path(wish.run, f"{rank}.pid").write_text(str(os.getpid()))
    try:
        _run(wish, arguments)
        Path(wish.run, f"{rank}.done").touch()
    except BaseException as error:
        if not (isinstance(error, SystemExit) and not error.code):
            _say_why(wish, rank, error)
            raise
    finally:
        _leave()


def _run(wish: Wish, arguments: list[str]) -> None:
    from paritas.dropin import training

    sys.argv = [wish.script, *arguments]
    sys.path.insert(0, str(Path(wish.script).resolve().parent))
    seen: list[tuple[Any, Any]] = []
    with contextlib.ExitStack() as stack:
        if wish.zero and about(wish.engine).is_original:
            stack.enter_context(zero.on_the_cpu())
        stack.enter_context(training.on_engine(wish.engine, wish.mode))
        stack.enter_context(_put_in(wish, seen))
        try:
            runpy.run_path(wish.script, run_name="__main__")
        except SystemExit as end:
            if end.code not in (None, 0):
                raise InputError(f"{wish.script} ended with {end.code}") from end
        if not seen and not training.trained():
            raise InputError(
                f"{wish.script} trained nothing on {wish.engine}: it gave no model to transformers' Trainer, to "
                "accelerate's prepare(), or to paritas.trainable()."
            )
        _finish(wish, *(seen[-1] if seen else (None, training.trained()[-1])))


@contextlib.contextmanager
def _put_in(wish: Wish, seen: list[tuple[Any, Any]]) -> Iterator[None]:
    """Models that the script hands over are computed by the engine, and seen here."""
    original = about(wish.engine).is_original
    import transformers

    try:
        from accelerate import Accelerator
    except ImportError:
        yield  # a loop of torch's own
        return
    import torch

    from paritas.dropin.training import trainable, with_float16

    prepare = Accelerator.prepare

    def prepared(self: Any, *given: Any, **how: Any) -> Any:
        if not wish.zero:
            with_float16(self)
        for one in given:
            if isinstance(one, torch.nn.Module) and not original:
                trainable(one, wish.engine, mode=wish.mode)
        found = prepare(self, *given, **how)
        for one in found if isinstance(found, tuple) else (found,):
            if isinstance(one, torch.nn.Module):
                if wish.zero and original:
                    zero.check_active(self, one, wish)
                seen.append((self, one))
        return found

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(Accelerator, "prepare", prepared))
        if wish.processes > 1 and not original:
            stack.enter_context(_as_backend(wish.engine))
        if not original:
            from paritas.transformers import training as ours

            for name in ("Trainer", "Seq2SeqTrainer"):
                stack.enter_context(mock.patch.object(transformers, name, getattr(ours, name)))
        yield


@contextlib.contextmanager
def _as_backend(name: str) -> Iterator[None]:
    """accelerate takes the processes for such, and speaks through torch.distributed as it is."""
    from accelerate import state
    from accelerate.utils import DistributedType

    def backend(self: Any, cpu: bool = False, sagemaker_dp: bool = False, backend: Any = None) -> tuple[str, Any]:
        return name, DistributedType.MULTI_CPU

    made = state.PartialState.__init__

    def partial(self: Any, cpu: bool = False, **more: Any) -> None:
        made(self, cpu, **{key: value for key, value in more.items() if key != "backend"})

    with (
        mock.patch.object(state.PartialState, "_prepare_backend", backend),
        mock.patch.object(state.PartialState, "__init__", partial),
    ):
        yield


def _finish(wish: Wish, accelerator: Any, model: Any) -> None:
    """Put the model together, and write it in one piece: each process has its part."""
    rank = int(os.environ.get("RANK", "0"))
    if wish.zero and hasattr(model, "zero_optimization_stage"):
        Path(wish.run, f"{rank}.held").write_text(json.dumps(zero.held(model)))
    if not wish.out:
        return
    state = accelerator.get_state_dict(model) if accelerator is not None else model.state_dict()
    if rank:
        return
    whole = accelerator.unwrap_model(model) if accelerator is not None else model
    from paritas import leftovers, store

    target = Path(wish.out, "model")
    staging = leftovers.beside(target, "tmp")
    staging.mkdir(parents=True)
    if hasattr(whole, "save_pretrained"):
        whole.save_pretrained(staging, state_dict=state)
    else:
        from safetensors.torch import save_file

        apart = {name: value.detach().clone().contiguous() for name, value in state.items()}  # tied ones too
        save_file(apart, staging / "model.safetensors")
    store.move_into_place(staging, target)


def _say_why(wish: Wish, rank: int, error: BaseException) -> None:
    place = traceback.extract_tb(error.__traceback__)
    inside = [frame for frame in place if Path(frame.filename).resolve() == Path(wish.script).resolve()]
    where = f" (line {inside[-1].lineno} of {Path(wish.script).name})" if inside else ""
    said = str(error) if isinstance(error, ParitasError) else reason_of(error)
    path = Path(wish.run, f"{rank}.reason")
    path.with_suffix(".tmp").write_text(f"{said}{where}")
    path.with_suffix(".tmp").replace(path)


def _stopped(wish: Wish, rank: int) -> None:
    """The launcher ends this process, as another one has failed."""
    Path(wish.run, f"{rank}.stopped").touch()
    os._exit(128 + signal.SIGTERM)


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized() and sys.exc_info()[0] is None:
        with contextlib.suppress(Exception):
            dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[2:])
    if Wish.of_this_process().zero:  # a thread of DeepSpeed's that offloads (0.19) aborts the process when Python ends
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
