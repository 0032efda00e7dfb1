# SPDX-License-Identifier: Apache-2.0
"""Do both towers of every architecture of `open_clip.list_models()` say on an engine what PyTorch says?

    python benchmarks/open_clip_models.py --out results.jsonl [--only NAME ...] [--layers 2] [--publish]

The architectures are as open_clip has them but for their depth (`--layers`, and 1 in every stage but the first where
there are stages) and for vocabularies over 4096, with seeded random weights, every vector of them moved and no matrix
next to 0, so that no branch of a model is scaled by 0. A line of JSON per architecture and engine is written as it
ends, and what has one is not run again. An error is the largest difference over the largest value; `spread` is the same
between the first two pictures, or texts: what a difference would have to be beside. Seconds are the processor's, from a
model in memory to its answers. `--publish` writes what is known by then to benchmarks/results, for the documentation.
"""

from __future__ import annotations

import argparse
import collections
import copy
import functools
import json
import logging
import math
import os
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any
from unittest import mock

import forked
import results as published
import torch

from paritas.mending import mend_torchvision

mend_torchvision()

import open_clip  # noqa: E402
import timm  # noqa: E402
import transformers  # noqa: E402

from paritas.errors import first_line  # noqa: E402
from paritas.open_clip import port_model  # noqa: E402
from paritas.run.engine import engine as find_engine  # noqa: E402

#: The largest error that counts as the same.
TOLERANCE = 1e-5

#: What is told apart by less says nothing: a tower that did not look would hardly be off by the tolerance.
SPREAD = 10 * TOLERANCE

#: Of the size that keeps the size of what it is multiplied with: a matrix of less than that begins as next to nothing.
SMALL = 0.05

#: Engine and mode.
COLUMNS = (("openvino", ""), ("mindspore", "graph"))

_WORDS = 4096

