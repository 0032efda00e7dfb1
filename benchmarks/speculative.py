# SPDX-License-Identifier: Apache-2.0
"""How much faster is Whisper with an assistant? Speculative decoding, 64 tokens of 30 seconds of sound.

    python benchmarks/speculative.py
    python benchmarks/speculative.py --rounds 1 --batches 1 --contenders "openvino float32"

The main model has the 32 decoder layers of the large one, the assistant 2, and it is given the encoder's outputs of
the main model. Weights are random. So that it runs in minutes on two cores, the width is 640 instead of 1280 and the
encoder has 2 layers: on a GPU it takes a tenth of the time, as it does so here.

The assistant is the first two decoder layers, with the main model's embeddings and last norm. What the other thirty
add to the residual stream is scaled to nearly nothing, but for a few dimensions that the first two cannot write. Some
tokens are alike outside these, in families of eight: the hard ones, which the assistant cannot tell apart and knows
that it cannot. Their share of the vocabulary is searched until both agree on about 75 % of the tokens.

transformers assists one sequence at a time, and refuses a batch. For a batch the sequences are assisted one after the
other, which is compared with the model alone on all of them at once.

Every contender is a process of its own, and they take turns: a warm-up each, then `--rounds`, medians.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contender import answer
from results import machine, write
from turns import load, parser, take_turns

WIDTH, LAYERS, NEW, CLIPS = 640, 32, 64, 4
AGREEMENT = 0.75
FAMILY, HARD = 8, 16  # tokens in a family, and the dimensions in which they differ

#: name -> (engine, dtype); no engine is transformers itself.
CONTENDERS = {
    "torch eager": ("", "float32"),
    "openvino float32": ("openvino", "float32"),
    "openvino bfloat16": ("openvino", "bfloat16"),
}


def main() -> int:
    known = parser(__doc__, CONTENDERS, rounds=3)
    known.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8], help="sizes (1 2 4 8)")
    options = known.parse_args()
    if options.serve:
        name, directory = options.serve
        return answer(lambda: prepare(name, directory))
    with tempfile.TemporaryDirectory() as directory:
        agreement = make(Path(directory))
        print(f"main model and assistant agree on {agreement:.0%} of the tokens", flush=True)
        figures = take_turns(__file__, options.contenders, directory, options.rounds, options.batches)
    rows = {name: summary(rounds) for name, rounds in figures.items()}
    print(table(rows))
    write("speculative", {"new": NEW, "agreement": agreement, "contenders": rows})
    return 0


# --- a model whose first layers know most of what all know ---------------------------------------------------


def make(directory: Path) -> float:
    """Writes `main` and `assistant`; the share of tokens on which they agree, where they are told the same before."""
    import torch
    from transformers import WhisperConfig, WhisperForCausalLM, WhisperForConditionalGeneration

    torch.manual_seed(0)
    sizes = {
        "d_model": WIDTH, "encoder_layers": 2, "encoder_attention_heads": WIDTH // 64, "encoder_ffn_dim": 4 * WIDTH,
        "decoder_attention_heads": WIDTH // 64, "decoder_ffn_dim": 4 * WIDTH, "suppress_tokens": None,
        "begin_suppress_tokens": None,
    }  # fmt: skip
    model = WhisperForConditionalGeneration(WhisperConfig(decoder_layers=LAYERS, **sizes)).eval()
    assistant = WhisperForCausalLM(WhisperConfig(decoder_layers=2, **sizes)).eval()
    decoder = model.model.decoder
    told = torch.randint(0, 50_000, (CLIPS, NEW))
    with torch.no_grad():
        heard = model.model.encoder(sounds()[:CLIPS])
        tokens, places = decoder.embed_tokens.weight, decoder.embed_positions.weight
        # Large steps between places, and little of a token's own embedding in the end: otherwise one token repeats.
        tokens.normal_(0, 0.1)
        places.normal_(0, 0.3)
        decoder.layer_norm.weight.fill_(30 / (0.1 * WIDTH**0.5))  # logits differ by about 30: it is sure
        for index, layer in enumerate(decoder.layers):
            for written in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
                if index < 2:
                    written.weight *= 6 if written is layer.fc2 else 2
                    written.weight[:HARD] = 0
                else:
                    written.weight[HARD:] *= 0.01
        tokens[:, :HARD] = places[:, :HARD] = 0
        tokens[decoder.padding_idx] = 0  # and the end: never the largest logit
        adopt(assistant, model)
        centre(model, assistant, told, heard)
        low, high, original = 0.0, 1.0, tokens.clone()
        for _ in range(8):
            share = (low + high) / 2
            tokens.copy_(original)
            families(tokens, share)
            adopt(assistant, model)
            found = agreement(model, assistant, told, heard)
            low, high = (share, high) if found > AGREEMENT else (low, share)
    model.save_pretrained(directory / "main")
    assistant.save_pretrained(directory / "assistant")
    return found


def adopt(assistant: Any, model: Any) -> None:
    """The assistant's weights are the main model's of the same names."""
    own = assistant.state_dict().keys()
    assistant.load_state_dict({name: value for name, value in model.state_dict().items() if name in own})


def centre(model: Any, assistant: Any, told: Any, heard: Any) -> None:
    """What is the same in every token's state is taken away: it would favour the same tokens everywhere."""
    states = []
    hook = assistant.model.decoder.layer_norm.register_forward_pre_hook(lambda _, given: states.append(given[0]))
    assistant(input_ids=told, encoder_outputs=heard, use_cache=False)
    hook.remove()
    model.model.decoder.layers[1].fc2.bias -= states[0].mean((0, 1))
    adopt(assistant, model)


