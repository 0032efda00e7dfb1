# SPDX-License-Identifier: Apache-2.0
"""Text out of a port that goes on with a cache, without torch and transformers: greedy or sampled, token by token.

A bare install with `paritas[text]` runs it: NumPy, the engine, and the package `tokenizers`. Beams, penalties of other
kinds and assistants are transformers' own loops, in `paritas.transformers`.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from paritas import files
from paritas.caches import keeps_inside, remembered
from paritas.errors import InputError, PortError
from paritas.extras import install, missing, require
from paritas.program import Artifact, Manifest, TensorSpec
from paritas.run.session import Session
from paritas.run.state import new_state, run_last

#: Gets each piece of text as soon as it is there.
Tell = Callable[[str], None]


class Port(Protocol):
    """A port of one graph, as `paritas.load` returns it."""

    artifact: Artifact
    session: Session

    @property
    def manifest(self) -> Manifest: ...

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...


#: What this loop makes of a text.
_GIVEN = frozenset(("input_ids", "attention_mask", "position_ids"))

#: Where the tokenizer's chat template is, if it is not in its configuration.
TEMPLATE = "chat_template.jinja"

#: What `generation_config.json` may say that this loop does not do -> the value with which it says nothing.
_NOT_HERE: dict[str, Any] = {
    "num_beams": 1, "num_return_sequences": 1, "no_repeat_ngram_size": 0, "typical_p": 1.0, "min_p": None,
    "epsilon_cutoff": 0.0, "eta_cutoff": 0.0, "bad_words_ids": None, "suppress_tokens": None, "top_h": None,
    "begin_suppress_tokens": None, "forced_bos_token_id": None, "forced_eos_token_id": None, "guidance_scale": None,
    "sequence_bias": None, "exponential_decay_length_penalty": None, "watermarking_config": None,
    "prompt_lookup_num_tokens": None, "encoder_repetition_penalty": 1.0,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Options:
    """How tokens are chosen, by transformers' names. temperature, top_k, top_p: of sampling. seed: of its numbers.

    presence_penalty, frequency_penalty: what OpenAI's servers take off the score of a token that was written, once or
    for each time.
    """

    max_new_tokens: int = 256
    min_new_tokens: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    eos_token_id: tuple[int, ...] = ()
    seed: int | None = None


def generate(port: Port, inputs: Any, options: Mapping[str, Any]) -> Any:
    """What `Port.generate` returns: by transformers' loops where it is installed, else by this one."""
    if not missing("port"):
        loops: Any = importlib.import_module("paritas.transformers.texts")
        return loops.generate(port, inputs, options)
    if not isinstance(inputs, str):
        require("port", "port.generate() of token ids, and of several texts")
    return Writer(port).write(inputs, options)


def why_not(port: Port, options: Mapping[str, Any]) -> str:
    """Why this loop cannot generate with a port and these options; "" if it can."""
    if not keeps_inside(port.manifest):
        return "the port has no cache"
    if more := {spec.name for spec in port.inputs} - remembered(port.manifest).keys() - _GIVEN:
        return f"it goes on with more than a text: {', '.join(sorted(more))}"
    if missing("text"):
        return f"the package tokenizers is not installed: {install('text')}"
    if not (port.artifact.directory / "tokenizer.json").is_file():
        return "there is no tokenizer.json beside the port"
    told = {**said(port, "generation_config.json"), **options}
    known = {field.name for field in dataclasses.fields(Options)}
    strange = [name for name in options if name not in known | _NOT_HERE.keys()]
    active = [name for name, nothing in _NOT_HERE.items() if told.get(name, nothing) not in (nothing, None)]
    return f"{', '.join([*strange, *active])} is what transformers' loops do" if strange or active else ""


