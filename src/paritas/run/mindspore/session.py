# SPDX-License-Identifier: Apache-2.0
"""Running a port on MindSpore, in Graph or PyNative mode. Needs NumPy, safetensors and MindSpore, nothing else."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import types
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from paritas.caches import generates, new_tokens
from paritas.errors import EngineError, PortError, first_line, reason_of
from paritas.lower.mindspore.write import steps
from paritas.program import Artifact
from paritas.run.mindspore import convolutions, gradients, module
from paritas.run.mindspore import nodes as mindspore_nodes
from paritas.run.mindspore.training import Recorded, Training
from paritas.run.mindspore.values import in_mode, to_numpy
from paritas.run.session import Gradients
from paritas.run.turns import in_turn, turn

#: Batch sizes for which a generation's steps get a graph of their own, and shapes for which a part of a loop does;
#: others are served by one graph for all.
_GRAPHS_OF_STEPS = 4

Shapes = tuple[tuple[int | None, ...], ...]


class MindSporeSession:
    """A generated cell with its weights. `observe` runs in PyNative mode, where cells can be watched."""

    #: Set by whoever calls it from a loop of its own, on other sizes each time.
    part_of_loop = False
    observed_with = "cells watched in PyNative mode"
    #: And `lockstep`.
    computed_with = "the module's statements one by one in PyNative mode"
    #: And `part`, whose values replace what the statements compute.
    cut_with = "the statements of the port's file, in PyNative mode"
    cut_mode, cut_runs_all = "pynative", True
    draws = "the statements of the port's file, in PyNative mode, with PyTorch's masks"

    def __init__(self, artifact: Artifact, mode: str) -> None:
        self.manifest, self.mode = artifact.manifest, mode
        self.precision = artifact.manifest.dtype
        self._ms = imported()
        settings = artifact.manifest.settings
        self._stands = {name: str(settings.get(name, name)) for name in ("bfloat16", "float16")}  # what does for it
        self._source = module.source_of(artifact)
        parameters, constants = module.weights(artifact)
        convolutions.loaded(self._source)
        self._module = module.execute(
            self._source,
            artifact.entry,
            trusted=bool(artifact.modified),
            elements=sum(value.size for value in [*parameters.values(), *constants.values()]),
        )
        try:
            self.cell = self._built(artifact)
            self._rename(artifact.manifest.settings.get("names"))
            module.fill(self._ms, self.cell, self._source, artifact, parameters, constants)
        except BaseException:
            module.forget(self._module)
            raise
        self._generates, self._new_tokens = generates(self.manifest), new_tokens(self.manifest)
        self._declared: Shapes = ()
        self._graphs: set[Shapes] = set()
        self._compiled: set[Shapes] = set()

    def _rename(self, names: object) -> None:
        """Give parameters the checkpoint's names that MindSpore's own setter would cut or refuse."""
        attributes = dict(self.cell.parameters_and_names())
        for path, name in names.items() if isinstance(names, dict) else ():
            if path in attributes and isinstance(name, str):
                attributes[path].param_info.name = name

    def _built(self, artifact: Artifact) -> Any:
        """The cell that `port.json` names, with weights that mean nothing yet."""
        settings = artifact.manifest.settings
        where = f"{artifact.directory}: {artifact.manifest.entry}"
        cls = vars(self._module).get(str(settings.get("class", "")))
        if not (isinstance(cls, type) and issubclass(cls, self._ms.nn.Cell)):
            raise PortError(f"{where} has no cell of the name in port.json.")
        try:
            cell = cls()
            cell.set_train(False)
        except Exception as error:
            raise PortError(f"{where}: {cls.__name__} cannot be made: {first_line(error)}.") from error
        return cell

    @in_turn
    def run(self, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """One call. Arrays as `Session` says; the first call of each shape compiles in Graph mode."""
        return [to_numpy(value) for value in self._call(feed, self.mode)]

    @in_turn
    def observe(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """node name -> value, for every node that leaves a module which is a cell of its own."""
        returns = self.manifest.settings.get("returns", {})
        seen: dict[str, np.ndarray] = {}
        counts: dict[str, int] = {}

        def watch(path: str) -> Any:
            def record(_: Any, inputs: Any, output: Any) -> None:
                nodes = returns.get(f"{path}:{counts.get(path, 0)}", ())
                counts[path] = counts.get(path, 0) + 1
                values = output if isinstance(output, tuple) else (output,)
                if len(nodes) == len(values):
                    seen.update({node: to_numpy(value) for node, value in zip(nodes, values, strict=True)})

            return record

        with in_mode(self._ms, "pynative"):  # hooks are registered in the mode in which they are to run
            handles = [c.register_forward_hook(watch(path)) for path, c in self.cell.cells_and_names() if path]
        try:
            self._call(feed, "pynative")
        finally:
            for handle in handles:
                handle.remove()
        return seen

    def nodes(self) -> set[str]:
        """The nodes that a statement of the module computes: what `lockstep` can compute."""
        return mindspore_nodes.names(self._steps())

    def lockstep(self, feed: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Node name -> value, for the nodes of `given`, each computed from the *given* values of those before it."""
        return self._stepped(feed, given, given)

    def borders(self) -> list[frozenset[str]]:
        """Where `part` can cut: at every node, each of which has a value of its own."""
        return [frozenset({name}) for name in self.nodes()]

    def part(
        self, feed: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray], outputs: Collection[str]
    ) -> dict[str, np.ndarray]:
        """Node name -> value, for `outputs`, computed in PyNative mode from the *given* values of other nodes."""
        return self._stepped(feed, given, outputs)

    @in_turn
    def _stepped(
        self, feed: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray], shown: Collection[str]
    ) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        replace = mindspore_nodes.replacing(given, found.__setitem__, to_numpy, self._ms.Tensor.from_numpy, shown)
        with mindspore_nodes.watched(self._module, self._source, self.cell, self._steps(), replace):
            self._call(feed, "pynative")
        return found

    @in_turn
    def gradients(self, feed: Mapping[str, np.ndarray], cotangents: Sequence[np.ndarray | None]) -> Gradients:
        """See `run.session.Differentiates`: in the session's mode. A parameter that is frozen here has none."""
        tensors = [self._tensor(feed[spec.name], spec.dtype) for spec in self.manifest.inputs]
        names = [spec.name for spec in self.manifest.inputs]
        with self._training(self.mode), _garbage_left():
            return gradients.whole(self._ms, self.cell, names, tensors, cotangents)

    @in_turn
    def vjps(
        self, feed: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray], cotangents: Mapping[str, np.ndarray]
    ) -> Gradients:
        """See `run.session.TakesVjps`: the module's statements in PyNative mode."""
        tensors = [self._tensor(feed[spec.name], spec.dtype) for spec in self.manifest.inputs]
        names = [spec.name for spec in self.manifest.inputs]
        each = gradients.Nodes(self._ms, given, cotangents)
        with self._training("pynative"):
            watched = functools.partial(
                mindspore_nodes.watched, self._module, self._source, self.cell, self._steps(), each.replace
            )
            with watched():  # the variables come into being here, and their list must be whole before the gradients
                self.cell(*tensors)
            with watched():
                return each.gradients(self.cell, names, tensors)

    @functools.cached_property
    def _trained(self) -> Training:
        return Training(self._ms, self.cell)

    def weights(self) -> Collection[str]:
        """See `run.session.Trains`."""
        names: Collection[str] = self.cell.parameters_dict().keys()
        return names

    def weight(self, name: str) -> np.ndarray:
        """See `run.session.Trains`."""
        return to_numpy(self.cell.parameters_dict()[name])

    def share(self, weights: Mapping[str, np.ndarray]) -> None:
        """See `run.session.Trains`."""
        self._trained.share(weights)

    def recompute(self, modules: Collection[str]) -> frozenset[str]:
        """See `run.session.Trains`."""
        cells = dict(self.cell.cells_and_names())
        for path in modules:
            inside = any(path.startswith(f"{other}.") for other in modules)  # MindSpore takes it once for all in it
            if path in cells and not inside:
                self._recompute(cells[path])
        return frozenset(modules) - cells.keys()

    def _recompute(self, cell: Any) -> None:
        """Of a list of cells each by itself: MindSpore (2.10) would put another cell into the list."""
        if isinstance(cell, self._ms.nn.CellList):
            for item in cell:
                self._recompute(item)
        else:
            cell.recompute()

    @in_turn
    def record(
        self,
        feed: Mapping[str, np.ndarray],
        by: Collection[str],
        *,
        train: bool,
        drawn: Mapping[str, np.ndarray] | None = None,
    ) -> Recorded:
        """See `run.session.Trains`."""
        tensors = {spec.name: self._tensor(feed[spec.name], spec.dtype) for spec in self.manifest.inputs}
        if drawn:
            masks = {name: self._ms.Tensor.from_numpy(array) for name, array in drawn.items()}

            def replace(name: str, value: Any) -> Any:
                return masks.get(name, value)

            with mindspore_nodes.watched(self._module, self._source, self.cell, self._steps(), replace):
                return self._trained.forward(tensors, by, train=train, compiled=False)
        with _garbage_left() if self._compiles(feed) else contextlib.nullcontext():
            return self._trained.forward(tensors, by, train=train)

    @in_turn
    def infer(self, feed: Mapping[str, np.ndarray], *, train: bool) -> list[np.ndarray]:
        """See `run.session.Trains`."""
        self.cell.set_train(train)
        return [np.array(to_numpy(value)) for value in self._call(feed, self.mode)]

    @contextlib.contextmanager
    def _training(self, mode: str) -> Iterator[None]:
        """In a mode, with the cell as a training has it; values are the same then, and dropout is no part of a port."""
        self.cell.set_train(True)
        try:
            with in_mode(self._ms, mode):
                yield
        except Exception as error:
            raise EngineError(f"mindspore failed in {mode} mode: {first_line(error)}") from error
        finally:
            self.cell.set_train(False)

    def _steps(self) -> dict[str, list[list[steps.Step]]]:
        try:
            return steps.from_json(self.manifest.settings.get("steps", {}))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise PortError(f"port.json does not say which statement is which node: {reason_of(error)}.") from None

    def close(self) -> None:
        """Free the cell. MindSpore frees its graphs with it, which no thread may do beside another that runs one."""
        module.forget(self._module)
        with contextlib.suppress(EngineError), turn():  # a fork leaves it as it is
            self.cell = None

    def _call(self, feed: Mapping[str, np.ndarray], mode: str) -> tuple:
        tensors = [self._tensor(feed[spec.name], spec.dtype) for spec in self.manifest.inputs]
        try:
            with in_mode(self._ms, mode):
                if mode == "graph":
                    self._declare(self._shapes(feed))
                compiles = mode == "graph" and self._compiles(feed)
                with _garbage_left() if compiles else contextlib.nullcontext():
                    out = self.cell(*tensors)
                if mode == "pynative":  # runs ahead; errors come when values are asked for
                    self._ms.runtime.synchronize()
        except Exception as error:
            raise EngineError(f"mindspore failed in {mode} mode: {first_line(error)}") from error
        found = out if isinstance(out, tuple) else (out,)
        if not all(isinstance(value, self._ms.Tensor) for value in found):
            kinds = ", ".join(type(value).__name__ for value in found)
            raise EngineError(f"The module returned {kinds}, where tensors are expected. Make the port again.")
        return found

    def _compiles(self, feed: Mapping[str, np.ndarray]) -> bool:
        """Whether this call is the first of its shapes in Graph mode."""
        shapes = self._declared or tuple(feed[spec.name].shape for spec in self.manifest.inputs)
        known = shapes in self._compiled
        self._compiled.add(shapes)
        return not known

    def _shapes(self, feed: Mapping[str, np.ndarray]) -> Shapes:
        """The shapes to compile a graph for, in which None is any size; nothing for a graph of these shapes.

        A generation's graph serves all sizes, or each token would compile one for the new length of its cache. Where a
        size is open, every kernel is set up anew in each call, which doubles the time of a step: so steps of one token
        have a graph in which only lengths are open, for each of the first few batch sizes.
        """
        if not self._generates:
            return self._shapes_of_part(feed)
        axes = [list(zip(spec.dims, feed[spec.name].shape, strict=True)) for spec in self.manifest.inputs]
        if {size for pairs in axes for dim, size in pairs if dim == self._new_tokens} == {1}:
            step = tuple(
                tuple(
                    size if axis == 0 or dim in (size, self._new_tokens) else None
                    for axis, (dim, size) in enumerate(pairs)
                )
                for pairs in axes
            )
            if step in self._graphs or len(self._graphs) < _GRAPHS_OF_STEPS:
                self._graphs.add(step)
                return step
        return self._open_ended()

    def _shapes_of_part(self, feed: Mapping[str, np.ndarray]) -> Shapes:
        """A layer that another loop calls, on one token more each time, has one graph for all after the first few."""
        if not self.part_of_loop or self._declared:
            return self._declared
        self._graphs.add(tuple(feed[spec.name].shape for spec in self.manifest.inputs))
        return self._open_ended() if len(self._graphs) > _GRAPHS_OF_STEPS else ()

    def _open_ended(self) -> Shapes:
        return tuple(tuple(dim if isinstance(dim, int) else None for dim in spec.dims) for spec in self.manifest.inputs)

    def _declare(self, shapes: Shapes) -> None:
        if shapes != self._declared:
            types = [getattr(self._ms, self._dtype(spec.dtype)) for spec in self.manifest.inputs]
            pairs = zip(shapes, types, strict=True)
            self.cell.set_inputs(*[self._ms.Tensor(shape=shape, dtype=dtype) for shape, dtype in pairs])
            self._declared = shapes

    def _tensor(self, array: np.ndarray, dtype: str) -> Any:
        if array.dtype == np.float16 and self._dtype(dtype) == "float32":
            array = array.astype(np.float32)
        tensor = self._ms.Tensor.from_numpy(array if array.flags.c_contiguous else np.ascontiguousarray(array))
        return tensor.astype(self._ms.bfloat16) if self._dtype(dtype) == "bfloat16" else tensor

    def _dtype(self, dtype: str) -> str:
        return self._stands.get(dtype, dtype)


