# SPDX-License-Identifier: Apache-2.0
"""What type checkers and editors see of `paritas.open_clip`: its functions with the originals' arguments and ours."""

from __future__ import annotations

import inspect
import re
import runpy
from pathlib import Path

import pytest

from checked import assert_found
from paritas import open_clip
from paritas.open_clip.making import PRECISIONS

ROOT = Path(__file__).parents[3]

RIGHT = """
from paritas import clip, open_clip

model, _, preprocess = open_clip.create_model_and_transforms("ViT-B-32", precision="bf16", engine="openvino")
reveal_type(model)  # paritas.open_clip.Model
reveal_type(model.ports)  # list[paritas.ports.Port]
reveal_type(open_clip.create_model("RN50", mode="graph"))  # paritas.open_clip.Model
reveal_type(open_clip.port_model(model, "mindspore"))  # paritas.open_clip.Model
reveal_type(clip.available_models())  # list[str]
reveal_type(clip.load("RN50")[0])  # paritas.clip.loading.CLIP
open_clip.get_tokenizer("ViT-B-32")
"""

WRONG = """
from paritas import open_clip
open_clip.create_model("RN50", precision="fp8")
open_clip.create_model("RN50", engine="openvno")
open_clip.create_model("RN50", wieghts="int8", mode="grahp")
open_clip.get_tokeniser("RN50")
"""


def test_the_stub_is_what_would_be_written_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    text = runpy.run_path(str(ROOT / "docs" / "stubs.py"))["of_open_clip"]()
    assert (ROOT / "src/paritas/open_clip/__init__.pyi").read_text(encoding="utf-8") == text, "run: make docs"


def test_the_stub_has_every_name_and_every_argument() -> None:
    text = (ROOT / "src/paritas/open_clip/__init__.pyi").read_text(encoding="utf-8")
    public = {
        name for name in dir(open_clip) if not name.startswith("_") and not inspect.ismodule(vars(open_clip).get(name))
    }
    named = set(re.findall(r"^(?:class |def |from open_clip import \w+ as )(\w+)", text, re.M))
    modules = {name for name in public if inspect.ismodule(getattr(open_clip, name))}
    assert public - modules - named == {"annotations", "Any", "require", "mend_torchvision", "supply"} & public
    for name in ("create_model", "create_model_and_transforms", "create_model_from_pretrained"):
        written = re.search(rf"^def {name}\((.*?)^\)", text, re.M | re.S)
        assert written is not None
        arguments = set(re.findall(r"^    \**(\w+)", written[1], re.M))
        assert arguments == set(inspect.signature(getattr(open_clip, name)).parameters)
    assert all(f'"{precision}"' in text for precision in PRECISIONS)


@pytest.mark.slow
def test_a_checker_knows_the_models_and_finds_wrong_words(tmp_path: Path) -> None:
    assert_found(RIGHT, WRONG, {3, 4, 5, 6}, tmp_path)
