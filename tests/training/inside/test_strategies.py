# SPDX-License-Identifier: Apache-2.0
"""What stands around a training is transformers' own: early stopping, the best model, TensorBoard, the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as T

from paritas.errors import InputError
from paritas.transformers import Trainer

pytestmark = pytest.mark.slow


class Rows(torch.utils.data.Dataset[Any]):
    def __init__(self, count: int, seed: int) -> None:
        self.ids = torch.randint(2, 60, (count, 6), generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self.ids[index], "labels": int(self.ids[index][0] > 30)}


def _trainer(cls: Any, directory: Path, callbacks: Any = (), **more: Any) -> Any:
    torch.manual_seed(0)
    config = T.BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=8, num_labels=2,
    )  # fmt: skip
    args = T.TrainingArguments(
        str(directory), per_device_train_batch_size=8, per_device_eval_batch_size=16, disable_tqdm=True, use_cpu=True,
        seed=0, **{"report_to": [], "logging_steps": 2, **more},
    )  # fmt: skip
    model = T.BertForSequenceClassification(config)
    return cls(model, args, train_dataset=Rows(64, 0), eval_dataset=Rows(32, 1), callbacks=list(callbacks))


def test_it_stops_early_with_the_best_model(tmp_path: Path) -> None:
    found = []
    for name, cls in (("torch", T.Trainer), ("mindspore", Trainer)):
        trainer = _trainer(
            cls, tmp_path / name, [T.EarlyStoppingCallback(2)], num_train_epochs=20, learning_rate=3e-2,
            eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True, save_total_limit=1,
        )  # fmt: skip
        trainer.train()
        best = trainer.evaluate()["eval_loss"]
        found.append((trainer.state.global_step, trainer.state.best_global_step, best))
        assert best == pytest.approx(trainer.state.best_metric, rel=1e-5)
    assert found[0][:2] == found[1][:2] and found[0][0] < 160
    assert found[1][2] == pytest.approx(found[0][2], rel=1e-3)


def test_tensorboard_is_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = _trainer(Trainer, tmp_path, max_steps=6, report_to=["tensorboard"])
    trainer.train()
    (events,) = tmp_path.rglob("events.out.tfevents*")
    read = EventAccumulator(str(events.parent))
    read.Reload()
    want = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert [scalar.value for scalar in read.Scalars("train/loss")] == pytest.approx(want, rel=1e-4)


def test_what_is_pushed_is_the_original_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.trainer as theirs

    sent: dict[str, list[str]] = {}

    class Hub:
        repo_id = "me/tuned"

        def create_repo(self, name: str, **_: Any) -> Any:
            assert name == self.repo_id
            return self

        def upload_folder(self, *, repo_id: str, folder_path: Any, **_: Any) -> None:
            sent[repo_id] = sorted(path.name for path in Path(folder_path).iterdir())

    monkeypatch.setattr(theirs, "hf_api", Hub)
    trainer = _trainer(Trainer, tmp_path, max_steps=2, push_to_hub=True, hub_model_id="me/tuned", save_strategy="no")
    trainer.train()
    trainer.push_to_hub(blocking=True)
    assert {"config.json", "model.safetensors", "README.md"} <= set(sent["me/tuned"])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"debug": "underflow_overflow"}, "does not support debug"),
        ({"auto_find_batch_size": True}, "does not support auto_find_batch_size"),
        ({"torch_compile_backend": "inductor"}, "does not support torch_compile"),
    ],
)
def test_an_argument_that_would_do_nothing_is_named(tmp_path: Path, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _trainer(Trainer, tmp_path, **asked)


def test_an_unknown_integration_is_refused_by_transformers(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        _trainer(Trainer, tmp_path, report_to=["nowhere"])


def test_a_checkpoint_that_is_cut_or_another_model_s_is_refused(tmp_path: Path) -> None:
    trainer = _trainer(Trainer, tmp_path, max_steps=4, save_steps=2)
    trainer.train()
    other = T.BertForSequenceClassification(T.BertConfig(**{**trainer.model.config.to_dict(), "num_labels": 3}))
    args = trainer.args
    with pytest.raises(InputError, match=r"is of another model than this BertForSequenceClassification: classifier"):
        Trainer(other, args, train_dataset=Rows(64, 0)).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    weights = tmp_path / "checkpoint-4" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"checkpoint-4 is cut: model.safetensors ends too early"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    again = _trainer(Trainer, tmp_path, max_steps=4, save_steps=2)
    again.train(resume_from_checkpoint=True)  # from the one before it
    assert again.state.global_step == 4