class Writer:
    """Goes on with texts. Tokens that two prompts begin with in common are computed once: a conversation goes on."""

    def __init__(self, port: Port) -> None:
        if why := why_not(port, {}):
            raise PortError(f"{port!r} cannot generate without torch and transformers: {why}.")

        self.port, self.directory = port, port.artifact.directory
        self.tokenizer = tokenizer_in(self.directory)
        self._state = new_state(port.session, port.manifest)
        self._seen: list[int] = []
        names = remembered(port.manifest)
        self._specs = [spec for spec in port.inputs if spec.name not in names]
        self._logits = next(i for i, spec in enumerate(port.outputs) if spec.name == "logits")

    def write(self, prompt: str, options: Mapping[str, Any], tell: Tell | None = None, *, whole: bool = False) -> str:
        """The text that follows `prompt`. whole: it has its special tokens already, as a template writes them.

        Raises `InputError` for options that this loop does not know, and for a prompt without a token.
        """
        if why := why_not(self.port, options):
            raise InputError(f"{why}: {install('port')}.")
        chosen = self.options(options)
        ids = self.tokenizer.encode(prompt, add_special_tokens=not whole).ids
        if not ids:
            raise InputError("The prompt has no token.")
        found: list[int] = []
        told = ""
        try:
            for token in self.tokens(ids, chosen):
                if token in chosen.eos_token_id:
                    break
                found.append(token)
                text = self.tokenizer.decode(found)
                # The end of a sign that more tokens spell is no text yet.
                if tell is not None and not text.endswith("\ufffd") and len(text) > len(told):
                    tell(text[len(told) :])
                    told = text
        finally:
            text = self.tokenizer.decode(found)
            if tell is not None and len(text) > len(told):
                tell(text[len(told) :])
        return text

    def options(self, given: Mapping[str, Any]) -> Options:
        """What the port's configuration says, and what is given."""
        names = {field.name for field in dataclasses.fields(Options)}
        told = {**said(self.port, "config.json"), **said(self.port, "generation_config.json")}
        both = {name: value for name, value in {**told, **given}.items() if name in names and value is not None}
        ends = both.get("eos_token_id", ())
        both["eos_token_id"] = tuple(ends) if isinstance(ends, list | tuple) else (ends,)
        return Options(**both)

    def tokens(self, ids: Sequence[int], options: Options) -> Iterator[int]:
        """The tokens that follow `ids`, at most as many as the options say; an end among them is the last one."""
        draw = np.random.default_rng(options.seed)
        every = list(ids)
        waiting = self.rest(every)
        for count in range(options.max_new_tokens):
            scores = self.step(waiting)
            token = chosen(scores.astype(np.float64) if options.do_sample else scores, every, count, options, draw)
            every.append(token)
            waiting = [token]
            yield token
            if token in options.eos_token_id:
                return

    def rest(self, ids: list[int]) -> list[int]:
        """What is still to be computed of `ids`, after as much of what was seen as they begin with."""
        same = next((i for i, (a, b) in enumerate(zip(self._seen, ids, strict=False)) if a != b), None)
        same = min(len(self._seen), len(ids)) if same is None else same
        same = min(same, len(ids) - 1)  # the last one's scores are wanted
        if same < len(self._seen):
            self._state.crop(len(self._seen) - same)
            self._seen = self._seen[:same]
        return ids[same:]

    def step(self, ids: Sequence[int]) -> np.ndarray:
        """The scores of the token after `ids`, float32 [vocabulary]."""
        before, count = len(self._seen), len(ids)
        given = {
            "input_ids": np.array([ids], np.int64),
            "attention_mask": np.ones((1, before + count), np.int64),
            "position_ids": np.arange(before, before + count, dtype=np.int64)[None],
        }
        for spec in self._specs:
            array = given[spec.name]
            if spec.high is not None and spec.name != "attention_mask" and int(array.max()) >= spec.high:
                what = "the text is too long" if spec.name == "position_ids" else "a token is unknown to the model"
                raise InputError(
                    f"{what}: {spec.name} holds {int(array.max())}, and the port knows 0 to {spec.high - 1}."
                )
        feed = {spec.name: given[spec.name].astype(spec.dtype) for spec in self._specs}
        try:
            found = run_last(self._state, feed, count, 1)
            self._seen += ids
        except BaseException:  # Ctrl-C may come when half of it is done: nothing was seen then
            self._state, self._seen = new_state(self.port.session, self.port.manifest), []
            raise
        scores: np.ndarray = found[self._logits][0, -1]
        return scores

    def conversation(self, messages: Sequence[Mapping[str, str]]) -> str:
        """These messages as the tokenizer's chat template writes them, up to where the answer begins.

        Raises `PortError` where there is no template.
        """
        return conversation(self.directory, messages)


