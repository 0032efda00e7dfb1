# SPDX-License-Identifier: Apache-2.0
"""Images a second of a model of open_clip: PyTorch eager and the engines, each in a process of its own, alternately.

    python benchmarks/open_clip_speed.py [--model ViT-B-32] [--contenders torch openvino ...] [--rounds 5] [--publish]
    python benchmarks/open_clip_speed.py --stream 10000 [--contenders openvino] [--publish]

Random weights of a seed. A turn is `--times` calls of `encode_image` with a batch of 32, and its figure the median
call. `openvino bf16` and `mindspore` are beside PyTorch in float32, and so are their features: `cosine` is the least of
the batch. `--stream`: so many JPEG pictures of `--side` pixels are read, transformed and encoded as
examples/clip/zero_shot.py does it, beside the rate of the model alone, before and after; and the most memory after a
tenth and at the end. `--quick` proves that all of it runs, and its figures say nothing.
"""

from __future__ import annotations

import functools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import results as published
from contender import answer, peak
from turns import ask, parser, start, take_turns

#: Contender -> engine and precision.
CONTENDERS = {
    "torch": ("", "fp32"),
    "openvino": ("openvino", "fp32"),
    "openvino bf16": ("openvino", "bf16"),
    "mindspore": ("mindspore", "fp32"),
}

BATCH = 32

#: Distinct pictures of a stream; the others are links to them.
DISTINCT = 500


def main() -> int:
    found = parser(__doc__, CONTENDERS, 5)
    found.add_argument("--model", default="ViT-B-32")
    found.add_argument("--times", type=int, default=4, help="calls in a turn (4)")
    found.add_argument("--stream", type=int, default=0, metavar="PICTURES")
    found.add_argument("--side", type=int, default=256, help="of a stream's pictures (256)")
    found.add_argument("--quick", action="store_true")
    found.add_argument("--publish", action="store_true")
    given = found.parse_args()
    if given.serve:
        return answer(functools.partial(_prepared, given.serve[0]))
    if given.quick:
        given.rounds, given.times, given.stream = 1, 1, min(given.stream, 200)
    os.environ["PARITAS_BENCHMARKED"] = given.model
    with tempfile.TemporaryDirectory() as directory:
        rows = _streamed(given, directory) if given.stream else _raced(given, directory)
    if given.publish:
        part = "stream" if given.stream else "race"
        name = f"open_clip_speed_{part}_{given.model}"
        published.write(name, {"model": given.model, "batch": BATCH, "rows": rows})
    return 0


# --- in the process of a contender -----------------------------------------------------------------------------


def _prepared(name: str) -> Callable[[Any], Any]:
    from paritas.mending import mend_torchvision

    mend_torchvision()
    import open_clip
    import torch

    engine, precision = CONTENDERS[name]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms(os.environ["PARITAS_BENCHMARKED"], precision=precision)
    model.eval()
    if engine:
        from paritas.open_clip import port_model

        model = port_model(model, engine, **({"mode": "graph"} if engine == "mindspore" else {}))
    side = model.visual.image_size
    height, width = side if isinstance(side, (tuple, list)) else (side, side)
    images = torch.randn(BATCH, 3, height, width, generator=torch.Generator().manual_seed(1))
    dtype = open_clip.get_input_dtype(precision)

    @torch.no_grad()
    def work(what: dict[str, Any]) -> dict[str, Any]:
        if "folder" in what:
            return _streaming(model, preprocess, Path(what["folder"]), images, dtype)
        seconds = []
        for _ in range(what["times"]):
            started = time.perf_counter()
            features = model.encode_image(images.to(dtype) if dtype else images)
            seconds.append(time.perf_counter() - started)
        rows = torch.nn.functional.normalize(features.float(), dim=-1)
        return {"seconds": statistics.median(seconds), "features": rows.tolist(), "peak": peak()}

    return work


