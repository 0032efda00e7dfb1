# SPDX-License-Identifier: Apache-2.0
"""The engine "torch" on a port directory: the original's class, its weights, and nothing that is code."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from paritas.errors import EngineError, PortError
from paritas.program import Artifact, Manifest, Source, TensorSpec
from paritas.run.engine import engine

BERT = "transformers.models.bert.modeling_bert.BertModel"
IDS = {"input_ids": np.array([[1, 2, 3], [4, 5, 6]]), "attention_mask": np.array([[1, 1, 1], [1, 1, 0]])}


@pytest.fixture(scope="module")
def model():
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, vocab_size=20)
    return BertModel(config).eval()


@pytest.fixture
def artifact(model, tmp_path):
    model.save_pretrained(tmp_path)
    manifest = Manifest(
        engine="torch",
        dtype="float32",
        inputs=tuple(TensorSpec(name, "int64", ("s0", "s1")) for name in IDS),
        outputs=(
            TensorSpec("last_hidden_state", "float32", ("s0", "s1", 16)),
            TensorSpec("pooler_output", "float32", ("s0", 16)),
        ),
        structure={},
        source=Source("directory", model_class=BERT),
        entry="model.safetensors",
    )
    return Artifact(tmp_path, manifest)


def changed(artifact, **source):
    manifest = dataclasses.replace(artifact.manifest, source=Source("directory", **source))
    return Artifact(artifact.directory, manifest)


def test_it_computes_what_the_original_computes(model, artifact):
    session = engine("torch").load(artifact)
    with torch.no_grad():
        want = model(**{name: torch.from_numpy(value) for name, value in IDS.items()})
    got = session.run(IDS)
    assert session.precision == "float32"
    for g, w in zip(got, (want.last_hidden_state, want.pooler_output), strict=True):
        assert g.dtype == np.float32 and np.array_equal(g, w.numpy())
    session.close()
    with pytest.raises(EngineError, match="closed"):
        session.run(IDS)


@pytest.mark.parametrize("precision", ["float64", "bfloat16", "float16"])
def test_all_its_precisions_are_real(artifact, precision):
    torch_engine = engine("torch")
    assert torch_engine.precisions()[precision] == ""
    session = torch_engine.load(artifact, precision=precision)
    want = torch_engine.load(artifact).run(IDS)[0]
    got = session.run(IDS)[0]
    assert session.precision == precision
    assert got.dtype == {"float64": "f8", "bfloat16": "f4", "float16": "f2"}[precision]
    assert 0 < np.abs(got - want).max() < {"float64": 1e-5, "bfloat16": 0.1, "float16": 0.02}[precision]


def test_what_it_cannot_do_is_said(artifact):
    torch_engine = engine("torch")
    with pytest.raises(EngineError, match="does not compute in 'int8'"):
        torch_engine.load(artifact, precision="int8")
    with pytest.raises(EngineError, match="no modes"):
        torch_engine.load(artifact, mode="graph")
    with pytest.raises(EngineError, match="device 'nowhere'"):
        torch_engine.load(artifact, device="nowhere")
    with pytest.raises(EngineError, match="could not run BertModel"):
        torch_engine.load(artifact).run({**IDS, "input_ids": IDS["input_ids"] + 20})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("os.system", "no class of transformers"),
        ("", "its original is unknown"),
        ("transformersevil.module.Class", "no class of transformers"),
        ("transformers.models.bert.modeling_bert.NoSuch", "has no transformers.models.bert"),
        ("transformers.no_such.Thing", "has no transformers.no_such"),
        ("transformers.models.bert.configuration_bert.BertConfig", "is no model"),
    ],
)
def test_the_manifest_chooses_among_models_of_transformers_only(artifact, name, message):
    with pytest.raises(PortError, match=message):
        engine("torch").load(changed(artifact, model_class=name))


def test_missing_files_missing_weights_and_pickles_are_refused(model, artifact):
    from safetensors.torch import load_file, save_file

    path = artifact.directory / "model.safetensors"
    weights = load_file(path)
    lost = weights.pop("encoder.layer.0.attention.self.query.weight")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(PortError, match=r"missing keys: encoder\.layer\.0\.attention\.self\.query\.weight"):
        engine("torch").load(artifact)
    weights["encoder.layer.0.attention.self.query.weight"] = lost[:3].contiguous()
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(PortError, match=r"query\.weight"):
        engine("torch").load(artifact)
    path.write_bytes(b"not safetensors")
    with pytest.raises(PortError, match="BertModel cannot be loaded"):
        engine("torch").load(artifact)
    path.unlink()
    torch.save(model.state_dict(), artifact.directory / "pytorch_model.bin")
    with pytest.raises(PortError, match=r"model\.safetensors is missing"):
        engine("torch").load(artifact)


def test_code_beside_the_config_is_not_run(artifact):
    config = json.loads((artifact.directory / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}
    (artifact.directory / "config.json").write_text(json.dumps(config))
    (artifact.directory / "evil.py").write_text("raise SystemExit('this ran')\n")
    assert len(engine("torch").load(artifact).run(IDS)) == 2
