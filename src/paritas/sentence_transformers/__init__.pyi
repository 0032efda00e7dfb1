# SPDX-License-Identifier: Apache-2.0
# Written by docs/stubs.py (make docs), for sentence-transformers 6.2.
from collections.abc import Mapping
from typing import Any, Literal, overload

import sentence_transformers as _s

from paritas.ports import Port

Engine = Literal["openvino", "mindspore", "torch"]
Mode = Literal["", "graph", "pynative"]
Target = Literal["cpu", "ascend"]
Weights = Literal["", "int8", "int4", "bf16", "fp16"] | Mapping[str, Any]

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
        engine: Engine | None = None,
        mode: Mode = "",
        target: Target = "cpu",
        weights: Weights = "",
        engine_device: str = "",
        ov_config: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None: ...

class SentenceTransformer(Ported, _s.SentenceTransformer): ...
class CrossEncoder(Ported, _s.CrossEncoder): ...
class SparseEncoder(Ported, _s.SparseEncoder): ...
class MultiVectorEncoder(Ported, _s.MultiVectorEncoder): ...
@overload
def port_model(
    model: _s.SentenceTransformer,
    engine: Engine | None = None,
    *,
    mode: Mode = "",
    target: Target = "cpu",
    weights: Weights = "",
    engine_device: str = "",
    ov_config: Mapping[str, Any] | None = None,
) -> SentenceTransformer: ...
@overload
def port_model(
    model: _s.CrossEncoder,
    engine: Engine | None = None,
    *,
    mode: Mode = "",
    target: Target = "cpu",
    weights: Weights = "",
    engine_device: str = "",
    ov_config: Mapping[str, Any] | None = None,
) -> CrossEncoder: ...
@overload
def port_model(
    model: _s.SparseEncoder,
    engine: Engine | None = None,
    *,
    mode: Mode = "",
    target: Target = "cpu",
    weights: Weights = "",
    engine_device: str = "",
    ov_config: Mapping[str, Any] | None = None,
) -> SparseEncoder: ...
@overload
def port_model(
    model: _s.MultiVectorEncoder,
    engine: Engine | None = None,
    *,
    mode: Mode = "",
    target: Target = "cpu",
    weights: Weights = "",
    engine_device: str = "",
    ov_config: Mapping[str, Any] | None = None,
) -> MultiVectorEncoder: ...
from sentence_transformers import CrossEncoderModelCardData as CrossEncoderModelCardData
from sentence_transformers import CrossEncoderTrainer as CrossEncoderTrainer
from sentence_transformers import CrossEncoderTrainingArguments as CrossEncoderTrainingArguments
from sentence_transformers import DefaultBatchSampler as DefaultBatchSampler
from sentence_transformers import InputExample as InputExample
from sentence_transformers import LoggingHandler as LoggingHandler
from sentence_transformers import MultiDatasetDefaultBatchSampler as MultiDatasetDefaultBatchSampler
from sentence_transformers import MultiVectorEncoderModelCardData as MultiVectorEncoderModelCardData
from sentence_transformers import MultiVectorEncoderTrainer as MultiVectorEncoderTrainer
from sentence_transformers import MultiVectorEncoderTrainingArguments as MultiVectorEncoderTrainingArguments
from sentence_transformers import ParallelSentencesDataset as ParallelSentencesDataset
from sentence_transformers import SentenceTransformerModelCardData as SentenceTransformerModelCardData
from sentence_transformers import SentenceTransformerTrainer as SentenceTransformerTrainer
from sentence_transformers import SentenceTransformerTrainingArguments as SentenceTransformerTrainingArguments
from sentence_transformers import SentencesDataset as SentencesDataset
from sentence_transformers import SimilarityFunction as SimilarityFunction
from sentence_transformers import SparseEncoderModelCardData as SparseEncoderModelCardData
from sentence_transformers import SparseEncoderTrainer as SparseEncoderTrainer
from sentence_transformers import SparseEncoderTrainingArguments as SparseEncoderTrainingArguments
from sentence_transformers import export_dynamic_quantized_onnx_model as export_dynamic_quantized_onnx_model
from sentence_transformers import export_optimized_onnx_model as export_optimized_onnx_model
from sentence_transformers import export_static_quantized_openvino_model as export_static_quantized_openvino_model
from sentence_transformers import mine_hard_negatives as mine_hard_negatives
from sentence_transformers import quantize_embeddings as quantize_embeddings
from sentence_transformers import resolve_ids as resolve_ids
