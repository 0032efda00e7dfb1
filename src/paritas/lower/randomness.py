# SPDX-License-Identifier: Apache-2.0
"""Random numbers. An engine cannot draw those that torch draws, and a port that draws others is another model."""

from __future__ import annotations

import re

import torch
from torch.fx import Node

from paritas.errors import LoweringError
from paritas.program import Program

_DRAWS = re.compile(
    r"aten\.(bernoulli|cauchy|exponential|geometric|log_normal|multinomial|normal|poisson|rand|rand_like|randint"
    r"|randint_like|randn|randn_like|randperm|uniform|_standard_gamma)\."
)


def refuse_random_ops(program: Program, engine: str) -> None:
    """Raise `LoweringError` with the source line if the program draws random numbers."""
    nodes = [node for node in program.graph.nodes if _draws(node)]
    if not nodes:
        return
    more = f" (and {len(nodes) - 1} more)" if len(nodes) > 1 else ""
    raise LoweringError(
        f"{engine} cannot lower {nodes[0].target} at {program.origin(nodes[0].name)}{more}: it draws random numbers, "
        f"and {engine}'s are not torch's, so that no port could be compared with the original. Pass the noise to the "
        "model as an input, or switch it off."
    )


#: Operators that draw where an argument says so: its name, and that of the share which is drawn.
_TRAINED = re.compile(
    r"aten\.(native_dropout|dropout|feature_dropout|alpha_dropout|feature_alpha_dropout|rrelu|rrelu_with_noise"
    r"|scaled_dot_product_attention|lstm|gru|rnn_tanh|rnn_relu)\."
)


def _drops(node: Node) -> bool:
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    given = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    if "dropout_p" in names:
        return given.get("dropout_p", 0) != 0
    switch = "train" if "train" in names else "training"
    share = given.get("p", given.get("dropout", 1))
    return given.get(switch, False) is not False and share != 0


def _draws(node: Node) -> bool:
    name = str(node.target)
    if node.op == "call_function" and _TRAINED.match(name):
        return _drops(node)
    if node.op != "call_function" or not _DRAWS.match(name):
        return False
    value = node.meta.get("val")
    if isinstance(value, torch.Tensor) and any(isinstance(size, int) and size == 0 for size in value.shape):
        return False
    return name != "aten.bernoulli.p" or node.args[1] not in (0, 1)
