# SPDX-License-Identifier: Apache-2.0
"""How long does a step of a diffusion pipeline take, as a ratio to PyTorch eager? Real sizes, random weights.

    python benchmarks/denoising.py                                  # PixArt-alpha at 512 pixels
    python benchmarks/denoising.py --subjects sd15 sdxl --peer ~/peer/bin/python
    python benchmarks/denoising.py --quick                          # tiny networks, nothing written

Each contender is a process of its own, which opens the pipeline, warms up, and then takes turns with the others; with
`--alone` it ends after its first picture, as two of them do not fit into the memory. A step is what lies between two
calls of `callback_on_step_end`, the first step left out: the network, guidance and the scheduler. Beside it: the part
of a picture's time that is no network's, the most memory, and how far the latents are from PyTorch's. The bars:
OpenVINO 1.5x in float32 and 2.8x in bfloat16, MindSpore 0.67x, and no slower than optimum-intel.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from contender import answer, peak

#: subject -> pixels, steps, guidance
SUBJECTS = {
    "pixart-512": (512, 4, 0.0),
    "pixart-1024": (1024, 4, 0.0),
    "sd15": (512, 3, 7.5),
    "sdxl": (1024, 2, 0.0),
}
TITLES = {
    "pixart-512": "PixArt-alpha XL/2, 512 x 512, text encoder T5 XXL with 2 of 24 layers",
    "pixart-1024": "PixArt-alpha XL/2, 1024 x 1024, text encoder T5 XXL with 2 of 24 layers",
    "sd15": "Stable Diffusion 1.5, 512 x 512, guided: 2 pictures a step",
    "sdxl": "Stable Diffusion XL, 1024 x 1024, text encoders with 2 layers",
}

#: contender -> (engine, mode, dtype)
CONTENDERS = {
    "torch eager": ("", "", "float32"),
    "openvino float32": ("openvino", "", "float32"),
    "openvino bfloat16": ("openvino", "", "bfloat16"),
    "mindspore graph": ("mindspore", "graph", "float32"),
    "optimum-intel float32": ("optimum-intel", "", "float32"),
    "optimum-intel bfloat16": ("optimum-intel", "", "bfloat16"),
}
PROMPT = "a red circle left of a blue square"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=["pixart-512"])
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS)[:4])
    parser.add_argument("--peer", metavar="PYTHON", help="of an environment with optimum-intel and diffusers")
    parser.add_argument("--alone", action="store_true", help="one process at a time: for what fills the memory")
    parser.add_argument("--rounds", type=int, default=3, help="pictures of each (3)")
    parser.add_argument("--directory", type=Path, help="where pipelines are made, and kept (a temporary one)")
    parser.add_argument("--quick", action="store_true", help="tiny networks, one picture, nothing written")
    parser.add_argument("--serve", nargs=3, metavar=("NAME", "SUBJECT", "DIR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(*options.serve, quick=options.quick)
    from results import known, machine, write

    names = [*options.contenders, *(name for name in CONTENDERS if options.peer and CONTENDERS[name][0] not in OURS)]
    for subject in options.subjects:
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.directory or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            in_a_process(make, subject, folder / subject, options.quick)
            served = [name for name in dict.fromkeys(names) if not (subject.startswith("pixart") and _is_peer(name))]
            answers = take_turns(served, subject, folder, options)
        rows = compared(answers)
        print(table(subject, rows), machine(), "", sep="\n", flush=True)
        if not options.quick:
            found = {**known("denoising", "subjects"), subject: {"title": TITLES[subject], "rows": rows}}
            write("denoising", {"subjects": found})
    return 0


OURS = ("", "openvino", "mindspore")


def _is_peer(name: str) -> bool:
    return CONTENDERS[name][0] not in OURS


# --- pipelines ---------------------------------------------------------------------------------------------------


def in_a_process(do: Callable[..., None], *given: Any) -> None:
    """So that its memory is free afterwards."""
    process = multiprocessing.get_context("spawn").Process(target=do, args=given)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{do.__name__} ended with exit code {process.exitcode}")


def make(subject: str, directory: Path, quick: bool) -> None:
    """A pipeline of random weights in a directory; one that is there already stays."""
    if (directory / "model_index.json").exists():
        return
    import diffusers
    import torch

    torch.manual_seed(0)
    maker = {"sd15": _stable_diffusion, "sdxl": _stable_diffusion_xl}.get(subject, _pixart)
    pipeline = maker(diffusers, SUBJECTS[subject][0], quick)
    pipeline.save_pretrained(directory)


def _autoencoder(diffusers: Any, quick: bool, **more: Any) -> Any:
    blocks = (8, 8, 8, 8) if quick else (128, 256, 512, 512)
    return diffusers.AutoencoderKL(
        block_out_channels=blocks, latent_channels=4, layers_per_block=2, norm_num_groups=8 if quick else 32,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, **more,
    )  # fmt: skip


def _pixart(diffusers: Any, pixels: int, quick: bool) -> Any:
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    pieces = [(word, 0.0) for word in ("<pad>", "</s>", "<unk>")]
    pieces += [("▁", -1.0), *((chr(code), -2.0) for code in range(33, 127))]
    tokenizer = T5Tokenizer(pieces, model_max_length=120, extra_ids=0)
    width, inner, heads = (32, 64, 4) if quick else (4096, 10240, 64)
    text = T5Config(
        vocab_size=len(pieces), d_model=width, d_kv=width // heads, num_heads=heads, d_ff=inner, num_layers=2,
        feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip
    layers, attention = (2, 2) if quick else (28, 16)
    transformer = diffusers.PixArtTransformer2DModel(
        num_layers=layers, num_attention_heads=attention, attention_head_dim=72, cross_attention_dim=72 * attention,
        sample_size=pixels // 8, in_channels=4, out_channels=8, caption_channels=width,
    )  # fmt: skip
    return diffusers.PixArtAlphaPipeline(
        tokenizer, T5EncoderModel(text), _autoencoder(diffusers, quick), transformer, diffusers.LCMScheduler()
    )


def _clip(width: int, layers: int, quick: bool, cls: str = "CLIPTextModel") -> tuple[Any, Any]:
    import transformers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[])
    tokenizer.model_max_length = 77
    width, layers = (16, 2) if quick else (width, layers)
    config = transformers.CLIPTextConfig(
        vocab_size=len(words), hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64), projection_dim=width, bos_token_id=512, eos_token_id=513,
        pad_token_id=513,
    )  # fmt: skip
    return tokenizer, getattr(transformers, cls)(config)


def _stable_diffusion(diffusers: Any, pixels: int, quick: bool) -> Any:
    tokenizer, text = _clip(768, 12, quick)
    blocks, wide = ((8, 8, 8, 8), 16) if quick else ((320, 640, 1280, 1280), 768)
    unet = diffusers.UNet2DConditionModel(
        sample_size=pixels // 8, block_out_channels=blocks, cross_attention_dim=wide,
        norm_num_groups=8 if quick else 32, attention_head_dim=2 if quick else 8,
    )  # fmt: skip
    scheduler = diffusers.DDIMScheduler(steps_offset=1, clip_sample=False)
    return diffusers.StableDiffusionPipeline(
        _autoencoder(diffusers, quick), text, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )


def _stable_diffusion_xl(diffusers: Any, pixels: int, quick: bool) -> Any:
    tokenizer, text = _clip(768, 2, quick)
    tokenizer_2, text_2 = _clip(1280, 2, quick, "CLIPTextModelWithProjection")
    blocks, wide, pooled = ((8, 8, 8), 32, 16) if quick else ((320, 640, 1280), 2048, 1280)
    unet = diffusers.UNet2DConditionModel(
        sample_size=pixels // 8, block_out_channels=blocks, cross_attention_dim=wide, layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=1 if quick else (1, 2, 10), attention_head_dim=2 if quick else (5, 10, 20),
        addition_embed_type="text_time", addition_time_embed_dim=8 if quick else 256,
        projection_class_embeddings_input_dim=pooled + 6 * (8 if quick else 256), use_linear_projection=True,
        norm_num_groups=8 if quick else 32,
    )  # fmt: skip
    return diffusers.StableDiffusionXLPipeline(
        _autoencoder(diffusers, quick), text, text_2, tokenizer, tokenizer_2, unet,
        diffusers.EulerDiscreteScheduler(), force_zeros_for_empty_prompt=True,
    )  # fmt: skip


# --- contenders --------------------------------------------------------------------------------------------------


def take_turns(names: list[str], subject: str, folder: Path, options: argparse.Namespace) -> dict[str, list[Any]]:
    """The answers of each, one per round."""
    from turns import ask

    found: dict[str, list[Any]] = {name: [] for name in names}
    processes: dict[str, Any] = {}
    for number in range(1 if options.quick else options.rounds):
        for name in names:
            drawn = None
            if name not in processes:
                processes[name] = _start(name, subject, folder, options)
                drawn = ask(name, processes[name])
                _told(f"{name}, to begin", drawn["begun"])
            if drawn is None or not options.alone:
                drawn = ask(name, processes[name])
            found[name].append(drawn)
            _told(f"round {number + 1}, {name}", drawn["seconds"])
            if options.alone:
                processes.pop(name).kill()
    for process in processes.values():
        process.kill()
    return found


def _told(what: str, seconds: float) -> None:
    print(f"{what}: {seconds:.1f} s", file=sys.stderr, flush=True)


def _start(name: str, subject: str, folder: Path, options: argparse.Namespace) -> subprocess.Popen[str]:
    python = options.peer if _is_peer(name) else sys.executable
    command = [python, "-W", "ignore", __file__, *(["--quick"] if options.quick else ())]
    return subprocess.Popen(
        [*command, "--serve", name, subject, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("TRACE") else subprocess.DEVNULL,
        env={**os.environ, "PARITAS_CACHE": str(folder / "ports"), "GLOG_v": "4", "HF_HUB_OFFLINE": "1"}
        | ({"PYTHONPATH": ""} if _is_peer(name) else {}),
        text=True,
    )


def serve(name: str, subject: str, folder: str, quick: bool) -> int:
    """Draws a picture for every line of stdin; the first answer tells how long it took to come."""
    began = time.perf_counter()

    def ready() -> Callable[[Any], dict[str, Any]]:
        draw, waited = _drawing(name, subject, folder, quick), False

        def drawn(_: Any) -> dict[str, Any]:
            nonlocal waited
            picture = draw()
            if not waited:
                waited, picture["begun"] = True, time.perf_counter() - began
            return picture

        return drawn

    return answer(ready)


def _drawing(name: str, subject: str, folder: str, quick: bool) -> Callable[[], dict[str, Any]]:
    import torch

    engine, mode, dtype = CONTENDERS[name]
    pixels, steps, guidance = (64, 2, SUBJECTS[subject][2]) if quick else SUBJECTS[subject]
    pipeline = _opened(f"{folder}/{subject}", engine, mode, dtype)
    pipeline.set_progress_bar_config(disable=True)
    network = getattr(pipeline, "unet", None) or pipeline.transformer
    inside = _timed(network)
    told: dict[str, Any] = {"guidance_scale": guidance, "height": pixels, "width": pixels, "output_type": "latent"}
    if subject.startswith("pixart"):
        told |= {"use_resolution_binning": False, "clean_caption": False}

    def draw() -> dict[str, Any]:
        times: list[float] = []

        def ended(_: Any, step: int, at: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            times.append(time.perf_counter())
            return {}

        if subject.startswith("pixart"):  # whose pipeline has the older form
            heard: dict[str, Any] = {"callback": lambda *_: times.append(time.perf_counter()), "callback_steps": 1}
        else:
            heard = {"callback_on_step_end": ended}
        inside.clear()
        generator = torch.Generator().manual_seed(0)
        start = time.perf_counter()
        out = pipeline(PROMPT, num_inference_steps=steps, generator=generator, **told, **heard).images
        seconds = time.perf_counter() - start
        gaps = [after - before for before, after in itertools.pairwise(times)]
        latents = torch.as_tensor(out).float()
        return {
            "seconds": seconds,
            "step": statistics.median(gaps),
            "outside": 1 - sum(inside[1:]) / sum(gaps),
            "peak": peak() / 2**30,
            "latents": latents.flatten()[:4096].tolist(),
        }

    return draw


def _opened(directory: str, engine: str, mode: str, dtype: str) -> Any:
    import torch

    if engine == "optimum-intel":
        from optimum.intel import OVDiffusionPipeline

        precision = {"float32": "f32", "bfloat16": "bf16"}[dtype]
        return OVDiffusionPipeline.from_pretrained(
            directory, export=True, ov_config={"INFERENCE_PRECISION_HINT": precision}, load_in_8bit=False
        )
    told: dict[str, Any] = {"torch_dtype": getattr(torch, dtype)}
    if not engine:
        from diffusers import DiffusionPipeline

        return DiffusionPipeline.from_pretrained(directory, **told)
    from paritas.diffusers import DiffusionPipeline as Ported

    return Ported.from_pretrained(directory, engine=engine, **({"mode": mode} if mode else {}), **told)


def _timed(network: Any) -> list[float]:
    """Where the seconds of every call of a network are put from now on."""
    times: list[float] = []
    own = type(network).__call__

    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self is not network:
            return own(self, *args, **kwargs)
        start = time.perf_counter()
        out = own(self, *args, **kwargs)
        times.append(time.perf_counter() - start)
        return out

    type(network).__call__ = called
    return times


# --- what is told ------------------------------------------------------------------------------------------------


def compared(answers: Mapping[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Medians of each beside the first contender's."""
    first = next(iter(answers.values()))
    rows = {}
    for name, found in answers.items():
        step = statistics.median(one["step"] for one in found)
        off = max(abs(a - b) for a, b in zip(found[-1]["latents"], first[-1]["latents"], strict=True))
        size = max(1.0, *map(abs, first[-1]["latents"]))
        rows[name] = {
            "step": step,
            "ratio": statistics.median(one["step"] for one in first) / step,
            "outside": statistics.median(one["outside"] for one in found),
            "picture": statistics.median(one["seconds"] for one in found),
            "peak": max(one["peak"] for one in found),
            "error": off / size,
            "steps": [one["step"] for one in found],
        }
    return rows


def table(subject: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        TITLES[subject],
        f"{'':24}{'a step':>10}{'ratio':>8}{'outside':>9}{'picture':>10}{'peak':>11}{'error':>10}",
    ]
    for name, row in rows.items():
        lines.append(
            f"{name:24}{row['step']:>8.2f} s{row['ratio']:>7.2f}x{row['outside']:>9.1%}{row['picture']:>8.1f} s"
            f"{row['peak']:>7.1f} GiB{row['error']:>10.1e}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    os.environ.setdefault("OPENVINO_TELEMETRY_OPT_OUT", "1")
    sys.exit(main())
