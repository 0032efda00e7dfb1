# SPDX-License-Identifier: Apache-2.0
"""Weights of 4 bits on a dataset: what NNCF makes of the same model by hand, and at a smaller cost."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from tests.deploy.causal import tokenizer_of_bytes
from typer.testing import CliRunner

import paritas
import paritas.transformers as ours
from paritas import extras
from paritas.cli import app
from paritas.errors import ExtraMissing, InputError
from paritas.options import Weights, parsed_weights, weights_of
from paritas.verify import of_port
from paritas.verify import text as texts

openvino = pytest.importorskip("openvino")
nncf = pytest.importorskip("nncf")

WORDS = (
    ("quick", "lazy", "brown", "silent", "large"),
    ("fox", "dog", "engine", "model", "river", "teacher"),
    ("jumps over", "reads", "computes", "follows"),
    ("today", "slowly", "again", "in the morning"),
)
SAMPLES, LENGTH = 16, 128


def sentences(count: int, seed: int) -> str:
    draw = random.Random(seed)
    a, n, v, end = WORDS
    each = ((draw.choice(a), draw.choice(n), draw.choice(v), draw.choice(n), draw.choice(end)) for _ in range(count))
    return "".join("the {} {} {} the {} {}. ".format(*words) for words in each)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small model that knows what it writes, and `text.txt` of the same kind."""
    place = tmp_path_factory.mktemp("trained")
    tokenizer = tokenizer_of_bytes()
    (place / "text.txt").write_text(sentences(400, seed=1))
    ids = torch.tensor(tokenizer(sentences(2000, seed=0))["input_ids"])
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, bos_token_id=0, eos_token_id=1, pad_token_id=2,
    )  # fmt: skip
    model = hf.LlamaForCausalLM(config)
    steps = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(100):
        batch = torch.stack([ids[at : at + 64] for at in torch.randint(0, len(ids) - 64, (16,))])
        model(input_ids=batch, labels=batch).loss.backward()
        steps.step()
        steps.zero_grad()
    model.eval().save_pretrained(place / "original")
    tokenizer.save_pretrained(place / "original")
    return place


@pytest.fixture(scope="module")
def plain(trained: Path) -> Iterator[paritas.Port]:
    """Its port, with the original's weights."""
    port = paritas.port(trained / "original")
    assert isinstance(port, paritas.Port)
    yield port.save(trained / "plain")
    port.close()


def constants(model: Any) -> list[Any]:
    found = [node for node in model.get_ops() if node.get_type_name() == "Constant" and node.data.nbytes > 100]
    return sorted((str(n.get_element_type()), tuple(n.get_output_shape(0)), n.data.tobytes()) for n in found)


