# SPDX-License-Identifier: Apache-2.0
"""examples/clip on folders of drawn pictures, with the small model: on an engine what PyTorch says."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from paritas import open_clip

EXAMPLES = Path(__file__).parents[3] / "examples" / "clip"


@pytest.fixture(autouse=True)
def _examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train and test, with pictures of two colours in different noise."""
    place = tmp_path_factory.mktemp("drawn")
    generator = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 6)):
        for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
            folder = place / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                noise = generator.integers(-30, 30, (24, 30, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (place / "test" / "red" / "broken.png").write_bytes(b"no picture")
    return place


def _options(folder: Path, engine: str) -> list[str]:
    return ["--model", "tiny", "--pretrained", str(folder / "ViT-B-32.safetensors"), "--engine", engine]


def _said(name: str, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    importlib.import_module(name).main(arguments)
    return capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "mindspore"])
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("zero_shot", ["--classes", "red circle", "blue square", "dog", "--top", "2", "--batch", "5"]),
        ("linear_probe", []),
        ("retrieval", ["a red circle", "--most", "3"]),
    ],
)
def test_examples_say_what_pytorch_says(
    name: str, more: list[str], engine: str, drawn: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(drawn if name == "linear_probe" else drawn / "test")
    said = _said(name, [place, *more, *_options(folder, engine)], capsys)
    assert said == _said(name, [place, *more, *_options(folder, "torch")], capsys)
    if name == "linear_probe":
        assert said.startswith("100.0% of") and said.endswith("of 2 classes\n")
    else:
        assert len(said.splitlines()) == {"zero_shot": 12, "retrieval": 3}[name]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["openvino", "mindspore"])
@pytest.mark.parametrize("name", ["appetizer", "open_clip_appetizer"])
def test_appetizers_print_probabilities(
    name: str, engine: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = str(folder / "ViT-B-32.ckpt")
    named = ["--model", weights] if name == "appetizer" else ["--model", "tiny", "--pretrained", weights]
    command = [str(folder / "CLIP.png"), "a diagram", "a dog", "a cat", *named]
    said, want = (_said(name, [*command, "--engine", one], capsys) for one in (engine, "torch"))
    assert re.fullmatch(r"Label probs: \[\[\S+ +\S+ +\S+ *\]\]\n", said), said
    found, original = ([float(one) for one in re.findall(r"\d\S*\d", text)] for text in (said, want))
    assert np.allclose(found, original, rtol=0, atol=1e-5) and abs(sum(found) - 1) < 1e-5


@pytest.mark.slow
def test_an_index_is_kept(drawn: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(drawn / "test"), "a red circle", "--index", str(tmp_path / "index.npz"), *_options(folder, "torch")]
    assert _said("retrieval", command, capsys) == _said("retrieval", command, capsys)
    assert (tmp_path / "index.npz").is_file()


def test_pictures_are_read_in_order_and_those_that_are_none_are_said(
    drawn: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zero_shot = importlib.import_module("zero_shot")
    preprocess: Any = open_clip.image_transform(32, is_train=False)
    paths = zero_shot.pictures(drawn / "test")
    found = list(zero_shot.batches(paths, preprocess, 5))
    assert [len(names) for names, _ in found] == [5, 5, 2]
    assert [name for names, _ in found for name in names] == [path for path in paths if path.name != "broken.png"]
    assert tuple(found[0][1].shape) == (5, 3, 32, 32)
    assert "broken.png is left out" in capsys.readouterr().err
