# SPDX-License-Identifier: Apache-2.0
"""Small captured programs, built by hand so that these tests stand on verification alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from paritas.program import Frame, ModuleCall, Origin, Program, Source, TensorSpec


def program_of(
    module: nn.Module,
    examples: Mapping[str, torch.Tensor],
    *,
    dynamic: bool = True,
    modules: tuple[ModuleCall, ...] = (),
) -> Program:
    """`module` captured by torch.export, all dimensions dynamic unless told; outputs named out0, out1, ..."""
    auto = torch.export.Dim.AUTO
    shapes = {name: dict.fromkeys(range(t.dim()), auto) for name, t in examples.items()} if dynamic else None
    exported = torch.export.export(module.eval(), (), dict(examples), dynamic_shapes=shapes).run_decompositions({})
    placeholders = {n.name: n for n in exported.graph.nodes if n.op == "placeholder"}
    inputs = tuple(_spec(name, placeholders[name].meta["val"]) for name in examples)
    results = zip(exported.graph_signature.output_specs, exported.graph.output_node().args[0], strict=True)
    user = [node for spec, node in results if spec.kind.name == "USER_OUTPUT"]
    outputs = tuple(_spec(f"out{i}", node.meta["val"]) for i, node in enumerate(user))
    return Program(
        exported=exported,
        inputs=inputs,
        outputs=outputs,
        structure={},
        origins={
            n.name: Origin("", type(module).__name__, (Frame(__file__, 1, "forward", n.name),))
            for n in exported.graph.nodes
        },
        modules=modules,
        constants={},
        source=Source("module", model_class=type(module).__name__),
        examples=dict(examples),
    )


def _spec(name: str, value: torch.Tensor | torch.SymInt) -> TensorSpec:
    if not isinstance(value, torch.Tensor):
        return TensorSpec(name, "int64", ())
    dims = tuple(int(d) if isinstance(d, int) else str(d.node.expr) for d in value.shape)
    return TensorSpec(name, str(value.dtype).removeprefix("torch."), dims)


def eager(module: nn.Module) -> Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]:
    """The original, as `verify` takes it: feed -> flat outputs; bfloat16 leaves as float32."""
    dtype = next(module.parameters()).dtype

    def run(feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        tensors = {name: torch.from_numpy(value.copy()) for name, value in feed.items()}
        tensors = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}
        with torch.no_grad():
            result = module(**tensors)
        flat = result if isinstance(result, tuple) else (result,)
        return [(t.float() if t.dtype == torch.bfloat16 else t).numpy() for t in flat]

    return run


class Mlp(nn.Module):
    """Two layers, a norm and a head: enough modules that a fault has a place."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 16)
        self.norm = nn.LayerNorm(16)
        self.down = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.norm(torch.nn.functional.gelu(self.up(x)))
        result = self.down(hidden)
        return result, result.argmax(-1)
