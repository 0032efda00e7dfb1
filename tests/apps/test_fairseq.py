# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of fairseq's becomes one of transformers', with the same numbers; what is not one is refused."""

from __future__ import annotations

import argparse
import json
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file
from toy_translator import model, settings, state, write
from typer.testing import CliRunner

from paritas.apps.translate import fairseq, fairseq_checkpoint
from paritas.cli import app
from paritas.errors import InputError, SourceError

FILES = {
    "config.json", "generation_config.json", "merges.txt", "model.safetensors", "tokenizer_config.json",
    "vocab-src.json", "vocab-tgt.json",
}  # fmt: skip


def logits(one: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    given = torch.randint(4, 20, (2, 7), generator=generator)
    with torch.no_grad():
        return one(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            decoder_input_ids=given[:, :4],
            use_cache=False,
        ).logits


def change(directory: Path, how: Callable[[dict[str, Any]], Any]) -> Path:
    """The same directory with another checkpoint."""
    path = directory / "model.pt"
    with torch.serialization.safe_globals([argparse.Namespace]):
        checkpoint = torch.load(path, weights_only=True)
    how(checkpoint)
    torch.save(checkpoint, path)
    return directory


def loaded(directory: Path) -> Any:
    return hf.FSMTForConditionalGeneration.from_pretrained(directory).eval()


# --- what is converted ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("merged", "old"), [(False, False), (True, False), (False, True), (True, True)])
def test_the_numbers_are_the_originals(merged: bool, old: bool, tmp_path: Path) -> None:
    original = model(merged)
    done = fairseq.convert(write(tmp_path / "in", original, old=old), tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert len({path.stat().st_mode for path in (tmp_path / "out").iterdir()}) == 1
    made = loaded(tmp_path / "out")
    assert torch.equal(logits(made), logits(original))
    assert made.config.tie_word_embeddings is merged is done.merged
    assert made.config.langs == ["en", "de"]
    assert "last_optimizer_state" in done.left_out and "encoder.version" in done.left_out
    assert done.tensors == len(load_file(tmp_path / "out" / "model.safetensors"))
    assert "none missing, none unexpected, all equal" in str(done)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_the_search_is_written(tmp_path: Path) -> None:
    search = fairseq.Search(num_beams=8, length_penalty=0.6, early_stopping=True)
    fairseq.convert(write(tmp_path / "in", model()), tmp_path / "out", search=search)
    made = loaded(tmp_path / "out").generation_config
    assert (made.num_beams, made.length_penalty, made.early_stopping) == (8, 0.6, True)
    assert (made.decoder_start_token_id, made.forced_eos_token_id, made.max_length) == (2, 2, 64)


def test_half_precision_becomes_float32_without_a_change(tmp_path: Path) -> None:
    original = model()
    for name, value in original.named_parameters():
        if "embed_positions" not in name:  # which are computed
            value.data = value.data.half().float()
    directory = write(tmp_path / "in", original)
    weights(lambda found: found.update({name: value.half() for name, value in found.items()}))(directory)
    done = fairseq.convert(directory, tmp_path / "out")
    made = loaded(tmp_path / "out")
    assert made.dtype == torch.float32 and "half precision" in str(done)
    assert torch.equal(logits(made), logits(original))


def test_the_newer_cfg_is_read_as_args_are(tmp_path: Path) -> None:
    def newer(checkpoint: dict[str, Any]) -> None:
        args = checkpoint["args"]
        task = {name: getattr(args, name) for name in ("source_lang", "target_lang")}
        checkpoint["args"] = None
        checkpoint["cfg"] = {"task": task, "model": args, "bpe": {"_name": "fastbpe"}, "tokenizer": None}

    original = model()
    fairseq.convert(change(write(tmp_path / "in", original), newer), tmp_path / "out")
    assert torch.equal(logits(loaded(tmp_path / "out")), logits(original))


def test_a_decoder_whose_output_is_its_embedding(tmp_path: Path) -> None:
    original = model()
    original.model.decoder.output_projection.weight.data.copy_(original.model.decoder.embed_tokens.weight)
    directory = write(tmp_path / "in", original, share_decoder_input_output_embed=True)
    change(directory, lambda checkpoint: checkpoint["model"].pop("decoder.output_projection.weight"))
    fairseq.convert(directory, tmp_path / "out")
    assert torch.equal(logits(loaded(tmp_path / "out")), logits(original))


def test_vocabulary_and_codes_are_those_of_transformers(tmp_path: Path) -> None:
    fairseq.convert(write(tmp_path / "in", model()), tmp_path / "out")
    vocabulary = json.loads((tmp_path / "out" / "vocab-src.json").read_text())
    assert [vocabulary[token] for token in ("<s>", "<pad>", "</s>", "<unk>")] == [0, 1, 2, 3]
    assert (vocabulary["ba"], vocabulary["ba</w>"], vocabulary["madeupword0000</w>"]) == (4, 5, 20)
    assert (tmp_path / "out" / "merges.txt").read_text().startswith("b a</w>\nb a\nk i</w>\n")
    tokenizer = hf.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("baki du")["input_ids"] == [4, 7, 9, 2]
    assert tokenizer.decode([4, 7, 9, 2], skip_special_tokens=True) == "mope sa"
    assert tokenizer.do_lower_case


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("a 3\nb@@ 2\n", {"a</w>": 4, "b": 5}),
        ("a 3\nb 2\na 1 #fairseq:overwrite\n", {"a</w>": 6, "b</w>": 5}),
        ("a\u2028b 3\n\u00a0 1\n", {"a\u2028b</w>": 4, "\u00a0</w>": 5}),
    ],
)
def test_dictionaries(text: str, ids: dict[str, int], tmp_path: Path) -> None:
    (tmp_path / "dict.en.txt").write_text(text, encoding="utf-8")
    found, size = fairseq_checkpoint.vocabulary(tmp_path / "dict.en.txt")
    assert {token: index for token, index in found.items() if index > 3} == ids
    assert size == 4 + text.count("\n")


