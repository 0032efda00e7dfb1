# SPDX-License-Identifier: Apache-2.0
"""A pipeline on disk whose networks are ports, laid out as diffusers and other programs on OpenVINO lay it out.

    model_index.json, scheduler/, tokenizer/ ...      as diffusers writes them
    unet/, text_encoder/                              a port of forward, and the network's configuration
    vae_decoder/, vae_encoder/                        ports of an autoencoder's `decode` and `encode`
    unet_2/, unet.mid_block/                          of another way of calling it, and of a module in it
    vae/                                              the configuration of a network whose forward nobody calls
    small/                                            buffers and small parameters, which pipelines read
    ports.json                                        which calls these ports answer, and with what they are fed

What a network was called with so far is what its ports are made for, with sizes as free as the network leaves them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as as_bytes

from paritas import leftovers, pipeline, store
from paritas.arguments import nest, take_apart
from paritas.capture import capture
from paritas.dropin.classes import Ported
from paritas.errors import InputError, PortError
from paritas.program import Source
from paritas.pytree import Structure, describe_output, leaf_names
from paritas.run.engine import about

#: Which calls the ports of a directory answer.
PORTS = "ports.json"

#: Where a network's buffers and small parameters are, which pipelines read: means of latents, for one.
SMALL = "small"

#: Elements of a parameter that is kept beside the ports; larger ones are in the ports alone.
SMALLEST = 1 << 14

#: "vae_decoder", and of an autoencoder that is not called vae likewise.
_FOLDERS = {"decode": "decoder", "encode": "encoder"}

#: Names by which other programs know what goes into an autoencoder and comes out of it.
_NAMES = {"decode": {"z": "latent_sample", "x": "latent_sample"}, "encode": {"x": "sample"}}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A port of a saved pipeline. path: of the module in its network. method: that is called, "" for forward.

    inputs: tensor of a call -> input of the port. scalars: those without dimensions, which the port takes with one.
    outputs: place among the call's tensors -> output of the port.
    """

    folder: str
    path: str
    method: str
    fixed: dict[str, Any]
    nesting: dict[str, Structure]
    inputs: dict[str, str]
    scalars: tuple[str, ...]
    structure: Structure
    outputs: dict[str, str]


