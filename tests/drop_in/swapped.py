# SPDX-License-Identifier: Apache-2.0
"""A plugin of pytest: transformers' own tests see our classes under transformers' names.

With PARITAS_SWAP=1, on the engine that PARITAS_ENGINE names. PARITAS_OUTCOMES is the file for the outcome of every
test, a line of JSON each.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel


def pytest_configure(config: Any) -> None:
    if os.environ.get("PARITAS_SWAP"):
        swap()


def swap() -> None:
    """Whoever takes a model class out of `transformers` gets the ported one."""
    from paritas.transformers.models import ported_class

    lazy: Any = type(transformers)
    own = lazy.__getattr__

    def found(self: Any, name: str) -> Any:
        value = own(self, name)
        if (
            self.__name__ != "transformers"
            or not isinstance(value, type)
            or not issubclass(value, PreTrainedModel)
        ):
            return value
        if name.endswith("PreTrainedModel"):
            return value
        ours = ported_class(value)
        setattr(self, name, ours)
        return ours

    lazy.__getattr__ = found


def pytest_runtest_logreport(report: Any) -> None:
    if report.when == "call" or report.outcome != "passed":
        said = str(report.longrepr).strip().splitlines()[-1:] if report.failed else []
        line = {"test": report.nodeid.rpartition("::")[2], "outcome": report.outcome, "said": said}
        with Path(os.environ["PARITAS_OUTCOMES"]).open("a") as file:
            file.write(json.dumps({**line, "seconds": round(report.duration, 1)}) + "\n")