def imported() -> types.ModuleType:
    """mindspore, imported without its log on the terminal and with its failure dumps out of the way."""
    level = os.environ.get("GLOG_v")  # noqa: SIM112 - its name
    os.environ["GLOG_v"] = level or "4"  # noqa: SIM112
    try:
        import mindspore as ms
    except Exception as error:
        raise EngineError(f"mindspore cannot be imported: {first_line(error)}") from error
    finally:
        if level is None:
            del os.environ["GLOG_v"]  # noqa: SIM112
    _settle(ms)
    return ms


@functools.cache
def _settle(ms: types.ModuleType) -> None:
    """Once a process: a failed compile writes its graph into `save_graphs_path`, by default where one stands.

    In PyNative mode MindSpore 2.10 hands operators through queues whose threads spin while they wait for each other: on
    two cores a small BERT takes 360 ms, and 10 ms where operators are launched one after another. That has to be said
    before the first of them. Graph mode has no such queues.
    """
    try:
        ms.set_device("CPU")
    except RuntimeError as error:  # the caller has computed with MindSpore before, on whatever device that was
        if (device := ms.get_context("device_target")) != "CPU":
            raise EngineError(
                f"MindSpore computes on {device} in this process already, and ports run on its CPU: "
                'call mindspore.set_device("CPU") before anything is computed.'
            ) from error
    ms.runtime.launch_blocking()
    ms.set_context(save_graphs_path=str(module.shelf()))


@contextlib.contextmanager
def _garbage_left() -> Iterator[None]:
    """Around a compile, before which MindSpore collects garbage: a third of a second with torch loaded.

    Not around every call, for objects that were frozen are old, and looked at seldom.
    """
    if gc.get_freeze_count():  # somebody wants what is frozen to stay so
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
