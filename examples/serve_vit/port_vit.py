# SPDX-License-Identifier: Apache-2.0
"""ViT-B/16 as a port in the folder of versions that servers read: models/hf-vit/1.

    python port_vit.py models/hf-vit/1                                              # the real size, random weights
    python port_vit.py models/hf-vit/1 --checkpoint google/vit-base-patch16-224     # the real ones, from the hub

What prepares a picture and what the classes are called is saved beside the port: the server does both.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import ViTConfig, ViTForImageClassification

import paritas

TINY: dict[str, Any] = {
    "image_size": 32, "patch_size": 16, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 16, "num_labels": 10,
}  # fmt: skip


def checkpoint(directory: Path, tiny: bool) -> Path:
    """A checkpoint of random weights, as the hub has them: what ViTImageProcessor does is part of it."""
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(**(TINY if tiny else {"num_labels": 1000})))
    model.save_pretrained(directory)
    size = model.config.image_size
    about = {
        "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": size, "width": size},
        "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
    }  # fmt: skip
    (directory / "preprocessor_config.json").write_text(json.dumps(about))
    return directory


def picture(place: Path) -> None:
    """A photograph's size and detail, drawn: for whom has no internet."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    small = draw.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC).save(place, quality=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="where the port goes: NAME/VERSION")
    parser.add_argument("--checkpoint", default="", help="of the hub, or a directory; random weights if not given")
    parser.add_argument("--tiny", action="store_true", help="a model of no use, made in a second")
    parser.add_argument("--picture", type=Path, default=None, help="write a picture to ask about")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        source = given.checkpoint or checkpoint(Path(place), given.tiny)
        port = paritas.port(source)
        print(port.verify().check())
        given.out.parent.mkdir(parents=True, exist_ok=True)
        port.save(given.out)
    if given.picture is not None:
        picture(given.picture)


if __name__ == "__main__":
    main()
