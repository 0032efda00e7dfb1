# SPDX-License-Identifier: Apache-2.0
"""A plugin of pytest: transformers' own tests see our classes under transformers' names.

With PARITAS_SWAP=1, on the engine that PARITAS_ENGINE names; without it they see transformers' own. PARITAS_OUTCOMES is
the file for the outcome of every test, a line of JSON each. PARITAS_CLASSES=3 leaves each architecture its first three
classes. The tests may be of a neighbouring release: names that the installed one does not have are None in them, and
what is built on tokenizers and pipelines from the hub is left out.
"""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import importlib.util
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel


def pytest_configure(config: Any) -> None:
    tests = Path.cwd() / "tests"
    for folder in (tests.parent, tests.parent / "utils"):  # `test_module` is there
        sys.path.insert(0, str(folder))
    for marker in ("generate", "torch_compile_test", "flash_attn_test", "torch_export_test"):
        config.addinivalue_line("markers", marker)
    pipelines: Any = types.ModuleType("tests.test_pipeline_mixin")
    pipelines.PipelineTesterMixin = type("PipelineTesterMixin", (), {})
    sys.modules[pipelines.__name__] = pipelines
    for name in (
        "datasets",
        "timeout_decorator",
    ):  # for tests of checkpoints from the hub, but imported for all
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = _Idle(name)
    if os.environ.get("PARITAS_SWAP"):
        swap()
    _fill_up(tests, Path(config.args[0].partition("::")[0]))


class _Idle(types.ModuleType):
    """A package that is not there: its functions are decorators that change nothing."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: lambda function: function


def swap() -> None:
    """Whoever takes a model class out of `transformers` gets the ported one."""
    from paritas.transformers.models import ported_class

    lazy: Any = type(transformers)
    own = lazy.__getattr__

    def found(self: Any, name: str) -> Any:
        value = own(self, name)
        is_model = isinstance(value, type) and issubclass(value, PreTrainedModel)
        if not is_model or self.__name__ != "transformers" or name.endswith("PreTrainedModel"):
            return value
        ours = ported_class(value)
        setattr(self, name, ours)
        return ours

    lazy.__getattr__ = found


def _fill_up(tests: Path, file: Path) -> None:
    """Names of another release that these tests import."""
    for one in [*tests.glob("*.py"), *tests.glob("generation/test_utils.py"), file]:
        for node in ast.walk(ast.parse(one.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("transformers"):
                try:
                    module = importlib.import_module(node.module)
                except ImportError:
                    continue
                for alias in node.names:
                    if not hasattr(module, alias.name):
                        setattr(module, alias.name, None)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    done = _done(Path(os.environ["PARITAS_OUTCOMES"]))
    items[:] = [item for item in items if item.name not in done]
    if most := int(os.environ.get("PARITAS_CLASSES") or 0):
        for cls in {item.cls for item in items}:
            if getattr(cls, "all_model_classes", None):  # some are told only when they are set up
                cls.all_model_classes = tuple(cls.all_model_classes)[:most]


def _done(file: Path) -> set[str]:
    """The tests that an earlier run has finished. The last one may have been interrupted among its subtests."""
    lines = file.read_text().splitlines() if file.exists() else []
    tests = [json.loads(line)["test"] for line in lines]
    kept = [line for line, test in zip(lines, tests, strict=True) if test != tests[-1]]
    file.write_text("".join(f"{line}\n" for line in kept))
    return set(tests[:-1]) - set(tests[-1:])


def pytest_runtest_logreport(report: Any) -> None:
    # Those of a test's own subtests too: one that fails is the test's failure.
    if report.when == "call" or report.outcome != "passed":
        lines = str(report.longrepr).splitlines() if report.failed else []
        said = [line.removeprefix("E").strip() for line in lines if line.startswith("E ")][:3]
        line = {"test": report.nodeid.rpartition("::")[2], "outcome": report.outcome, "said": said}
        with Path(os.environ["PARITAS_OUTCOMES"]).open("a") as file:
            file.write(json.dumps({**line, "seconds": round(report.duration, 1)}) + "\n")