#: Text towers of transformers by what open_clip calls them: their configurations, which lie on the hub.
_TEXTS = {
    "roberta-base": ("roberta", {"max_position_embeddings": 514, "type_vocab_size": 1}),
    "xlm-roberta-base": ("xlm-roberta", {"max_position_embeddings": 514, "type_vocab_size": 1}),
    "xlm-roberta-large": (
        "xlm-roberta",
        {
            "max_position_embeddings": 514, "type_vocab_size": 1, "hidden_size": 1024, "num_attention_heads": 16,
            "intermediate_size": 4096,
        },
    ),
    "google/mt5-base": ("mt5", {"d_model": 768, "d_ff": 2048, "num_heads": 12, "d_kv": 64}),
    "google/mt5-xl": ("mt5", {"d_model": 2048, "d_ff": 5120, "num_heads": 32, "d_kv": 64}),
    "facebook/nllb-200-distilled-600M": ("m2m_100", {"d_model": 1024, "encoder_ffn_dim": 4096}),
    "facebook/nllb-200-distilled-1.3B": ("m2m_100", {"d_model": 1024, "encoder_ffn_dim": 8192}),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--again", nargs="*", default=(), help="states of which results are made anew")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=120, help="of the processor, for one architecture and engine")
    parser.add_argument("--several", type=int, default=8, help="architectures, one after another in a process")
    parser.add_argument("--publish", action="store_true")
    given = parser.parse_args()
    os.environ["PARITAS_CACHE"] = ""  # a port that was kept would say nothing of this version
    names = [name for name in given.only or open_clip.list_models() if name in open_clip.list_models()]
    done = {key for key, row in results(given.out).items() if row["state"] not in given.again}
    tasks = [(name, *column) for name in names for column in COLUMNS if (name, column[0]) not in done]
    work = functools.partial(compare, layers=given.layers)
    with given.out.open("a") as out:
        rows = forked.each(tasks, work, given.seconds, given.several * len(COLUMNS))
        for number, ((name, engine, mode), row) in enumerate(rows, 1):
            row = {"model": name, "engine": engine, "mode": mode, **row}
            out.write(json.dumps(row) + "\n")
            out.flush()
            print(f"{number}/{len(tasks)}", *(row.get(key, "") for key in SHOWN), flush=True)
    found = results(given.out)
    if given.publish:
        rows_ = [found[key] for key in sorted(found)]
        count = len(open_clip.list_models())
        published.write("open_clip_models", {"layers": given.layers, "architectures": count, "rows": rows_})
    for engine, _ in COLUMNS:
        counted = collections.Counter(row["state"] for (_, e), row in found.items() if e == engine)
        print(engine, ", ".join(f"{count} {state}" for state, count in counted.most_common()))


SHOWN = ("model", "engine", "state", "image", "text", "seconds", "why")


def results(out: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Of each architecture and engine, what was found last."""
    if not out.exists():
        return {}
    return {(row["model"], row["engine"]): row for row in map(json.loads, out.read_text().splitlines())}


def compare(task: tuple[str, str, str], layers: int) -> dict[str, Any]:
    """A row: whether both towers of (architecture, engine, mode) say what PyTorch says."""
    name, engine, mode = task
    find_engine(engine).expect(torch.nn.Conv2d(1, 1, 3))  # others that this process computes have one
    try:
        model, image, text, want = _original(name, layers)
    except Exception as error:  # noqa: BLE001 - a model raises anything
        return {"state": "fails in PyTorch", "why": f"{type(error).__name__}: {error}"[:400] + _where(error)}
    return _compared(model, engine, mode, image, text, want)


@functools.lru_cache(1)
def _original(name: str, layers: int) -> tuple[Any, ...]:
    """The model, what it is asked, and what it answers; kept for the next engine."""
    torch.set_num_threads(1)
    model = smaller(name, layers)
    image, text = inputs_of(model, name)
    with torch.no_grad():
        return model, image, text, (model.encode_image(image), model.encode_text(text))


def _where(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f" [{Path(last.filename).name}:{last.lineno}]"


def _compared(model: Any, engine: str, mode: str, image: Any, text: Any, want: Any) -> dict[str, Any]:
    notes: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: notes.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("paritas.open_clip", "paritas.dropin")]
    for logger in loggers:
        logger.addHandler(handler)
    started = time.process_time()
    try:
        ported = port_model(copy.deepcopy(model), engine, **({"mode": mode} if mode else {}))
        with torch.no_grad():
            got = ported.encode_image(image), ported.encode_text(text)
    except Exception as error:  # noqa: BLE001 - a model raises anything
        return {"state": "failed", "why": f"{type(error).__name__}: {first_line(error)}"[:400] + _where(error)}
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    errors = [float((a - b).abs().max() / a.abs().max()) for a, b in zip(want, got, strict=True)]
    spread = [float((one[0] - one[1]).abs().max() / one.abs().max()) for one in want]
    by_modules = any("module by module" in note or "PyTorch computes" in note for note in notes)
    count = len(ported.ports)
    for port in ported.ports:
        port.close()
    row = {
        "state": "agrees" if all(error <= TOLERANCE for error in errors) else "differs",
        "image": float(f"{errors[0]:.2g}"),
        "text": float(f"{errors[1]:.2g}"),
        "spread": [float(f"{one:.2g}") for one in spread],
        "ports": count,
        "one graph each": not by_modules and count == 2,
        "seconds": round(time.process_time() - started, 1),
        "why": "; ".join(note[:300] for note in dict.fromkeys(notes) if "compute" in note),
    }
    if min(spread) < SPREAD:
        row |= {"state": "alike", "why": f"what it sees and reads is too alike to tell by: {min(spread):.2g}"}
    return row


# --- an architecture of less depth ---------------------------------------------------------------------------


def smaller(name: str, layers: int) -> Any:
    """The architecture with so many layers, and weights of a seed."""
    config = open_clip.get_model_config(name)
    for part in ("vision_cfg", "text_cfg", "multimodal_cfg"):
        for key in ("layers", "n_layer"):
            if key in config.get(part, {}):
                depth = config[part][key]
                short = [layers, *[1] * (len(depth) - 1)] if isinstance(depth, list) else min(layers, depth)
                config[part][key] = short
    text = config["text_cfg"]
    for part in (text, config.get("multimodal_cfg", {})):
        part["vocab_size"] = min(part.get("vocab_size", 49408), _WORDS)
    if text.get("eos_id") is not None and text["eos_id"] >= _WORDS:
        text["eos_id"] = _WORDS - 1
    with tempfile.TemporaryDirectory() as folder:
        if "hf_model_name" in text:
            text["hf_model_name"] = _tower_of_transformers(text["hf_model_name"], layers, folder)
        Path(folder, "smaller.json").write_text(json.dumps(config))
        torch.manual_seed(0)
        with (
            mock.patch.object(open_clip.factory, "_MODEL_CONFIGS", {"smaller": config}),
            mock.patch.object(timm, "create_model", _fewer_layers(layers)),
        ):
            model = open_clip.create_model("smaller", pretrained_text=False)
    moved(model)
    return model.eval()


def _fewer_layers(layers: int) -> Any:
    own = timm.create_model

    def create_model(*args: Any, **kwargs: Any) -> Any:
        with torch.device("meta"):
            whole = own(*args, **kwargs)
        count = len(getattr(whole, "stages", ()) or getattr(whole, "layers", ()))
        stages = (layers, *[1] * (count - 1))
        for depth in ({"depth": layers}, {"depths": stages}, {"layers": stages}, {}):
            try:
                return own(*args, **kwargs, **depth)
            except TypeError:
                if not depth:
                    raise
        return None

    return create_model


def _tower_of_transformers(name: str, layers: int, folder: str) -> str:
    kind, known = _TEXTS[name]
    config = transformers.AutoConfig.for_model(
        kind,
        **known,
        vocab_size=_WORDS,
        **dict.fromkeys(("num_hidden_layers", "num_layers", "encoder_layers", "decoder_layers"), layers),
    )
    config.save_pretrained(folder)
    return folder


def moved(model: Any) -> None:
    """Move every vector of weights and every statistic, so that all of the model's branches count.

    Matrices that begin as next to nothing, as timm's heads do, are enlarged: beside its bias, such a head would say the
    same of all pictures.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.parameters():
            if value.dim() == 1:
                value += 0.1 * torch.randn(value.shape, generator=generator)
                continue
            even = math.prod(value.shape[1:]) ** -0.5  # what keeps the size of what it is multiplied with
            size = float(value.detach().pow(2).mean().sqrt())
            if 0 < size < SMALL * even:
                value *= even / size
        for norm in (module for module in model.modules() if hasattr(module, "running_var")):
            if norm.running_var is not None:
                norm.running_mean.copy_(0.1 * torch.randn(norm.running_mean.shape, generator=generator))
                norm.running_var.copy_(1 + torch.rand(norm.running_var.shape, generator=generator))


def inputs_of(model: Any, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Two pictures of different colours, without which towers that look at means see the same, and three texts.

    Their contrast is ten times a picture's: random towers tell them apart by it."""
    generator = torch.Generator().manual_seed(2)
    size = model.visual.image_size
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    colours = torch.randn(2, 3, 1, 1, generator=generator)
    images = 10 * (colours + torch.randn(2, 3, height, width, generator=generator))
    config = open_clip.get_model_config(name)["text_cfg"]
    length = config.get("context_length", 77)
    end, pad = config.get("eos_id") or _WORDS - 1, 1 if "hf_model_name" in config else 0
    texts = torch.randint(2, _WORDS - 1, (3, length), generator=generator)
    for row, stop in zip(texts, (3, length // 2, length - 1), strict=True):
        row[stop] = min(end, _WORDS - 1)
        row[stop + 1 :] = pad
    return images, texts


if __name__ == "__main__":
    logging.getLogger().setLevel(logging.ERROR)
    main()
