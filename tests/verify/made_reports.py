# SPDX-License-Identifier: Apache-2.0
"""Reports of models that do not exist: as deep, as wrong and as hostile as a test wants them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

from paritas.verify import Environment, ModuleParity, NodeParity, OutputParity, ParityReport, whole_model
from paritas.verify.report.histogram import SIZE

ENVIRONMENT = Environment(
    "openvino", "2026.4.1", "", "bfloat16", "float32", machine="a machine", torch="2.13.0", date="2026-01-02"
)


def counts(**elements: int) -> tuple[int, ...]:
    """A histogram: `exact=3, at7=10, broken=1` for 3 exact elements, 10 in the eighth bin and 1 that is not finite."""
    places = {"exact": 0, "broken": SIZE - 1, **{f"at{place}": place for place in range(SIZE)}}
    found = dict.fromkeys(range(SIZE), 0) | {places[name]: count for name, count in elements.items()}
    return tuple(found.values())


def output(name: str = "last_hidden_state", case: str = "batch 1", excess: float = 0.1, **more) -> OutputParity:
    row = OutputParity(
        case,
        name,
        excess=excess,
        error=excess * 1e-4,
        max_abs=1e-6,
        torch_error=2e-7,
        port_error=3e-7,
        elements=15,
        worst=(0, 1),
        want=1.0,
        got=1.1,
        histogram=counts(exact=5, at7=10),
    )
    return dataclasses.replace(row, **more)


def module(path: str, excess: float = 0.01, **more) -> ModuleParity:
    row = ModuleParity(
        path,
        path.rpartition(".")[2].title() or "Model",
        0,
        f"node_{path}",
        excess=excess,
        error=excess * 1e-4,
        torch_error=2e-7,
        port_error=3e-7,
        elements=12,
        source=f"modeling_made.py:7  x = self.{path or 'all'}(x)",
    )
    return dataclasses.replace(row, **more)


def node(name: str, excess: float = 0.1, **more) -> NodeParity:
    row = NodeParity(
        name,
        "aten.gelu.default",
        "encoder.layer.0.act",
        "GELU",
        excess=excess,
        error=excess * 1e-6,
        shape=(2, 3),
        dtype="float32",
        torch_error=1e-7,
        port_error=2e-7,
        source="modeling_made.py:7  x = gelu(x)",
    )
    return dataclasses.replace(row, **more)


def deep(layers: int = 12, first_wrong: int | None = None) -> tuple[ModuleParity, ...]:
    """Embeddings, layers each with an attention inside, and a pooler; from a layer on, wrong."""
    rows = [module("embeddings.words", 0.0), module("embeddings", 0.0)]
    for at in range(layers):
        excess = 50.0 if first_wrong is not None and at >= first_wrong else 0.01 * (at + 1)
        rows += [module(f"encoder.layer.{at}.attention", excess), module(f"encoder.layer.{at}", excess)]
    return (*rows, module("encoder", rows[-1].excess), module("pooler", rows[-1].excess))


def report(rows: Iterable[OutputParity] = (), **more) -> ParityReport:
    given = {"subject": "a/model", "cases": ("batch 1: x[1, 2]",), "environment": ENVIRONMENT}
    return ParityReport(**{"tolerance": whole_model("float32"), "outputs": tuple(rows), **given, **more})


def looked_inside(modules: tuple[ModuleParity, ...], rows: Iterable[OutputParity] = (), **more) -> ParityReport:
    given = {"level": "modules", "module_case": "batch 1", "module_tolerance": whole_model("float32")}
    given["observed"] = "modules observed: outputs added"
    return report(rows or (output(), output("pooler_output")), modules=modules, **{**given, **more})


GOOD = looked_inside(deep(), level="nodes", nodes=(node("gelu"), node("gelu_1", 0.2)), observed_nodes="nodes computed")

BAD = dataclasses.replace(
    looked_inside(deep(first_wrong=3), (output(), output("pooler_output", excess=40.0, needed="|got-want| <= 1"))),
    level="nodes",
    nodes=(
        node("gelu"),
        node("gelu_1", 3.5, source="activations.py:89  return self.act(input)"),
        node("gelu_2", 0.3),
    ),
    unseen_nodes={"view": "part of another node in the engine's program"},
    observed_nodes="nodes computed one by one",
    notes=("run: bfloat16 is emulated",),
)

FAULTY = report(
    [output(excess=math.inf, fault="NaN: NaN where the original has none", histogram=counts(at7=9, broken=6))],
    unseen={'case "long"': "refused"},
)

SCRIPT = "<script>document.title='executed'</script><img src=x onerror=\"document.title='executed'\">"

HOSTILE = dataclasses.replace(
    looked_inside(
        (
            module(f"encoder.layer.{SCRIPT.replace('.', '')}", module_class=SCRIPT, source=SCRIPT),
            module("a.1"),
        ),
        (output(SCRIPT, SCRIPT, 3.0, hint=SCRIPT, needed=SCRIPT), output("fault", fault=SCRIPT)),
    ),
    environment=dataclasses.replace(ENVIRONMENT, engine=SCRIPT, machine=SCRIPT, precision=SCRIPT),
    level="nodes",
    subject=SCRIPT,
    cases=(SCRIPT,),
    module_case=SCRIPT,
    notes=(SCRIPT, "</style></title></svg>" + SCRIPT),
    nodes=(node(SCRIPT, 4.0, target=SCRIPT, module=SCRIPT, module_class=SCRIPT, source=SCRIPT, dtype=SCRIPT),),
    unseen={SCRIPT: SCRIPT},
    unseen_modules={SCRIPT: SCRIPT},
    unseen_nodes={SCRIPT: SCRIPT},
    observed=SCRIPT,
    observed_nodes=SCRIPT,
)
