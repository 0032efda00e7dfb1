# SPDX-License-Identifier: Apache-2.0
"""A port's directory, opened as a model of transformers: the port computes, and no weight is in PyTorch."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from tests.deploy.causal import tokenizer_of_bytes

import paritas
import paritas.transformers as ours
from paritas.errors import InputError, PortError

NEW = {"max_new_tokens": 9, "min_new_tokens": 9, "pad_token_id": 2}


@pytest.fixture(scope="module")
def opened(causal: tuple[Path, Any, Any]) -> Any:
    return ours.AutoModelForCausalLM.from_pretrained(causal[0])


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    place, tokenizer = tmp_path_factory.mktemp("classifier"), tokenizer_of_bytes()
    torch.manual_seed(0)
    config = hf.BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=40, num_labels=3,
    )  # fmt: skip
    model = hf.BertForSequenceClassification(config).eval()
    model.save_pretrained(place / "original")
    tokenizer.save_pretrained(place / "original")
    paritas.port(place / "original").save(place / "port")
    return place / "port", model, tokenizer


def _one(tokenizer: Any) -> dict[str, Any]:
    return {name: t for name, t in tokenizer("the quick", return_tensors="pt").items() if name != "token_type_ids"}


def _two(tokenizer: Any) -> dict[str, Any]:
    given = tokenizer(["fox", "hello world over"], return_tensors="pt", padding=True, padding_side="left")
    return {name: tensor for name, tensor in given.items() if name != "token_type_ids"}


def _continued(model: Any, ids: Any) -> torch.Tensor:
    first = model.generate(**ids, do_sample=False, return_dict_in_generate=True, **NEW)
    more = torch.cat([first.sequences, torch.tensor([[7, 8]])], 1)
    mask = torch.ones_like(more)
    return model.generate(
        input_ids=more, attention_mask=mask, past_key_values=first.past_key_values, do_sample=False, **NEW
    )


def _streamed(model: Any, ids: Any) -> torch.Tensor:
    class Collecting:
        def __init__(self) -> None:
            self.tokens: list[int] = []

        def put(self, value: torch.Tensor) -> None:
            self.tokens += value.flatten().tolist()

        def end(self) -> None:
            self.tokens.append(-1)

    streamer = Collecting()
    model.generate(**ids, do_sample=False, streamer=streamer, **NEW)
    return torch.tensor(streamer.tokens)


LOOPS: dict[str, Callable[[Any, Any, Any], torch.Tensor]] = {
    "greedy": lambda m, one, two: m.generate(**one, do_sample=False, **NEW),
    "batch": lambda m, one, two: m.generate(**two, do_sample=False, **NEW),
    "sampling": lambda m, one, two: m.generate(**two, do_sample=True, top_k=20, temperature=0.8, **NEW),
    "beams": lambda m, one, two: m.generate(**two, do_sample=False, num_beams=3, **NEW),
    "sampled beams": lambda m, one, two: m.generate(
        **two, do_sample=True, num_beams=3, num_return_sequences=2, **NEW
    ),
    "prompt lookup": lambda m, one, two: m.generate(**one, do_sample=False, prompt_lookup_num_tokens=3, **NEW),
    "static cache": lambda m, one, two: m.generate(**one, do_sample=False, cache_implementation="static", **NEW),
    "chunks": lambda m, one, two: m.generate(**two, do_sample=False, prefill_chunk_size=2, **NEW),
    "no cache": lambda m, one, two: m.generate(**one, do_sample=False, use_cache=False, **NEW),
    "continued": lambda m, one, two: _continued(m, one),
    "streamer": lambda m, one, two: _streamed(m, one),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOPS)
def test_its_tokens_are_pytorchs(name: str, causal: tuple[Path, Any, Any], opened: Any) -> None:
    _, original, tokenizer = causal
    one, two = _one(tokenizer), _two(tokenizer)
    torch.manual_seed(5)
    want = LOOPS[name](original, one, two)
    torch.manual_seed(5)
    assert torch.equal(LOOPS[name](opened, one, two), want)
    assert len(set(want.flatten().tolist())) > 5


def test_it_assists(causal: tuple[Path, Any, Any], opened: Any) -> None:
    _, original, tokenizer = causal
    want = original.generate(**_one(tokenizer), do_sample=False, **NEW)
    for model, assistant in ((opened, original), (original, opened)):
        found = model.generate(**_one(tokenizer), do_sample=False, assistant_model=assistant, **NEW)
        assert torch.equal(found, want)


def test_its_logits_are_pytorchs(causal: tuple[Path, Any, Any], opened: Any) -> None:
    _, original, tokenizer = causal
    ids = _one(tokenizer)["input_ids"]
    padded = {"input_ids": ids.repeat(2, 1), "attention_mask": torch.ones(2, ids.shape[1]).long()}
    padded["attention_mask"][1, -1] = 0
    with torch.no_grad():
        want, out = original(ids), opened(ids)
        torch.testing.assert_close(out.logits, want.logits, atol=1e-5, rtol=1e-5)
        assert type(out) is type(want) and out.past_key_values.get_seq_length() == ids.shape[1]
        then = {"input_ids": ids[:, :2]}
        torch.testing.assert_close(
            opened(**then, past_key_values=out.past_key_values).logits,
            original(**then, past_key_values=want.past_key_values).logits,
            atol=1e-5,
            rtol=1e-5,
        )
        torch.testing.assert_close(opened(ids, logits_to_keep=2).logits, want.logits[:, -2:], atol=1e-5, rtol=1e-5)
        assert "past_key_values" not in opened(ids, use_cache=False)
        assert isinstance(opened(ids, return_dict=False), tuple)
        torch.testing.assert_close(
            opened(**padded).logits[:, :-1], original(**padded).logits[:, :-1], atol=1e-5, rtol=1e-5
        )


def test_nothing_of_it_is_in_pytorch(causal: tuple[Path, Any, Any], opened: Any) -> None:
    assert all(tensor.is_meta for tensor in (*opened.parameters(), *opened.buffers()))
    assert isinstance(opened, hf.LlamaForCausalLM) and isinstance(opened, ours.LlamaForCausalLM)
    assert opened.engine == "openvino" and len(opened.ports) == 1 and str(opened.device) == "cpu"
    assert opened.num_parameters() == causal[1].num_parameters()
    assert opened.to("cpu") is opened.to(torch.float32)


def test_copies_generate(causal: tuple[Path, Any, Any], opened: Any, tmp_path: Path) -> None:
    ids = _one(causal[2])
    want = causal[1].generate(**ids, do_sample=False, **NEW)
    opened.save_pretrained(tmp_path / "copy")
    for other in (
        copy.deepcopy(opened),
        pickle.loads(pickle.dumps(opened)),  # noqa: S301 - made here
        ours.LlamaForCausalLM.from_pretrained(tmp_path / "copy"),
    ):
        assert torch.equal(other.generate(**ids, do_sample=False, **NEW), want)


REFUSED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "attentions": (lambda m, ids: m(ids, output_attentions=True), "does not return attentions. Port it again"),
    "hidden states": (
        lambda m, ids: m.generate(ids, output_hidden_states=True, return_dict_in_generate=True, max_new_tokens=2),
        "does not return hidden_states. Port it again",
    ),
    "labels": (lambda m, ids: m(ids, labels=ids), "computes no loss"),
    "embeddings": (lambda m, ids: m(inputs_embeds=torch.zeros(1, 3, 32)), "this port takes input_ids"),
    "a mask of its own": (
        lambda m, ids: m(ids, attention_mask=torch.zeros(1, 1, 2, 2)),
        "4 dimensions",
    ),
    "positions": (
        lambda m, ids: m(ids, attention_mask=torch.tensor([[0] + [1] * (ids.shape[1] - 1)])),
        "position_ids is missing",
    ),
    "vocabulary": (lambda m, ids: m(ids + 5000), "the model knows 0 to 299"),
    "mask too short": (lambda m, ids: m(ids, attention_mask=torch.ones(1, 1).long()), "attention_mask has size 1"),
    "an argument": (lambda m, ids: m(ids, image_sizes=torch.ones(1)), "image_sizes"),
    "a module inside": (lambda m, ids: m.model(ids), "model inside LlamaForCausalLM was called"),
    "weights": (lambda m, ids: m.state_dict(), "has no weights of PyTorch's"),
    "a dtype": (lambda m, ids: m.half(), "has no weights of PyTorch's"),
    "a device": (lambda m, ids: m.to("cuda"), "engine_device="),
    "more tokens": (lambda m, ids: m.resize_token_embeddings(400), "has no weights of PyTorch's"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_port_does_not_is_refused(name: str, causal: tuple[Path, Any, Any], opened: Any) -> None:
    call, text = REFUSED[name]
    with pytest.raises(InputError, match=text):
        call(opened, _one(causal[2])["input_ids"])


def test_training_is_refused(causal: tuple[Path, Any, Any], opened: Any) -> None:
    opened.train()
    try:
        with pytest.raises(InputError, match=r"training mode, and a port computes inference only. Call model.eval\(\)"):
            opened(_one(causal[2])["input_ids"])
    finally:
        opened.eval()


def test_a_classifier(classifier: tuple[Path, Any, Any]) -> None:
    place, original, tokenizer = classifier
    model = ours.AutoModelForSequenceClassification.from_pretrained(str(place), engine="openvino", dtype="auto")
    given = tokenizer(["hello", "the quick brown fox"], return_tensors="pt", padding=True)
    with torch.no_grad():
        want = original(**given)
    out = model(**given)
    assert type(out) is type(want)
    torch.testing.assert_close(out.logits, want.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model(**given, return_dict=False)[0], want.logits, atol=1e-5, rtol=1e-5)
    numpy = model(**{name: tensor.numpy() for name, tensor in given.items()})
    assert type(numpy.logits).__module__ == "numpy"
    loaded, info = ours.BertForSequenceClassification.from_pretrained(place, output_loading_info=True)
    assert not any(info.values()) and loaded.config.num_labels == 3
    with pytest.raises(InputError, match="the model takes at most 40"):
        model(torch.ones(1, 41, dtype=torch.long))


@pytest.mark.parametrize(
    ("cls", "keywords", "text"),
    [
        (ours.AutoModel, {}, "a port of BertForSequenceClassification, and AutoModel would be BertModel"),
        (ours.AutoModelForCausalLM, {}, "--class AutoModelForCausalLM"),
        (ours.BertForMaskedLM, {}, "and not of BertForMaskedLM"),
        (ours.BertForSequenceClassification, {"dtype": torch.bfloat16}, "it computes in float32"),
        (ours.BertForSequenceClassification, {"engine": "mindspore"}, "it has openvino"),
        (ours.BertForSequenceClassification, {"weights": "int8"}, "it has those of the original"),
        (ours.BertForSequenceClassification, {"num_labels": 7}, "This port's network is fixed"),
        (ours.BertForSequenceClassification, {"device_map": "cuda"}, "engine_device="),
        (ours.BertForSequenceClassification, {"quantization_config": {"bits": 4}}, "weights='int4'"),
    ],
)
def test_what_the_port_is_not_is_refused(
    cls: Any, keywords: dict[str, Any], text: str, classifier: tuple[Path, Any, Any]
) -> None:
    with pytest.raises(InputError, match=text):
        cls.from_pretrained(classifier[0], **keywords)


def test_a_port_of_something_else_is_refused(classifier: tuple[Path, Any, Any], tmp_path: Path) -> None:
    class Own(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    paritas.port(Own(), inputs={"x": torch.ones(2, 3)}).save(tmp_path / "own")
    with pytest.raises(PortError, match=r"no model of transformers. Load it: +paritas.load"):
        ours.AutoModel.from_pretrained(tmp_path / "own")


def test_pipelines(causal: tuple[Path, Any, Any], classifier: tuple[Path, Any, Any]) -> None:
    want = hf.pipeline("text-classification", model=classifier[1], tokenizer=classifier[2])("hello world")
    for found in (ours.pipeline(model=classifier[0]), ours.pipeline("text-classification", model=str(classifier[0]))):
        got = found("hello world")
        assert got[0]["label"] == want[0]["label"] and got[0]["score"] == pytest.approx(want[0]["score"], abs=1e-5)
    texts = ["the quick", "hello"]
    options = {"max_new_tokens": 9, "min_new_tokens": 9, "do_sample": False, "batch_size": 2}
    original = hf.pipeline("text-generation", model=causal[1], tokenizer=causal[2])
    assert ours.pipeline(model=str(causal[0]))(texts, **options) == original(texts, **options)


def test_a_process_that_never_had_the_original(causal: tuple[Path, Any, Any], paritas: Any, tmp_path: Path) -> None:
    want = causal[1].generate(**_one(causal[2]), do_sample=False, **NEW)
    code = f"""
import json, torch, transformers
from paritas.transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained({str(causal[0])!r})
tokenizer = AutoTokenizer.from_pretrained({str(causal[0])!r})
ids = tokenizer("the quick", return_tensors="pt", return_token_type_ids=False)
print(json.dumps(model.generate(**ids, do_sample=False, **{NEW!r}).tolist()))
"""
    done = paritas(code, python=True)
    assert json.loads(done.stdout.splitlines()[-1]) == want.tolist(), done.stderr


def test_code_that_a_directory_names_is_never_run(
    classifier: tuple[Path, Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where transformers would ask on a terminal, and the answer were yes."""
    place = tmp_path / "port"
    paritas.load(classifier[0]).save(place)
    (place / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    named = {"model_type": "unheard", "auto_map": {"AutoConfig": "evil.Config", "AutoTokenizer": ["evil.T", None]}}
    (place / "config.json").write_text(json.dumps(named))
    (place / "tokenizer_config.json").write_text(json.dumps(named))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    for open_it in (ours.AutoModelForSequenceClassification.from_pretrained, lambda d: paritas.load(d).generate("x")):
        with pytest.raises((ValueError, PortError, OSError)):
            open_it(place)
    assert not (tmp_path / "ran").exists()
