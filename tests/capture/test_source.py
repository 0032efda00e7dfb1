# SPDX-License-Identifier: Apache-2.0
"""The original is loaded whole and unexecuted, or refused with one reason."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from paritas.capture import checkpoint
from paritas.capture.source import load_again, minilm_directory, resolve, weights
from paritas.errors import OriginalMissing, SourceError
from paritas.program import Note, Source

TINY: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 20,
}


def bert(cls: Any = transformers.BertModel, **changes: Any) -> Any:
    torch.manual_seed(0)
    return cls(transformers.BertConfig(**{**TINY, **changes})).eval()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    bert().save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def says(source: Any, **kwargs: Any) -> str:
    with pytest.raises(SourceError) as caught:
        resolve(source, **kwargs)
    return str(caught.value)


# --- what can be loaded ------------------------------------------------------------------------


def test_the_real_checkpoint_loads_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    notes: list[Note] = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, source = resolve(minilm_directory(), notes=notes)
    assert type(model) is transformers.BertModel and not model.training and model.dtype == torch.float32
    assert source.kind == "directory" and Path(source.id).expanduser().is_absolute()
    assert source.model_class == "transformers.models.bert.modeling_bert.BertModel"
    assert [n.text for n in notes] == [
        "only the transformer of this sentence-transformers model, without Pooling, Normalize",
        "loaded without its pooler, which sentence-transformers does not read",
    ]
    assert capfd.readouterr() == ("", "")
    again = load_again(source)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_class_comes_from_the_config_or_the_caller(directory: Path) -> None:
    assert type(resolve(str(directory))[0]) is transformers.BertModel
    assert type(resolve(directory, model_class="AutoModel")[0]) is transformers.BertModel
    assert type(resolve(directory, model_class=transformers.BertModel)[0]) is transformers.BertModel
    for architectures in ([], ["TFBertModel"], ["NoSuchModel"]):
        edit(directory / "config.json", architectures=architectures)
        assert type(resolve(directory)[0]) is transformers.BertModel
    assert "has no class BertForNothing" in says(directory, model_class="BertForNothing")
    assert "no class of transformers" in says(directory, model_class="os.path")
    assert "none for its model_type" in says(directory, model_class="AutoModelForCTC")


def test_dtype(directory: Path) -> None:
    bert().half().save_pretrained(directory)
    assert resolve(directory)[0].dtype == torch.float32
    assert resolve(directory, dtype="bfloat16")[0].dtype == torch.bfloat16
    assert resolve(directory, dtype=torch.float64)[0].dtype == torch.float64
    for wrong in ("int8", "float33", "nn"):
        assert "is none of float32" in says(directory, dtype=wrong)


def test_a_subfolder(directory: Path) -> None:
    model, source = resolve(directory.parent, subfolder="bert")
    assert source.subfolder == "bert" and type(load_again(source)) is type(model)
    assert "has no directory 'bret'. It holds: bert/" in says(directory.parent, subfolder="bret")
    assert "has no directory '../bert'" in says(directory, subfolder="../bert")


def test_shards_and_pickles_load(directory: Path, tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    state = load_file(directory / "model.safetensors")
    torch.save(state, directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    for place in (tmp_path / "shards", directory):
        assert torch.equal(resolve(place)[0].state_dict()["pooler.dense.bias"], state["pooler.dense.bias"])


def test_transformers_settings_are_as_before(directory: Path) -> None:
    level = transformers_logging.get_verbosity()
    resolve(directory)
    says(directory, model_class="BertForMaskedLM")
    assert transformers_logging.get_verbosity() == level
    assert transformers_logging.set_tqdm_hook(None) is None


# --- modules in memory -------------------------------------------------------------------------


def test_a_module_stays_as_it_is() -> None:
    model = bert().train()
    notes: list[Note] = []
    twin, source = resolve(model, notes=notes)
    assert model.training and not any(m.training for m in twin.modules()) and "training mode" in notes[0].text
    assert all(a is b for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert source == Source("module", model_class="transformers.models.bert.modeling_bert.BertModel")
    assert resolve(model.eval())[0] is model
    half, _ = resolve(model, dtype="float16", notes=notes)
    assert half.dtype == torch.float16 and model.dtype == torch.float32 and "cast to float16" in notes[-1].text
    with pytest.raises(OriginalMissing, match=r"BertModel in memory.*Pass the original"):
        load_again(source)


def test_modules_without_weights_are_refused() -> None:
    with torch.device("meta"):
        model = torch.nn.Linear(2, 2)
    assert "meta device" in says(model)
    assert "not a int" in says(3)


# --- what is missing ---------------------------------------------------------------------------


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_directories_that_are_no_checkpoint(tmp_path: Path, directory: Path) -> None:
    assert f"Near it: {directory}" in says(tmp_path / "brt")
    assert says("./nowhere") == "There is no directory ./nowhere."
    assert "is a file" in says(directory / "config.json")
    (tmp_path / "empty").mkdir()
    assert "has no config.json. It holds: nothing" in says(tmp_path / "empty")
    (directory / "model.safetensors").rename(directory / "tf_model.h5")
    text = says(directory)
    assert "has no weights: no model.safetensors and no pytorch_model.bin." in text
    assert "only TensorFlow weights" in text and "config.json, tf_model.h5" in text
    (directory / "model_index.json").write_text("{}")
    assert "diffusers pipeline" in says(directory)


def test_configs_that_cannot_be_used(directory: Path) -> None:
    path = directory / "config.json"
    edit(path, model_type="wonder", architectures=["WonderModel"])
    assert "does not know the model_type 'wonder'" in says(directory)
    edit(path, auto_map={"AutoModel": "modeling.Wonder"})
    assert "trust_remote_code" in says(directory)
    path.write_text("{}")
    assert "has no model_type" in says(directory)
    path.write_text('{"_class_name": "UNet2DConditionModel"}')
    assert "UNet2DConditionModel of diffusers" in says(directory)
    path.write_text("[]")
    assert "is not a JSON object" in says(directory)
    path.write_text('{"model_type"')
    assert "cannot be read" in says(directory)
    path.write_text(json.dumps({**TINY, "model_type": "bert", "hidden_size": 17}))
    assert "AutoModel cannot load" in says(directory) and "not a multiple" in says(directory)


def test_sentence_transformers_layouts(directory: Path, tmp_path: Path) -> None:
    root = tmp_path / "st"
    shutil.copytree(directory, root / "0_Transformer")
    modules = [{"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    (root / "modules.json").write_text(json.dumps(modules))
    assert type(resolve(root)[0]) is transformers.BertModel
    (root / "modules.json").write_text(json.dumps([{**modules[0], "path": "../bert"}]))
    assert "outside the checkpoint" in says(root)
    (root / "modules.json").write_text('[{"path": "", "type": "x.BoW"}]')
    assert "lists no Transformer" in says(root)
    (root / "modules.json").write_text("[")
    assert "cannot be read" in says(root)


# --- broken weights ----------------------------------------------------------------------------


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def test_broken_safetensors(directory: Path) -> None:
    path = directory / "model.safetensors"
    whole = path.read_bytes()
    cut(path, len(whole) - 100)
    assert f"model.safetensors is cut off: {len(whole)} bytes expected, {len(whole) - 100} found" in says(directory)
    for data, reason in (
        (whole[:50], "cut off or no safetensors"),
        (b"", "cut off or no safetensors"),
        (b"\xff" * 100, "cut off or no safetensors"),
        (whole[:8] + b"x" * (len(whole) - 8), "its header is not the JSON"),
        (whole + b"x", "is too long"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"<html>not found</html>" * 9, "cut off or no safetensors"),
    ):
        path.write_bytes(data)
        text = says(directory)
        assert reason in text and "Get them again" in text and "Traceback" not in text


def test_missing_and_foreign_shards(tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path, max_shard_size="10KB")
    first, second, *_ = sorted(tmp_path.glob("*.safetensors"))
    first.unlink()
    cut(second, 20)
    text = says(tmp_path)
    assert f"{first.name} is missing, though the index names it" in text and f"{second.name} is cut off" in text
    index = tmp_path / "model.safetensors.index.json"
    edit(index, weight_map={"a": "../secret.safetensors"})
    assert "outside its directory" in says(tmp_path)
    index.write_text("{")
    assert "index.json is damaged" in says(tmp_path)


class Evil:
    def __init__(self, marker: str):
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (self.marker,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_runs_code_is_refused(directory: Path, tmp_path: Path, zipped: bool) -> None:
    (directory / "model.safetensors").unlink()
    path, marker = directory / "pytorch_model.bin", tmp_path / "executed"
    if zipped:
        torch.save({"a": Evil(str(marker))}, path)
    else:
        path.write_bytes(pickle.dumps({"a": Evil(str(marker))}))
    assert "hold more than tensors" in says(directory) and not marker.exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_cut_off_pickles(directory: Path, zipped: bool, keep: float) -> None:
    path = directory / "pytorch_model.bin"
    torch.save(load_file(directory / "model.safetensors"), path, _use_new_zipfile_serialization=zipped)
    (directory / "model.safetensors").unlink()
    cut(path, int(path.stat().st_size * keep))
    text = says(directory)
    assert "is empty" in text or "cut off" in text or "damaged" in text, text


def test_missing_weights_are_never_random(directory: Path) -> None:
    text = says(directory, model_class="BertForMaskedLM")
    assert "weights of BertForMaskedLM, which would be random:\n  cls.predictions.bias" in text
    assert "It has 2 that BertForMaskedLM does not use:\n  pooler.dense.bias" in text and "allow_missing" in text
    notes: list[Note] = []
    model, _ = resolve(directory, model_class="BertForMaskedLM", allow_missing=True, notes=notes)
    assert type(model) is transformers.BertForMaskedLM
    assert "random, as the checkpoint lacks them: cls.predictions.bias" in notes[0].text


def test_a_missing_pooler_is_left_out(directory: Path) -> None:
    path = directory / "model.safetensors"
    state = load_file(path)
    save_file({k: v for k, v in state.items() if "pooler" not in k}, path, {"format": "pt"})
    notes: list[Note] = []
    model, source = resolve(directory, notes=notes)
    assert model.pooler is None and [n.text[:26] for n in notes] == ["loaded without its pooler,"]
    assert load_again(source).pooler is None  # type: ignore[union-attr]
    assert resolve(directory, allow_missing=True)[0].pooler is not None


def test_unused_weights_are_noted(tmp_path: Path) -> None:
    bert(transformers.BertForMaskedLM).save_pretrained(tmp_path)
    notes: list[Note] = []
    model, _ = resolve(tmp_path, model_class="BertModel", notes=notes)
    assert model.pooler is None
    assert any(n.text.startswith("BertModel does not use these weights of the checkpoint: cls.") for n in notes)


def test_shapes_that_do_not_match_are_listed(directory: Path) -> None:
    edit(directory / "config.json", vocab_size=60)
    text = says(directory)
    assert "word_embeddings.weight: [50, 16] in the checkpoint, [60, 16] in the model" in text


# --- the hub -----------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    (tmp_path / "hub").mkdir()
    return tmp_path / "hub"


def fill(cache: Path, name: str, commit: str = "c" * 40) -> Path:
    root = cache / ("models--" + name.replace("/", "--"))
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(commit)
    bert().save_pretrained(root / "snapshots" / commit)
    return root / "snapshots" / commit


def hub_says(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def model_info(*args: Any, **kwargs: Any) -> Any:
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)


def http_error(cls: Any, text: str = "nope") -> Exception:
    error = cls.__new__(cls)
    Exception.__init__(error, text)
    return error  # type: ignore[no-any-return]


def test_no_network_is_said_and_what_is_cached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setattr(huggingface_hub.HfApi, "__init__", _api_at("http://127.0.0.1:9"))
    text = says("org/bert-tiny")
    assert "org/bert-tiny is not in the cache, and the hub cannot be reached" in text and "is empty" in text
    fill(cache, "org/bert-tiny-2")
    fill(cache, "other/thing")
    assert "In the cache there is: org/bert-tiny-2." in says("org/bert-tiny")
    assert "In the cache there is: org/bert-tiny-2." in says("orgg/Bert-Tiny-2")
    assert "In the cache there are: org/bert-tiny-2, other/thing." in says("completely/different")
    model, source = resolve("other/thing")
    assert source == Source("hub", "other/thing", "c" * 40, "", f"{type(model).__module__}.BertModel")


def _api_at(endpoint: str) -> Any:
    real = huggingface_hub.HfApi.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        real(self, endpoint=endpoint)

    return init


def test_an_id_that_does_not_exist(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_says(monkeypatch, http_error(huggingface_hub.errors.RepositoryNotFoundError))
    text = says("org/nothing")
    assert "There is no model org/nothing on the hub" in text and "hf auth login" in text
    hub_says(monkeypatch, http_error(huggingface_hub.errors.GatedRepoError))
    assert "ask for your agreement" in says("org/gated")
    hub_says(monkeypatch, http_error(huggingface_hub.errors.RevisionNotFoundError))
    assert "has no revision 'v9'" in says("org/model", revision="v9")
    hub_says(monkeypatch, http_error(huggingface_hub.errors.HfHubHTTPError, "503 Server Error"))
    assert "the hub answers with an error: 503" in says("org/model")
    assert "no directory" in says("a/b/c") and "no directory" in says("~/nothing")


def test_offline_mode_uses_the_cache_alone(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_says(monkeypatch, huggingface_hub.errors.OfflineModeIsEnabled("offline"))
    assert "HF_HUB_OFFLINE forbids" in says("org/bert")
    snapshot = fill(cache, "org/bert")
    assert type(resolve("org/bert")[0]) is transformers.BertModel
    (snapshot / "model.safetensors").unlink()
    assert "only in part in the cache" in says("org/bert")


def test_a_commit_that_is_cached_needs_no_network(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cache, "org/bert")
    hub_says(monkeypatch, AssertionError("was asked"))
    _, source = resolve("org/bert", revision="c" * 40)
    assert source.revision == "c" * 40
    load_again(source)


def test_what_is_downloaded(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [
        "config.json",
        "vocab.txt",
        "model.safetensors",
        "pytorch_model.bin",
        "tf_model.h5",
        "onnx/model.onnx",
    ]
    assert checkpoint._wanted(files, "") == ["config.json", "vocab.txt", "model.safetensors"]
    shards = [
        "config.json",
        "pytorch_model.bin.index.json",
        "pytorch_model-00001-of-00002.bin",
        "sub/model.safetensors",
    ]
    assert "pytorch_model-00001-of-00002.bin" in checkpoint._wanted(shards, "")
    assert "sub/model.safetensors" in checkpoint._wanted(shards, "sub")
    commit, asked = "d" * 40, {}

    class Info:
        sha = commit
        siblings = [type("File", (), {"rfilename": name}) for name in files]  # noqa: RUF012

    def download(name: str, **kwargs: Any) -> str:
        if kwargs.get("local_files_only"):
            raise huggingface_hub.errors.LocalEntryNotFoundError("no")
        asked.update(kwargs)
        return str(fill(cache, name, commit))

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **kwargs: Info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    _, source = resolve("org/new")
    assert source.revision == commit
    assert asked == {"revision": commit, "allow_patterns": ["config.json", "vocab.txt", "model.safetensors"]}
    Info.siblings = []
    assert "org/new2 has no model.safetensors or pytorch_model.bin" in says("org/new2")


# --- weights -----------------------------------------------------------------------------------

MODELS = [
    lambda: bert(),
    lambda: bert(transformers.BertForMaskedLM),
    lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2)),
    lambda: transformers.T5ForConditionalGeneration(
        transformers.T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    ),
    lambda: transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(
            vocab_size=50,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            pad_token_id=0,
        )
    ),
    lambda: transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            **{**TINY, "num_key_value_heads": 1, "num_local_experts": 2, "tie_word_embeddings": True}
        )
    ),
    lambda: transformers.CLIPModel(
        transformers.CLIPConfig(
            text_config=TINY,
            vision_config={**TINY, "image_size": 16, "patch_size": 8},
            projection_dim=8,
        )
    ),
]


@pytest.mark.parametrize("make", MODELS, ids=["bert", "bert-lm", "gpt2", "t5", "whisper", "mixtral", "clip"])
def test_weights_are_those_of_save_pretrained(make: Any, tmp_path: Path) -> None:
    model = make()
    got = weights(model)
    model.save_pretrained(tmp_path)
    want = load_file(tmp_path / "model.safetensors")
    assert got.keys() == want.keys()
    assert all(torch.equal(got[name], want[name]) for name in want)
    assert not any(value.requires_grad for value in got.values())
    assert weights(model, as_saved=False).keys() <= model.state_dict().keys()


def test_weights_of_a_plain_module_are_kept_once() -> None:
    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Linear(3, 3)
            self.second = torch.nn.Linear(3, 3)
            self.second.weight = self.first.weight
            self.register_buffer("kept", torch.zeros(2))
            self.register_buffer("lost", torch.zeros(2), persistent=False)
            self.register_buffer("none", torch.empty(0))
            self.register_buffer("also_none", torch.empty(0))

    model = Plain()
    got = weights(model)
    assert list(got) == ["kept", "none", "also_none", "first.weight", "first.bias", "second.bias"]
    assert got["first.weight"].data_ptr() == model.first.weight.data_ptr()


def test_a_checkpoint_at_home_is_named_without_whose_home_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models" / "mine").mkdir(parents=True)
    source = checkpoint.locate(tmp_path / "models" / "mine").source
    assert source.id == "~/models/mine" and source.name == "mine"
    assert checkpoint.locate(source.id).directory == tmp_path / "models" / "mine"
    monkeypatch.setenv("HOME", "/")
    assert checkpoint.locate(tmp_path / "models" / "mine").source.id == str(tmp_path / "models" / "mine")
