# SPDX-License-Identifier: Apache-2.0
"""transformers' Trainer, whose model MindSpore computes: its log, its weights and its checkpoints are PyTorch's."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as T

import paritas
from families import LAYERS, TEXT
from paritas.errors import Diverged, InputError
from paritas.transformers import Trainer


class Sentences(torch.utils.data.Dataset[Any]):
    """Tokens, and whether the first of them is a large one."""

    def __init__(self, count: int, seed: int) -> None:
        self.ids = torch.randint(2, 120, (count, 12), generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = self.ids[index]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": int(ids[0] > 60)}


def _model() -> Any:
    torch.manual_seed(0)
    return T.BertForSequenceClassification(T.BertConfig(**TEXT, **LAYERS, max_position_embeddings=64, num_labels=2))


def _arguments(directory: Path, **more: Any) -> T.TrainingArguments:
    return T.TrainingArguments(
        str(directory), per_device_train_batch_size=8, num_train_epochs=1, learning_rate=1e-3, eval_strategy="epoch",
        logging_steps=2, save_steps=3, report_to=[], disable_tqdm=True, seed=3, gradient_accumulation_steps=2,
        warmup_steps=2, use_cpu=True, dataloader_pin_memory=False, **more,
    )  # fmt: skip


def _accuracy(predicted: Any) -> dict[str, float]:
    return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}


def _trainer(cls: Any, directory: Path, **more: Any) -> Any:
    given = {"train_dataset": Sentences(80, 0), "eval_dataset": Sentences(16, 1), "compute_metrics": _accuracy, **more}
    arguments = _arguments(directory, **given.pop("arguments", {}))
    return cls(given.pop("model", None) or _model(), arguments, **given)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """The trainer on PyTorch and that on MindSpore, after an epoch, and where they have saved."""
    root = tmp_path_factory.mktemp("trainer")
    found = []
    for name, cls in (("torch", T.Trainer), ("mindspore", Trainer)):
        found.append(_trainer(cls, root / name))  # which sets the seed
        found[-1].train()
    return found[0], found[1], root


def test_log_and_weights_are_pytorch_s(runs: tuple[Any, Any, Path]) -> None:
    want, got, _ = runs
    assert paritas.Trainer is Trainer
    for one, other in zip(want.state.log_history, got.state.log_history, strict=True):
        assert one.keys() == other.keys()
        for key in ("loss", "grad_norm", "eval_loss", "eval_accuracy", "learning_rate"):
            assert other.get(key, 0) == pytest.approx(one.get(key, 0), rel=1e-5)
    for name, weight in want.model.state_dict().items():
        torch.testing.assert_close(got.model.state_dict()[name], weight, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    "cls", [pytest.param(Trainer, marks=pytest.mark.slow, id="mindspore"), pytest.param(T.Trainer, id="torch")]
)
def test_a_checkpoint_is_gone_on_with(runs: tuple[Any, Any, Path], cls: Any) -> None:
    """On MindSpore to the bit; on PyTorch as if it had been there from the beginning."""
    _, got, root = runs
    trainer = _trainer(cls, root / f"again-{cls.__module__}")
    trainer.train(resume_from_checkpoint=str(root / "mindspore" / "checkpoint-3"))
    for name, weight in got.model.state_dict().items():
        other = trainer.model.state_dict()[name]
        assert torch.equal(weight, other) if cls is Trainer else torch.allclose(weight, other, rtol=1e-5, atol=1e-6)


def test_what_it_saves_is_the_original_s(runs: tuple[Any, Any, Path]) -> None:
    _, got, root = runs
    got.save_model(str(root / "saved"))
    again = T.AutoModelForSequenceClassification.from_pretrained(root / "saved")
    assert again.config.architectures == ["BertForSequenceClassification"]
    assert all(torch.equal(again.state_dict()[name], value) for name, value in got.model.state_dict().items())


def test_unsupported_arguments_are_named(tmp_path: Path) -> None:
    args = _arguments(tmp_path, auto_find_batch_size=True, neftune_noise_alpha=5.0)
    named = "auto_find_batch_size, neftune_noise_alpha"
    with pytest.raises(InputError, match=rf"does not support {named}\. "):
        Trainer(_model(), args)


@pytest.mark.slow
def test_a_loss_that_is_nan_names_step_and_module(tmp_path: Path) -> None:
    model = _model()
    with torch.no_grad():
        model.bert.encoder.layer[1].output.LayerNorm.weight.fill_(3e38)
    with pytest.raises(Diverged, match=r"nan at step 1: bert\.encoder\.layer\.1\.output\.LayerNorm \(LayerNorm\)"):
        _trainer(Trainer, tmp_path, model=model).train()


@pytest.mark.slow
def test_the_recipe_s_accuracy_is_pytorch_s() -> None:
    main = runpy.run_path(str(Path(__file__).parents[3] / "examples" / "training" / "text_classification.py"))["main"]
    want, got = main()
    assert got == want > 0.9
