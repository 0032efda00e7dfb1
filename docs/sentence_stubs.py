# SPDX-License-Identifier: Apache-2.0
"""src/paritas/sentence_transformers/__init__.pyi: its classes as type checkers and editors see them, with our keywords.

Written by docs/stubs.py. Nothing of sentence-transformers is imported: its source is read.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent

STUB = ROOT / "src" / "paritas" / "sentence_transformers" / "__init__.pyi"

#: Classes of models; all else that the library exports is its own.
MODELS = ("SentenceTransformer", "CrossEncoder", "SparseEncoder", "MultiVectorEncoder")

HEAD = '''# SPDX-License-Identifier: Apache-2.0
# Written by docs/stubs.py (make docs), for sentence-transformers {version}.
from collections.abc import Mapping
from typing import Any, Literal, overload

import sentence_transformers as _s

from paritas.ports import Port

Engine = Literal[{engines}]
Mode = Literal[{modes}]
Target = Literal[{targets}]
Weights = Literal[{weights}] | Mapping[str, Any]

class Ported:
    """What a model of this namespace has beside those of sentence-transformers."""

    @property
    def ports(self) -> list[Port]: ...
    @property
    def engine(self) -> str: ...
    def in_pytorch(self) -> Any: ...
    def __init__(
        self,
        model_name_or_path: str | None = None,
        *,
{keywords}
        **kwargs: Any,
    ) -> None: ...
'''


#: For each class of models.
PORT_MODEL = """@overload
def port_model(
    model: _s.{name},
    engine: Engine | None = None,
    *,
{options}
) -> {name}: ...
"""


def source() -> Path | None:
    """Where sentence-transformers is installed; None where it is not."""
    found = importlib.util.find_spec("sentence_transformers")
    return Path(found.origin).parent if found is not None and found.origin else None


def written(package: Path, kinds: Mapping[str, str], words: Mapping[str, str]) -> str:
    """The stub's text. kinds: of each of our keywords; words: what the engines say of themselves."""
    tree = ast.parse((package / "__init__.py").read_text(encoding="utf-8"))
    told = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id in ("__all__", "__version__")
    }
    head = HEAD.format(
        version=".".join(told["__version__"].split(".")[:2]),
        **words,
        keywords="\n".join(f"        {name}: {kind}," for name, kind in kinds.items()),
    )
    options = "\n".join(f"    {name}: {kind}," for name, kind in kinds.items() if name != "engine")
    lines = [f"class {name}(Ported, _s.{name}): ..." for name in MODELS]
    lines += [PORT_MODEL.format(name=name, options=options).rstrip() for name in MODELS]
    others = sorted(set(told["__all__"]) - set(MODELS))
    lines += [f"from sentence_transformers import {name} as {name}" for name in others]
    return head + "\n" + "\n".join(lines) + "\n"
