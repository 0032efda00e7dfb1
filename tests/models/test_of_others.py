# SPDX-License-Identifier: Apache-2.0
"""Models that nobody here wrote, of packages that nobody here keeps: answered as they answer, at other sizes too.

The packages are small and of Python alone. They are fetched from the package index when the tests run:

    .venv/bin/python -m pytest tests/models/test_of_others.py -m slow
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import paritas

pytestmark = pytest.mark.slow

PACKAGES = (
    "x-transformers", "einops", "einx", "frozendict", "loguru", "torch-einops-utils", "perceiver-pytorch",
    "performer-pytorch", "local-attention", "axial-positional-embedding", "hyper-connections", "nystrom-attention",
    "conformer", "mlp-mixer-pytorch", "pytorch-tabnet", "vector-quantize-pytorch", "rotary-embedding-torch",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder: Path = tmp_path_factory.mktemp("packages")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *PACKAGES]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the package index is out of reach: {done.stderr[-200:]}")
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(0, 50, shape)


def decoder(**how: Any) -> Callable[[], Any]:
    def make() -> Any:
        from x_transformers import Decoder, TransformerWrapper

        layers = Decoder(dim=32, depth=2, heads=2, attn_dim_head=16, **how)
        return TransformerWrapper(num_tokens=50, max_seq_len=64, attn_layers=layers)

    return make


def of(package: str, name: str, *args: Any, **how: Any) -> Callable[[], Any]:
    def make() -> Any:
        return getattr(__import__(package, fromlist=[name]), name)(*args, **how)

    return make


TOKENS = [ids(2, 9), ids(3, 12), ids(1, 1)]
VECTORS = [torch.randn(2, 16, 32), torch.randn(1, 13, 32)]
IMAGES = [torch.randn(2, 3, 32, 32), torch.randn(1, 3, 32, 32), torch.randn(3, 3, 32, 32)]
CODES = [torch.randn(2, 9, 8), torch.randn(1, 5, 8)]

#: What it is -> how it is made, and the inputs of its calls: a port is made of the first.
MODELS: dict[str, tuple[Callable[[], Any], list[torch.Tensor]]] = {
    "a decoder": (decoder(), TOKENS),
    "rotary positions": (decoder(rotary_pos_emb=True), TOKENS),
    "alibi": (decoder(alibi_pos_bias=True), TOKENS),
    "gated, normalised queries": (decoder(ff_glu=True, use_rmsnorm=True, attn_qk_norm=True), TOKENS),
    "shifted tokens, one key": (decoder(attn_one_kv_head=True, shift_tokens=1), TOKENS),
    "gated values": (decoder(sandwich_norm=True, attn_gate_values=True), TOKENS),
    "residual attention": (decoder(residual_attn=True), TOKENS),
    "soft-clamped logits": (decoder(attn_kv_heads=1, attn_softclamp_logits=True), TOKENS),
    "Perceiver": (
        of("perceiver_pytorch", "Perceiver", input_channels=3, input_axis=2, num_freq_bands=4, max_freq=10.0, depth=2,
           num_latents=8, latent_dim=16, num_classes=5),
        [torch.randn(2, 8, 8, 3), torch.randn(1, 8, 8, 3)],
    ),
    "Performer": (
        of("performer_pytorch", "PerformerLM", num_tokens=50, max_seq_len=64, dim=32, depth=1, heads=2, dim_head=16),
        TOKENS[:2],
    ),
    "Nystromformer": (
        of("nystrom_attention", "Nystromformer", dim=32, dim_head=16, heads=2, depth=1, num_landmarks=4), VECTORS,
    ),
    "local attention": (
        of("local_attention", "LocalTransformer", num_tokens=50, dim=32, depth=1, max_seq_len=64, heads=2, dim_head=16,
           local_attn_window_size=8),
        [ids(2, 16), ids(1, 24), ids(1, 13)],
    ),
    "Conformer": (of("conformer", "Conformer", dim=32, depth=1, dim_head=16, heads=2, conv_kernel_size=7), VECTORS),
    "MLP-Mixer": (
        of("mlp_mixer_pytorch", "MLPMixer", image_size=32, channels=3, patch_size=8, dim=16, depth=1, num_classes=5),
        IMAGES,
    ),
    "TabNet": (
        of("pytorch_tabnet.tab_network", "TabNet", 6, 3, group_attention_matrix=torch.eye(6)),
        [torch.randn(5, 6), torch.randn(9, 6)],
    ),
    "a codebook": (of("vector_quantize_pytorch", "VectorQuantize", dim=8, codebook_size=16), CODES),
    "residual codebooks": (
        of("vector_quantize_pytorch", "ResidualVQ", dim=8, codebook_size=16, num_quantizers=2), CODES,
    ),
}  # fmt: skip


@pytest.mark.parametrize("engine", ["openvino", "mindspore"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_others_is_answered_as_it_answers(name: str, engine: str) -> None:
    make, calls = MODELS[name]
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad():
        wants = [model(call) for call in calls]
    port = paritas.port(model, engine=engine, inputs=(calls[0],))
    for call, want in zip(calls, wants, strict=True):
        torch.testing.assert_close(port(call), want, rtol=1e-4, atol=1e-4)
