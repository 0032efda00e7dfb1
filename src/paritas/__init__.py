# SPDX-License-Identifier: Apache-2.0
"""Paritas: port pretrained PyTorch models to other engines, and prove that nothing changed on the way.

    port = paritas.port("openai/clip-vit-base-patch32", engine="mindspore")
    out = port(**inputs)
    report = port.verify()
    port.save("clip-ms")

Importing it loads no engine, patches nothing and sets nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paritas.adoption import adopt as adopt
    from paritas.apps.reimplementation.compare import compare as compare
    from paritas.dropin.training import trainable as trainable
    from paritas.pipeline import load as load
    from paritas.pipeline import port as port
    from paritas.ports import Port as Port
    from paritas.run.engine import default_engine as default_engine
    from paritas.run.engine import engines as engines
    from paritas.run.engine import set_default_engine as set_default_engine
    from paritas.run.mindspore.optimizers import optimizer as optimizer
    from paritas.transformers.training import Trainer as Trainer
    from paritas.verify import ParityReport as ParityReport
    from paritas.verify import Tolerance as Tolerance

__version__ = "0.1.0"

_PUBLIC = {
    "adopt": "paritas.adoption",
    "Port": "paritas.ports",
    "compare": "paritas.apps.reimplementation.compare",
    "load": "paritas.pipeline",
    "port": "paritas.pipeline",
    "optimizer": "paritas.run.mindspore.optimizers",
    "trainable": "paritas.dropin.training",
    "Trainer": "paritas.transformers.training",
    "engines": "paritas.run.engine",
    "default_engine": "paritas.run.engine",
    "set_default_engine": "paritas.run.engine",
    "ParityReport": "paritas.verify",
    "Tolerance": "paritas.verify",
}

__all__ = [*_PUBLIC, "errors", "logger"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        from paritas.extras import needing

        with needing("port", f"paritas.{name}"):
            return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name == "logger":  # of all messages: "making a port for this call" at INFO, "PyTorch computes" at WARNING
        return importlib.import_module("logging").getLogger("paritas")
    if name == "errors":
        return importlib.import_module("paritas.errors")
    raise AttributeError(f"module 'paritas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
