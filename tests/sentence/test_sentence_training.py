# SPDX-License-Identifier: Apache-2.0
"""sentence-transformers' own trainer and evaluators, with a model whose embeddings an engine computes.

They need accelerate and datasets: in an environment of their own, as `datasets` of today asks for NumPy 2's pyarrow.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow

theirs = pytest.importorskip("sentence_transformers")
pytest.importorskip("accelerate", reason="accelerate is not installed: paritas[train]")
datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install 'datasets<5'")

import torch  # noqa: E402
from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator  # noqa: E402
from sentence_transformers.sentence_transformer import evaluation, losses, modules  # noqa: E402
from tiny_sentences import TEXTS, save_transformer, widened  # noqa: E402

import paritas  # noqa: E402
from paritas import sentence_transformers as ours  # noqa: E402

LIKENESS = [0.1, 0.9, 0.5, 0.3, 0.2]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_transformer(tmp_path_factory.mktemp("bert"))


def _made(bert: str) -> Any:
    torch.manual_seed(0)
    model = widened(theirs.SentenceTransformer(modules=[modules.Transformer(bert), modules.Pooling(16)], device="cpu"))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def _trained(model: Any, folder: Path) -> tuple[Any, np.ndarray]:
    """Four steps, with evaluations, checkpoints and the best of them at the end."""
    pairs = {"a": TEXTS * 4, "b": (TEXTS[1:] + TEXTS[:1]) * 4, "label": LIKENESS * 4}
    data = datasets.Dataset.from_dict(pairs)
    asked = theirs.SentenceTransformerTrainingArguments(
        output_dir=str(folder), max_steps=4, per_device_train_batch_size=4, learning_rate=1e-2, seed=0, use_cpu=True,
        eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2, logging_steps=1, report_to=[],
        load_best_model_at_end=True, metric_for_best_model="said_spearman_cosine", disable_tqdm=True,
    )  # fmt: skip
    trainer = theirs.SentenceTransformerTrainer(
        model=model,
        args=asked,
        train_dataset=data,
        eval_dataset=data,
        loss=losses.CosineSimilarityLoss(model),
        evaluator=evaluation.EmbeddingSimilarityEvaluator(TEXTS, TEXTS[::-1], LIKENESS, name="said"),
    )
    trainer.train()
    told = [row[name] for row in trainer.state.log_history for name in ("loss", "eval_loss") if name in row]
    return told, model.eval().encode(TEXTS)


TRAINED: dict[str, Callable[[Any], Any]] = {
    "in PyTorch, evaluated on OpenVINO": lambda model: ours.port_model(model, engine="openvino"),
    "its transformer on MindSpore": lambda model: (paritas.trainable(model[0].model, "mindspore"), model)[1],
}


@pytest.mark.parametrize("way", TRAINED)
def test_their_trainer(way: str, bert: str, tmp_path: Path) -> None:
    before = _made(bert).eval().encode(TEXTS)
    losses_of_theirs, want = _trained(_made(bert), tmp_path / "theirs")
    assert np.abs(want - before).max() > 1e-2
    told, got = _trained(TRAINED[way](_made(bert)), tmp_path / "ours")
    assert np.allclose(told, losses_of_theirs, atol=1e-4)
    assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()


CORPUS = {str(n): text for n, text in enumerate(TEXTS)}
EVALUATORS: dict[str, Callable[[], Any]] = {
    "likeness": lambda: evaluation.EmbeddingSimilarityEvaluator(TEXTS, TEXTS[::-1], LIKENESS),
    "retrieval": lambda: evaluation.InformationRetrievalEvaluator(
        {"q": "rain", "r": "the sea"}, CORPUS, {"q": {"0"}, "r": {"2", "1"}}, show_progress_bar=False
    ),
    "triplets": lambda: evaluation.TripletEvaluator(TEXTS[:3], TEXTS[1:4], TEXTS[2:]),
    "two kinds": lambda: evaluation.BinaryClassificationEvaluator(TEXTS, TEXTS[::-1], [1, 0, 1, 0, 1]),
    "reranking": lambda: evaluation.RerankingEvaluator([
        {"query": "rain", "positive": TEXTS[:1], "negative": TEXTS[1:]},
        {"query": "sea", "positive": TEXTS[2:3], "negative": TEXTS[3:]},
    ]),
    "paraphrases": lambda: evaluation.ParaphraseMiningEvaluator(CORPUS, [("0", "1"), ("2", "3")]),
    "translation": lambda: evaluation.TranslationEvaluator(TEXTS, TEXTS[::-1]),
    "squared error": lambda: evaluation.MSEEvaluator(TEXTS, TEXTS[::-1], teacher_model=_teacher()),
}  # fmt: skip

_teachers: list[Any] = []


def _teacher() -> Any:
    return _teachers[0]


@pytest.fixture(scope="module")
def pair(bert: str) -> tuple[Any, Any]:
    found = _made(bert).eval(), ours.port_model(_made(bert).eval(), engine="openvino")
    _teachers[:] = [_made(bert).eval()]
    return found


@pytest.mark.parametrize("name", EVALUATORS)
def test_their_evaluators(name: str, pair: tuple[Any, Any]) -> None:
    want, got = (EVALUATORS[name]()(model) for model in pair)
    assert want.keys() == got.keys()
    assert np.allclose(list(want.values()), list(got.values()), atol=1e-4)


def test_their_evaluator_of_cross_encoders(bert: str, tmp_path: Path) -> None:
    place = save_transformer(tmp_path / "cross", "BertForSequenceClassification", num_labels=1)
    samples = [{"query": "rain", "positive": TEXTS[:1], "negative": TEXTS[1:]}]
    want, got = (
        CrossEncoderRerankingEvaluator(samples, show_progress_bar=False)(model)
        for model in (
            theirs.CrossEncoder(place, device="cpu"),
            ours.CrossEncoder(place, device="cpu", engine="openvino"),
        )
    )
    assert want == pytest.approx(got, abs=1e-5)
