# SPDX-License-Identifier: Apache-2.0
"""Ports that write: the task that follows from the model, `port.generate`, and the commands `generate` and `chat`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

import paritas
from paritas import texts
from paritas.caches import remembered
from paritas.capture import inputs as capture_inputs
from paritas.capture.generation import default_task
from paritas.cli.commands.chat import talk
from paritas.cli.commands.port import on_generation
from paritas.errors import InputError, InputsNeeded, PortError
from paritas.printable import printable
from paritas.transformers.texts import Writer

PROMPT = "the quick brown"
NEW: dict[str, Any] = {"max_new_tokens": 9, "min_new_tokens": 9, "do_sample": False}


@pytest.fixture(scope="module")
def port(causal: tuple[Path, Any, Any]) -> Any:
    return paritas.load(causal[0])


def _want(causal: tuple[Path, Any, Any], prompt: str = PROMPT, **options: Any) -> Any:
    """(the ids of the prompt, those that PyTorch adds, their text)."""
    ids = causal[2](prompt, return_tensors="pt", return_token_type_ids=False)
    found = causal[1].generate(**ids, **{**NEW, **options}, pad_token_id=2)[0, ids.input_ids.shape[1] :]
    return ids.input_ids, found, causal[2].decode(found, skip_special_tokens=True)


# --- the task ------------------------------------------------------------------------------------------------


def test_a_causal_model_is_ported_with_its_cache(causal: tuple[Path, Any, Any], port: Any) -> None:
    assert {"input_ids", "attention_mask", "position_ids"} < {spec.name for spec in port.inputs}
    assert len(remembered(port.manifest)) == 4 and (causal[0] / "openvino_tokenizer.xml").is_file()


def test_one_call_is_a_task_too(causal: tuple[Path, Any, Any], tmp_path: Path) -> None:
    made = paritas.port(causal[1], task="text-generation")
    assert {spec.name for spec in made.inputs} == {"input_ids", "attention_mask"}
    assert on_generation(made, tmp_path)[0].startswith("This port has no cache")
    ids, new, _ = _want(causal)
    assert made.generate(ids, **NEW, pad_token_id=2)[0, ids.shape[1] :].tolist() == new.tolist()
    with pytest.raises(InputError, match="this port has no cache"):
        made.generate(ids, **NEW, use_cache=True)
    with pytest.raises(InputError, match="counts positions from 0"):
        made.generate(ids, attention_mask=torch.tensor([[0] + [1] * (ids.shape[1] - 1)]), **NEW)
    with pytest.raises(InputsNeeded, match="does not write text"):
        paritas.port(hf.BertModel(hf.BertConfig(num_hidden_layers=1)), task="text-generation")


def test_a_model_whose_memory_no_port_keeps_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_inputs, "SEQUENCE", 3)  # its loop has a stretch of graph for each token
    torch.manual_seed(0)
    config = hf.RwkvConfig(vocab_size=99, hidden_size=16, num_hidden_layers=2, context_length=32)
    made = paritas.port(hf.RwkvForCausalLM(config).eval())
    assert not remembered(made.manifest)
    assert [str(note) for note in made.notes if "without a cache, since with one it cannot be ported" in str(note)]
    assert on_generation(made, tmp_path)


def test_a_model_that_sees_is_not_for_texts_alone() -> None:
    with torch.device("meta"):
        assert default_task(hf.GitForCausalLM(hf.GitConfig(num_hidden_layers=1))) == ""
        assert default_task(hf.LlamaForCausalLM(hf.LlamaConfig(num_hidden_layers=1))) == "text-generation-with-past"


# --- port.generate -------------------------------------------------------------------------------------------


def test_ids_and_texts_are_gone_on_with(causal: tuple[Path, Any, Any], port: Any) -> None:
    ids, new, text = _want(causal)
    whole = [*ids[0].tolist(), *new.tolist()]
    found = port.generate(ids.numpy(), **NEW)
    assert isinstance(found, np.ndarray) and found[0].tolist() == whole
    assert isinstance(port.generate(ids, **NEW), torch.Tensor)
    assert port.generate(input_ids=ids, num_beams=1, **NEW)[0].tolist() == whole
    assert port.generate(ids.tolist(), **NEW)[0].tolist() == whole
    assert port.generate(PROMPT, **NEW) == text
    assert port.generate([PROMPT, "hello"], **NEW)[0] == text


def test_a_model_that_writes_nothing_is_refused(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="does not generate"):
        paritas.port(checkpoint).generate(np.ones((1, 3), np.int64))


# --- the loop without torch ----------------------------------------------------------------------------------


def test_its_tokens_are_pytorchs(causal: tuple[Path, Any, Any], port: Any) -> None:
    writer = texts.Writer(port)
    for prompt in (PROMPT, f"{PROMPT} fox jumps", PROMPT, "hello world"):  # what is in common is computed once
        ids, new, text = _want(causal, prompt)
        assert list(writer.tokens(ids[0].tolist(), writer.options(NEW))) == new.tolist()
        pieces: list[str] = []
        assert writer.write(prompt, NEW, pieces.append) == text == "".join(pieces)
        assert Writer(port).write(prompt, NEW) == text
    penalised = {**NEW, "repetition_penalty": 1.7}
    ids, new, _ = _want(causal, **penalised)
    assert list(writer.tokens(ids[0].tolist(), writer.options(penalised))) == new.tolist()


def test_an_answer_that_is_interrupted_leaves_nothing_half_done(causal: tuple[Path, Any, Any], port: Any) -> None:
    writer = texts.Writer(port)
    writer.write(PROMPT, NEW)
    state: Any = writer._state
    whole = state.run_last

    def interrupted(feed: Any, tokens: int, last: int) -> Any:
        whole(feed, tokens, last)
        raise KeyboardInterrupt

    state.run_last = interrupted
    with pytest.raises(KeyboardInterrupt):
        writer.write(f"{PROMPT} fox", NEW)
    assert writer.write(f"{PROMPT} fox", NEW) == _want(causal, f"{PROMPT} fox")[2]


def test_it_samples_of_the_likeliest(port: Any) -> None:
    scores = np.log(np.array([0.4, 0.3, 0.2, 0.1]))
    options = texts.Options(do_sample=True, top_k=3, top_p=0.75, temperature=1.0)
    draw = np.random.default_rng(0)
    found = [texts.chosen(scores.copy(), [0], 0, options, draw) for _ in range(2000)]
    # Of the three likeliest, the first two have 0.78 of what is left: the third is one too many.
    assert set(found) == {0, 1} and np.mean(np.array(found) == 0) == pytest.approx(4 / 7, abs=0.04)
    writer = texts.Writer(port)
    drawn = [writer.write("hello", {"max_new_tokens": 8, "do_sample": True, "seed": seed}) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_it_does_not_is_said(port: Any) -> None:
    assert "num_beams" in texts.why_not(port, {"num_beams": 3})
    assert "strange" in texts.why_not(port, {"strange": 3}) and not texts.why_not(port, NEW)
    with pytest.raises(InputError, match=r"num_beams is what transformers' loops do: pip install 'paritas\[port\]'"):
        texts.Writer(port).write("hello", {"num_beams": 3})


def test_a_conversation_is_written_as_its_template_says(causal: tuple[Path, Any, Any], port: Any) -> None:
    messages = [{"role": "user", "content": "hello "}, {"role": "assistant", "content": "fox"}]
    want = causal[2].apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert texts.Writer(port).conversation(messages) == want == Writer(port).conversation(messages)


# --- the commands --------------------------------------------------------------------------------------------


def _run(*args: object, given: str | None = None, without: str = "") -> subprocess.CompletedProcess[str]:
    blocked = f"for name in {without.split()!r}: sys.modules[name] = None"
    code = f"import sys\n{blocked}\nfrom paritas.cli.app import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)],
        capture_output=True, text=True, input=given, timeout=300, check=False, env=dict(os.environ),
    )  # fmt: skip


def test_generate(causal: tuple[Path, Any, Any]) -> None:
    text = _want(causal)[2]
    options = ["--max-new-tokens", 9, "--min-new-tokens", 9, "--temperature", 0]
    bare = _run("generate", causal[0], "-", *options, given=PROMPT, without="torch transformers")
    assert bare.stdout == f"{printable(text)}\n", bare.stderr


def test_chat(causal: tuple[Path, Any, Any], port: Any) -> None:
    lines = iter(["hello", "", "fox", "/new", "dog"])
    told: list[str] = []
    writer = texts.Writer(port)
    said = talk(writer, {"max_new_tokens": 4}, "be brief", lambda: next(lines, None), told.append)
    assert [one["role"] for one in said] == ["system", "user", "assistant"]
    assert said[1]["content"] == "dog" and said[2]["content"] in "".join(told)

    class Interrupted:
        conversation: Callable[..., str] = staticmethod(lambda messages: "")

        def write(self, prompt: str, options: Any, tell: Any, *, whole: bool) -> str:
            tell("half")
            raise KeyboardInterrupt

    lines = iter(["hello"])
    said = talk(Interrupted(), {}, "", lambda: next(lines, None), told.append)
    assert said[-1] == {"role": "assistant", "content": "half"}
    (piped,) = [_run("chat", causal[0], "--max-new-tokens", 3, given="hello\n/exit\n", without="torch transformers")]
    assert piped.returncode == 0 and piped.stdout.endswith("\n"), piped.stderr


def test_a_tokenizer_without_a_template_does_not_talk(port: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "said", lambda port, name: {})
    monkeypatch.setattr(texts, "TEMPLATE", "none.jinja")
    with pytest.raises(PortError, match="has no chat template"):
        texts.Writer(port).conversation([])