def _streaming(model: Any, preprocess: Any, folder: Path, images: Any, dtype: Any) -> dict[str, Any]:
    sys.path.insert(0, str(Path(__file__).parent.parent / "examples" / "clip"))
    import zero_shot

    def own(seconds: float) -> float:
        model.encode_image(images.to(dtype or images.dtype))
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            model.encode_image(images.to(dtype or images.dtype))
            count += BATCH
        return count / (time.perf_counter() - started)

    paths = zero_shot.pictures(folder)
    patience = 1 if len(paths) < DISTINCT else 10
    before = own(patience)
    started, done, early = time.perf_counter(), 0, 0
    for names, batch in zero_shot.batches(paths, preprocess, BATCH):
        model.encode_image(batch.to(dtype or batch.dtype))
        done += len(names)
        if not early and done >= len(paths) // 10:
            early = peak()
    seconds = time.perf_counter() - started
    return {
        "seconds": seconds, "pictures": done, "rate": done / seconds, "before": before, "after": own(patience),
        "early peak": early, "peak": peak(),
    }  # fmt: skip


# --- in this one -----------------------------------------------------------------------------------------------


def _raced(given: Any, directory: str) -> dict[str, Any]:
    import numpy as np

    figures = take_turns(__file__, given.contenders, directory, given.rounds, {"times": given.times})
    first = next(iter(figures.values()))
    reference = np.array(first[0]["features"])
    baseline = statistics.median(one["seconds"] for one in first)
    rows = {}
    for name, rounds in figures.items():
        seconds = statistics.median(one["seconds"] for one in rounds)
        rows[name] = {
            "seconds": seconds,
            "rate": BATCH / seconds,
            "ratio": baseline / seconds,
            "cosine": float((reference * np.array(rounds[0]["features"])).sum(axis=1).min()),
            "peak": max(one["peak"] for one in rounds),
            "all": [round(one["seconds"], 4) for one in rounds],
        }
    print(f"{given.model}, images, batch {BATCH}, {published.machine()}")
    for name, row in rows.items():
        print(
            f"{name:15}{row['rate']:8.1f} images/s {row['ratio']:6.2f}x   cosine {row['cosine']:.7f}   "
            f"{row['peak'] >> 20} MiB   {row['all']}"
        )
    return rows


def _streamed(given: Any, directory: str) -> dict[str, Any]:
    folder = Path(directory, "pictures")
    _draw(folder, given.stream, given.side)
    rows = {}
    print(f"{given.model}, a stream of {given.stream} JPEG pictures of {given.side} pixels, {published.machine()}")
    for name in given.contenders:
        process = start(__file__, name, directory)
        try:
            row = ask(name, process, {"folder": str(folder)})
        finally:
            process.kill()
        row["share"] = row["rate"] / statistics.mean((row["before"], row["after"]))
        rows[name] = {**row, "side": given.side}
        print(
            f"{name:15}{row['rate']:8.1f} pictures/s, {row['share']:.1%} of the model's own "
            f"({row['before']:.1f} before, {row['after']:.1f} after); "
            f"{row['early peak'] >> 20} MiB after a tenth, {row['peak'] >> 20} at the end",
            flush=True,
        )
    return rows


def _draw(folder: Path, count: int, side: int) -> None:
    """JPEG pictures with as much in them as photographs: soft noise of several sizes."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    generator = np.random.default_rng(0)
    distinct = min(count, DISTINCT)
    for number in range(count):
        place = folder / f"{number:06}.jpg"
        if number >= distinct:
            os.link(folder / f"{number % distinct:06}.jpg", place)
            continue
        pixels = np.zeros((side, side, 3), np.float32)
        for grain, share in ((side // 8, 0.6), (side // 32, 0.3), (side // 2, 0.1)):
            noise = Image.fromarray(generator.integers(0, 256, (grain, grain, 3), np.uint8))
            pixels += share * np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC), np.float32)
        Image.fromarray(pixels.astype(np.uint8)).save(place, quality=90)


if __name__ == "__main__":
    sys.exit(main())
