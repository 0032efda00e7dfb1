# SPDX-License-Identifier: Apache-2.0
"""A contender of `peers.py`: one directory in one program. Also run by an interpreter that knows no Paritas.

python benchmarks/peer.py NAME DIR PROMPT NEW      # answers each line of stdin with a line of JSON
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contender import answer, peak

#: contender -> the function here that generates for it.
ANSWERS = {
    "paritas": "paritas",
    "paritas, without torch": "loaded",
    "openvino-genai": "genai",
    "optimum-intel": "optimum",
    "optimum-intel, own export": "optimum",
}

#: Of these, the ones of the other environment.
PEERS = ("optimum",)

#: What random ids are drawn below.
VOCABULARY = 300

Generate = Callable[[], dict[str, Any]]


def serve(name: str, directory: str, prompt: int, new: int) -> Callable[[Any], dict[str, Any]]:
    """What generates `new` tokens after `prompt` seeded ones each time it is called."""
    import numpy as np

    ids = np.random.default_rng(0).integers(3, VOCABULARY, (1, prompt))
    begin = time.perf_counter()
    generate = {"paritas": _paritas, "loaded": _loaded, "genai": _genai, "optimum": _optimum}[ANSWERS[name]](
        directory, ids, new
    )
    loaded = time.perf_counter() - begin

    def answered(_: Any) -> dict[str, Any]:
        found = generate()
        now = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
        return {**found, "load": loaded, "memory": {"peak": peak() / 1e6, "now": now}}

    return answered


def _properties(directory: str) -> dict[str, str]:
    return dict(json.loads(Path(directory, "ov_config.json").read_text()))


def _paritas(directory: str, ids: Any, new: int) -> Generate:
    from paritas.transformers import AutoModelForCausalLM

    return _transformers(AutoModelForCausalLM.from_pretrained(directory), ids, new)


def _loaded(directory: str, ids: Any, new: int) -> Generate:
    """What `paritas generate` and `port.generate` of a text are where torch is not installed."""
    import dataclasses

    import paritas
    from paritas.texts import Writer

    port = paritas.load(directory)

    def generate() -> dict[str, Any]:
        writer = Writer(port)  # has seen nothing
        options = dataclasses.replace(writer.options({}), max_new_tokens=new, do_sample=False, eos_token_id=())
        times, tokens = [time.perf_counter()], []
        for token in writer.tokens(ids[0].tolist(), options):
            tokens.append(token)
            times.append(time.perf_counter())
        return {"seconds": times[-1] - times[0], "first": times[1] - times[0], "tokens": tokens}

    return generate


def _optimum(directory: str, ids: Any, new: int) -> Generate:
    from optimum.intel import OVModelForCausalLM

    return _transformers(OVModelForCausalLM.from_pretrained(directory, ov_config=_properties(directory)), ids, new)


class _Clock:
    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Any) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        pass


def _transformers(model: Any, ids: Any, new: int) -> Generate:
    import torch

    given = torch.from_numpy(ids)

    def generate() -> dict[str, Any]:
        clock = _Clock()
        start = time.perf_counter()
        out = model.generate(
            given, attention_mask=torch.ones_like(given), max_new_tokens=new, min_new_tokens=new, do_sample=False,
            streamer=clock, eos_token_id=None,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "first": clock.times[1] - start, "tokens": out[0, ids.shape[1] :].tolist()}

    return generate


def _genai(directory: str, ids: Any, new: int) -> Generate:
    import numpy as np
    import openvino
    import openvino_genai as genai

    pipeline = genai.LLMPipeline(directory, "CPU", **_properties(directory))
    config = genai.GenerationConfig(
        max_new_tokens=new, min_new_tokens=new, ignore_eos=True, do_sample=False, apply_chat_template=False
    )
    given = genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))

    def generate() -> dict[str, Any]:
        start = time.perf_counter()
        out = pipeline.generate(given, config)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "first": out.perf_metrics.get_ttft().mean / 1e3, "tokens": list(out.tokens[0])}

    return generate


def main() -> None:
    name, directory, prompt, new = sys.argv[1:]
    answer(lambda: serve(name, directory, int(prompt), int(new)))


if __name__ == "__main__":
    main()
