# SPDX-License-Identifier: Apache-2.0
"""What OpenAI's clients send: read strictly, so that nothing is asked for in vain.

What a client may say without effect on an answer is taken (`user`, `metadata`); what would change it and is not done
here is an error that names it.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

import msgspec

from paritas.serve.refusals import Refused

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Seed = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Wrong(Refused):
    """A request that OpenAI's servers answer with 400. param: the field that is wrong. code: OpenAI's word for it."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__("INVALID_ARGUMENT", message)
        self.param, self.word = param, code


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool = False
    include_obfuscation: bool = False


class Sampling(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What `/v1/completions` and `/v1/chat/completions` have in common."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=16)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Share | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    stop: str | list[str] | None = None
    seed: Seed | None = None
    # Not OpenAI's: as vLLM and others call them.
    top_k: Annotated[int, msgspec.Meta(ge=-1)] | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(gt=0)] | None = None
    min_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    ignore_eos: bool | None = None
    # Taken, and without effect.
    user: str | None = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    # Refused, unless they ask for nothing.
    logit_bias: Any = None
    logprobs: Any = None

    def refused(self) -> dict[str, bool]:
        """Field -> whether it asks for what is not done here."""
        return {"logit_bias": bool(self.logit_bias), "logprobs": self.logprobs not in (None, False)}

    def stops(self) -> list[str]:
        found = [self.stop] if isinstance(self.stop, str) else list(self.stop or ())
        if len(found) > 4 or any(not one for one in found):
            raise Wrong("stop is one string, or up to four, none of them empty.", "stop")
        return found


class Completion(Sampling, kw_only=True):
    prompt: str | list[Any]
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None

    def refused(self) -> dict[str, bool]:
        return {
            **super().refused(),
            "logprobs": self.logprobs is not None,
            "suffix": bool(self.suffix),
            "best_of": self.best_of not in (None, 1, self.n),
        }


class Message(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    content: str | list[Any] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: Any = None
    tool_call_id: str | None = None
    audio: Any = None
    function_call: Any = None
    annotations: Any = None


class Chat(Sampling, kw_only=True):
    messages: list[Message]
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    top_logprobs: int | None = None
    response_format: Any = None
    tools: Any = None
    tool_choice: Any = None
    functions: Any = None
    function_call: Any = None
    parallel_tool_calls: Any = None
    modalities: Any = None
    audio: Any = None
    prediction: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None
    web_search_options: Any = None
    chat_template_kwargs: dict[str, Any] | None = None

    def refused(self) -> dict[str, bool]:
        return {
            **super().refused(),
            "top_logprobs": bool(self.top_logprobs),
            "response_format": self.response_format not in (None, {"type": "text"}),
            "tools": bool(self.tools),
            "tool_choice": self.tool_choice not in (None, "none", "auto"),
            "functions": bool(self.functions),
            "function_call": self.function_call not in (None, "none", "auto"),
            "modalities": self.modalities not in (None, ["text"]),
            "audio": self.audio is not None,
            "prediction": self.prediction is not None,
            "reasoning_effort": self.reasoning_effort not in (None, "none"),
            "verbosity": self.verbosity is not None,
            "web_search_options": self.web_search_options is not None,
        }

    def plain(self) -> list[dict[str, Any]]:
        """The messages as a template takes them: parts of text in one. Raises `Wrong` for other parts."""
        if not self.messages:
            raise Wrong("messages holds no message.", "messages")
        found = []
        for place, message in enumerate(self.messages):
            where = f"messages[{place}]"
            content = message.content
            if isinstance(content, list):
                for part in content:
                    if not isinstance(part, dict) or part.get("type") not in ("text", "refusal"):
                        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
                        raise Wrong(f"{where} has a part of the type {kind!r}: this model takes text.", where)
                parts = [part.get(part["type"]) for part in content]
                if not all(isinstance(part, str) for part in parts):
                    raise Wrong(f"{where} has a part of text without its text.", where)
                content = "".join(parts)
            if message.tool_calls or message.function_call or message.audio:
                raise Wrong(f"{where} calls tools or has a sound: neither is done here.", where)
            if content is None:
                raise Wrong(f"{where} has no content.", where)
            one = {"role": "system" if message.role == "developer" else message.role, "content": content}
            found.append(one | ({"name": message.name} if message.name else {}))
        return found


class Embeddings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    model: str
    input: str | list[Any]
    encoding_format: str | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    user: str | None = None


T = TypeVar("T")

_UNKNOWN = re.compile(r"Object contains unknown field `(.*?)`")
_PLACE = re.compile(r" - at `\$\.?(.*?)`$")


def read(body: bytes, kind: type[T]) -> T:
    """A request of that kind. Raises `Wrong`, which names the field."""
    try:
        found = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        text = str(error)
        if unknown := _UNKNOWN.match(text):
            raise Wrong(f"Unrecognized request argument supplied: {unknown[1]}", unknown[1]) from None
        place = _PLACE.search(text)
        missing = re.match(r"Object missing required field `(.*?)`", text)
        param = missing[1] if missing else place[1] if place else None
        raise Wrong(f"{param or 'the request'}: {_PLACE.sub('', text)}", param) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Wrong(f"We could not parse the JSON body of your request: {error}") from None
    refused: dict[str, bool] = getattr(found, "refused", dict)()
    if named := next((name for name, asked in refused.items() if asked), None):
        raise Wrong(f"{named} asks for what is not done here: leave it out.", named, "unsupported_parameter")
    return found


def prompts(given: str | list[Any], name: str, most: int) -> list[str | list[int]]:
    """The texts, or lists of tokens, that `prompt` and `input` may be."""
    if isinstance(given, str):
        return [given]
    if given and all(type(one) is int for one in given):
        return [given]
    if not given or len(given) > most:
        raise Wrong(f"{name} holds {len(given)} texts; it may hold 1 to {most}.", name)
    for one in given:
        if not isinstance(one, str) and not (isinstance(one, list) and one and all(type(t) is int for t in one)):
            raise Wrong(f"{name} is a text, a list of texts, of tokens, or of lists of tokens.", name)
    return given
