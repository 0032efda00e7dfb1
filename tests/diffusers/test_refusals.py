# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a pipeline, its arguments and its directory: one clear error each, nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from typer.testing import CliRunner

pytest.importorskip("diffusers")
import diffusers
import tiny_pipelines

import paritas
import paritas.diffusers as ours
from paritas.cli import app
from paritas.diffusers import saving
from paritas.errors import EngineMissing, InputError, PortError
from paritas.run import engine as engines

# --- the command ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "unnet=openvino"], "--engine names unnet, and the components are"),
        (["--engine", "unet=opnvino"], "opnvino"),
        (["--engine", "unet="], "is not NETWORK=VALUE,NETWORK=VALUE"),
        (["--engine", "unet=openvino,unet=mindspore"], "--engine names unet twice"),
        (["--engine", "unet=mindspore", "--weights", "unet=int8"], "is for engine='openvino', not for mindspore"),
        (["--weights", "vea=int8"], "--weights names vea, and the components are"),
        (["--dtype", "bf16"], "A pipeline is ported without --dtype"),
        (["--call", "heigth=16"], "takes no heigth; it takes prompt"),
        (["--call", "height"], "is not NAME=VALUE"),
        (["--call", "height=16", "--call", "height=24"], "--call height is given twice"),
        (["--call", "prompt=7"], "has to be of type `str` or `list`"),
        (["--call", "image=nowhere.png"], "The picture nowhere.png cannot be read"),
    ],
)
def test_what_a_command_refuses(pipeline_directory: Path, tmp_path: Path, options: list[str], message: str) -> None:
    _refused(pipeline_directory, tmp_path, options, message)