def test_codes_of_subword_nmt(tmp_path: Path) -> None:
    (tmp_path / "code").write_text("#version: 0.2\na b</w>\n1 2\n")
    assert fairseq_checkpoint.merges(tmp_path)[0] == "a b</w>\n1 2\n"


# --- several checkpoints -------------------------------------------------------------------------------------


@pytest.fixture
def several(tmp_path: Path) -> tuple[Path, list[Any]]:
    models = [model(seed=seed) for seed in (1, 2, 3)]
    for index, one in zip((1, 2, 10), models, strict=True):
        write(tmp_path / "in", one, name=f"model{index}.pt", old=index == 2)
    return tmp_path / "in", models


def test_one_of_several_has_to_be_chosen(several: tuple[Path, list[Any]], tmp_path: Path) -> None:
    directory, models = several
    with pytest.raises(InputError, match=r"3 checkpoints: model1\.pt, model2\.pt, model10\.pt\. Choose one with"):
        fairseq.convert(directory, tmp_path / "out")
    fairseq.convert(directory, tmp_path / "out", checkpoints=["model10.pt"])
    assert torch.equal(logits(loaded(tmp_path / "out")), logits(models[2]))


def test_the_average_of_several(several: tuple[Path, list[Any]], tmp_path: Path) -> None:
    directory, models = several
    done = fairseq.convert(directory, tmp_path / "out", average=True)
    assert done.checkpoints == ("model1.pt", "model2.pt", "model10.pt") and "averaged over 3" in str(done)
    states = [one.state_dict() for one in models]
    for name, got in loaded(tmp_path / "out").state_dict().items():
        want = torch.stack([one[name].double() for one in states]).mean(0).float()
        torch.testing.assert_close(got, want, rtol=1e-7, atol=0)


