# SPDX-License-Identifier: Apache-2.0
"""Custom pipelines that were written for an older diffusers or transformers, read as if nothing had moved.

Files of pipelines (`custom_pipeline=`) name modules that have other places now, and attributes that transformers 5 no
longer has. While `as_before()` holds, such a file is compiled with the present names in their place, on the same lines;
no other code sees anything of it. Each replacement is a line of the logger `paritas.diffusers`. What is gone for good
stays the error that it was.
"""

from __future__ import annotations

import ast
import contextlib
import contextvars
import functools
import importlib
import importlib.machinery
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import diffusers
from diffusers.utils import dynamic_modules_utils
from transformers import CLIPTextModel

_log = logging.getLogger("paritas.diffusers")

#: Folders of diffusers that have become deeper, and those inside of them to which their modules have gone.
_DEEPER = {
    "diffusers.models": ("autoencoders", "controlnets", "transformers", "unets"),
    "diffusers.pipelines": ("deprecated",),
    "diffusers.schedulers": ("deprecated",),
}

#: Modules that no rule finds: they went into another folder, or have another name.
MODULES = {
    "diffusers.dynamic_modules_utils": "diffusers.utils.dynamic_modules_utils",
    "diffusers.hub_utils": "diffusers.utils.hub_utils",
    "diffusers.modeling_utils": "diffusers.models.modeling_utils",
    "diffusers.models.unet_kandi3": "diffusers.models.unets.unet_kandinsky3",
    "diffusers.pipeline_utils": "diffusers.pipelines.pipeline_utils",
    "diffusers.pipelines.controlnet.multicontrolnet": "diffusers.models.controlnets.multicontrolnet",
    "diffusers.pipelines.kandinsky3.kandinsky3_pipeline": "diffusers.pipelines.kandinsky3.pipeline_kandinsky3",
}

#: Names that a module no longer has, and where the same object is: (module, name).
NAMES = {
    ("diffusers.loaders", "text_encoder_attn_modules"): ("diffusers.models.lora", "text_encoder_attn_modules"),
    ("diffusers.loaders", "text_encoder_mlp_modules"): ("diffusers.models.lora", "text_encoder_mlp_modules"),
    ("diffusers.models.attention", "AdaGroupNorm"): ("diffusers.models.normalization", "AdaGroupNorm"),
    ("diffusers.models.attention_processor", "LoRALinearLayer"): ("diffusers.models.lora", "LoRALinearLayer"),
    ("diffusers.models.cross_attention", "CrossAttention"): ("diffusers.models.attention_processor", "Attention"),
    ("diffusers.models.modeling_utils", "load_model_dict_into_meta"): (
        "diffusers.models.model_loading_utils",
        "load_model_dict_into_meta",
    ),
    ("diffusers.pipelines.controlnet", "MultiControlNetModel"): (
        "diffusers.models.controlnets.multicontrolnet",
        "MultiControlNetModel",
    ),
    ("diffusers.utils", "apply_forward_hook"): ("diffusers.utils.accelerate_utils", "apply_forward_hook"),
    ("diffusers.utils", "is_compiled_module"): ("diffusers.utils.torch_utils", "is_compiled_module"),
    ("diffusers.utils", "randn_tensor"): ("diffusers.utils.torch_utils", "randn_tensor"),
    # Deprecated subclasses of these, of no code of their own, until transformers 5.
    ("transformers", "CLIPFeatureExtractor"): ("transformers", "CLIPImageProcessor"),
    ("transformers", "DPTFeatureExtractor"): ("transformers", "DPTImageProcessor"),
    ("transformers", "ViTFeatureExtractor"): ("transformers", "ViTImageProcessor"),
}

#: Methods that returned the features themselves until transformers 5, and an object with more since then.
_FEATURES = ("get_image_features", "get_text_features")

_active: contextvars.ContextVar[bool] = contextvars.ContextVar("paritas_as_before", default=False)


@contextlib.contextmanager
def as_before() -> Iterator[None]:
    """While this holds, files of custom pipelines that diffusers imports are read as if nothing had moved."""
    _known()
    token = _active.set(True)
    try:
        yield
    finally:
        _active.reset(token)


@functools.cache
def _known() -> None:
    """diffusers imports such a file in one place, which asks us from now on."""
    own = dynamic_modules_utils.get_class_in_module

    @functools.wraps(own)
    def get_class_in_module(class_name: Any, module_path: Any, force_reload: bool = False) -> Any:
        if not _active.get():
            return own(class_name, module_path, force_reload)
        place = Path(dynamic_modules_utils.HF_MODULES_CACHE) / module_path
        name = os.path.normpath(module_path).removesuffix(".py").replace(os.path.sep, ".")
        module = _imported(name, place)
        return dynamic_modules_utils.find_pipeline_class(module) if class_name is None else getattr(module, class_name)

    dynamic_modules_utils.get_class_in_module = get_class_in_module


