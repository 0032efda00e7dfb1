# SPDX-License-Identifier: Apache-2.0
"""open_clip's own training, with a model whose forward and backward an engine computes.

Loops, losses, schedulers, mixed precision, accumulation, data and checkpoints are the code of `open_clip_train`, with
its flags; what is put in is the model that it makes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from paritas.errors import InputError
from paritas.extras import require
from paritas.run.engine import Engine, about, default_engine

#: Flags that mean nothing where an engine computes on this machine, or would leave it: why they are refused.
REFUSED = {
    "horovod": "processes are torch's: torchrun --standalone --nproc-per-node 2 -m -- paritas train clip ...",
    "torchscript": "an engine computes a compiled graph anyway",
    "torchcompile": "an engine computes a compiled graph anyway",
    "trace": "open_clip cannot train what is traced",
    "use_bnb_linear": "layers of bitsandbytes have no graph",
    "use_bn_sync": "statistics of batches are each process's own",
    "remote_sync": "files are written to --logs, and nowhere else",
}

#: What a flag is where it is not given, and open_clip's own default is of other machines.
DEFAULTS = {"--device": "cpu", "--precision": "fp32"}


def train(arguments: Sequence[str], engine: str | None = None, mode: str = "") -> None:
    """Train as `open_clip_train.main` does with these arguments, on the engine.

    arguments: its flags. `--model` may be a file of a configuration too; `--device` is "cpu" and `--precision` "fp32"
    where they are not given. Checkpoints are open_clip's, in `--logs`/`--name`/checkpoints, and resume there and here.

    Raises `InputError` for flags that it does not know or that make no sense here, before any work, and for what its
    code refuses later.
    """
    require("clip-train", "paritas train clip")
    from open_clip_train import main as theirs

    chosen = about(engine or default_engine())
    if not (chosen.is_original or chosen.trains):
        raise InputError(f'{chosen.name} computes no gradients: nothing can be trained on it. "mindspore" does.')
    command = command_for(arguments)
    given = checked(command)
    with _on_the_cpu(), _logging_as_before(theirs), _of_engine(theirs, chosen, mode):
        try:
            code = theirs.main(command)
        except (AssertionError, ValueError) as error:
            raise InputError(f"open_clip's training refuses this: {error or type(error).__name__}") from error
    if code:
        raise InputError(f"{given.logs}/{given.name} is there already: choose another --name, or --resume latest.")


def checked(arguments: Sequence[str]) -> argparse.Namespace:
    """What the flags say. Raises `InputError`."""
    from open_clip_train.params import parse_args

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            given = parse_args(list(arguments))
    except SystemExit:
        last = said.getvalue().strip().rpartition("error: ")[2] or "see its help"
        raise InputError(f"open_clip's training: {last}") from None
    for name, why in REFUSED.items():
        if getattr(given, name, None):
            raise InputError(f"--{name.replace('_', '-')} is not taken: {why}.")
    if given.device != "cpu":
        raise InputError(f"--device {given.device} is not taken: an engine chooses its own, and torch's is cpu.")
    for flag, value in (("--train-data", given.train_data), ("--val-data", given.val_data)):
        if value and given.dataset_type == "csv" and not Path(value).is_file():
            raise InputError(f"{flag}: there is no file {value}.")
    if not given.train_data and given.dataset_type != "synthetic" and not given.val_data:
        raise InputError("There is nothing to learn from: name --train-data FILE, or --dataset-type synthetic.")
    return given


def command_for(arguments: Sequence[str]) -> list[str]:
    """The arguments as open_clip's code takes them: a file's configuration by its name, and our defaults."""
    command, given = list(arguments), {one.partition("=")[0] for one in arguments}
    for place, argument in enumerate(command):
        name, _, value = argument.partition("=")
        if name == "--model" and not value and place + 1 < len(command):
            command[place + 1] = _named(command[place + 1])
        elif name == "--model":
            command[place] = f"--model={_named(value)}"
    return [*command, *(word for flag, value in DEFAULTS.items() if flag not in given for word in (flag, value))]


def _named(model: str) -> str:
    """An architecture's name; that of a file's configuration, which open_clip knows from now on."""
    import open_clip

    from paritas.open_clip.making import check_name

    if not model.endswith(".json"):
        if not model.startswith(("hf-hub:", "local-dir:")):
            check_name(model)
        return model
    path = Path(model).expanduser()
    if not path.is_file():
        raise InputError(f"--model: there is no file {path}.")
    open_clip.add_model_config(path)
    if path.stem not in open_clip.list_models():
        raise InputError(f"{path} is no configuration of open_clip's: it needs embed_dim, vision_cfg and text_cfg.")
    return path.stem


@contextlib.contextmanager
def _logging_as_before(theirs: Any) -> Iterator[None]:
    """Let open_clip's code write its lines and its file while it trains, and leave all other loggers as they are."""

    def setup_logging(*args: Any, **kwargs: Any) -> None:
        known = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
        levels = [logger.level for logger in known]
        original(*args, **kwargs)  # which gives all of them its level
        for logger, own in zip(known, levels, strict=True):
            logger.setLevel(own)
        logging.getLogger("torch").setLevel(logging.WARNING)  # or its notes on graphs come through

    root, original = logging.getLogger(), theirs.setup_logging
    handlers, level, torchs = list(root.handlers), root.level, logging.getLogger("torch").level
    try:
        with mock.patch.object(theirs, "setup_logging", setup_logging):
            yield
    finally:
        for handler in [one for one in root.handlers if one not in handlers]:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
        logging.getLogger("torch").setLevel(torchs)


@contextlib.contextmanager
def _of_engine(theirs: Any, engine: Engine, mode: str) -> Iterator[None]:
    """While it lasts, the models that open_clip's training makes are on the engine: the first is trained, and one that
    it is taught by computes."""

    def made(*args: Any, **kwargs: Any) -> Any:
        model, *transforms = original(*args, **kwargs)
        trained.append(model)
        if len(trained) == 1:
            return trainable(model, engine.name, mode=mode), *transforms
        return attach(model, engine=engine.name, mode=mode), *transforms

    if engine.is_original:
        yield
        return
    from paritas.dropin.training import trainable
    from paritas.open_clip.networks import attach

    trained: list[Any] = []
    original = theirs.create_model_and_transforms
    with mock.patch.object(theirs, "create_model_and_transforms", made):
        yield


@contextlib.contextmanager
def _on_the_cpu() -> Iterator[None]:
    """open_clip hands torch's wrapper a device, which it refuses where that is a CPU."""
    from torch.nn import parallel

    class DistributedDataParallel(parallel.DistributedDataParallel):
        def __init__(self, module: Any, device_ids: Any = None, **kwargs: Any) -> None:
            super().__init__(module, **kwargs)

    with mock.patch.object(parallel, "DistributedDataParallel", DistributedDataParallel):
        yield