def _refused(source: Path, place: Path, options: list[str], message: str) -> None:
    before = sorted(path.name for path in place.iterdir())
    result = CliRunner().invoke(app, ["port", str(source), *options, "--out", str(place / "port"), "-q"])
    assert result.exit_code == 2, result.output
    assert result.stderr.count("error: ") == 1 and message in result.stderr and "Traceback" not in result.stderr
    assert sorted(path.name for path in place.iterdir()) == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda place: shutil.rmtree(place / "unet"), "cannot be loaded"),
        (lambda place: (place / "vae" / "config.json").write_text("{"), "cannot be loaded"),
        (lambda place: _cut(place / "unet" / "diffusion_pytorch_model.safetensors"), "cannot be loaded"),
        (lambda place: (place / "model_index.json").write_text("[1"), "model_index.json cannot be read"),
    ],
)
def test_a_damaged_original_is_one_error(
    pipeline_directory: Path, tmp_path: Path, damage: Callable[[Path], Any], message: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(pipeline_directory, copy)
    damage(copy)
    _refused(copy, tmp_path, [], message)


def _cut(file: Path) -> None:
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_what_is_no_saved_pipeline(pipeline_directory: Path, ported_directory: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    with pytest.raises(PortError, match=r"is not a port, but holds some\. Give one of them: text_encoder"):
        paritas.load(ported_directory)
    said = runner.invoke(app, ["port", str(ported_directory), "--out", str(tmp_path / "port"), "-q"])
    assert said.exit_code == 2 and "is ported already. Port the original again" in said.stderr
    said = runner.invoke(app, ["verify", str(pipeline_directory), "-q"])
    assert said.exit_code == 2 and "is a pipeline in PyTorch. Port it:   paritas port" in said.stderr
    (tmp_path / "note.txt").write_text("mine")
    for command in (["port", str(tmp_path), "--out", str(tmp_path / "port")], ["verify", str(tmp_path)]):
        said = runner.invoke(app, [*command, "-q"])
        assert said.exit_code == 2 and said.stderr.count("error: ") == 1, said.output
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


# --- in Python -----------------------------------------------------------------------------------------------


def test_engines_that_are_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = tiny_pipelines.stable_diffusion()

    def missing(name: str) -> Any:
        if name == "mindspore":
            raise EngineMissing("mindspore", "pip install mindspore", ["openvino"])
        return engines.engine(name)

    monkeypatch.setattr("paritas.diffusers.porting.find_engine", missing)
    with pytest.raises(EngineMissing):
        ours.port(pipe, engine={"unet": "openvino", "vae": "mindspore"})
    assert type(pipe.unet) is diffusers.UNet2DConditionModel  # nothing was changed
    with pytest.raises(InputError, match="weights='int8' is for engine='openvino', not for torch"):
        ours.port(pipe, engine={"vae": "torch"}, weights={"vae": "int8"})
    assert type(pipe.unet) is diffusers.UNet2DConditionModel


@pytest.mark.parametrize(
    "call",
    [
        {"prompt": None},
        {"prompt": []},
        {"height": 15},
        {"strength": 1.5},
        {"strength": -0.1},
        {"num_inference_steps": 0},
        {"num_images_per_prompt": 0},
        {"mask_image": None},
        {"negative_prompt": 3},
    ],
    ids=str,
)
def test_arguments_are_refused_as_the_original_refuses_them(inpainting: Any, call: dict[str, Any]) -> None:
    image = PIL.Image.new("RGB", (16, 16), (200, 30, 60))
    given = {"prompt": "a dog", "image": image, "mask_image": PIL.Image.new("L", (16, 16), 255), "strength": 0.9}
    given |= {"num_inference_steps": 2, "height": 16, "width": 16, "output_type": "np", **call}
    raised = []
    for pipe in inpainting:
        with pytest.raises(Exception) as caught:
            pipe(**given)
        raised.append((type(caught.value), str(caught.value)))
    assert raised[0] == raised[1]


def test_a_mask_of_another_size_is_the_originals_to_stretch(inpainting: Any) -> None:
    image, mask = PIL.Image.new("RGB", (16, 16), (200, 30, 60)), PIL.Image.new("L", (5, 9), 0)
    mask.paste(255, (0, 0, 3, 5))
    found = [
        pipe(
            "a dog", image=image, mask_image=mask, num_inference_steps=2, height=16, width=16, output_type="np",
            generator=torch.Generator().manual_seed(0),
        ).images
        for pipe in inpainting
    ]  # fmt: skip
    np.testing.assert_allclose(*found, atol=1e-4)


@pytest.fixture(scope="module")
def inpainting() -> tuple[Any, Any]:
    made = []
    for change in (lambda pipe: pipe, lambda pipe: ours.port(pipe, engine="openvino")):
        pipe = diffusers.StableDiffusionInpaintPipeline(**tiny_pipelines.parts(), requires_safety_checker=False)
        pipe.set_progress_bar_config(disable=True)
        made.append(change(pipe))
    return made[0], made[1]


def test_of_a_long_prompt_is_said_what_is_cut(caplog: pytest.LogCaptureFixture, ported_directory: Path) -> None:
    opened = ours.DiffusionPipeline.from_pretrained(ported_directory)
    logger = diffusers.utils.logging.get_logger("diffusers")
    logger.addHandler(caplog.handler)
    try:
        opened("a photo of a cat and a dog", num_inference_steps=1, output_type="np")
        opened("", num_inference_steps=1, output_type="np")  # which is a prompt as any other
    finally:
        logger.removeHandler(caplog.handler)
    assert "was truncated because CLIP can only handle sequences up to 12 tokens" in caplog.text


# --- a saved pipeline's directory ----------------------------------------------------------------------------


@pytest.fixture
def copy(ported_directory: Path, tmp_path: Path) -> Path:
    place = tmp_path / "copy"
    shutil.copytree(ported_directory, place)
    return place


def _index(**changes: Any) -> Callable[[Path], None]:
    """An index that says something else."""

    def change(place: Path) -> None:
        told = json.loads((place / "model_index.json").read_text())
        (place / "model_index.json").write_text(json.dumps({**told, **changes}))

    return change


def _entry(**changes: Any) -> Callable[[Path], None]:
    """An entry of the UNet that says something else."""

    def change(place: Path) -> None:
        told = json.loads((place / "ports.json").read_text())
        told["networks"]["unet"][0] |= changes
        (place / "ports.json").write_text(json.dumps(told))

    return change


def _linked(place: Path) -> None:
    os.replace(place / "unet", place.parent / "elsewhere")
    (place / "unet").symlink_to(place.parent / "elsewhere")


def _code(place: Path) -> None:
    """Code of its own in every place where one is looked for."""
    text = "import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\nclass UNet2DConditionModel: pass\n"
    for name in ("pipeline.py", "StableDiffusionPipeline.py", "unet/diffusers.py", "unet/modeling.py", "unet/evil.py"):
        (place / name).write_text(text)


def _pickle(place: Path) -> None:
    """A network that stayed in PyTorch, as a pickle."""
    (place / "vae" / "config.json").exists()
    shutil.rmtree(place / "vae_decoder")
    told = json.loads((place / "ports.json").read_text())
    told["networks"].pop("vae")
    (place / "ports.json").write_text(json.dumps(told))
    (place / "vae" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(_Runs(place)))


class _Runs:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return Path.touch, (self.place / "ran.ran",)


#: name -> (what is done to a directory, what is said of it). None may run anything.
ATTACKS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a pipeline of a module": (_index(_class_name=["pipeline", "Evil"]), "which is no pipeline of diffusers"),
    "a pipeline that is none": (_index(_class_name="UNet2DConditionModel"), "which is no pipeline of diffusers"),
    "a pipeline by path": (_index(_class_name="../../evil"), "which is no pipeline of diffusers"),
    "a class of os": (_index(scheduler=["os", "system"]), "no class of diffusers or transformers"),
    "a class of a module beside": (_index(scheduler=["evil", "Evil"]), "no class of diffusers or transformers"),
    "a class by path": (_index(scheduler=["../evil", "Evil"]), "no class of diffusers or transformers"),
    "a network of torch": (_index(unet=["torch.nn", "Linear"]), "no class of diffusers or transformers"),
    "a function": (_index(scheduler=["diffusers", "logging"]), "no class of diffusers or transformers"),
    "what diffusers imports": (_index(scheduler=["diffusers", "TYPE_CHECKING"]), "no class of diffusers"),
    "no class": (_index(unet=[1, 2]), "does not say of which class unet is"),
    "a component by path": (_index(**{"../evil": ["diffusers", "DDIMScheduler"]}), "names a component '../evil'"),
    "a folder above": (_entry(folder=".."), "is damaged"),
    "this folder": (_entry(folder=""), "is damaged"),
    "a folder by path": (_entry(folder="a/b"), "is damaged"),
    "a method of another kind": (_entry(method="__reduce__"), "is damaged"),
    "inputs of another kind": (_entry(inputs={"sample": 3}), "is damaged"),
    "an entry with more": (_entry(evil=3), "is damaged"),
    "an output of a class": (_entry(structure={"kind": "output", "class": "os.system", "items": {}}), "is damaged"),
    "links": (_linked, "is a link"),
    "cut weights": (lambda place: _cut(place / "unet" / "openvino_model.bin"), "openvino_model.bin"),
    "cut graph": (lambda place: _cut(place / "unet" / "openvino_model.xml"), "openvino_model.xml"),
    "no port": (lambda place: shutil.rmtree(place / "vae_decoder"), "There is no directory"),
    "no scheduler": (lambda place: shutil.rmtree(place / "scheduler"), "is damaged"),
    "no small tensors": (lambda place: shutil.rmtree(place / "small"), "cannot be read"),
    "wrong small tensors": (
        lambda place: (place / "small" / "unet.safetensors").write_bytes(b"0" * 99),
        "cannot be read",
    ),
    "no ports.json": (lambda place: (place / "ports.json").write_text("{}"), "has the format None"),
    "a pickle": (_pickle, "is damaged"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_or_damaged_directory_is_refused(copy: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    change, message = ATTACKS[name]
    change(copy)
    (copy / "evil.py").write_text("import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\n")
    monkeypatch.syspath_prepend(str(copy))
    with pytest.raises(PortError, match=message):
        ours.DiffusionPipeline.from_pretrained(copy)
    assert not list(copy.rglob("*.ran")) and "evil" not in sys.modules


def test_code_in_a_directory_is_not_run(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports refuse what was put beside their files; what lies beside the ports is not looked at."""
    _code(copy)
    monkeypatch.chdir(copy)
    with pytest.raises(PortError, match="unet"):
        ours.DiffusionPipeline.from_pretrained(copy)
    for file in (copy / "unet").glob("*.py"):
        file.unlink()
    assert type(ours.DiffusionPipeline.from_pretrained(copy)) is diffusers.StableDiffusionPipeline
    assert not list(copy.rglob("*.ran"))


def test_another_engine_than_it_was_made_for(ported_directory: Path) -> None:
    opening = ours.DiffusionPipeline.from_pretrained
    with pytest.raises(InputError, match="is on openvino, not on mindspore"):
        opening(ported_directory, engine={"unet": "mindspore"})
    with pytest.raises(InputError, match="engine names unnet, and the networks are"):
        opening(ported_directory, engine={"unnet": "openvino"})
    with pytest.raises(InputError, match="has weights as the original has them, not int8"):
        opening(ported_directory, weights={"vae": "int8"})
    assert opening(ported_directory, engine={"unet": "openvino"}).unet.engine == "openvino"


def test_no_space_while_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = ours.port(tiny_pipelines.stable_diffusion(), engine={"vae": "openvino", "unet": None, "text_encoder": None})
    with torch.no_grad():
        pipe.vae.decode(torch.zeros(1, 4, 8, 8))

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device", str(tmp_path))

    monkeypatch.setattr(saving, "_write_rest", full)
    with pytest.raises((PortError, OSError), match=r"[Nn]o space left"):
        pipe.save_pretrained(tmp_path / "port", dynamic=False)
    assert not list(tmp_path.iterdir())
