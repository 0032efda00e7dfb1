# SPDX-License-Identifier: Apache-2.0
"""What openvino-genai and OpenVINO Model Server look for beside the network.

The tokenizer as OpenVINO models, and how sound becomes features.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import openvino

from paritas.capture import tokenizer
from paritas.errors import first_line
from paritas.program import Note

FILES = ("openvino_tokenizer.xml", "openvino_detokenizer.xml")

EXTRACTOR = "preprocessor_config.json"

#: On which the models are compared with the tokenizer: case, accents, spaces, signs of several bytes, digits.
TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "  two  spaces,\na line\tand a tab ",
    "naïve Zürich, Ελληνικά, 日本語 and 🙂",
    "x = f(3.14, 1e-5)[0] # 100%",
    "A",
)


def write_extractor(directory: Path) -> None:
    """How sound becomes features as a file of its own, where transformers 5 writes it into the processor's."""
    processor = directory / "processor_config.json"
    if (directory / EXTRACTOR).is_file() or not processor.is_file():
        return
    about = json.loads(processor.read_text(encoding="utf-8"))
    found = about.get("feature_extractor") if isinstance(about, dict) else None
    if isinstance(found, dict):
        (directory / EXTRACTOR).write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write(directory: Path, *, needed: bool) -> tuple[Note, ...]:
    """Write them, if there is a tokenizer in `directory`, and say where they answer otherwise than it does.

    needed: whether the network is of little use to others without them, so that it is said why they are not there.
    """
    if not tokenizer.is_in(directory):
        return ()
    if importlib.util.find_spec("openvino_tokenizers") is None:
        if not needed:
            return ()
        text = f"{FILES[0]}, which openvino-genai looks for, is not written: pip install 'paritas[genai]'"
        return (Note("lower", text),)
    from openvino_tokenizers import convert_tokenizer

    try:
        original = tokenizer.tokenizer(directory)
        models = convert_tokenizer(original, with_detokenizer=True)
    except Exception as error:  # noqa: BLE001 - of another library, in many ways; the port is whole without them
        return (Note("lower", f"the tokenizer has no OpenVINO model: {first_line(error)}"),) if needed else ()
    for model, name in zip(models, FILES, strict=True):
        openvino.save_model(model, str(directory / name))
    try:
        return tuple(Note("lower", said) for said in _differences(original, directory))
    except (
        RuntimeError
    ) as error:  # of a vocabulary that lacks bytes, on which the model fails and the tokenizer does not
        for name in FILES:
            for file in (directory / name, (directory / name).with_suffix(".bin")):
                file.unlink(missing_ok=True)
        return (Note("lower", f"the tokenizer's OpenVINO model does not run: {first_line(error)}"),)


def _differences(original: Any, directory: Path) -> list[str]:
    core = openvino.Core()
    there, back = (core.compile_model(str(directory / name), "CPU") for name in FILES)
    found = []
    for text in TEXTS:
        want = original(text)["input_ids"]
        got = there([text])["input_ids"][0].tolist()
        if got != want:
            found.append(f"{FILES[0]} reads {text!r} as {got}, and the tokenizer as {want}")
            continue
        spelt = original.decode(want, skip_special_tokens=True)
        ours = str(back([np.array([want], np.int64)]).to_tuple()[0][0])
        if ours != spelt:
            found.append(f"{FILES[1]} spells {want} as {ours!r}, and the tokenizer as {spelt!r}")
    return found
