# SPDX-License-Identifier: Apache-2.0
"""The precision in which a port was verified goes with it to whoever compiles its files, and how it is served too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

import paritas
from paritas.lower.openvino import configuration, serving, tokenizers

openvino = pytest.importorskip("openvino")

SIZES = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.mark.parametrize(("dtype", "hint"), [("float32", "f32"), ("bfloat16", "bf16")])
def test_a_stateful_model_says_in_which_precision_it_remembers(dtype: str, hint: str, tmp_path: Path) -> None:
    port = paritas.port(hf.LlamaForCausalLM(hf.LlamaConfig(**SIZES)), task="text-generation-with-past", dtype=dtype)
    hint = hint if port.manifest.dtype == dtype else "f32"  # where the processor does not have it
    port.save(tmp_path / "port")
    told = json.loads((tmp_path / "port" / configuration.FILE).read_text())
    assert told == port.session.configuration
    assert told["INFERENCE_PRECISION_HINT"] == told["KV_CACHE_PRECISION"] == hint
    core = openvino.Core()
    model = core.read_model(tmp_path / "port" / port.manifest.entry)
    options = model.get_rt_info("runtime_options").value
    assert options == {
        "INFERENCE_PRECISION_HINT": hint,
        "KV_CACHE_PRECISION": hint,
    }
    alone = core.compile_model(model, "CPU")  # by somebody who knows nothing of it
    assert alone.get_property("KV_CACHE_PRECISION").to_string() == hint
    # OpenVINO 2026.4 does not read the precision of the arithmetic from the model: once it does, so can the guide say.
    left = core.compile_model(core.read_model(tmp_path / "port" / port.manifest.entry), "CPU")
    bare = core.compile_model(_plain(), "CPU")
    assert str(left.get_property("INFERENCE_PRECISION_HINT")) == str(bare.get_property("INFERENCE_PRECISION_HINT"))
    given = core.compile_model(model, "CPU", told)
    assert given.get_property("INFERENCE_PRECISION_HINT").to_string() == hint


def _plain() -> Any:
    import numpy as np
    import openvino.opset16 as ops

    given = ops.parameter([1, 2], np.float32)
    return openvino.Model([ops.result(ops.relu(given))], [given], "plain")


def _directory(tmp_path: Path, config: dict[str, Any], **more: Any) -> Path:
    configuration.write(tmp_path, configuration.of("float32"))
    (tmp_path / tokenizers.FILES[0]).write_text("")
    for name, value in {"config": config, **more}.items():
        path = tmp_path / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value))
    return tmp_path


def _modules(*kinds: str) -> list[dict[str, str]]:
    return [{"path": f"{i}_{kind}" if i else "", "type": f"x.{kind}"} for i, kind in enumerate(kinds)]


PAIRS = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
FLAGS = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}


@pytest.mark.parametrize(
    ("config", "more", "generates", "lines"),
    [
        ({}, {}, True, ['calculator: "HttpLLMCalculator"', 'models_path: "./"']),
        (PAIRS, {}, False, ['calculator: "RerankCalculatorOV"']),
        ({**PAIRS, "id2label": {"0": "no", "1": "yes"}}, {}, False, []),
        ({"architectures": ["BertModel"]}, {}, False, []),
        (
            {},
            {"modules": _modules("Transformer", "Pooling", "Normalize"), "1_Pooling__config": {"pooling_mode": "mean"}},
            False,
            ['calculator: "EmbeddingsCalculatorOV"', "pooling: MEAN", "normalize_embeddings: true"],
        ),
        (
            {},
            {"modules": _modules("Transformer", "Pooling"), "1_Pooling__config": FLAGS},
            False,
            ["pooling: CLS", "normalize_embeddings: false"],
        ),
        # What the server would leave out, or has not.
        ({}, {"modules": _modules("Transformer", "Pooling", "Dense"), "1_Pooling__config": FLAGS}, False, []),
        ({}, {"modules": _modules("Transformer", "Pooling"), "1_Pooling__config": {"pooling_mode": "max"}}, False, []),
    ],
)
def test_model_server_gets_a_graph_for_what_it_knows(
    config: dict[str, Any], more: dict[str, Any], generates: bool, lines: list[str], tmp_path: Path
) -> None:
    directory = _directory(tmp_path, config, **more)
    serving.write(directory, generates=generates)
    path = directory / serving.FILE
    text = path.read_text() if path.exists() else ""
    assert bool(text) is bool(lines) and all(line in text for line in lines)
    assert text.count("{") == text.count("}")
    assert ('"INFERENCE_PRECISION_HINT": "f32"' in text) is bool(lines)
    (directory / tokenizers.FILES[0]).unlink()
    path.unlink(missing_ok=True)
    serving.write(directory, generates=generates)
    assert not path.exists()


def test_sentence_transformers_is_told_in_its_own_configuration(tmp_path: Path) -> None:
    directory = _directory(tmp_path, {}, sentence_bert_config={"max_seq_length": 9, "model_args": {"x": 1}})
    configuration.for_sentence_transformers(directory)
    told = json.loads((directory / "sentence_bert_config.json").read_text())
    assert told == {"max_seq_length": 9, "model_args": {"x": 1}}  # of a model that is none of theirs
    (directory / "modules.json").write_text("[]")
    configuration.for_sentence_transformers(directory)
    told = json.loads((directory / "sentence_bert_config.json").read_text())
    assert told["model_args"] == {"x": 1, "ov_config": configuration.of("float32")}
    assert told["max_seq_length"] == 9


def test_others_get_the_same_vectors_and_scores(tmp_path: Path) -> None:
    genai = pytest.importorskip("openvino_genai")
    from transformers import AutoModel, AutoTokenizer

    from paritas.capture.source import minilm_directory

    paritas.port(minilm_directory()).save(tmp_path / "port")
    assert (tmp_path / "port" / "1_Pooling" / "config.json").is_file()
    text = ["A cat sleeps.", "The dog has been asleep on the mat since noon."]
    given = AutoTokenizer.from_pretrained(minilm_directory())(text, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(minilm_directory())(**given).last_hidden_state
    mask = given["attention_mask"][..., None]
    want = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    properties = json.loads((tmp_path / "port" / configuration.FILE).read_text())
    mean = genai.TextEmbeddingPipeline.PoolingType.MEAN
    pipeline = genai.TextEmbeddingPipeline(tmp_path / "port", "CPU", pooling_type=mean, normalize=True, **properties)
    assert torch.allclose(torch.tensor(pipeline.embed_documents(text)), want, atol=1e-6)
