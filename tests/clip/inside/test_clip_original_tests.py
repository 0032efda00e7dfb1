# SPDX-License-Identifier: Apache-2.0
"""open_clip's own tests that need no hub, from its source distribution, with `paritas.open_clip` in its place.

Its regression tests compare bits of one library on one machine; here the answers are the original's, and an engine may
differ from them by 1e-5. Its tests of training call `paritas.open_clip.training.train`, where the engine has gradients.
Left out: what downloads weights, and what scripts a model, which a port is not.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import open_clip
import pytest

from paritas.run.engine import about

MODELS = ("RN50", "ViT-B-32")

#: Files of tests, and how many of each pass.
FILES = {
    "test_inference.py": 2,
    "test_hf_model.py": 1,
    "test_download_pretrained.py": 6,
    "test_num_shards.py": 8,
    "test_wds.py": 4,
}

#: Three at their real sizes: a ResNet, CoCa, and a ViT of which a part is trained, of two batches a step. Each in a
#: process of its own, as MindSpore keeps a graph's memory to its end: CoCa's has 16 GiB.
TRAINING = ("test_training", "test_training_coca", "test_training_unfreezing_vit")

LEFT_OUT = "not True and not pretrained_text_encoder and not hfh and not with_jit and not mt5"

CONFTEST = """
from paritas.mending import mend_torchvision

mend_torchvision()

import open_clip_train.main  # whose models are the original's: `train` puts them on the engine
import sys

import pytest

import paritas.open_clip as ours
import paritas.open_clip.conversion, paritas.open_clip.making, paritas.open_clip.networks

from paritas.open_clip.training import train

sys.modules["open_clip"] = ours

@pytest.fixture(autouse=True)
def _trained_by_ours(request, monkeypatch):
    if hasattr(request.module, "main"):
        monkeypatch.setattr(request.module, "main", train)
"""

#: The original's models begin in training mode, and its tests ask them there; those on an engine begin in evaluation.
ANSWERS = """
import open_clip
import util_test

made = open_clip.create_model_and_transforms

def in_evaluation(*args, **kwargs):
    model, *transforms = made(*args, **kwargs)
    return model.eval(), *transforms

open_clip.create_model_and_transforms = in_evaluation
for name in {models!r}:
    util_test.create_test_data_for_model(name)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("source")
    version = open_clip.__version__
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "open_clip_torch"]
    done = subprocess.run(
        [*command, "-d", str(place), f"open_clip_torch=={version}"], capture_output=True, text=True, check=False
    )
    archives = list(place.glob("*.tar.gz"))
    if done.returncode or not archives:
        pytest.skip(f"the source of open_clip_torch {version} cannot be had: {done.stderr[-300:]}")
    with tarfile.open(archives[0]) as archive:
        archive.extractall(place, filter="data")
    tests = next(place.glob("open_clip_torch-*/tests"))
    text = (tests / "test_inference.py").read_text()
    compared, count = re.subn(r"\((\S+) == (\S+)\)\.all\(\)", r"torch.allclose(\1, \2, rtol=0, atol=1e-5)", text)
    assert count == 5
    (tests / "test_inference.py").write_text(compared)
    (tests / "models.txt").write_text("\n".join(MODELS))
    return tests


def _run(source: Path, command: list[str], engine: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=source,
        env={
            **os.environ,
            "PARITAS_ENGINE": engine,
            "OPEN_CLIP_TEST_REG_MODELS": str(source / "models.txt"),
        },
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-5000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "mindspore"])
def test_what_open_clip_tests_itself_by(engine: str, source: Path) -> None:
    (source / "conftest.py").write_text("")
    mended = "from paritas.mending import mend_torchvision\nmend_torchvision()\n"
    _run(source, ["-c", mended + ANSWERS.format(models=MODELS)], "torch")
    (source / "conftest.py").write_text(CONFTEST)
    runs = [(list(FILES), sum(FILES.values()))]
    if about(engine).trains:
        runs += [([f"test_training_simple.py::{name}"], 1) for name in TRAINING]
    for which, count in runs:
        said = _run(source, ["-m", "pytest", "-q", "-p", "no:cacheprovider", *which, "-k", LEFT_OUT], engine)
        print(said)
        found = re.search(r"(\d+) passed", said)
        assert found is not None and int(found[1]) == count and "skipped" not in said
