# SPDX-License-Identifier: Apache-2.0
"""What does a call of a pipeline's network take beside the engine's own? Microseconds, of small UNets in diffusers.

    python benchmarks/overhead.py
    python benchmarks/overhead.py --profile

What is beside depends on how many modules a network has, of which each call asks whether they were changed, and on its
arguments; not on how wide it is. So the second UNet has the modules of Stable Diffusion 1.5, and narrow ones. The
engine's own call gets the same arrays, in a request of its own.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from results import machine, write

from paritas.diffusers.networks import attach

#: name -> what is other than in diffusers' own configuration, which is Stable Diffusion 1.5's.
NETWORKS: dict[str, dict[str, Any]] = {
    "two blocks": {
        "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "cross_attention_dim": 16,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "attention_head_dim": 4,
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    },
    "as many modules as Stable Diffusion 1.5": {
        "block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "cross_attention_dim": 16, "attention_head_dim": 2,
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--profile", action="store_true", help="show in which functions the time goes")
    given = parser.parse_args()
    rows = {}
    for name, config in NETWORKS.items():
        rows[name] = measured(config, given.calls, given.profile)
        print(f"{name}: {rows[name]}", flush=True)
    print(machine())
    if not given.profile:
        write("overhead", {"rows": rows})


@torch.no_grad()
def measured(config: dict[str, Any], calls: int, profile: bool) -> dict[str, float]:
    """Medians in microseconds."""
    torch.manual_seed(0)
    unet = attach(UNet2DConditionModel(sample_size=8, **config), engine="openvino")
    sample, text = torch.randn(2, 4, 8, 8), torch.randn(2, 12, 16)
    step = torch.tensor(3)

    def call() -> Any:
        return unet(
            sample, step, encoder_hidden_states=text, timestep_cond=None, cross_attention_kwargs=None,
            added_cond_kwargs=None, return_dict=False,
        )  # fmt: skip

    call()
    (port,) = unet.ports
    feed = port.feed({"sample": sample, "timestep": step, "encoder_hidden_states": text, "return_dict": False})
    request = port.session._open().compiled.create_infer_request()
    arrays = dict(enumerate(feed.values()))
    if profile:
        profiled(call, calls)
    times = alternately(
        {"engine": lambda: request.infer(arrays), "session": lambda: port.session.run(feed), "ours": call}, calls
    )
    return {
        "modules": sum(1 for _ in unet.modules()),
        "engine": times["engine"],
        "session": times["session"],
        "ours": times["ours"],
        "beside": times["ours"] - times["engine"],
    }


def alternately(contenders: dict[str, Callable[[], Any]], calls: int) -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(calls):
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            found[name].append(time.perf_counter() - began)
    return {name: round(statistics.median(taken) * 1e6, 1) for name, taken in found.items()}


def profiled(call: Callable[[], Any], calls: int) -> None:
    profile = cProfile.Profile()
    profile.enable()
    for _ in range(calls):
        call()
    profile.disable()
    pstats.Stats(profile).sort_stats("tottime").print_stats(32)


if __name__ == "__main__":
    main()
