# SPDX-License-Identifier: Apache-2.0
"""`graph.pbtxt`, with which OpenVINO Model Server serves a port's directory as it is: as `ovms --pull` writes it.

Written for models whose requests the server knows: text that goes on, embeddings, and scores of pairs. Any other model
it serves from a directory of versions, without a graph.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paritas.lower.openvino import configuration, tokenizers

FILE = "graph.pbtxt"

_TEXT = """input_stream: "HTTP_REQUEST_PAYLOAD:input"
output_stream: "HTTP_RESPONSE_PAYLOAD:output"
node: {{
  name: "LLMExecutor"
  calculator: "HttpLLMCalculator"
  input_stream: "LOOPBACK:loopback"
  input_stream: "HTTP_REQUEST_PAYLOAD:input"
  input_side_packet: "LLM_NODE_RESOURCES:llm"
  output_stream: "LOOPBACK:loopback"
  output_stream: "HTTP_RESPONSE_PAYLOAD:output"
  input_stream_info: {{
    tag_index: 'LOOPBACK:0'
    back_edge: true
  }}
  node_options: {{
    [type.googleapis.com / mediapipe.LLMCalculatorOptions]: {{
      models_path: "./"
      device: "CPU"
      plugin_config: '{properties}'
    }}
  }}
  input_stream_handler {{
    input_stream_handler: "SyncSetInputStreamHandler"
    options {{
      [mediapipe.SyncSetInputStreamHandlerOptions.ext] {{
        sync_set {{
          tag_index: "LOOPBACK:0"
        }}
      }}
    }}
  }}
}}
"""

_VECTORS = """input_stream: "REQUEST_PAYLOAD:input"
output_stream: "RESPONSE_PAYLOAD:output"
node {{
  name: "{name}Executor"
  calculator: "{name}CalculatorOV"
  input_side_packet: "{upper}_NODE_RESOURCES:{lower}_servable"
  input_stream: "REQUEST_PAYLOAD:input"
  output_stream: "RESPONSE_PAYLOAD:output"
  node_options: {{
    [type.googleapis.com / mediapipe.{name}CalculatorOVOptions]: {{
      models_path: "./"
{options}      target_device: "CPU"
      plugin_config: '{properties}'
    }}
  }}
}}
"""

#: How sentence-transformers calls the poolings that the server has.
_POOLINGS = {"cls": "CLS", "mean": "MEAN", "lasttoken": "LAST"}


def write(directory: Path, *, generates: bool) -> None:
    """Write the graph into a port's directory, if its tokenizer is there and the server has one for such models.

    generates: whether the model writes text, with its keys and values inside.
    """
    if not (directory / tokenizers.FILES[0]).is_file():
        return
    if text := graph(directory, generates=generates):
        (directory / FILE).write_text(text)


def graph(directory: Path, *, generates: bool) -> str:
    """The graph's text, "" for a model of another kind."""
    properties = json.dumps(configuration.read(directory))
    if generates:
        return _TEXT.format(properties=properties)
    config = _json(directory / "config.json")
    if pooling := _pooling(directory):
        kind, normalised = pooling
        options = f"      normalize_embeddings: {str(normalised).lower()}\n      pooling: {kind}\n"
        return _of_vectors("Embeddings", options, properties)
    names = config.get("architectures") or [""]
    labels = config.get("id2label") or {}
    if str(names[0]).endswith("ForSequenceClassification") and len(labels) == 1:
        return _of_vectors("Rerank", "", properties)
    return ""


def _of_vectors(name: str, options: str, properties: str) -> str:
    return _VECTORS.format(name=name, upper=name.upper(), lower=name.lower(), options=options, properties=properties)


def _pooling(directory: Path) -> tuple[str, bool] | None:
    """Which pooling follows a transformer of sentence-transformers, and whether its vectors are of length 1.

    None where other modules follow, or a pooling that the server does not have.
    """
    modules = _json(directory / "modules.json")
    if not isinstance(modules, list):
        return None
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        return None
    told = _json(directory / str(modules[1].get("path", "")) / "config.json")
    # "pooling_mode": "mean", and before sentence-transformers 6 a flag for each.
    named = [str(told["pooling_mode"])] if isinstance(told.get("pooling_mode"), str) else _flags(told)
    if len(named) != 1 or named[0] not in _POOLINGS:
        return None
    return _POOLINGS[named[0]], len(kinds) == 3


def _flags(told: Mapping[str, Any]) -> list[str]:
    flags = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "lasttoken"}
    on = [name for name, value in told.items() if name.startswith("pooling_mode") and value is True]
    return [flags.get(name, "") for name in on]


def _json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.is_file() else {}