class _AsBefore(importlib.machinery.SourceFileLoader):
    """Reads a file's present text, compiled with what has moved in its new places."""

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path)
        code: CodeType = compile(rewritten(source, self.path), self.path, "exec", dont_inherit=True)
        return code

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(_paritas_text_model=text_model, _paritas_features=features)
        super().exec_module(module)


def _imported(name: str, place: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, place, loader=_AsBefore(name, str(place)))
    assert spec is not None and spec.loader is not None
    before = sys.modules.get(name)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
        raise
    return module


def rewritten(source: bytes | str, path: str) -> ast.Module:
    """The syntax tree of a file with what has moved in its new places. Each is told to the logger."""
    tree = ast.parse(source, path)
    writer = _Writer(Path(path).name, any(_reads(node, "pooler_output") for node in ast.walk(tree)))
    made: ast.Module = writer.visit(tree)
    return ast.fix_missing_locations(made)


def _reads(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == name


class _Writer(ast.NodeTransformer):
    def __init__(self, file: str, knows_outputs: bool) -> None:
        self._file = file
        self._knows_outputs = knows_outputs
        self._told: set[str] = set()

    def _tell(self, node: ast.AST, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            _log.warning("%s:%s: %s", self._file, getattr(node, "lineno", "?"), what)

    def visit_Import(self, node: ast.Import) -> ast.AST:
        for alias in node.names:
            found = new_module(alias.name) if alias.asname else None
            if found:
                self._tell(node, f"{alias.name} is {found} now")
                alias.name = found
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        if node.level or not node.module:
            return node
        stays: list[ast.alias] = []
        parts: list[ast.ImportFrom] = []
        for alias in node.names:
            place = _new_place(node.module, alias.name)
            if place is None:
                stays.append(alias)
                continue
            self._tell(node, f"{alias.name} of {node.module} is {place[1]} of {place[0]} now")
            moved = ast.alias(name=place[1], asname=alias.asname or alias.name)
            parts.append(ast.copy_location(ast.ImportFrom(module=place[0], names=[moved], level=0), node))
        if stays:
            if found := new_module(node.module):
                self._tell(node, f"{node.module} is {found} now")
                node.module = found
            node.names = stays
            parts.insert(0, node)
        return parts

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if node.attr != "text_model" or not isinstance(node.ctx, ast.Load):
            return node
        self._tell(node, "text_model is the text encoder itself since transformers 5")
        return _call("_paritas_text_model", node.value, node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if called not in _FEATURES or self._knows_outputs:
            return node
        self._tell(node, f"of what {called} returns since transformers 5, the features are taken")
        return _call("_paritas_features", node, node)


def _call(name: str, argument: ast.expr, at: ast.AST) -> ast.Call:
    made = ast.Call(func=ast.Name(id=name, ctx=ast.Load()), args=[argument], keywords=[])
    return ast.copy_location(made, at)


def text_model(encoder: Any) -> Any:
    """What `encoder.text_model` was before transformers 5."""
    if isinstance(encoder, CLIPTextModel) and not hasattr(encoder, "text_model"):
        return encoder
    return encoder.text_model


def features(found: Any) -> Any:
    """What `get_image_features` and `get_text_features` returned before transformers 5: the features alone."""
    return getattr(found, "pooler_output", found)


def new_module(name: str) -> str | None:
    """Where a module of diffusers is that has moved; None where it is in its place, or nowhere."""
    if name.partition(".")[0] != diffusers.__name__ or _exists(name):
        return None
    if name in MODULES:
        return MODULES[name]
    for folder, inner in _DEEPER.items():
        if name.startswith(f"{folder}."):
            rest = name.removeprefix(f"{folder}.")
            found = [place for one in inner if _exists(place := f"{folder}.{one}.{rest}")]
            found = found or _of_that_name(folder, rest.rpartition(".")[2])
            return found[0] if len(found) == 1 else None
    return None


def _of_that_name(folder: str, name: str) -> list[str]:
    """The modules of that file name in the deprecated pipelines: each has got a folder of its own there."""
    root = importlib.util.find_spec(f"{folder}.deprecated")
    if root is None or not root.submodule_search_locations:
        return []
    top = Path(root.submodule_search_locations[0])
    return [f"{root.name}.{path.parent.name}.{name}" for path in sorted(top.glob(f"*/{name}.py"))]


def _new_place(module: str, name: str) -> tuple[str, str] | None:
    place = NAMES.get((module, name))
    if place is None or (_exists(module) and hasattr(importlib.import_module(module), name)):
        return None
    return place


def _exists(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
