# SPDX-License-Identifier: Apache-2.0
"""Write the __init__.pyi of src/paritas/transformers, open_clip and sentence_transformers: the classes of these
libraries as type checkers and editors see them.

    python docs/stubs.py

A class of models is the original's with our keywords; all else is the original's own. What the keywords take is what
the engines say of themselves. Nothing of transformers' models is imported: their source is read.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "docs")]

STUB = ROOT / "src" / "paritas" / "transformers" / "__init__.pyi"

_CLASS = re.compile(r"^class (\w+)(?:\(([^)]*)\))?:", re.M)

HEAD = '''# SPDX-License-Identifier: Apache-2.0
# Written by docs/stubs.py (make docs), for transformers {version}.
import os
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
import transformers as _t

from paritas.ports import Port

Engine = Literal[{engines}]
Mode = Literal[{modes}]
Target = Literal[{targets}]
Weights = Literal[{weights}] | Mapping[str, Any]

class Ported:
    """What a model of this namespace has beside those of transformers."""

    @property
    def ports(self) -> list[Port]: ...
    @property
    def engine(self) -> str: ...
    def in_pytorch(self) -> _t.PreTrainedModel: ...
    def __init__(
        self,
        config: _t.PreTrainedConfig,
        *args: Any,
{keywords}
        **kwargs: Any,
    ) -> None: ...
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str] | None,
        *args: Any,
{keywords}
        **kwargs: Any,
    ) -> Self: ...

class Generates(Ported):
    """Models with transformers' own loops of generation."""

    def generate(self, inputs: torch.Tensor | None = None, **kwargs: Any) -> Any: ...

class PortedModel(Ported, _t.PreTrainedModel): ...
class PortedGenerator(Generates, _t.PreTrainedModel, _t.GenerationMixin): ...

class _Auto:
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *args: Any,
{keywords}
        **kwargs: Any,
    ) -> PortedModel: ...
    @classmethod
    def from_config(
        cls,
        config: _t.PreTrainedConfig,
        *,
{keywords}
        **kwargs: Any,
    ) -> PortedModel: ...

class _AutoGenerator:
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *args: Any,
{keywords}
        **kwargs: Any,
    ) -> PortedGenerator: ...
    @classmethod
    def from_config(
        cls,
        config: _t.PreTrainedConfig,
        *,
{keywords}
        **kwargs: Any,
    ) -> PortedGenerator: ...

def pipeline(
    task: str | None = None,
    model: str | _t.PreTrainedModel | os.PathLike[str] | None = None,
    *args: Any,
{indented}
    **kwargs: Any,
) -> _t.Pipeline: ...
def port_model(
    model: _t.PreTrainedModel,
    engine: Engine | None = None,
    *,
    mode: Mode = "",
    target: Target = "cpu",
    weights: Weights = "",
    engine_device: str = "",
    ov_config: Mapping[str, Any] | None = None,
) -> PortedModel: ...

class _OnEngine:
    def __init__(
        self,
        model: torch.nn.Module | None = None,
        args: _t.TrainingArguments | None = None,
        *rest: Any,
        engine: Engine | None = None,
        **options: Any,
    ) -> None: ...