def save(
    pipe: Any,
    directory: str | os.PathLike[str],
    networks: Mapping[str, Any],
    *,
    dynamic: bool = True,
    source: str = "",
    call: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Write a pipeline, whole or not at all.

    dynamic: with sizes as free as the networks leave them, or only for those of the calls that were made. source: the
    original, from which a verification loads it; where it was loaded from if not given. call: the arguments of a call
    that these ports answer, which a verification makes. Raises `InputError` for a pipeline that was never called,
    `PortError`.
    """
    target = Path(directory).expanduser().resolve()
    if target.exists() and (not target.is_dir() or (any(target.iterdir()) and not (target / PORTS).is_file())):
        raise PortError(f"{target} is there already and is no saved pipeline: name another directory.")
    ported = {n: one for n, one in networks.items() if isinstance(one, Ported) and one._paritas is not None}
    if not ported:
        raise InputError("No network of this pipeline is on an engine: save it with diffusers' own class.")
    if unsaved := next(filter(None, (getattr(one._paritas, "unsaved", "") for one in ported.values())), ""):
        raise InputError(f"{unsaved}, which a port in a directory does not: this pipeline cannot be saved as ports.")
    if not any(asked_of(one) or saved_of(one) for one in ported.values()):
        raise InputError(
            "A pipeline is saved with ports for the calls that it has made, and it has made none: call it once."
        )
    opened: Any = next((one._paritas for one in ported.values() if saved_of(one)), None)
    before = {} if opened is None else json.loads((opened.root / PORTS).read_text(encoding="utf-8"))
    with store.os_errors(f"The pipeline cannot be written to {target}", target.parent), _written(target) as staging:
        told: dict[str, list[Entry]] = {}
        for name, network in ported.items():
            told[name] = list(_ports_of(name, network, staging, dynamic, progress or (lambda text: None)))
            _write_skeleton(network, staging / name)
        _write_rest(pipe, staging, ported)
        engines = {one._paritas.build.engine for one in ported.values() if one._paritas is not None}
        for engine in engines:
            about(engine).beside_pipeline(staging)
        text = json.dumps(
            {
                "format": 1,
                "source": source or before.get("source") or str(getattr(pipe, "name_or_path", "") or ""),
                "call": _kept(call) if call else before.get("call", {}),
                "networks": {n: [dataclasses.asdict(e) for e in es] for n, es in told.items()},
            }
        )
        (staging / PORTS).write_text(text + "\n", encoding="utf-8")


@contextlib.contextmanager
def _written(target: Path) -> Iterator[Path]:
    """A new directory, which stands in the place of `target` once it is whole: until then that one is as it was."""
    target.parent.mkdir(parents=True, exist_ok=True)
    leftovers.sweep_beside(target, ("tmp",))
    staging, owned = leftovers.claim(target, Path.mkdir)
    try:
        yield staging
        store.move_into_place(staging, target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    finally:
        leftovers.unlock(owned)
    leftovers.sweep_beside(target)


def asked_of(network: Any) -> Mapping[Any, tuple[torch.nn.Module, Any]]:
    """The calls that a network has answered by ports, the first of each kind."""
    return getattr(network._paritas, "asked", {})


def saved_of(network: Any) -> Sequence[tuple[Entry, pipeline.Port]]:
    """The ports of a network that was opened from a directory, and the calls that they answer."""
    found: Sequence[tuple[Entry, pipeline.Port]] = getattr(network._paritas, "saved", ())
    return found


def _ports_of(name: str, network: Any, root: Path, dynamic: bool, progress: Callable[[str], None]) -> Iterator[Entry]:
    taken: set[str] = set()
    for entry, port in saved_of(network):
        progress(entry.folder)
        port.save(root / entry.folder)
        yield entry
    for asked, (module, call) in asked_of(network).items():
        path = asked[0]
        network._paritas.check_asked(asked, name)
        method = path.removesuffix("()") if path.endswith("()") else ""
        free = free_name(folder_of(name, "" if method else path, method), taken)
        taken.add(free)
        progress(free)
        yield _port(network, module, call, "" if method else path, method, root / free, dynamic)


def free_name(name: str, taken: Collection[str]) -> str:
    """The name, or the first of `name_2`, `name_3` that is not taken."""
    number = 1
    while (free := name if number == 1 else f"{name}_{number}") in taken:
        number += 1
    return free


def folder_of(name: str, path: str, method: str) -> str:
    """What a port of a network's module or method is called."""
    if method:
        return f"{name}_{_FOLDERS.get(method, method)}"
    return f"{name}.{path}" if path else name


def _port(
    network: Any, module: torch.nn.Module, call: Any, path: str, method: str, place: Path, dynamic: bool
) -> Entry:
    answers: Any = network._paritas
    answers.make_room()
    arguments = answers._arguments(module, call)
    tensors, fixed, nesting = take_apart(arguments)
    scalars = tuple(n for n, t in tensors.items() if t.dim() == 0 and "timestep" in n)
    inputs = _input_names(tensors, method)
    with torch.inference_mode(False), answers._example(module) as (twin, _):
        with torch.no_grad():
            _, structure = describe_output(twin(**nest({n: t.clone() for n, t in tensors.items()}, nesting), **fixed))
        outputs = _output_names(structure, set(inputs.values()))
        component = Component(twin, inputs, scalars, nesting, fixed, outputs)
        given = {inputs[n]: t.reshape(1) if n in scalars else t for n, t in tensors.items()}
        if dynamic:
            given = widened(component, given, {inputs[n] for n in scalars})
        source = Source("module", model_class=f"{type(twin).__module__}.{type(twin).__qualname__}")
        program = capture(component, given, dynamic=dynamic, source=source)

        def let_go(stage: str) -> None:
            if stage == "run":  # what the engine opens now is in its files
                answers.let_go()

        port = pipeline.port_program(
            program, component, answers.build, keep_example=False, whole=network, progress=let_go
        )
        port.save(place)
        port.close()
    told = {n: v for n, v in call.fixed.items() if n not in call.tensors}
    return Entry(
        place.name, path, method, plain(told), dict(nesting), inputs, scalars, structure,
        {str(index): outputs[leaf] for index, leaf in enumerate(leaf_names(structure)) if leaf in outputs},
    )  # fmt: skip


def _input_names(tensors: Mapping[str, torch.Tensor], method: str) -> dict[str, str]:
    """Names of the port's inputs: the last part of a nested one where that says which it is, "text_embeds"."""
    short = {name: name.rpartition(".")[2] for name in tensors}
    found = {}
    for name, last in short.items():
        unique = not last.isdigit() and list(short.values()).count(last) == 1
        found[name] = _NAMES.get(method, {}).get(name) or (last if unique else re.sub(r"\W", "_", name))
    return found


def _output_names(structure: Structure, inputs: set[str]) -> dict[str, str]:
    """Leaf of the output -> output of the port. Of a distribution its moments are enough, from which it is made."""
    leaves = leaf_names(structure)
    drawn = distribution(structure)
    found = {}
    for leaf in [drawn] if drawn else leaves:
        name = "latent_parameters" if leaf == drawn else "sample" if leaf == "output_0" and len(leaves) == 1 else leaf
        found[leaf] = f"out_{name}" if name in inputs else name
    return found


def distribution(structure: Structure) -> str:
    """The leaf that holds the moments, if the output is a distribution and nothing else; else ""."""
    items = structure.get("items")
    inner = list(items.values() if isinstance(items, Mapping) else items or ())
    if structure["kind"] not in ("output", "tuple") or len(inner) != 1 or inner[0]["kind"] != "record":
        return ""
    leaves = [leaf for leaf in leaf_names(structure) if leaf.endswith(".parameters")]
    return leaves[0] if len(leaves) == 1 else ""


class Component(torch.nn.Module):
    """A network's module or method with one argument per tensor, as a directory's port has it."""

    def __init__(
        self,
        called: torch.nn.Module,
        inputs: Mapping[str, str],
        scalars: tuple[str, ...],
        nesting: Mapping[str, Structure],
        fixed: Mapping[str, Any],
        outputs: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.called = called
        self._inputs, self._scalars, self._outputs = dict(inputs), scalars, dict(outputs)
        self._nesting, self._fixed = dict(nesting), dict(fixed)
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter(name, kind) for name in inputs.values()]

        def forward(*args: torch.Tensor, **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
            return self._run({**dict(zip(self._inputs.values(), args, strict=False)), **tensors})

        forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        self.forward = forward

    @classmethod
    def of(cls, called: torch.nn.Module, entry: Entry) -> Component:
        """What the port of an entry was made of."""
        leaves = leaf_names(entry.structure)
        outputs = {leaves[int(index)]: name for index, name in entry.outputs.items()}
        # `fixed` is what JSON has of a call: lists in the place of tuples, which networks take alike.
        return cls(called, entry.inputs, entry.scalars, entry.nesting, entry.fixed, outputs)

    def _run(self, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        given = {
            n: tensors[named].reshape(()) if n in self._scalars else tensors[named] for n, named in self._inputs.items()
        }
        flat, structure = describe_output(self.called(**nest(given, self._nesting), **self._fixed))
        return {
            self._outputs[leaf]: t for leaf, t in zip(leaf_names(structure), flat, strict=True) if leaf in self._outputs
        }


def widened(module: torch.nn.Module, given: Mapping[str, torch.Tensor], alone: set[str]) -> dict[str, torch.Tensor]:
    """Examples of one picture, twice: a graph takes a batch of 1 for a constant. As they are if that does not run."""
    others = [t for name, t in given.items() if name not in alone]
    if any(t.dim() == 0 or t.shape[0] != 1 for t in others):
        return dict(given)
    twice = {name: t if name in alone else torch.cat([t, t]) for name, t in given.items()}
    try:
        with torch.no_grad():
            module(**twice)
    except Exception:  # noqa: BLE001 - a network for one picture only says so in many ways
        return dict(given)
    return twice


def plain(fixed: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that are no tensors as JSON has them. Raises `PortError` for what it does not have."""
    try:
        found: dict[str, Any] = json.loads(json.dumps(dict(fixed)))
    except TypeError as error:
        raise PortError(f"A call with {', '.join(fixed)} cannot be kept on disk: {error}.") from None
    return found


def _kept(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call that a verification makes again; {} for one that holds what JSON does not have, a picture for one."""
    given = {name: value for name, value in call.items() if value is not None}
    try:
        return plain(given)
    except PortError:
        return {}


# --- what is no port -----------------------------------------------------------------------------------------


def _write_skeleton(network: Any, place: Path) -> None:
    """Configuration, buffers and small parameters: of what a pipeline reads of a network beside calling it."""
    place.mkdir(exist_ok=True)
    if not (place / "config.json").is_file():  # else its port has it
        if hasattr(network, "save_config"):
            network.save_config(place)
        elif hasattr(getattr(network, "config", None), "save_pretrained"):
            network.config.save_pretrained(place)
    (place.parent / SMALL).mkdir(exist_ok=True)
    here = place.parent / SMALL / f"{place.name}.safetensors"
    if source := getattr(network._paritas, "skeleton", None):  # whose weights are none
        shutil.copyfile(source, here)
        return
    small = {n: p for n, p in network.named_parameters() if p.numel() <= SMALLEST}
    small |= {n: b for n, b in network.named_buffers() if b is not None}
    here.write_bytes(as_bytes({n: t.detach().clone().contiguous() for n, t in small.items()}))


def _write_rest(pipe: Any, root: Path, ported: Mapping[str, Any]) -> None:
    for name, component in pipe.components.items():
        if name in ported or component is None or not hasattr(component, "save_pretrained"):
            continue
        component.save_pretrained(root / name)
    pipe.save_config(root)