def test_different_models_are_not_averaged(several: tuple[Path, list[Any]], tmp_path: Path) -> None:
    directory, _ = several
    write(directory, model(width=48), name="model3.pt")
    with pytest.raises(SourceError, match=r"model3\.pt cannot be averaged with model1\.pt: d_model is another"):
        fairseq.convert(directory, tmp_path / "out", average=True)
    with pytest.raises(InputError, match="nothing to average"):
        fairseq.convert(directory, tmp_path / "out", checkpoints=["model1.pt"], average=True)
    assert not (tmp_path / "out").exists()


# --- what is refused -----------------------------------------------------------------------------------------


def weights(how: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], Any]:
    return lambda directory: change(directory, lambda checkpoint: how(checkpoint["model"]))


def setting(**values: Any) -> Callable[[Path], Any]:
    return lambda directory: change(directory, lambda checkpoint: vars(checkpoint["args"]).update(values))


def text(name: str, content: str | bytes) -> Callable[[Path], Any]:
    data = content if isinstance(content, bytes) else content.encode()
    return lambda directory: (directory / name).write_bytes(data)


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no dictionary": (lambda d: (d / "dict.de.txt").unlink(), r"in has no dict\.de\.txt\. It holds: bpecodes"),
    "no codes": (lambda d: (d / "bpecodes").unlink(), r"in has no bpecodes"),
    "no checkpoint": (lambda d: (d / "model.pt").unlink(), r"in has no model\*\.pt or checkpoint\*\.pt"),
    "another dictionary": (text("dict.en.txt", "a 1\n"), r"dict\.en\.txt has 5 entries.*encoder embeds 21"),
    "a word twice": (text("dict.en.txt", "a 1\na 2\n"), r"dict\.en\.txt, line 2: 'a' is there twice"),
    "a special word": (text("dict.en.txt", "<pad> 1\n"), r"dict\.en\.txt, line 1: '<pad>' is there twice"),
    "a word without a count": (text("dict.en.txt", "a 1\nb\n"), r"dict\.en\.txt, line 2: 'b' is no word with its"),
    "no text": (text("dict.en.txt", b"\xff\xfe 1\n"), r"dict\.en\.txt is not text in UTF-8"),
    "bad codes": (text("bpecodes", "a b 1\nc\n"), r"bpecodes, line 2: 'c' is no pair"),
    "an empty file": (text("model.pt", b""), r"model\.pt cannot be read, so it is damaged"),
    "garbage": (text("model.pt", b"\x00garbage" * 99), r"model\.pt cannot be read, so it is damaged"),
    "half a file": (lambda d: text("model.pt", (d / "model.pt").read_bytes()[:5000])(d), r"model\.pt cannot be read"),
    "only weights": (lambda d: torch.save(state(model()), d / "model.pt"), r"has no dictionary 'model' of weights"),
    "no settings": (lambda d: change(d, lambda c: c.pop("args")), r"neither 'args' nor 'cfg'"),
    "no languages": (setting(source_lang=None), r"model\.pt does not say its languages"),
    "no heads": (setting(encoder_attention_heads=None), r"model\.pt: the setting encoder_attention_heads is None"),
    "heads that do not divide": (setting(decoder_attention_heads=5), r"model\.pt: FSMT cannot have its sizes"),
    "norms before": (setting(encoder_normalize_before=True), r"encoder_normalize_before=True, which FSMT cannot do"),
    "another activation": (setting(activation_fn="swish"), r"activation_fn='swish', which FSMT cannot do"),
    "another tokenizer": (setting(bpe="sentencepiece"), r"model\.pt needs bpe='sentencepiece'"),
    "two widths": (setting(encoder_embed_dim=16), r"not of the same width"),
    "more layers": (setting(encoder_layers=2), r"model\.encoder\.layers\.1\.self_attn.*missing; .* and 13 more"),
    "a weight too many": (weights(lambda w: w.update(extra=torch.ones(1))), r"model\.extra is unknown to FSMT"),
    "another shape": (
        weights(lambda w: w.update({"encoder.layers.0.fc1.bias": torch.ones(3)})),
        r"model\.encoder\.layers\.0\.fc1\.bias is of shape \[3\], not \[64\]",
    ),
    "no embedding": (weights(lambda w: w.pop("encoder.embed_tokens.weight")), r"has no embed_tokens\.weight"),
    "no tensor": (weights(lambda w: w.update(x=3)), r"model\['x'\] is not a tensor"),
    "not shared": (setting(share_all_embeddings=True), r"says share_all_embeddings, but encoder\.embed_tokens"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_one_error_names_the_file(name: str, tmp_path: Path) -> None:
    spoil, words = BAD[name]
    directory = write(tmp_path / "in", model())
    spoil(directory)
    with pytest.raises(SourceError, match=words):
        fairseq.convert(directory, tmp_path / "new" / "out")
    assert [path.name for path in tmp_path.rglob("*") if "out" in path.name or "tmp" in path.name] == []


class Evil:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_else_is_unpickled(zipped: bool, tmp_path: Path) -> None:
    directory = write(tmp_path / "in", model())
    checkpoint = {"args": settings(model()), "model": state(model()), "extra_state": Evil(tmp_path / "done")}
    torch.save(checkpoint, directory / "model.pt", _use_new_zipfile_serialization=zipped)
    assert zipfile.is_zipfile(directory / "model.pt") is zipped
    with pytest.raises(SourceError, match=r"model\.pt holds objects that are not unpickled.*: .*(touch|getattr)"):
        fairseq.convert(directory, tmp_path / "out")
    assert not (tmp_path / "done").exists() and not (tmp_path / "out").exists()
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize("name", ["fairseq.meters", "fairseq.logging.meters"])
def test_meters_of_the_training_are_dropped(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published checkpoints hold them: of wmt19's the meters are those of `train_meters`."""
    module = types.ModuleType(name)
    meters = {}
    for kind in ("Average", "Time", "Stopwatch"):
        cls = type(f"{kind}Meter", (), {"__module__": name})
        setattr(module, cls.__name__, cls)
        meters[kind] = cls()
        vars(meters[kind]).update(sum=1.5, count=3)
    directory = write(tmp_path / "in", original := model())
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, name, module)
        patch.setitem(sys.modules, "fairseq", types.ModuleType("fairseq"))
        change(directory, lambda checkpoint: checkpoint["extra_state"].update(train_meters=meters))
    done = fairseq.convert(directory, tmp_path / "out")
    assert torch.equal(logits(loaded(tmp_path / "out")), logits(original))
    assert "extra_state" in done.left_out


def test_what_exists_is_not_replaced(tmp_path: Path) -> None:
    directory = write(tmp_path / "in", model())
    (tmp_path / "out").mkdir()
    fairseq.convert(directory, tmp_path / "out")  # empty: nothing is lost
    with pytest.raises(InputError, match="exists and is not an empty directory"):
        fairseq.convert(directory, tmp_path / "out")
    with pytest.raises(SourceError, match="There is no directory"):
        fairseq.convert(tmp_path / "nowhere", tmp_path / "other")


# --- the command ---------------------------------------------------------------------------------------------


def test_the_command(tmp_path: Path) -> None:
    directory = write(tmp_path / "in", model(merged=True))
    run = CliRunner().invoke(app, ["convert", "fairseq", str(directory), str(tmp_path / "out"), "-q", "--json"])
    assert run.exit_code == 0, run.output
    told = json.loads(run.stdout)
    assert told["languages"] == ["en", "de"] and told["merged"] and told["vocabularies"] == [37, 37]
    run = CliRunner().invoke(app, ["convert", "fairseq", str(directory), str(tmp_path / "out"), "-q"])
    assert run.exit_code == 2 and run.stderr.startswith("error: ") and "Traceback" not in run.output
