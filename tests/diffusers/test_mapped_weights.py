# SPDX-License-Identifier: Apache-2.0
"""Where weights are while an engine computes in their place: in files, and still the network's own."""

from __future__ import annotations

import errno
import logging
import sys
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

pytest.importorskip("diffusers")
import diffusers
import tiny_pipelines
from tiny_pipelines import ENGINES

import paritas.diffusers as ours
from paritas.diffusers import networks as of_pipelines
from paritas.diffusers.porting import networks
from paritas.dropin import memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pages are asked for as Linux tells them")


def _picture(pipeline: Any, **more: Any) -> np.ndarray:
    noise = torch.Generator().manual_seed(3)
    call = {"prompt": "a red dog", "num_inference_steps": 2, "generator": noise, "output_type": "np", **more}
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(**call).images


def _resident(tensor: torch.Tensor) -> bool:
    """Whether the first whole page of a tensor is in memory."""
    with open("/proc/self/pagemap", "rb") as pages:
        pages.seek(-(-tensor.data_ptr() // 4096) * 8)
        return bool(int.from_bytes(pages.read(8), sys.byteorder) >> 63)


def _is_open(port: Any) -> bool:
    return not isinstance(port.session, memory.Resting) or port.session._session is not None


def _model() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.Linear(256, 256)).eval()


def test_weights_in_a_file_are_what_they_were() -> None:
    model = _model()
    had, objects = {n: t.clone() for n, t in model.state_dict().items()}, list(model.parameters())
    large = memory.large_in_memory(model)
    assert [tuple(one.shape) for one in large] == [(256, 256)] * 2
    del large
    memory.move_to_file(memory.large_in_memory(model))
    assert memory.large_in_memory(model) == [] and all(a is b for a, b in zip(objects, model.parameters(), strict=True))
    memory.let_go(model)
    assert not _resident(model[0].weight)
    assert all(torch.equal(t, had[n]) for n, t in model.state_dict().items())


def test_what_was_written_stays_when_pages_go() -> None:
    model = _model()
    memory.move_to_file(memory.large_in_memory(model))
    with torch.no_grad():
        model[0].weight[100].fill_(7.0)
    want = model[0].weight.clone()
    memory.let_go(model)
    assert not _resident(model[1].weight)  # before anything is read: a page that is, brings its neighbours
    assert torch.equal(model[0].weight, want)


def test_a_weight_that_somebody_else_sees_stays_where_it_is() -> None:
    model = _model()
    view = model[0].weight.detach().numpy()
    large = memory.large_in_memory(model)
    assert [one is model[1].weight for one in large] == [True]
    memory.move_to_file(large)
    view[:] = 0.0
    assert not model[0].weight.any()


def test_a_folder_that_is_memory_is_no_place_for_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, here, gone = _model(), str(tmp_path), str(tmp_path / "gone")
    assert memory._on_disk((gone, here)) == here
    device = tmp_path.stat().st_dev
    monkeypatch.setattr(memory, "_file_systems", lambda: {device: "tmpfs"})
    assert memory._on_disk((here, "/sys")) == "/sys"  # of another kind
    monkeypatch.setattr(memory.tempfile, "gettempdir", lambda: here)
    monkeypatch.setattr(memory.os, "access", lambda folder, how: folder == here)
    with pytest.raises(OSError, match=r"/var/tmp are memory themselves, .*: let TMPDIR name a folder on a disk"):
        memory.move_to_file(memory.large_in_memory(model))
    assert len(memory.large_in_memory(model)) == 2  # they are where they were


def test_what_is_mounted_is_known() -> None:
    kinds = memory._file_systems()
    assert kinds[Path("/proc").stat().st_dev] == "proc"
    if Path("/dev/shm").is_mount():
        assert kinds[Path("/dev/shm").stat().st_dev] == "tmpfs"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ports")


@pytest.fixture
def tiny(kept: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A pipeline whose networks count as large."""
    monkeypatch.setenv("PARITAS_CACHE", str(kept))
    monkeypatch.setattr(of_pipelines, "LARGE", 0)
    monkeypatch.setattr(memory, "_LEAST", 1 << 8)
    return tiny_pipelines.stable_diffusion()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_ported_pipeline_has_its_weights_and_no_memory_for_them(engine: str, tiny: Any, tmp_path: Path) -> None:
    original = tiny_pipelines.stable_diffusion()
    pipeline = ours.port(tiny, engine=engine)
    np.testing.assert_allclose(_picture(pipeline), _picture(original), atol=1e-4)
    weight = pipeline.unet.mid_block.resnets[0].conv1.weight
    pipeline.unet._paritas.let_go()
    assert not _resident(weight)
    for name, network in networks(pipeline).items():
        theirs = networks(original)[name]
        assert (network.dtype, network.device) == (theirs.dtype, theirs.device)
        assert all(torch.equal(a, b) for a, b in zip(network.parameters(), theirs.parameters(), strict=True))
    pipeline.unet.save_pretrained(tmp_path / "unet")
    read = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "unet")
    assert torch.equal(read.mid_block.resnets[0].conv1.weight, weight)
    pipeline.save_pretrained(tmp_path / "saved", dynamic=False)  # for which the engine's memory is given back
    assert not any(_is_open(port) for one in networks(pipeline).values() for port in one.ports)
    np.testing.assert_allclose(_picture(pipeline), _picture(original), atol=1e-4)
    for one in (pipeline, original):  # a change is seen, and is not lost with the pages
        with torch.no_grad():
            one.unet.mid_block.resnets[0].conv1.weight.mul_(1.5)
    np.testing.assert_allclose(_picture(pipeline), _picture(original), atol=1e-4)


def test_a_full_disk_leaves_weights_in_memory(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(tensors: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(memory, "move_to_file", full)
    vae = ours.port(tiny, engine="openvino").vae
    with caplog.at_level(logging.WARNING, "paritas.diffusers"), torch.no_grad():
        vae.decode(torch.zeros(1, 4, 8, 8))
    assert "AutoencoderKL: weights stay in memory, since No space left on device" in caplog.text


@pytest.mark.parametrize("engine", ENGINES)
def test_one_network_at_a_time(engine: str, tiny: Any, tmp_path: Path) -> None:
    want = _picture(tiny_pipelines.stable_diffusion())
    pipeline = ours.port(tiny, engine=engine, low_memory=True)
    for _ in range(2):
        np.testing.assert_allclose(_picture(pipeline), want, atol=1e-4)
        open_now = {n: [_is_open(port) for port in one.ports] for n, one in networks(pipeline).items()}
        assert open_now == {"vae": [True], "text_encoder": [False], "unet": [False]}
    made = ours.StableDiffusionImg2ImgPipeline.from_pipe(pipeline)
    assert made.unet._paritas.turns is pipeline.unet._paritas.turns is not None
    pipeline.save_pretrained(tmp_path / "saved", dynamic=False)
    opened = ours.DiffusionPipeline.from_pretrained(tmp_path / "saved", low_memory=True)
    np.testing.assert_allclose(_picture(opened), want, atol=1e-4)
    assert [_is_open(one.ports[0]) for one in (opened.text_encoder, opened.unet, opened.vae)] == [False, False, True]
