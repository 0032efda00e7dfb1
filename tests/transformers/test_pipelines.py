# SPDX-License-Identifier: Apache-2.0
"""`pipeline(task)` with its network on an engine: what the original's pipeline answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
import transformers as hf

import paritas.transformers as ours

pytest.importorskip("openvino")

WORDS = "a cat sat on the mat this example is about walks in park very sad happy Berlin .".split()  # noqa: SIM905
SIZES = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip


def tokenizer() -> Any:
    """Whole words, and BERT's marks around them."""
    marks = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    words = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate([*marks, *WORDS])}, unk_token="[UNK]")
    )
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=32,
    )  # fmt: skip


def bert(cls: Any, **more: Any) -> Any:
    torch.manual_seed(0)
    return cls(hf.BertConfig(**SIZES, **more)).eval()


def vit() -> Any:
    torch.manual_seed(0)
    sizes = {name: size for name, size in SIZES.items() if name not in ("vocab_size", "max_position_embeddings")}
    return hf.ViTForImageClassification(hf.ViTConfig(image_size=16, patch_size=4, num_labels=4, **sizes)).eval()


def picture() -> Any:
    image = pytest.importorskip("PIL.Image")
    return image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8))


def images() -> Any:
    return hf.ViTImageProcessor(size={"height": 16, "width": 16})


TEXTS = ["this cat is very happy", "the mat is about a park in Berlin . very sad"]
LABELS = {0: "entailment", 1: "neutral", 2: "contradiction"}

TASKS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "feature-extraction": (lambda: bert(hf.BertModel), TEXTS, {}),
    "text-classification": (lambda: bert(hf.BertForSequenceClassification), TEXTS, {"top_k": None}),
    "token-classification": (
        lambda: bert(hf.BertForTokenClassification, num_labels=4), TEXTS, {"aggregation_strategy": "simple"}
    ),
    "zero-shot-classification": (
        lambda: bert(hf.BertForSequenceClassification, id2label=LABELS, label2id={v: k for k, v in LABELS.items()}),
        TEXTS[0], {"candidate_labels": ["happy", "sad", "Berlin"]},
    ),
    "fill-mask": (lambda: bert(hf.BertForMaskedLM), "a cat sat on the [MASK]", {}),
    "image-classification": (vit, picture, {"top_k": 3}),
}  # fmt: skip


def near(got: Any, want: Any) -> bool:
    if isinstance(want, dict):
        return got.keys() == want.keys() and all(near(got[key], want[key]) for key in want)
    if isinstance(want, (list, tuple)):
        return len(got) == len(want) and all(map(near, got, want))
    if isinstance(want, (float, np.floating, np.ndarray)):
        return bool(np.allclose(got, want, atol=1e-4))
    return bool(got == want)


def answers(task: str, engine: str) -> tuple[Any, Any]:
    make, given, told = TASKS[task]
    parts = {"image_processor": images()} if task.startswith("image") else {"tokenizer": tokenizer()}
    given = given() if callable(given) else given
    found = ours.pipeline(task, model=make(), engine=engine, **parts)
    assert found.model.engine == engine
    got = found(given, **told)
    assert found.model.ports
    return got, hf.pipeline(task, model=make(), **parts)(given, **told)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_answers_as_the_original(task: str) -> None:
    got, want = answers(task, "openvino")
    assert near(got, want)


@pytest.mark.slow
def test_a_task_answers_on_mindspore() -> None:
    pytest.importorskip("mindspore")
    got, want = answers("token-classification", "mindspore")
    assert near(got, want)


def test_a_model_that_has_an_engine_keeps_it_and_its_ports() -> None:
    model = ours.port_model(bert(hf.BertForSequenceClassification), engine="openvino")
    first = ours.pipeline("text-classification", model=model, tokenizer=tokenizer())(TEXTS)
    again = ours.pipeline("text-classification", model=model, tokenizer=tokenizer())
    assert again.model is model
    assert again.model.ports
    assert again(TEXTS) == first
    assert near(first, hf.pipeline("text-classification", model=model, tokenizer=tokenizer())(TEXTS))


@pytest.mark.parametrize("task", ["question-answering", "summarization", "text2text-generation"])
def test_a_task_that_transformers_has_no_more_is_the_originals_error(task: str) -> None:
    with pytest.raises(Exception) as theirs:
        hf.pipeline(task, model=bert(hf.BertModel), tokenizer=tokenizer())
    with pytest.raises(type(theirs.value)) as mine:
        ours.pipeline(task, model=bert(hf.BertModel), tokenizer=tokenizer(), engine="openvino")
    assert str(mine.value) == str(theirs.value)
