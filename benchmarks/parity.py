# SPDX-License-Identifier: Apache-2.0
"""Does a port compute what the original computes? Real sizes, seeded weights, against eager and float64.

    python benchmarks/parity.py
    python benchmarks/parity.py --models t5-small bert-base

The error is that of the source documents, max|got - want| / mean|want|, of the worst output; the bar is
1e-5 against PyTorch eager in float32. "eager" in the second half is PyTorch's own error against float64.
Every engine runs in a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from results import machine, write

from models import MODELS, original, ported, qualified

BAR = 1e-5
ENGINES = ("mindspore graph", "mindspore pynative", "openvino")

#: What the documents publish for hand ports: "Numerical Parity", MindSpore 2.3 on Ascend, FP32.
PUBLISHED = {
    "CLIP text": "openai/clip-vit-large-patch14: 8.30e-05 PyNative, 7.81e-05 Graph",
    "T5": "google-t5/t5-small: 6.72e-05 PyNative, 4.88e-05 Graph (N.A. with MindSpore 2.2)",
    "T5 XXL": "DeepFloyd/t5-v1_1-xxl: 1.40e-04 PyNative, 9.84e-05 Graph (N.A. with MindSpore 2.2)",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--answer", nargs=3, help=argparse.SUPPRESS)  # model, who, file: in a process of its own
    options = parser.parse_args()
    if options.answer:
        answer(*options.answer)
        return 0
    head = f"{'':46}" + "".join(f"{name:>20}" for name in ("eager", *options.engines))
    print("max|got - want| / mean|want|, the worst output\n" + head)
    rows = {}
    for name in options.models:
        rows[name] = row = errors(name, options.engines)
        for against in ("eager", "float64"):
            cells = "".join(f"{row[against].get(who, float('nan')):>20.1e}" for who in ("eager", *options.engines))
            print(
                f"{MODELS[name].title if against == 'eager' else '':24}{'to ' + against:>10}{cells}",
                flush=True,
            )
    print("\nPublished for hand ports, float32:", *PUBLISHED.values(), machine(), sep="\n  ")
    write("parity", {"bar": BAR, "errors": rows, "published": PUBLISHED})
    worst = max((e for row in rows.values() for e in row["eager"].values()), default=0.0)
    print(f"worst {worst:.1e}, bar {BAR:.0e}: {'reached' if worst <= BAR else 'missed'}")
    return 0 if worst <= BAR else 1


def errors(name: str, engines: list[str]) -> dict[str, dict[str, float]]:
    """against what -> who -> error."""
    with tempfile.TemporaryDirectory() as folder:
        answers = {}
        for who in ("eager", "float64", *engines):
            file = Path(folder, f"{who}.npz")
            subprocess.run([sys.executable, __file__, "--answer", name, who, str(file)], check=True)
            with np.load(file) as stored:
                answers[who] = [stored[key] for key in stored.files]
    return {
        against: {who: error(got, answers[against]) for who, got in answers.items() if who not in ("float64", against)}
        for against in ("eager", "float64")
    }


def error(got: list[np.ndarray], want: list[np.ndarray]) -> float:
    """The worst output's; inf for another number of outputs, another shape, or NaN in one of the two."""
    if [g.shape for g in got] != [w.shape for w in want]:
        return float("inf")
    found = [float(np.abs(g.astype(np.float64) - w).max() / np.abs(w).mean()) for g, w in zip(got, want, strict=True)]
    return max((value if value == value else float("inf") for value in found), default=float("inf"))


def answer(name: str, who: str, file: str) -> None:
    """The outputs of one contender, as float arrays, in the order of the original's."""
    feed = MODELS[name].feed()
    if who in ("eager", "float64"):
        import torch

        from paritas.capture.source import resolve
        from paritas.pytree import describe_output

        model, _ = resolve(original(name), model_class=qualified(name))
        wide = torch.float64 if who == "float64" else torch.float32
        tensors = {key: torch.from_numpy(value) for key, value in feed.items()}
        tensors = {key: t.to(wide) if t.is_floating_point() else t for key, t in tensors.items()}
        fixed = {"use_cache": False} if MODELS[name].caches else {}
        with torch.no_grad():
            flat, _ = describe_output(model.to(wide)(**tensors, **fixed))
        outputs = [value.numpy() for value in flat]
    else:
        import paritas

        engine, _, mode = who.partition(" ")
        outputs = paritas.load(ported(name, engine), mode=mode).session.run(feed)
    np.savez(file, *outputs)


if __name__ == "__main__":
    sys.exit(main())
