# SPDX-License-Identifier: Apache-2.0
# Written by docs/stubs.py (make docs), for open_clip 3.3.
from collections.abc import Mapping
from typing import Any, Literal

import open_clip as _o
import torch
from open_clip import AugmentationCfg

from paritas.ports import Port

Engine = Literal["openvino", "mindspore", "torch"]
Mode = Literal["", "graph", "pynative"]
Target = Literal["cpu", "ascend"]
Weights = Literal["", "int8", "int4", "bf16", "fp16"] | Mapping[str, Any]
Precision = Literal["fp32", "fp16", "bf16", "pure_fp16", "pure_bf16", "amp", "amp_bf16", "amp_bfloat16"]

class Model(torch.nn.Module):
    """A model of two towers, which an engine computes."""

    @property
    def ports(self) -> list[Port]: ...
    @property
    def engine(self) -> str: ...
    def in_pytorch(self) -> torch.nn.Module: ...
    def encode_image(self, image: Any, normalize: bool = False) -> Any: ...
    def encode_text(self, text: Any, normalize: bool = False) -> Any: ...
    def __getattr__(self, name: str) -> Any: ...

class CLIP(Model, _o.CLIP): ...
class CoCa(Model, _o.CoCa): ...
class CustomTextCLIP(Model, _o.CustomTextCLIP): ...
def create_model(
    model_name: str,
    pretrained: str | None = None,
    load_weights: bool = True,
    precision: Precision = 'fp32',
    device: str | torch.device = 'cpu',
    jit: bool = False,
    force_quick_gelu: bool = False,
    force_custom_text: bool = False,
    force_patch_dropout: float | None = None,
    force_image_size: int | tuple[int, int] | None = None,
    force_preprocess_cfg: dict[str, Any] | None = None,
    force_context_length: int | None = None,
    pretrained_image: bool = False,
    pretrained_text: bool = True,
    pretrained_image_path: str | None = None,
    pretrained_text_path: str | None = None,
    cache_dir: str | None = None,
    output_dict: bool | None = None,
    require_pretrained: bool = False,
    weights_only: bool = True,
    *,
    engine: Engine | None = None,
    mode: Mode = "",
    target: Target = "cpu",
    weights: Weights = "",
    engine_device: str = "",
    ov_config: Mapping[str, Any] | None = None,
    **model_kwargs: Any,
) -> Model: ...
def create_model_and_transforms(
    model_name: str,
    pretrained: str | None = None,
    load_weights: bool = True,
    precision: Precision = 'fp32',
    device: str | torch.device = 'cpu',
    jit: bool = False,
    force_quick_gelu: bool = False,
    force_custom_text: bool = False,
    force_patch_dropout: float | None = None,
    force_image_size: int | tuple[int, int] | None = None,
    force_context_length: int | None = None,
    image_mean: tuple[float, ...] | None = None,
    image_std: tuple[float, ...] | None = None,
    image_interpolation: str | None = None,
    image_resize_mode: str | None = None,
    aug_cfg: dict[str, Any] | AugmentationCfg | None = None,
    pretrained_image: bool = False,
    pretrained_text: bool = True,
    pretrained_image_path: str | None = None,
    pretrained_text_path: str | None = None,
    cache_dir: str | None = None,
    output_dict: bool | None = None,
    weights_only: bool = True,
    *,
    engine: Engine | None = None,
    mode: Mode = "",
    target: Target = "cpu",
    weights: Weights = "",
    engine_device: str = "",
    ov_config: Mapping[str, Any] | None = None,
    **model_kwargs: Any,
) -> tuple[Model, Any, Any]: ...
def create_model_from_pretrained(
    model_name: str,
    pretrained: str | None = None,
    precision: Precision = 'fp32',
    device: str | torch.device = 'cpu',
    jit: bool = False,
    force_quick_gelu: bool = False,
    force_custom_text: bool = False,
    force_image_size: int | tuple[int, int] | None = None,
    force_context_length: int | None = None,
    image_mean: tuple[float, ...] | None = None,
    image_std: tuple[float, ...] | None = None,
    image_interpolation: str | None = None,
    image_resize_mode: str | None = None,
    return_transform: bool = True,
    cache_dir: str | None = None,
    weights_only: bool = True,
    *,
    engine: Engine | None = None,
    mode: Mode = "",
    target: Target = "cpu",
    weights: Weights = "",
    engine_device: str = "",
    ov_config: Mapping[str, Any] | None = None,
    **model_kwargs: Any,
) -> Any: ...
def load_openai_model(
    name: str,
    precision: Precision | None = None,
    device: str | torch.device | None = None,
    cache_dir: str | None = None,
    *,
    engine: Engine | None = None,
    mode: Mode = "",
    target: Target = "cpu",
    weights: Weights = "",
    engine_device: str = "",
    ov_config: Mapping[str, Any] | None = None,
) -> Model: ...
def port_model(
    model: Any,
    engine: Engine | None = None,
    *,
    mode: Mode = "",
    target: Target = "cpu",
    weights: Weights = "",
    engine_device: str = "",
    ov_config: Mapping[str, Any] | None = None,
) -> Model: ...
from open_clip import AugmentationCfg as AugmentationCfg
from open_clip import CLIPTextCfg as CLIPTextCfg
from open_clip import CLIPVisionCfg as CLIPVisionCfg
from open_clip import ClipLoss as ClipLoss
from open_clip import CoCaLoss as CoCaLoss
from open_clip import DistillClipLoss as DistillClipLoss
from open_clip import IMAGENET_CLASSNAMES as IMAGENET_CLASSNAMES
from open_clip import OPENAI_DATASET_MEAN as OPENAI_DATASET_MEAN
from open_clip import OPENAI_DATASET_STD as OPENAI_DATASET_STD
from open_clip import OPENAI_IMAGENET_TEMPLATES as OPENAI_IMAGENET_TEMPLATES
from open_clip import SIMPLE_IMAGENET_TEMPLATES as SIMPLE_IMAGENET_TEMPLATES
from open_clip import SimpleTokenizer as SimpleTokenizer
from open_clip import __version__ as __version__
from open_clip import add_model_config as add_model_config
from open_clip import build_zero_shot_classifier as build_zero_shot_classifier
from open_clip import build_zero_shot_classifier_legacy as build_zero_shot_classifier_legacy
from open_clip import convert_weights_to_fp16 as convert_weights_to_fp16
from open_clip import convert_weights_to_lp as convert_weights_to_lp
from open_clip import create_loss as create_loss
from open_clip import decode as decode
from open_clip import download_pretrained as download_pretrained
from open_clip import download_pretrained_from_url as download_pretrained_from_url
from open_clip import get_cast_dtype as get_cast_dtype
from open_clip import get_input_dtype as get_input_dtype
from open_clip import get_model_config as get_model_config
from open_clip import get_model_preprocess_cfg as get_model_preprocess_cfg
from open_clip import get_model_tokenize_cfg as get_model_tokenize_cfg
from open_clip import get_pretrained_cfg as get_pretrained_cfg
from open_clip import get_pretrained_url as get_pretrained_url
from open_clip import get_tokenizer as get_tokenizer
from open_clip import image_transform as image_transform
from open_clip import is_pretrained_cfg as is_pretrained_cfg
from open_clip import list_models as list_models
from open_clip import list_openai_models as list_openai_models
from open_clip import list_pretrained as list_pretrained
from open_clip import list_pretrained_models_by_tag as list_pretrained_models_by_tag
from open_clip import list_pretrained_tags_by_model as list_pretrained_tags_by_model
from open_clip import load_checkpoint as load_checkpoint
from open_clip import push_pretrained_to_hf_hub as push_pretrained_to_hf_hub
from open_clip import push_to_hf_hub as push_to_hf_hub
from open_clip import set_model_preprocess_cfg as set_model_preprocess_cfg
from open_clip import tokenize as tokenize
from open_clip import trace_model as trace_model
