# SPDX-License-Identifier: Apache-2.0
"""Every node of an OpenVINO model by itself: its graph cut at each tensor that carries a node's name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

import numpy as np
import openvino
import openvino.opset16 as ops

#: Bytes of tensors that are computed in one go. Each of them is there twice: as it is wanted and as it is got.
AT_ONCE = 1 << 26


def names(model: openvino.Model, prefix: str) -> set[str]:
    """The nodes whose tensors the model still has, without weights and other constants."""
    return {name for found, _ in _named(model, prefix) for name in found}


def alone(
    model: openvino.Model,
    prefix: str,
    given: Mapping[str, np.ndarray],
    feed: Mapping[str, np.ndarray],
    compiled: Callable[[openvino.Model], openvino.CompiledModel],
) -> Iterator[tuple[str, np.ndarray]]:
    """(node, what the engine makes of it), with `given` in the place of every other node's value.

    Each tensor of `given` becomes a result where it is computed and an input where it is used, so that nothing is
    fused across it. feed: the model's own inputs, by name. The model is changed.
    """
    cut = []
    stand_ins = []
    for found, output in _named(model, prefix):
        known = [name for name in found if name in given]
        if not known:
            continue
        value = given[known[0]]
        cut.append((known, output, value.nbytes))
        if output.get_partial_shape().compatible(openvino.PartialShape(list(value.shape))):
            stand_in = ops.parameter(list(value.shape), output.get_element_type())
            for user in output.get_target_inputs():
                user.replace_source_output(stand_in.output(0))
            stand_ins.append((stand_in, value))
    inputs = [(p, feed[_own_name(p, feed)]) for p in model.get_parameters()] + stand_ins
    arrays = {  # not `ascontiguousarray`, which gives a scalar a dimension
        index: np.asarray(value.astype(p.get_element_type().to_dtype(), copy=False), order="C")
        for index, (p, value) in enumerate(inputs)
    }
    parameters = [parameter for parameter, _ in inputs]
    for group in _groups(cut):
        values = _computed(compiled, [output for _, output, _ in group], parameters, arrays)
        for (known, _, _), value in zip(group, values, strict=True):
            for name in known:
                yield name, value


def _computed(
    compiled: Callable[[openvino.Model], openvino.CompiledModel],
    outputs: list[openvino.Output],
    parameters: list[openvino.op.Parameter],
    arrays: Mapping[int, np.ndarray],
) -> list[np.ndarray]:
    """The outputs' values. A function, so that what was compiled for them is gone before the next are."""
    results = [ops.result(ops.identity(output)) for output in outputs]
    request = compiled(openvino.Model(results, parameters, "nodes")).create_infer_request()
    found = request.infer(arrays, share_inputs=True, share_outputs=True).to_tuple()
    return [np.array(value) for value in found]


def borders(model: openvino.Model, prefix: str) -> list[frozenset[str]]:
    """The tensors at which the model can be cut, each with the names of the nodes that it is the value of."""
    return [frozenset(found) for found, _ in _named(model, prefix)]


def cut(
    model: openvino.Model, prefix: str, given: Mapping[str, np.ndarray], outputs: Collection[str]
) -> openvino.Model:
    """The part of `model` that computes the nodes `outputs`, with inputs in the place of the nodes of `given`.

    Between these nothing is changed, nor is any shape made static, so that the engine fuses there what it fuses in
    the whole. Inputs and outputs carry the names of nodes, the model's own inputs theirs. The model is changed.
    """
    results = []
    wanted = set(outputs)
    for found, output in list(_named(model, prefix)):
        shown = [name for name in found if name in wanted]
        if shown:
            wanted -= set(shown)
            results.append((shown, output))
        known = [name for name in found if name in given]
        if not known or not output.get_partial_shape().compatible(openvino.PartialShape(list(given[known[0]].shape))):
            continue
        stand_in = ops.parameter(output.get_partial_shape(), output.get_element_type(), name=known[0])
        output.get_tensor().set_names(set())
        stand_in.output(0).get_tensor().set_names({prefix + known[0]})
        for user in output.get_target_inputs():
            user.replace_source_output(stand_in.output(0))
    made = [ops.result(output) for _, output in results]
    for (shown, output), result in zip(results, made, strict=True):
        output.get_tensor().add_names({prefix + name for name in shown})
        result.set_friendly_name(shown[0])
    parameters = [op for op in _above(made) if op.get_type_name() == "Parameter"]
    return openvino.Model(made, parameters, "part")


def _above(results: Iterable[openvino.Node]) -> list[openvino.Node]:
    """Everything that the results are computed from."""
    found: dict[str, openvino.Node] = {}
    queue = list(results)
    while queue:
        op = queue.pop()
        if op.get_name() not in found:
            found[op.get_name()] = op
            queue += [value.get_node() for value in op.input_values()]
    return list(found.values())


def _own_name(parameter: openvino.op.Parameter, feed: Mapping[str, np.ndarray]) -> str:
    return next(name for name in parameter.output(0).get_names() if name in feed)


def _named(model: openvino.Model, prefix: str) -> Iterator[tuple[list[str], openvino.Output]]:
    """A tensor has several names where nodes did nothing to it."""
    for op in model.get_ordered_ops():
        if op.get_type_name() in ("Constant", "Parameter"):
            continue
        for output in op.outputs():
            found = sorted(n.removeprefix(prefix) for n in output.get_names() if n.startswith(prefix))
            if found:
                yield found, output


def _groups(
    cut: list[tuple[list[str], openvino.Output, int]],
) -> Iterator[list[tuple[list[str], openvino.Output, int]]]:
    group: list[tuple[list[str], openvino.Output, int]] = []
    size = 0
    for item in cut:
        group.append(item)
        size += item[2]
        if size >= AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group
