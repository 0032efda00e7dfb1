# SPDX-License-Identifier: Apache-2.0
"""A saved pipeline, opened: its networks are skeletons without weights, and the ports of the directory answer for them.

Nothing is traced, and no weight is read into PyTorch. What a skeleton has are its modules, its configuration, and the
small tensors that pipelines read of it. What no port was saved for is refused.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
import transformers

from paritas import pipeline, store
from paritas.arguments import flatten
from paritas.diffusers import index
from paritas.diffusers.networks import Answers, Ported, TextAnswers, TextPorted
from paritas.diffusers.runs import Asked
from paritas.diffusers.saving import PORTS, SMALL, Entry, distribution
from paritas.dropin import memory
from paritas.dropin.classes import ported_class
from paritas.dropin.describe import describe
from paritas.dropin.dispatch import install
from paritas.dropin.methods import Method
from paritas.dropin.watch import Watch
from paritas.errors import InputError, PortError, reason_of
from paritas.options import BuildOptions
from paritas.pytree import build_output, distribution_class, leaf_names
from paritas.run.engine import engine as find_engine


def is_saved(directory: Any) -> bool:
    """Whether that is the directory of a pipeline whose networks are ports."""
    try:
        return isinstance(directory, str | os.PathLike) and (Path(directory) / PORTS).is_file()
    except (OSError, ValueError):  # too long for a name
        return False


def open_pipeline(
    original: Any, directory: str | os.PathLike[str], theirs: Mapping[str, Any], ours: Mapping[str, Any]
) -> Any:
    """The pipeline in a directory. original: the class whose `from_pretrained` reads all but the networks.

    Raises `PortError` for a damaged directory, `InputError` for an engine that it is not on, and what `paritas.load`
    raises.
    """
    root = Path(directory)
    entries = index.entries(root)
    classes = index.classes(root, entries, original, theirs)
    networks = {}
    for name, found in entries.items():
        if name not in theirs:
            networks[name] = _network(root, name, classes[name], found, index.of_network(name, ours, entries))
    if ours.get("low_memory"):
        turns = memory.Turns()
        for one in networks.values():
            one._paritas.turns = turns
    # What is left of PyTorch's networks is in safetensors: nothing is unpickled.
    given = {"use_safetensors": True, **theirs}
    try:
        made = original.from_pretrained(directory, **networks, **given)
    except OSError as error:
        raise PortError(f"{root} is damaged: {reason_of(error)}") from error
    for one in networks.values():
        one._paritas.notice()  # as they are now: a pipeline may complete their configuration
    return made


# --- a network without weights -------------------------------------------------------------------------------


def _network(root: Path, name: str, cls: Any, entries: list[Entry], ours: Mapping[str, Any]) -> Any:
    is_text = issubclass(cls, transformers.PreTrainedModel)
    made = _skeleton(cls, root / name, is_text)
    made.__class__ = opened_class(cls, TextPorted if is_text else Ported)
    ports = []
    for one in entries:
        port = _loaded(root / one.folder, ours)
        index.check_is(root / one.folder, port.manifest, ours)
        find_engine(port.manifest.engine).expect(made)
        ports.append((one, port))
    kind: Any = SavedText if is_text else Saved
    install(made, kind(made, name, root, ports))
    return made.eval()


def _loaded(place: Path, ours: Mapping[str, Any]) -> pipeline.Port:
    """The port in a directory; one network at a time, it is opened when it is called."""
    how: dict[str, Any] = {"device": str(ours.get("engine_device") or ""), "mode": str(ours.get("mode") or "")}
    if not ours.get("low_memory"):
        return pipeline.load_port(place, **how)
    artifact = store.read(place, verify_checksums=False)  # which are looked at whenever it is opened
    resting = memory.Resting(lambda: pipeline.load_port(place, **how).session)
    return pipeline.Port(artifact, resting, mode=how["mode"])


def _skeleton(cls: Any, place: Path, is_text: bool) -> Any:
    config: Any = None
    if is_text:
        config = index.config_of(cls, place)
        make: Callable[[], Any] = lambda: cls._from_config(config)  # noqa: E731
    else:
        make = lambda: cls.from_config(cls.load_config(place, local_files_only=True))  # noqa: E731
    try:
        with torch.device("meta"):
            made = make()
    except (RuntimeError, NotImplementedError, ValueError):  # some read numbers out of tensors while they are made
        made = make()
    small = index.small(place.parent / SMALL / f"{place.name}.safetensors")
    for path, module in made.named_modules():
        module._paritas_hollow = False
        for table in (module._parameters, module._buffers):
            for key, value in table.items():
                if value is None:
                    continue
                kept = small.get(f"{path}.{key}".lstrip("."))
                if kept is None:
                    # One number, as large as the weight: of the right shape, dtype and device, and of no size.
                    kept = torch.zeros((), dtype=value.dtype).expand(value.shape)
                    module._paritas_hollow = True
                is_weight = isinstance(value, torch.nn.Parameter)
                table[key] = torch.nn.Parameter(kept, requires_grad=False) if is_weight else kept
    return made


class _Shared:
    """What answers for a network: a copy of the network has it too. It holds an engine's memory, and is not pickled."""

    def __init__(self, answers: _FromDisk) -> None:
        self.answers = answers

    def __deepcopy__(self, memo: dict[int, Any]) -> _Shared:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("A network of a saved pipeline is not pickled: open its directory in the other process.")


