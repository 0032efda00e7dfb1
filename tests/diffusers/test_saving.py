# SPDX-License-Identifier: Apache-2.0
"""A pipeline on disk: opened without tracing and without weights, by us and by openvino-genai."""

from __future__ import annotations

import copy
import errno
import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

pytest.importorskip("diffusers")
import diffusers
import tiny_pipelines

import paritas.diffusers as ours
from paritas import pipeline as core
from paritas.diffusers import saving
from paritas.diffusers.porting import networks
from paritas.dropin import network
from paritas.errors import InputError, PortError

IMAGE = PIL.Image.new("RGB", (16, 16), (200, 30, 60))


def _picture(pipeline: Any, **more: Any) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(3)
    call = {"prompt": "a red dog", "num_inference_steps": 2, "generator": noise, "output_type": "np", **more}
    return pipeline(**call).images


@pytest.fixture(scope="module")
def original() -> Any:
    return tiny_pipelines.stable_diffusion()


def _saved(directory: Path, **options: Any) -> Path:
    pipeline = ours.port(tiny_pipelines.stable_diffusion(), engine="openvino")
    _picture(pipeline)
    _picture(ours.StableDiffusionImg2ImgPipeline.from_pipe(pipeline), image=IMAGE, strength=0.9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "SMALLEST", 64)
        pipeline.save_pretrained(directory, **options)
    return directory


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the sizes of its calls alone, which takes a tenth of the time."""
    return _saved(tmp_path_factory.mktemp("saved") / "pipeline", dynamic=False)


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _saved(tmp_path_factory.mktemp("free") / "pipeline")


@pytest.fixture(scope="module")
def opened(saved: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        for module in (network, saving):
            patch.setattr(module, "capture", lambda *a, **k: pytest.fail("captured"))
        return ours.DiffusionPipeline.from_pretrained(saved)


def test_it_lies_as_other_programs_expect_it(saved: Path) -> None:
    for folder in ("unet", "text_encoder", "vae_decoder", "vae_encoder"):
        assert {"openvino_model.xml", "openvino_model.bin", "config.json", "port.json"} <= {
            file.name for file in (saved / folder).iterdir()
        }
        assert core.load(saved / folder).manifest.engine == "openvino"
    names = {f: [i.name for i in core.load(saved / f).inputs] for f in ("unet", "vae_decoder", "vae_encoder")}
    assert names["unet"] == ["sample", "timestep", "encoder_hidden_states"]
    assert (names["vae_decoder"], names["vae_encoder"]) == (["latent_sample"], ["sample"])
    assert (saved / "tokenizer" / "openvino_tokenizer.xml").is_file()
    assert not list(saved.rglob("diffusion_pytorch_model*")) and not list(saved.rglob("model.safetensors"))


def test_an_opened_pipeline_makes_the_same_picture(opened: Any, original: Any) -> None:
    assert type(opened) is diffusers.StableDiffusionPipeline
    np.testing.assert_allclose(_picture(opened), _picture(original), atol=1e-4)


_COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda pipeline: pickle.loads(pickle.dumps(pipeline)),  # noqa: S301
}


@pytest.mark.parametrize("how", _COPIES)
def test_a_copy_asks_for_its_own_networks(how: str) -> None:
    mine = ours.port(tiny_pipelines.stable_diffusion(), engine="torch")
    other = _COPIES[how](mine)
    assert type(other) is type(mine) and {one.engine for one in networks(other).values()} == {"torch"}
    assert [one.save_pretrained.args[0] for one in (mine, other)] == [mine, other]
    assert (other.unet is mine.unet) == (how == "copy")
    plain = _COPIES[how](tiny_pipelines.stable_diffusion())  # of the same class, and not ported
    assert "save_pretrained" not in vars(plain) and not networks(plain)["unet"].training


@pytest.mark.slow
@pytest.mark.parametrize("how", _COPIES)
def test_a_copy_saves_its_own_networks(how: str, tmp_path: Path) -> None:
    other = _COPIES[how](ours.port(tiny_pipelines.stable_diffusion(), engine="openvino"))
    other.unet = ours.port(tiny_pipelines.stable_diffusion(5), engine="openvino").unet
    want = _picture(other)
    other.save_pretrained(tmp_path / "saved")
    opened = ours.DiffusionPipeline.from_pretrained(tmp_path / "saved")
    np.testing.assert_allclose(_picture(opened), want, atol=1e-5)


def test_what_was_opened_is_copied_and_not_pickled(opened: Any) -> None:
    want = _picture(opened)
    for how in ("copy", "deepcopy"):
        np.testing.assert_array_equal(_picture(_COPIES[how](opened)), want)
    with pytest.raises(TypeError, match="is not pickled: open its directory in the other process"):
        _COPIES["pickle"](opened)


@pytest.mark.slow
def test_sizes_are_free(free: Path, original: Any) -> None:
    opened = ours.AutoPipelineForText2Image.from_pretrained(free, engine="openvino")
    for call in ({}, {"height": 24, "width": 32}, {"num_images_per_prompt": 2}):
        np.testing.assert_allclose(_picture(opened, **call), _picture(original, **call), atol=1e-4)


def test_its_networks_are_what_they_were_without_weights(opened: Any, original: Any) -> None:
    for name, one in networks(opened).items():
        theirs = networks(original)[name]
        assert isinstance(one, type(theirs)) and (one.dtype, one.device) == (theirs.dtype, theirs.device)
    assert opened.unet.config.in_channels == 4
    weight = opened.unet.mid_block.resnets[0].conv1.weight
    assert weight.shape == original.unet.mid_block.resnets[0].conv1.weight.shape


def test_another_pipeline_of_its_networks(opened: Any, original: Any) -> None:
    made = ours.StableDiffusionImg2ImgPipeline.from_pipe(opened)
    theirs = diffusers.StableDiffusionImg2ImgPipeline.from_pipe(original)
    call = {"image": IMAGE, "strength": 0.9}
    np.testing.assert_allclose(_picture(made, **call), _picture(theirs, **call), atol=1e-4)


def test_a_call_for_which_no_port_was_saved_is_refused(opened: Any) -> None:
    with pytest.raises(InputError, match=r"unet was called with other arguments .*call it so, and save it again"):
        opened.unet(torch.zeros(2, 4, 8, 8), torch.tensor(1), torch.zeros(2, 12, 16), class_labels=torch.tensor([1, 2]))
    with pytest.raises(InputError, match=r"mid_block.resnets.0.conv1 was called, for which no port was saved"):
        opened.unet.mid_block.resnets[0].conv1(torch.zeros(1, 16, 4, 4))
    with pytest.raises(InputError, match="unet was called with other arguments"):
        _picture(opened, height=24, width=32)
    with pytest.raises(InputError, match="without weights"):
        opened.unet.save_pretrained("anywhere")


def test_a_network_that_was_changed_after_it_was_opened_is_refused(saved: Path) -> None:
    """Its ports are of what it was: nothing that is put into it would be in the picture."""
    opened = ours.DiffusionPipeline.from_pretrained(saved)
    again = copy.deepcopy(opened)
    np.testing.assert_array_equal(_picture(again), _picture(opened))
    opened.load_textual_inversion({"<cat>": torch.ones(1, 16)}, token="<cat>")
    with pytest.raises(InputError, match=r"text_encoder was changed after it was opened"):
        _picture(opened)
    again.unet.fuse_qkv_projections()
    with pytest.raises(InputError, match=r"unet was changed after it was opened"):
        _picture(again)


def test_a_network_that_is_no_longer_what_it_was_called_as_is_not_saved(tmp_path: Path) -> None:
    pipeline = ours.port(tiny_pipelines.stable_diffusion(), engine="openvino")
    own = pipeline.unet.attn_processors
    pipeline.unet.set_attn_processor(diffusers.models.attention_processor.AttnProcessor())
    _picture(pipeline)
    pipeline.unet.set_attn_processor(own)
    with pytest.raises(InputError, match="unet was called with other modules, attention processors or switches"):
        pipeline.save_pretrained(tmp_path / "new", dynamic=False)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    fresh = ours.port(tiny_pipelines.stable_diffusion(), engine="openvino")
    with pytest.raises(InputError, match="it has made none: call it once"):
        fresh.save_pretrained(tmp_path / "new")
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(PortError, match="is no saved pipeline"):
        fresh.save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def _tree(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def test_an_opened_pipeline_is_saved_again(opened: Any, saved: Path, tmp_path: Path) -> None:
    opened.save_pretrained(tmp_path / "again")
    first, again = _tree(saved), _tree(tmp_path / "again")
    assert first.keys() == again.keys()
    of_networks = [n for n in first if n.endswith((".bin", ".xml", ".safetensors")) and not n.startswith("tokenizer")]
    assert of_networks and not [name for name in of_networks if first[name] != again[name]]
    read = ours.DiffusionPipeline.from_pretrained(tmp_path / "again")
    np.testing.assert_array_equal(_picture(read), _picture(opened))
    read.save_pretrained(tmp_path / "again")  # in the place of what it was opened from
    np.testing.assert_array_equal(_picture(read), _picture(opened))


@pytest.mark.parametrize("where", ["_write_rest", "_write_skeleton", "move"])
def test_what_was_saved_before_stays_when_saving_fails(
    opened: Any, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    target = tmp_path / "saved"
    shutil.copytree(saved, target)
    before = _tree(target)

    def full(*args: Any, **kwargs: Any) -> Any:
        if where != "move" or args[0].name.startswith(".saved.tmp"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return own(*args)

    own = os.rename
    monkeypatch.setattr(*((os, "rename") if where == "move" else (saving, where)), full)
    with pytest.raises(PortError, match=r"The pipeline cannot be written to .*no space left .* Free some"):
        opened.save_pretrained(target)
    monkeypatch.undo()
    assert _tree(target) == before and [path.name for path in tmp_path.iterdir()] == ["saved"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda told: told.update(format=9), "has the format 9"),
        (lambda told: told["networks"]["unet"][0].update(folder="../unet"), "is damaged"),
        (lambda told: told["networks"]["unet"][0].update(structure={"kind": "object"}), "is damaged"),
        (lambda told: told["networks"].update(scheduler=told["networks"]["unet"]), "is no network"),
    ],
)
def test_a_damaged_directory_is_refused(saved: Path, tmp_path: Path, change: Any, message: str) -> None:
    place = tmp_path / "copy"
    shutil.copytree(saved, place)
    told = json.loads((place / saving.PORTS).read_text())
    change(told)
    (place / saving.PORTS).write_text(json.dumps(told))
    with pytest.raises(PortError, match=message):
        ours.DiffusionPipeline.from_pretrained(place)


@pytest.mark.slow
def test_openvino_genai_opens_it(free: Path) -> None:
    genai = pytest.importorskip("openvino_genai")
    found = genai.Text2ImagePipeline(str(free), "CPU").generate(
        "a red dog", num_inference_steps=2, height=16, width=16, rng_seed=3
    )
    assert np.array(found.data).shape == (1, 16, 16, 3)


@pytest.mark.slow
def test_optimum_intel_opens_it(free: Path, original: Any, tmp_path: Path) -> None:
    """In an environment of its own, which is named in PARITAS_PEER_PYTHON, with diffusers in it."""
    python = os.environ.get("PARITAS_PEER_PYTHON")
    if not python:
        pytest.skip("PARITAS_PEER_PYTHON names no environment with optimum-intel")
    code = (
        "import sys, numpy, torch; from optimum.intel import OVDiffusionPipeline as P\n"
        "pipeline, noise = P.from_pretrained(sys.argv[1]), torch.Generator().manual_seed(3)\n"
        "call = dict(num_inference_steps=2, output_type='np', height=16, width=16, generator=noise)\n"
        "numpy.save(sys.argv[2], pipeline('a red dog', **call).images)"
    )
    subprocess.run([python, "-c", code, str(free), str(tmp_path / "picture.npy")], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "picture.npy"), _picture(original), atol=1e-4)


@pytest.mark.slow
def test_the_command_ports_a_pipeline(original: Any, tmp_path: Path, paritas: Any) -> None:
    original.save_pretrained(tmp_path / "original")
    done = paritas("port", tmp_path / "original", "--static", "--out", tmp_path / "port")
    assert done.returncode == 0, done.stderr
    assert "picture: agrees" in done.stdout and "vae: openvino" in done.stdout
    opened = ours.DiffusionPipeline.from_pretrained(tmp_path / "port")
    assert sorted(path.name for path in (tmp_path / "port").iterdir() if path.name.startswith("vae_")) == [
        "vae_decoder",
        "vae_encoder",
    ]
    assert {one.engine for one in networks(opened).values()} == {"openvino"}