'''

#: Classes that train, with a keyword for the engine.
TRAINERS = ("Seq2SeqTrainer", "Trainer")

#: Of whose Auto classes the models generate.
GENERATES = re.compile(
    r"CausalLM|Seq2Seq|ImageTextTo|ImageToText|Vision2Seq|MultimodalLM|TextToWaveform|TextToSpectrogram"
)

#: keyword of ours -> its type and default; any other takes what it takes.
KINDS = {
    "engine": "Engine | None = None",
    "mode": 'Mode = ""',
    "target": 'Target = "cpu"',
    "weights": 'Weights = ""',
    "engine_device": 'str = ""',
    "device": "str | None = None",
    "ov_config": "Mapping[str, Any] | None = None",
}


def written() -> str:
    """The stub's text, in the order of names."""
    import transformers

    from paritas.dropin.classes import OURS
    from paritas.transformers.optimum import auto_name, names_of

    head = HEAD.format(
        version=".".join(transformers.__version__.split(".")[:2]),
        **_words(),
        keywords="\n".join(f"        {name}: {KINDS.get(name, 'Any = ...')}," for name in OURS),
        indented="\n".join(f"    {name}: {KINDS.get(name, 'Any = ...')}," for name in OURS),
    )
    models, autos, others = _names(Path(transformers.__file__).parent)
    lines = [f"class {name}({base}, _t.{name}): ..." for name, base in models.items()]
    for name in [*autos, *names_of(autos)]:
        base = "_AutoGenerator" if GENERATES.search(name) else "_Auto"
        lines.append(f"class {name}({base}, _t.{auto_name(name)[0] or name}): ...")
    lines += [f"class {name}(_OnEngine, _t.{name}): ..." for name in TRAINERS]
    taken = {*models, *autos, *TRAINERS, "pipeline"}
    lines += [f"from transformers import {name} as {name}" for name in others if name not in taken]
    return head + "\n" + "\n".join(lines) + "\n"


def of_open_clip() -> str | None:
    """The stub of `paritas.open_clip`; None where open_clip is not installed."""
    import open_clip_stubs

    from paritas.dropin.classes import OURS

    if (package := open_clip_stubs.source()) is None:
        return None
    kinds = {name: KINDS[name] for name in OURS}
    return open_clip_stubs.written(package, kinds, {**_words(), "precisions": _literal(open_clip_stubs.precisions())})


def of_sentence_transformers() -> str | None:
    """The stub of `paritas.sentence_transformers`; None where sentence-transformers is not installed."""
    import sentence_stubs

    from paritas.dropin.classes import OURS

    if (package := sentence_stubs.source()) is None:
        return None
    return sentence_stubs.written(package, {name: KINDS[name] for name in OURS}, _words())


def _words() -> dict[str, str]:
    """What the engines say of themselves, as types."""
    from paritas.run.engine import all_about

    every = sorted(all_about(), key=lambda one: one.rank)
    return {
        "engines": _literal(one.name for one in every),
        "modes": _literal(["", *(mode for one in every for mode in one.modes if mode)]),
        "targets": _literal(target for one in every for target in one.targets),
        "weights": _literal(["", *(weights for one in every for weights in one.weight_formats)]),
    }


def _literal(words: Iterable[str]) -> str:
    return ", ".join(f'"{word}"' for word in dict.fromkeys(words))


def _names(package: Path) -> tuple[dict[str, str], list[str], list[str]]:
    """Names that transformers exports: its models with our base, its Auto classes for models, and all others."""
    import transformers

    bases: dict[str, list[str]] = {}
    for path in (
        *package.rglob("modeling_*.py"),
        *package.rglob("generation_*.py"),
        *package.rglob("auto_factory.py"),
    ):
        for name, inherited in _CLASS.findall(path.read_text(encoding="utf-8")):
            bases[name] = [one.split("[")[0].rpartition(".")[2].strip() for one in inherited.split(",")]
    models: dict[str, str] = {}
    autos: list[str] = []
    others: list[str] = []
    for name in sorted(vars(transformers)["_class_to_module"]):
        if name != "PreTrainedModel" and _descends(name, bases, "PreTrainedModel"):
            models[name] = "Generates" if _descends(name, bases, "GenerationMixin") else "Ported"
        elif _descends(name, bases, "_BaseAutoModelClass"):
            autos.append(name)
        elif not name.startswith("_"):
            others.append(name)
    return models, autos, others


def _descends(name: str, bases: dict[str, list[str]], ancestor: str) -> bool:
    own = bases.get(name, ())
    return ancestor in own or any(base != name and _descends(base, bases, ancestor) for base in own)


if __name__ == "__main__":
    STUB.write_text(written(), encoding="utf-8")
    print(f"{STUB.relative_to(ROOT)} written again")
    if (text := of_open_clip()) is not None:
        import open_clip_stubs

        open_clip_stubs.STUB.write_text(text, encoding="utf-8")
        print(f"{open_clip_stubs.STUB.relative_to(ROOT)} written again")
    if (text := of_sentence_transformers()) is not None:
        import sentence_stubs

        sentence_stubs.STUB.write_text(text, encoding="utf-8")
        print(f"{sentence_stubs.STUB.relative_to(ROOT)} written again")
