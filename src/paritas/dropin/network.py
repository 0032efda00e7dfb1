# SPDX-License-Identifier: Apache-2.0
"""The engine behind one model: a port for each way in which one of its modules is called, made when first needed.

What a namespace's library has beside tensors and numbers, as caches, a subclass answers: see `Network._answer`.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from paritas import pipeline
from paritas.capture import capture
from paritas.dropin import calls, keepers, port_cache
from paritas.dropin.arrays import ours
from paritas.dropin.describe import describe
from paritas.dropin.dispatch import example_of, hands_on, install, original
from paritas.dropin.fitting import (
    broken_by,
    differs_by_ones,
    fits,
    fixed_sizes,
    same_values,
    values,
    was_longer,
)
from paritas.dropin.gradients import asked_for, refusing, transformed
from paritas.dropin.library import is_hooked, is_random
from paritas.dropin.methods import Method, is_nested, method_of
from paritas.dropin.telling import Making
from paritas.dropin.watch import Watch
from paritas.errors import CaptureError, LeavesBehind, OriginalFails, first_line
from paritas.options import BuildOptions
from paritas.program import Program, Source
from paritas.pytree import build_output, describe_output
from paritas.run.engine import about
from paritas.run.engine import engine as find_engine
from paritas.run.session import CalledInLoops
from paritas.run.values import from_numpy

#: Conditions of a model whose ports stay in memory: as it is with an adapter, and without.
CONDITIONS = 4


@dataclasses.dataclass
class Condition:
    """What was found out about a model while all but the weights that its results depend on was of one description.

    strange: what the key names by its address. random: path -> whether a module draws random numbers. untraced: calls
    that torch.export refuses -> why. known: what a subclass has found out.
    """

    key: str
    complete: bool
    has_float64: bool = False
    strange: list[Any] = dataclasses.field(default_factory=list)
    ports: dict[Any, list[pipeline.Port]] = dataclasses.field(default_factory=dict)
    random: dict[str, bool] = dataclasses.field(default_factory=dict)
    untraced: dict[Any, str] = dataclasses.field(default_factory=dict)
    known: dict[Any, Any] = dataclasses.field(default_factory=dict)

    def close(self) -> None:
        for port in self.all_ports():
            port.close()
        self.ports.clear()

    def all_ports(self) -> list[pipeline.Port]:
        return [port for ports in self.ports.values() for port in ports]


class Network:
    """Runs the modules of `model` on an engine. A path names a module inside, "" the model itself."""

    #: Says, once each, why PyTorch computes.
    logger: ClassVar[logging.Logger] = logging.getLogger("paritas.dropin")

    #: What an argument may be beside tensors, numbers and what is made of them.
    taken: ClassVar[tuple[type, ...]] = ()

    #: Whether the first port for a way of calling is for the sizes of its first call alone; the next one for any.
    fixed_first: ClassVar[bool] = False

    #: What means that a module has no port, and whether its own code then calls the ports of the modules in it.
    refusals: ClassVar[tuple[type[Exception], ...]] = (CaptureError,)
    by_modules: ClassVar[bool] = False

    def __init__(self, model: torch.nn.Module, build: BuildOptions) -> None:
        self.model, self.build = model, build
        self.engine = about(build.engine)
        if not self.engine.is_original:
            find_engine(build.engine).expect(model)
        self._watch: Watch | None = None
        self._seen_weights: tuple[Any, ...] = ()
        self._digest = ""
        self._conditions: collections.OrderedDict[str, Condition] = collections.OrderedDict()
        self.now = Condition("", complete=False)
        self._lock = threading.RLock()
        self._said: set[str] = set()
        self._overridden = str(getattr(type(model), "_paritas_overridden", str)())

    @property
    def options(self) -> dict[str, Any]:
        """What a copy of the model is connected with."""
        return {
            "engine": self.build.engine,
            "mode": self.build.mode,
            "target": self.build.target,
            "weights": self.build.weights,
            "engine_device": self.build.device,
            "ov_config": dict(self.build.config),
        }

    def __call__(
        self, path: str, module: torch.nn.Module, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """`module(*args, **kwargs)`, torch tensors in and out. own: its forward, that computes in PyTorch."""
        with self._lock, ours():
            if why := transformed():
                return self._original(module, why, own, args, kwargs)
            self._notice()
            if why := self._only_original(module):
                return self._original(module, why, own, args, kwargs)
            if why := _hooks_around(path, module, own) or self._looked_into(path, module, args, kwargs):
                return self._not_whole(module, why, own, args, kwargs)
            if self._is_random(path, module):
                with torch.no_grad():
                    return own(*args, **kwargs)
            call = self._taken_apart(module, args, kwargs)
            why = self._refused(module, call)
            if why:
                return self._original(module, why, own, args, kwargs)
            if self.now.untraced:
                why = self.now.untraced.get((path, self._key(call)), "")
            if why:
                return self._not_whole(module, why, own, args, kwargs)
            asked = asked_for(module, call.tensors)
            self._check(path, module, call)
            try:
                with torch.no_grad():
                    out, why = self._answer(path, module, call)
            except OriginalFails as error:  # then it says so itself, or computes: it gets the call as it is
                reason = first_line(error.__cause__ or error)
                why = f"PyTorch computes, since what is captured does not run: {reason}"
            except self.refusals as error:
                if isinstance(error, LeavesBehind):
                    keepers.note(error.behind)
                    self._watch = None  # what is left is looked at in another way from now on
                lines = str(error).splitlines()
                place = next((line for line in lines if line.startswith("at ")), "")
                why = f"PyTorch computes, since {lines[0]} {place}".rstrip()
                self.now.untraced[path, self._key(call)] = why
            if why:
                return self._not_whole(module, why, own, args, kwargs)
        return self._handed_out(call, refusing(out, asked, type(module)) if asked else out)

    def method(self, name: str, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`model.name(*args, **kwargs)`, as one port. own: the method itself, that computes in PyTorch."""
        return self(f"{name}()", method_of(self.model, name), own, args, kwargs)

    def close(self) -> None:
        """Release the engine's memory. The next call makes the ports again, or reads those that were kept."""
        for condition in self._conditions.values():
            self._closed(condition)

    def ports(self) -> list[pipeline.Port]:
        """Every port that was made or read so far: their notes say what was fixed, cast or left out."""
        return [port for condition in self._conditions.values() for port in condition.all_ports()]

    # --- what a library may have of its own ---

    def _taken_apart(self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call; a subclass has its own kind."""
        return calls.take(type(module), args, kwargs)

    def _key(self, call: Any) -> Any:
        """What of a call decides whether it can be traced."""
        return call.signature

    def _refused_argument(self, value: Any) -> str:
        """Why an argument leaves a call to PyTorch; "" if it does not."""
        if calls.is_object(value, self.taken):
            return f"PyTorch computes, since no engine takes a {type(value).__name__}"
        return ""

    def _refused(self, module: torch.nn.Module, call: Any) -> str:
        """Why only PyTorch can answer a call that was taken apart; "" if an engine can."""
        return ""

    def _check(self, path: str, module: torch.nn.Module, call: Any) -> None:
        """Raise `InputError` for what an engine would answer, and the original would not."""

    def _answer(self, path: str, module: torch.nn.Module, call: Any) -> tuple[Any, str]:
        """(what the module returns, "") or (None, why only PyTorch can say)."""
        return self._computed(path, module, call), ""

    def _arguments(self, module: torch.nn.Module, call: Any) -> dict[str, Any]:
        """What forward is given, in the port as in the original."""
        return {**call.tensors, **call.fixed}

    def _handed_out(self, call: Any, out: Any) -> Any:
        """What the caller gets of it."""
        return out

    def _captured(self, module: torch.nn.Module, program: Program) -> None:
        """Refuse what was captured: `CaptureError`."""
        if program.behind:
            raise LeavesBehind(
                f"{type(module).__name__} leaves {program.behind[0].name} for somebody to read, where a port leaves "
                "nothing. Let it return it.",
                program.behind,
            )

    def _made_ready(self, twin: Any) -> None:
        """Change what is captured in a module's place, so that it has a graph."""

    # --- what only PyTorch can answer ---

    def _original(self, module: torch.nn.Module, why: str, own: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        self._say(f"{type(module).__name__}: {why}")
        with original():
            return own(*args, **kwargs)

    def _not_whole(self, module: torch.nn.Module, why: str, own: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """What has no port: PyTorch computes, or only its code that stands around the modules in it."""
        if not self.by_modules:
            return self._original(module, why, own, args, kwargs)
        self._say(
            f"{type(module).__name__}: {why}" + (" (what is in it, module by module)" if is_nested(module) else "")
        )
        with torch.no_grad():
            return own(*args, **kwargs)

    def _say(self, text: str) -> None:
        """Once: a loop would say it in every step."""
        if text not in self._said:
            self._said.add(text)
            self.logger.warning(text)

    def _only_original(self, module: torch.nn.Module) -> str:
        """Why only PyTorch can answer calls of a module; "" if the engine can."""
        if module.training:
            return "in training mode PyTorch computes, since a port computes inference only; call model.eval()"
        if self._overridden:
            return (
                f"PyTorch computes, since {self._overridden} is in the place of the original's: port that class itself"
            )
        if self.now.has_float64 and (why := self.engine.lacks.get("float64")):
            return f"PyTorch computes, since {why}"
        assert self._watch is not None
        if self._watch.replaced:
            return f"PyTorch computes, since another function is in the place of {self._watch.replaced}"
        if not self._watch.is_counted:
            return (
                "PyTorch computes, since weights that were made in torch.inference_mode do not tell when they are "
                "changed; make, cast and move the model outside of it"
            )
        return ""

    def _looked_into(self, path: str, module: torch.nn.Module, args: Any, kwargs: Any) -> str:
        """Why a call has no port of the whole module: somebody looks into it, or hands it what no engine takes."""
        assert self._watch is not None
        whole = isinstance(module, Method) or not path
        if why := self._watch.keeping.get("" if whole else path):
            return f"{path or 'it'} {why}: PyTorch computes"
        scope = "" if whole else f"{path}."
        if module_hooks() and is_nested(module):
            return "hooks of every module are set: PyTorch computes"
        for inner, why in self._watch.only_original.items():
            if inner != path and inner.startswith(scope):
                return f"{inner} {why}: PyTorch computes"
        return next(filter(None, map(self._refused_argument, (*args, *kwargs.values()))), "")

    def _is_random(self, path: str, module: torch.nn.Module) -> bool:
        if path not in self.now.random:
            self.now.random[path] = any(is_random(type(inner)) for inner in module.modules())
        return self.now.random[path]

    # --- what has changed since the last call ---

    def _notice(self) -> None:
        """Find the ports of the model as it is now."""
        if self._watch is None:
            self._watch = Watch(self.model)
        elif not self._watch.changed():
            return
        else:
            self._watch.look()
        weights = self._watch.weights()
        if weights != self._seen_weights:
            # Weights that were changed in place, or replaced, never come back.
            for condition in self._conditions.values():
                self._closed(condition)
            self._conditions.clear()
            self._seen_weights, self._digest = weights, ""
        install(self.model, self)
        self._watch.look()
        strange: list[Any] = []

        def unknown(value: Any) -> str:
            strange.append(value)
            return f"{type(value).__qualname__} {id(value)}"

        names = {id(tensor): name for name, tensor in self._watch.tensors.items()}
        key = describe(self.model, names, unknown)
        if key not in self._conditions:
            complete = self._watch.complete and not strange
            wide = any(p.dtype == torch.float64 for p in self.model.parameters())
            self._conditions[key] = Condition(key, complete, wide, strange)
        self._turn_to(key)

    def _turn_to(self, key: str) -> None:
        """Let the ports of a condition answer. Of too many the oldest is closed."""
        self.now = self._conditions[key]
        self._conditions.move_to_end(key)
        while len(self._conditions) > CONDITIONS:
            self._closed(self._conditions.popitem(last=False)[1])

    def _closed(self, condition: Condition) -> None:
        """Close the ports of a condition."""
        condition.close()

    def content(self) -> list[str] | None:
        """What a port kept on disk answers for: description and weights, as hashes; None if they say not all."""
        if not self.now.complete or self._watch is None:
            return None
        if not self._digest:
            self._digest = port_cache.digest(self._watch.tensors)
        return [self.now.key, self._digest] if self._digest else None

    # --- ports ---

    def _port_of(self, path: str, module: torch.nn.Module, call: Any) -> tuple[pipeline.Port, dict[str, Any]]:
        """The port that answers a call, and what it is called with."""
        arguments = self._arguments(module, call)
        more = {name: value for name, value in arguments.items() if name not in {**call.tensors, **call.fixed}}
        return self._port((path, "computes", call.signature, *sorted(more.items())), module, arguments), arguments

    def _computed(self, path: str, module: torch.nn.Module, call: Any) -> Any:
        port, arguments = self._port_of(path, module, call)
        outer = (name for name, drawn in self.now.random.items() if name and drawn)
        session = port.session
        if any(path.startswith(f"{name}.") for name in outer) and isinstance(session, CalledInLoops):
            session.part_of_loop = True
        out = port(**arguments)
        return out if call.tensors else _in_torch(out, port)

    def _port(
        self,
        key: Any,
        module: torch.nn.Module,
        arguments: Mapping[str, Any],
        examples: Callable[[], dict[str, Any]] | None = None,
        *,
        complete: bool = True,
    ) -> pipeline.Port:
        """A port for such a call: made in this process, or kept from an earlier one, or new.

        complete: the arguments are all that forward gets, so that they can be an example by themselves.
        """
        asked, key = key, (key, *_surroundings())
        known = self.now.ports.setdefault(key, [])
        for port in known:
            if fits(port, arguments):
                return port
        # A size of 1 is always taken for a constant, and so is one that is as long as a table of the model: after
        # that, once more with every size free.
        alike = [port for port in known if same_values(port, arguments)]
        fixed = self.fixed_first and complete and examples is None and not alike
        second = self.fixed_first and len(alike) == 1
        others = [port for port in alike if not differs_by_ones(port, arguments)]
        free = not fixed and (second or (len(others) < 2 and all(was_longer(port, arguments) for port in others)))
        # The model's code goes another way with these sizes.
        exact = complete and any(broken_by(port, arguments) for port in alike)
        kind = ("free",)[: len(alike)] if free and not exact else fixed_sizes(arguments)
        place = self._place(key, kind)
        read = port_cache.read(place, self.build)
        if read is not None and not same_values(read, arguments):
            place = self._place(key, (*kind, values(read, arguments)))
            read = port_cache.read(place, self.build)
        if read is not None and complete and broken_by(read, arguments):
            exact, place = True, self._place(key, fixed_sizes(arguments))
            read = port_cache.read(place, self.build)
        if read is not None and fits(read, arguments):
            port = self._prepares(read, module)
        else:
            title = f"{type(module).__name__} to {self.build.engine}" + (f" ({asked[1]})" if len(asked) > 1 else "")
            with Making(title) as making:
                given = dict(arguments) if exact or examples is None else examples()
                port = self._made(module, given, dynamic=free, exact=exact, progress=making)
                port_cache.write(port, place, {"model": self._name(), "call": str(asked[1])})
        known.append(port)
        if complete and not exact and broken_by(port, arguments):
            return self._port(asked, module, arguments)  # made for a batch of 2, and 1 is another way
        return port

    def _prepares(self, port: pipeline.Port, module: torch.nn.Module) -> pipeline.Port:
        """A port that was kept, with the module at hand where inputs are prepared by its code, as a new one has it."""
        if port.manifest.prepared:
            with torch.inference_mode(False), self._example(module) as (port._original, _):
                pass
        return port

    def _place(self, key: Any, sizes: Any) -> Path | None:
        """Where a port for calls of that key is kept; None for a model that cannot be described whole."""
        root = port_cache.directory()
        if root is None or (content := self.content()) is None:
            return None
        return port_cache.place(root, self.build, content, key, sizes)

    def _name(self) -> str:
        """What the model was loaded from; "" for one that was made in memory."""
        found = getattr(self.model, "name_or_path", "")
        return found if isinstance(found, str) else ""

    def _made(
        self,
        module: torch.nn.Module,
        given: Mapping[str, Any],
        *,
        dynamic: bool,
        exact: bool = False,
        progress: Callable[[str], None] = lambda stage: None,
    ) -> pipeline.Port:
        with torch.inference_mode(False), self._example(module) as (twin, is_copy):
            source = Source("module", model_class=f"{type(twin).__module__}.{type(twin).__qualname__}")
            progress("capture")
            program = capture(twin, given, dynamic=dynamic, source=source, exact=exact)
            self._captured(module, program)
            port = pipeline.port_program(
                program,
                twin,
                self.build,
                progress=progress,
                keep_example=False,  # what a user calls it with is nobody else's to read
            )
        if not is_copy and not port.manifest.prepared:
            port._original = None  # the caller's model: it would be verified against itself
        return port

    @contextlib.contextmanager
    def _example(self, module: torch.nn.Module) -> Iterator[tuple[Any, bool]]:
        """What is run or captured in the module's place: nothing that happens there is a change of the caller's."""
        assert self._watch is not None
        if isinstance(module, Method):
            with self._example(module.owner) as (twin, is_copy):
                yield module.of(twin), is_copy
            return
        with example_of(module) as (twin, is_copy):
            if is_copy:
                self._made_ready(twin)
            yield twin, is_copy
        if not is_copy:
            self._watch.look()


def module_hooks() -> bool:
    """Whether somebody has set hooks that every module of torch calls."""
    torch_modules = torch.nn.modules.module
    return bool(torch_modules._global_forward_hooks or torch_modules._global_forward_pre_hooks)


def _hooks_around(path: str, module: torch.nn.Module, own: Any) -> str:
    """Why a call is its own code's, with what is computed below it; "" for what is below."""
    if hands_on(own):
        return f"{path} has a forward with values of its own: PyTorch computes"
    if not path or not is_hooked(module) or getattr(own, "__func__", None) is type(module).forward:
        return ""
    return f"{path} has hooks that go on from call to call: PyTorch computes"


def _in_torch(out: Any, port: pipeline.Port) -> Any:
    """What a port returned that got no tensor, by which it would know whose tensors are wanted."""
    flat, structure = describe_output(out)
    pairs = zip(flat, port.outputs, strict=True)
    return build_output(structure, [from_numpy(value, "torch", spec.dtype) for value, spec in pairs], "torch")


def _surroundings() -> tuple[str, ...]:
    """What a result depends on beside the model: the dtypes that torch is told to compute in."""
    automatic = str(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else ""
    return automatic, str(torch.get_default_dtype())