def samples_by_hand(trained: Path) -> list[dict[str, np.ndarray]]:
    """Stretches of the text, from all over it."""
    ids = tokenizer_of_bytes()((trained / "text.txt").read_text())["input_ids"]
    starts = range(0, len(ids) - LENGTH + 1, LENGTH)
    chosen = [starts[i * len(starts) // SAMPLES] for i in range(SAMPLES)]
    assert len(starts) > SAMPLES
    return [
        {
            "input_ids": np.array([ids[start : start + LENGTH]]),
            "attention_mask": np.ones((1, LENGTH), np.int64),
            "position_ids": np.arange(LENGTH)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        for start in chosen
    ]


@pytest.mark.parametrize(
    ("asked", "by_hand"),
    [
        ({"awq": True, "scale_estimation": True}, {"awq": True, "scale_estimation": True}),
        (
            {"ratio": 0.5, "sensitivity_metric": "hessian_input_activation", "symmetric": True},
            {
                "ratio": 0.5,
                "sensitivity_metric": "HESSIAN_INPUT_ACTIVATION",
                "mode": "INT4_SYM",
            },
        ),
        ({"all_layers": True, "awq": True}, {"all_layers": True, "awq": True, "dataset": None}),
        ({"ratio": 0.5, "backup_mode": "int8_sym"}, {"ratio": 0.5, "backup_mode": "INT8_SYM", "dataset": None}),
        pytest.param({"lora_correction": True}, {"lora_correction": True}, marks=pytest.mark.slow),
        pytest.param({"gptq": True, "awq": True}, {"gptq": True, "awq": True}, marks=pytest.mark.slow),
        pytest.param({"backup_mode": "none"}, {"backup_mode": "NONE", "dataset": None}, marks=pytest.mark.slow),
    ],
)
def test_it_is_what_nncf_makes_by_hand(
    trained: Path, plain: paritas.Port, tmp_path: Path, asked: dict[str, Any], by_hand: dict[str, Any]
) -> None:
    by_hand = {"dataset": True, **by_hand}
    data = {"dataset": trained / "text.txt", "subset_size": SAMPLES} if by_hand.pop("dataset") else {}
    port = plain.to("openvino", weights={"format": "int4", "group_size": 32, **asked, **data})
    got = constants(openvino.Core().read_model(port.artifact.directory / "openvino_model.xml"))
    port.close()
    options = {"mode": nncf.CompressWeightsMode[by_hand.pop("mode", "INT4_ASYM")], "group_size": 32}
    if data:
        options |= {"dataset": nncf.Dataset(samples_by_hand(trained)), "subset_size": SAMPLES}
    for name, kind in (("sensitivity_metric", nncf.SensitivityMetric), ("backup_mode", nncf.BackupMode)):
        if name in by_hand:
            options[name] = kind[by_hand.pop(name)]
    model = openvino.Core().read_model(trained / "plain" / "openvino_model.xml")
    want = nncf.compress_weights(model, **options, **by_hand)
    openvino.save_model(want, tmp_path / "want.xml", compress_to_fp16=False)
    assert got == constants(openvino.Core().read_model(tmp_path / "want.xml"))


@pytest.fixture(scope="module")
def on_data(trained: Path) -> tuple[Path, str]:
    """(a port that the command has made on a dataset, what it has printed)."""
    done = CliRunner().invoke(
        app,
        ["port", str(trained / "original"), "--weights", "int4", "--group-size", "64", "--gptq", "--subset-size",
         "32", "--dataset", str(trained / "text.txt"), "--out", str(trained / "gptq"), "--no-verify", "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return trained / "gptq", done.stdout


def test_it_costs_less_than_rounding_alone(trained: Path, plain: paritas.Port, on_data: tuple[Path, str]) -> None:
    original = of_port.eager(plain, plain.original())
    held_out = tokenizer_of_bytes()(sentences(60, seed=2))["input_ids"]

    def cost(port: paritas.Port) -> Any:
        readers = texts.Readers(port, original)
        return texts.compare_text(readers, texts.windows_of(np.array(held_out), readers.largest), texts.GIVEN)

    rounded = cost(plain.to("openvino", weights={"format": "int4", "group_size": 64}))
    made_up_for = cost(paritas.load(on_data[0]))
    assert made_up_for.divergence < rounded.divergence / 2, (made_up_for, rounded)
    assert made_up_for.agreement > rounded.agreement


def test_what_was_done_is_recorded(trained: Path, on_data: tuple[Path, str]) -> None:
    directory, printed = on_data
    said = json.loads(printed)  # NNCF prints nothing between
    digest = weights_of({"format": "int4", "gptq": True, "dataset": trained / "text.txt"})[0].dataset
    weights = json.loads((directory / "port.json").read_text())["settings"]["weights"]
    assert weights == f"int4,group_size=64,gptq,subset_size=32,dataset={digest}"
    note = next(note for note in said["notes"] if "by NNCF" in note)
    assert f"{nncf.__version__} with group_size=64, gptq, on 32 samples of a dataset (its digest: {digest})" in note
    assert "14 in 4 bits and 2 in 8 bits" in note


def test_it_opens_in_genai_and_in_transformers_classes(trained: Path, on_data: tuple[Path, str]) -> None:
    genai = pytest.importorskip("openvino_genai")
    tokenizer = tokenizer_of_bytes()
    ids = tokenizer("the quick brown", return_tensors="pt")
    model = ours.AutoModelForCausalLM.from_pretrained(on_data[0])
    want = model.generate(**ids, max_new_tokens=16, do_sample=False)[0, ids.input_ids.shape[1] :].tolist()
    pipeline = genai.LLMPipeline(on_data[0], "CPU", **json.loads((on_data[0] / "ov_config.json").read_text()))
    given = genai.TokenizedInputs(openvino.Tensor(ids.input_ids.numpy()), openvino.Tensor(ids.attention_mask.numpy()))
    config = genai.GenerationConfig(max_new_tokens=16, apply_chat_template=False, eos_token_id=1)
    assert pipeline.generate(given, config).tokens[0] == want
    assert len(set(want)) > 3


def test_the_drop_in_reads_texts_or_inputs(trained: Path) -> None:
    lines = (trained / "text.txt").read_text().split(". ")[:8]
    asked = {"format": "int4", "group_size": 32, "awq": True, "dataset": lines}
    model = ours.LlamaForCausalLM.from_pretrained(trained / "original", weights=asked)
    ids = torch.arange(5, 13)[None]
    with torch.no_grad():
        found = model(input_ids=ids).logits
    (port,) = model.ports
    assert any("on 8 samples" in str(note) for note in port.notes)
    assert port.manifest.settings["weights"].startswith("int4,group_size=32,awq,dataset=")
    as_inputs = [{"input_ids": tokenizer_of_bytes()(line, return_tensors="pt").input_ids} for line in lines]
    other = ours.LlamaForCausalLM.from_pretrained(trained / "original", weights={**asked, "dataset": as_inputs})
    with torch.no_grad():
        np.testing.assert_allclose(other(input_ids=ids).logits, found, atol=1e-4)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"format": "int8", "awq": True}, "awq is of weights='int4', not of 'int8'"),
        ({"format": "bf16", "dataset": ["a"]}, "dataset is of weights='int4', not of 'bf16'"),
        ({"awq": True, "format": ""}, "awq is of weights='int4', not of ''"),
        ({"ratio": 0}, "ratio=0 is no share"),
        ({"ratio": "half"}, "ratio='half' is no share"),
        ({"ratio": 0.5, "sensitivity_metric": "none"}, "sensitivity_metric='none' is not possible: weight_quant"),
        ({"sensitivity_metric": "weight_quantization_error"}, "it needs a ratio below 1"),
        ({"backup_mode": "int2"}, "backup_mode='int2' is not possible: int8_asym, int8_sym, none are"),
        ({"gptq": True}, "gptq looks at what the model computes: give a dataset"),
        ({"ratio": 0.5, "sensitivity_metric": "hessian_input_activation"}, "hessian_input_activation looks at"),
        ({"gptq": True, "lora_correction": True, "dataset": ["a"]}, "ask for one of them"),
        ({"dataset": ["a"]}, "Nothing looks at the dataset"),
        ({"awq": True, "subset_size": 4}, "subset_size is of a dataset, and none is given"),
        ({"awq": True, "dataset": []}, "dataset has no sample"),
        ({"awq": True, "dataset": "wikitext2"}, "dataset='wikitext2' is no file here"),
        ({"awq": True, "dataset": ["a", [1, 2]]}, "dataset mixes texts and inputs"),
        ({"awq": True, "dataset": [{"input_ids": "abc"}]}, "has no numbers in input_ids"),
        ({"awq": "yes"}, "awq='yes' of weights is neither true nor false"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_before_any_work(tmp_path: Path, asked: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        paritas.port(tmp_path, weights={"format": "int4", **asked})


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (
            [{"pixels": np.ones((1, 3))}],
            "Sample 1 of the dataset has pixels; the model takes input_ids, attention_mask",
        ),
        ([{"input_ids": [[5]], "labels": [[5]]}], "has labels, which the model does not take"),
        ([[5, 6], {"input_ids": np.ones((1, 2, 3), int)}], "Sample 2 of the dataset: input_ids has 3 axes"),
    ],
)
def test_what_does_not_fit_the_model_is_said(plain: paritas.Port, samples: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        plain.to("openvino", weights={"format": "int4", "awq": True, "dataset": samples})


def test_without_nncf_it_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "missing", lambda name: ["nncf"] if name == "nncf" else [])
    with pytest.raises(ExtraMissing, match=r"weights='int4,awq' needs nncf, .* pip install 'paritas\[nncf\]'"):
        paritas.port(tmp_path, weights={"format": "int4", "awq": True})


def test_what_is_written_is_read() -> None:
    asked = Weights("int4", 64, True, 0.8, "weight_quantization_error", True, "none", awq=True, subset_size=4)
    assert parsed_weights(asked.text) == asked
    assert not asked.text.endswith(",") and Weights().text == "" and parsed_weights("") == Weights()
