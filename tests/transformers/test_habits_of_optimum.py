# SPDX-License-Identifier: Apache-2.0
"""Who comes from optimum finds what they look for, or is told what to write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import paritas.transformers as ours
from paritas.errors import InputError
from paritas.transformers.optimum import understood

CONFIG = transformers.LlamaConfig(
    vocab_size=99, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("llama")
    transformers.LlamaForCausalLM(CONFIG).save_pretrained(place)
    return place


@pytest.mark.parametrize(
    ("name", "auto"),
    [
        ("OVModelForCausalLM", "AutoModelForCausalLM"),
        ("OVModelForFeatureExtraction", "AutoModel"),
        ("OVModel", "AutoModel"),
        ("OVModelForSpeechSeq2Seq", "AutoModelForSpeechSeq2Seq"),
        ("OVModelForVisualCausalLM", "AutoModelForImageTextToText"),
    ],
)
def test_names_of_optimum_are_the_auto_classes(name: str, auto: str) -> None:
    assert issubclass(getattr(ours, name), getattr(transformers, auto))


def test_a_name_for_an_engine_that_there_is_not_says_what_to_take() -> None:
    with pytest.raises(AttributeError, match=r"Take AutoModelForCausalLM of paritas\.transformers, with engine="):
        ours.ORTModelForCausalLM  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'OVModelForNothing'"):
        ours.OVModelForNothing  # noqa: B018


def test_a_line_of_optimums_runs(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARITAS_ENGINE", "torch")  # the name says which engine
    model = ours.OVModelForCausalLM.from_pretrained(llama, export=True)
    assert model.engine == "openvino"
    ids = torch.tensor([[5, 6, 7]])
    want = transformers.LlamaForCausalLM.from_pretrained(llama).generate(ids, max_new_tokens=3, do_sample=False)
    assert torch.equal(model.generate(ids, max_new_tokens=3, do_sample=False), want)


class OVWeightQuantizationConfig:
    """As optimum's says it: attributes of these names, most of them with what is usual."""

    def __init__(self, bits: int = 4, **more: Any) -> None:
        usual = {"sym": False, "group_size": None, "ratio": 1.0, "all_layers": None, "num_samples": None}
        self.bits = bits
        vars(self).update({**usual, "dataset": None, "quant_method": "default", "ignored_scope": None, **more})


@pytest.mark.parametrize(
    ("given", "weights"),
    [
        ({"load_in_8bit": True}, "int8"),
        ({"load_in_4bit": True, "load_in_8bit": False}, "int4"),
        ({"quantization_config": OVWeightQuantizationConfig()}, "int4"),
        ({"quantization_config": OVWeightQuantizationConfig(8, group_size=-1)}, "int8"),
        ({"quantization_config": {"bits": 4, "sym": True}}, {"format": "int4", "symmetric": True}),
        (
            {
                "quantization_config": OVWeightQuantizationConfig(
                    group_size=64, ratio=0.8, quant_method="awq", scale_estimation=True, dataset=["a b"], num_samples=9
                )
            },
            {
                "format": "int4",
                "group_size": 64,
                "ratio": 0.8,
                "awq": True,
                "scale_estimation": True,
                "dataset": ["a b"],
                "subset_size": 9,
            },
        ),
        ({"weights": "int8", "load_in_8bit": True}, "int8"),
    ],
)
def test_bits_are_weights(given: dict[str, Any], weights: Any) -> None:
    assert understood({**given, "export": True, "revision": "main"}) == {"weights": weights, "revision": "main"}


def test_two_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(InputError, match=r"load_in_4bit=True and weights='int8' contradict each other"):
        understood({"load_in_4bit": True, "weights": "int8"})


def test_what_optimum_has_and_paritas_not_is_refused() -> None:
    with pytest.raises(InputError, match="quantization_config asks for ignored_scope, dtype, which Paritas has not"):
        understood({"quantization_config": OVWeightQuantizationConfig(ignored_scope={"names": ["x"]}, dtype="nf4")})


def test_a_quantisation_of_transformers_stays_its_own() -> None:
    own = transformers.BitsAndBytesConfig(load_in_8bit=True)
    assert understood({"quantization_config": own}) == {"quantization_config": own}


def test_a_model_that_is_printed_says_on_which_engine_it_is() -> None:
    model = ours.LlamaForCausalLM(CONFIG, engine="openvino")
    assert repr(model).splitlines()[1].strip() == "engine='openvino'"
    assert "engine" not in repr(transformers.LlamaForCausalLM(CONFIG))