def conversation(directory: Path, messages: Sequence[Mapping[str, Any]], more: Mapping[str, Any] | None = None) -> str:
    """Messages as the chat template in a port's directory writes them, up to where the answer begins.

    more: what else the template is told. Raises `PortError` where there is no template, or it does not take them.
    """
    about = said_in(directory, "tokenizer_config.json")
    place = directory / TEMPLATE
    template = files.text(place, 1 << 24) if place.is_file() else about.get("chat_template")
    if isinstance(template, list):
        template = next((one.get("template") for one in template if one.get("name") == "default"), None)
    if not isinstance(template, str):
        raise PortError(f"The tokenizer in {directory} has no chat template: paritas generate goes on with texts.")
    special = {name: _content(value) for name, value in about.items() if name.endswith("_token")}
    return _rendered(template, {**(more or {}), "messages": messages, "add_generation_prompt": True, **special})


def said(port: Port, name: str) -> dict[str, Any]:
    """What a JSON file beside the port says; {} where there is none."""
    return said_in(port.artifact.directory, name)


def tokenizer_in(directory: Path) -> Any:
    """The tokenizer of a directory's `tokenizer.json`, by the library `tokenizers` alone."""
    from tokenizers import Tokenizer

    return Tokenizer.from_str(files.text(directory / "tokenizer.json", 1 << 28))


def said_in(directory: Path, name: str) -> dict[str, Any]:
    """What a JSON file in a directory says; {} where there is none."""
    try:
        found = files.parsed(files.text(directory / name, 1 << 26))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, dict) else token


def _rendered(template: str, context: Mapping[str, Any]) -> str:
    """As transformers renders templates: in a sandbox, as they come from whoever made the checkpoint."""
    import datetime

    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(text: str) -> None:
        raise TemplateError(text)

    around = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    around.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    around.globals |= {
        "raise_exception": refuse,
        "strftime_now": lambda form: datetime.datetime.now().strftime(form),
    }
    try:
        return around.from_string(template).render(**context)
    except TemplateError as error:
        raise PortError(f"The chat template does not take this conversation: {error}.") from error


def chosen(scores: np.ndarray, before: Sequence[int], count: int, options: Options, draw: np.random.Generator) -> int:
    """The next token by its scores, in the order of transformers' processors."""
    if options.repetition_penalty != 1.0:
        places = np.unique(before)
        some = scores[places]
        scores[places] = np.where(some < 0, some * options.repetition_penalty, some / options.repetition_penalty)
    if options.presence_penalty or options.frequency_penalty:
        places, times = np.unique(np.array(before[len(before) - count :], np.int64), return_counts=True)
        scores[places] -= options.presence_penalty + options.frequency_penalty * times
    if count < options.min_new_tokens and options.eos_token_id:
        scores[list(options.eos_token_id)] = -np.inf
    if not options.do_sample:
        return int(scores.argmax())
    scores /= options.temperature
    if 0 < options.top_k < len(scores):
        scores[scores < np.partition(scores, -options.top_k)[-options.top_k]] = -np.inf
    likely = np.exp(scores - scores.max())
    likely /= likely.sum()
    if options.top_p < 1.0:
        order = likely.argsort()[::-1]
        before_it = likely[order].cumsum() - likely[order]
        likely[order[before_it >= options.top_p]] = 0
        likely /= likely.sum()
    return int(draw.choice(len(likely), p=likely))
