# SPDX-License-Identifier: Apache-2.0
"""Generated modules as a reviewer reads them, whole: what is in tests/lower/golden/ is what is generated.

`REWRITE_GOLDEN=1 .venv/bin/python -m pytest tests/lower/test_golden.py` writes them again; read the difference.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from families import build
from paritas.capture import capture
from paritas.lower.mindspore.write.module import generate
from paritas.program import Program

GOLDEN = Path(__file__).parent / "golden"
HEAD = "# SPDX-License-Identifier: Apache-2.0\n"


def unet_block() -> Program:
    """One of the blocks by which Stable Diffusion's UNet goes down: a resnet, attention to text, half the size."""
    from diffusers.models.unets.unet_2d_blocks import CrossAttnDownBlock2D

    torch.manual_seed(0)
    block = CrossAttnDownBlock2D(
        in_channels=8, out_channels=16, temb_channels=16, num_layers=1, resnet_groups=4, num_attention_heads=2,
        cross_attention_dim=12,
    )  # fmt: skip
    inputs = {
        "hidden_states": torch.randn(2, 8, 6, 6),
        "temb": torch.randn(2, 16),
        "encoder_hidden_states": torch.randn(2, 5, 12),
    }
    return capture(block.eval(), inputs)


MODELS: dict[str, Callable[[], Program]] = {
    **{name: lambda name=name: capture(build(name)) for name in ("bert", "llama", "t5-encoder", "vit")},  # type: ignore[misc]
    "unet-block": unet_block,
}


@pytest.mark.parametrize("name", MODELS)
def test_what_is_generated_is_what_was_read(name: str) -> None:
    if name == "unet-block":
        pytest.importorskip("diffusers")
    source = HEAD + generate(MODELS[name]()).source
    file = GOLDEN / f"{name.replace('-', '_')}.py"
    if os.environ.get("REWRITE_GOLDEN"):
        file.write_text(source, encoding="utf-8")
    assert source == file.read_text(encoding="utf-8"), "REWRITE_GOLDEN=1 writes it again: read the difference"