class OpenedNetwork:
    """Mixed into a ported class: a network that is ports, without weights."""

    _paritas: Any

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name != "_paritas"}
        return {**state, "_paritas_shared": _Shared(self._paritas)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        shared = state.pop("_paritas_shared")
        torch.nn.Module.__setstate__(self, state)  # type: ignore[arg-type]
        install(self, shared.answers.for_copy(self))  # type: ignore[arg-type]
        self._paritas.notice()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _blank, (self._paritas_original, self._paritas_mixin), self.__getstate__()  # type: ignore[attr-defined]

    def save_pretrained(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raises `InputError`: a pipeline is saved whole."""
        raise InputError("This network is ports, without weights of PyTorch's: copy the pipeline's directory.")

    def in_pytorch(self) -> NoReturn:
        """Raises `InputError`: the original's weights are not there."""
        raise InputError("The original's weights are not there: load the original.")


@functools.cache
def opened_class(original: Any, mixin: Any) -> Any:
    """The ported class of a network without weights. It is a subclass, of the same name."""
    base = ported_class(original, mixin)
    space = {"__module__": original.__module__, "__qualname__": original.__qualname__, "__doc__": original.__doc__}
    return type(original.__name__, (OpenedNetwork, base), space)


def _blank(original: Any, mixin: Any) -> Any:
    """A network without anything in it, as a copy fills it."""
    cls = opened_class(original, mixin)
    return cls.__new__(cls)


class _FromDisk:
    """Answers the calls for which ports were saved, and refuses all others."""

    def __init__(self, model: Any, name: str, root: Path, ports: list[tuple[Entry, pipeline.Port]]) -> None:
        first = ports[0][1].manifest if ports else None
        build = (
            BuildOptions(first.engine, first.dtype, ports[0][1].mode, first.target) if first else BuildOptions("", "")
        )
        super().__init__(model, build)  # type: ignore[call-arg]
        self._network, self.root, self.saved = name, root, ports
        self._watch: Watch | None = None
        self._had, self._weights = "", tuple[Any, ...]()
        self.skeleton = root / SMALL / f"{name}.safetensors"

    def for_copy(self, model: Any) -> _FromDisk:
        """The same for a copy of the network: with the same ports."""
        made = type(self)(model, self._network, self.root, self.saved)
        made.turns = self.turns  # type: ignore[attr-defined]
        return made

    def notice(self) -> None:
        """Raise `InputError` for a network that is not as it was opened: an adapter, say, is in none of its ports."""
        if self._watch is not None and not self._watch.changed():
            return
        model: Any = self.model  # type: ignore[attr-defined]
        self._watch = Watch(model)
        names = {id(tensor): name for name, tensor in self._watch.tensors.items()}
        key, weights = describe(model, names, lambda value: type(value).__qualname__), self._watch.weights()
        self._had, self._weights = self._had or key, self._weights or weights
        if (self._had, self._weights) != (key, weights):
            self._watch = None
            raise InputError(
                f"{self._network} was changed after it was opened, and the ports in {self.root} are of what it was: "
                "port the original, change that, call it, and save it again."
            )

    def ports(self) -> list[pipeline.Port]:
        return [port for _, port in self.saved]

    def close(self) -> None:
        for _, port in self.saved:
            port.close()

    def rest(self) -> None:
        for _, port in self.saved:
            port.session.close()

    def __call__(
        self, path: str, module: Any, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        with self._lock:  # type: ignore[attr-defined]
            return self._answered(path, module, own, args, kwargs)

    def _answered(
        self, path: str, module: Any, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self.notice()
        method = module.called if isinstance(module, Method) else ""
        if ("" if method else path, method) not in self.places():
            if getattr(module, "_paritas_hollow", False):
                self._refuse(f"{path or self._network} was called, for which no port was saved")
            if module._parameters:
                self._say(f"{path or self._network}: PyTorch computes, since no port of it was saved")  # type: ignore[attr-defined]
            with torch.no_grad():
                return own(*args, **kwargs)
        call = self._taken_apart(module, args, kwargs)  # type: ignore[attr-defined]
        entry, port, feed = self._found("" if method else path, method, call)
        if entry is not None and port is not None:
            turns: memory.Turns | None = self.turns  # type: ignore[attr-defined]
            with torch.no_grad(), turns.take(self.rest) if turns is not None else contextlib.nullcontext():
                return self._handed_out(call, _output(entry, port(**feed)))  # type: ignore[attr-defined]
        given = ", ".join([*call.tensors, *(f"{name}={value!r}"[:40] for name, value in call.fixed.items())])
        where = f"{path or self._network}{f'.{method}' if method else ''}"
        others = [differences(one, port, call) for one, port in self.saved if (one.path, one.method) == (path, method)]
        why = f": {min(others, key=len)}" if others and all(others) else ""
        return self._refuse(f"{where} was called with other arguments ({given}){why}")

    def places(self) -> list[tuple[str, str]]:
        """The modules and methods that have ports: (path, method), "" for the network and for forward."""
        return list(dict.fromkeys((entry.path, entry.method) for entry, _ in self.saved))

    def compared(self, asked: Asked) -> tuple[pipeline.Port | None, dict[str, Any], Entry | None]:
        """The port that answers such a call, what it is fed with, and what it was saved as; None if there is none."""
        entry, port, feed = self._found(asked.path, asked.method, self._call_of(asked))  # type: ignore[attr-defined]
        return port, feed, entry

    def _found(self, path: str, method: str, call: Any) -> tuple[Entry | None, pipeline.Port | None, dict[str, Any]]:
        for entry, port in self.saved:
            if (entry.path, entry.method) == (path, method) and (feed := _feed(entry, port, call)) is not None:
                return entry, port, feed
        return None, None, {}

    def _refuse(self, what: str) -> NoReturn:
        raise InputError(
            f"{what}. The pipeline in {self.root} has ports for the calls that it had made when it was saved: "
            "port the original, call it so, and save it again."
        )


class Saved(_FromDisk, Answers):
    """A network of diffusers'."""


class SavedText(_FromDisk, TextAnswers):
    """A network of transformers'."""


def _feed(entry: Entry, port: pipeline.Port, call: Any) -> dict[str, Any] | None:
    """What the port gets of a call; None if it is for calls of another kind."""
    if json.loads(json.dumps(call.fixed, default=repr)) != entry.fixed:
        return None
    try:
        flat = flatten(call.tensors, entry.nesting)
    except InputError:
        return None
    tensors = {name: value for name, value in flat.items() if isinstance(value, torch.Tensor)}
    if tensors.keys() != entry.inputs.keys():
        return None
    specs = {spec.name: spec for spec in port.manifest.inputs}
    feed = {}
    for name, value in tensors.items():
        spec = specs.get(entry.inputs[name])
        if spec is None:  # the network makes nothing of it
            continue
        given = value.reshape(1) if name in entry.scalars and not value.dim() else value
        if str(given.dtype) != f"torch.{spec.dtype}" or not _fits(given, spec, False):
            return None
        feed[spec.name] = given
    return feed


def differences(entry: Entry, port: pipeline.Port, call: Any) -> str:
    """What of a call is another than in those that a port answers, in words; "" where that cannot be said."""
    found = []
    fixed = json.loads(json.dumps(call.fixed, default=repr))
    for name in dict.fromkeys((*entry.fixed, *fixed)):
        if fixed.get(name) != entry.fixed.get(name):
            found.append(f"{name} is {fixed.get(name)!r}, and was {entry.fixed.get(name)!r}"[:120])
    try:
        flat = flatten(call.tensors, entry.nesting)
    except InputError:
        return "; ".join(found)
    specs = {spec.name: spec for spec in port.manifest.inputs}
    for name in dict.fromkeys((*entry.inputs, *flat)):
        value, spec = flat.get(name), specs.get(entry.inputs.get(name, ""))
        if value is None or name not in entry.inputs:
            found.append(f"{name} is {'not given' if value is None else 'given'}, and was not so")
        elif spec is not None and isinstance(value, torch.Tensor):
            has = f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
            if str(value.dtype) != f"torch.{spec.dtype}" or not _fits(value, spec, name in entry.scalars):
                found.append(f"{name} is {has}, and the port takes {spec.dtype}[{', '.join(map(str, spec.dims))}]")
    return "; ".join(found)


def _fits(value: torch.Tensor, spec: Any, is_scalar: bool) -> bool:
    given = value.reshape(1) if is_scalar and not value.dim() else value
    sizes = zip(spec.dims, given.shape, strict=False)
    return given.dim() == len(spec.dims) and all(not str(dim).isdigit() or int(dim) == size for dim, size in sizes)


def _output(entry: Entry, out: Mapping[str, torch.Tensor]) -> Any:
    leaves = leaf_names(entry.structure)
    if leaf := distribution(entry.structure):
        items = entry.structure["items"]
        key, record = next(iter(items.items() if isinstance(items, Mapping) else enumerate(items)))
        drawn = distribution_class(record["class"])(out[entry.outputs[str(leaves.index(leaf))]])
        held = {"kind": "constant", "value": drawn}
        structure = {**entry.structure, "items": {key: held} if isinstance(items, Mapping) else [held]}
        return build_output(structure, [], "torch")
    return build_output(entry.structure, [out[entry.outputs[str(i)]] for i in range(len(leaves))], "torch")