def families(tokens: Any, share: float) -> None:
    """The last `share` of the vocabulary becomes families, alike but for the dimensions of the hard ones."""
    import torch

    first = round((1 - share) * 50_000) // FAMILY * FAMILY
    hard = tokens[first:50_000]
    hard[:] = hard[::FAMILY].repeat_interleave(FAMILY, 0)
    hard[:, :HARD].normal_(0, 0.05, generator=torch.Generator().manual_seed(1))


def agreement(model: Any, assistant: Any, told: Any, heard: Any) -> float:
    one = model(decoder_input_ids=told, encoder_outputs=heard, use_cache=False).logits.argmax(-1)
    other = assistant(input_ids=told, encoder_outputs=heard, use_cache=False).logits.argmax(-1)
    return float((one == other).float().mean())


def sounds(count: int = CLIPS) -> Any:
    """[count, 80 frequencies, 3000 frames of 10 ms]."""
    import torch

    return torch.randn(count, 80, 3000, generator=torch.Generator().manual_seed(0))


# --- contenders ----------------------------------------------------------------------------------------------


def prepare(name: str, directory: str) -> Callable[[Any], dict[str, Any]]:
    """What generates alone, by batch size, and assisted, clip by clip."""
    import torch

    engine, dtype = CONTENDERS[name]
    model = load("AutoModelForSpeechSeq2Seq", f"{directory}/main", engine, dtype)
    assistant = load("AutoModelForCausalLM", f"{directory}/assistant", engine, dtype)

    def generate(clips: Any, **more: Any) -> tuple[float, list[list[int]]]:
        start = time.perf_counter()
        out = model.generate(clips.to(getattr(torch, dtype)), max_new_tokens=NEW, do_sample=False, **more)
        seconds = time.perf_counter() - start
        assert out.shape[1] >= NEW, "it ended early"
        return seconds, out.tolist()

    def work(batches: list[int]) -> dict[str, Any]:
        clips, start = sounds(max(*batches, CLIPS)), time.perf_counter()
        # The largest first: a port that was made for a batch serves one sequence too.
        alone = {size: generate(clips[:size]) for size in sorted(batches, reverse=True)}
        assisted = [generate(clips[i : i + 1], assistant_model=assistant) for i in range(CLIPS)]
        same = [
            tokens[0] == alone[size][1][i] for size in batches for i, (_, tokens) in enumerate(assisted) if i < size
        ]
        return {
            "seconds": time.perf_counter() - start,
            "alone": {size: seconds for size, (seconds, _) in alone.items()},
            "assisted": statistics.mean(seconds for seconds, _ in assisted),
            "same": [sum(same), len(same)],
            "distinct": len({token for _, tokens in assisted for token in tokens[0]}),
        }

    return work


def summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    assisted = statistics.median(one["assisted"] for one in rounds)
    batches = {}
    for size in rounds[0]["alone"]:
        alone = statistics.median(one["alone"][size] for one in rounds)
        together = int(size) * assisted
        batches[size] = {"alone": alone, "assisted": together, "ratio": alone / together}
    return {
        "batches": dict(sorted(batches.items(), key=lambda item: int(item[0]))),
        "same": rounds[0]["same"],
        "distinct": rounds[0]["distinct"],
        "all": rounds,
    }


def table(rows: dict[str, dict[str, Any]]) -> str:
    lines = [
        f"Whisper, {LAYERS} decoder layers of {WIDTH}, assistant of 2, {NEW} new tokens",
        f"{'':20}{'batch':>6}{'alone':>9}{'assisted':>10}{'ratio':>8}",
    ]
    for name, row in rows.items():
        for size, found in row["batches"].items():
            lines.append(
                f"{name:20}{size:>6}{found['alone']:>7.2f} s{found['assisted']:>8.2f} s{found['ratio']:>7.2f}x"
            )
        same, of = row["same"]
        lines.append(f"{'':20}the same tokens in {same} of {of} texts, {row['distinct']} different ones in all")
    lines.append("assisted: the sequences of a batch one after the other, since transformers assists one at a time")
    return "\n".join([*lines, machine()])


if __name__ == "__main__":
    sys.exit(main())
