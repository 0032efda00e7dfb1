# SPDX-License-Identifier: Apache-2.0
"""`/v1/completions`, `/v1/chat/completions`, `/v1/embeddings` and `/v1/models`, as OpenAI's clients speak to them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from paritas.errors import ParitasError
from paritas.serve import openai_requests as asked
from paritas.serve.embeddings import Embedder
from paritas.serve.generation import Generator, Wanted, a_seed
from paritas.serve.http import told
from paritas.serve.openai_requests import Wrong
from paritas.serve.pieces import Pieces
from paritas.serve.refusals import Refused, refusal

log = logging.getLogger("paritas.serve")

#: Texts of one request.
MOST_TEXTS = 256

#: What OpenAI's servers write where `max_tokens` of a completion is not given.
COMPLETION_TOKENS = 16


@dataclasses.dataclass(frozen=True)
class Models:
    """What is there at the moment: functions, as models come and go. begun: when, in seconds since 1970.

    hold: of a model's name, and "generator" or "embedder": it, which does not go away before the end.
    """

    generators: Callable[[], Mapping[str, Generator]]
    embedders: Callable[[], Mapping[str, Embedder]] = dict
    others: Callable[[], Sequence[str]] = tuple
    hold: Callable[[str, str], contextlib.AbstractContextManager[Any]] | None = None
    begun: int = dataclasses.field(default_factory=lambda: int(time.time()))


def routes(models: Models, body: int = 1 << 20) -> list[BaseRoute]:
    """body: the largest that is read, in bytes."""
    api = _Api(models, body)
    return [
        Route("/v1/completions", api.door(api.completions), methods=["POST"]),
        Route("/v1/chat/completions", api.door(api.chat), methods=["POST"]),
        Route("/v1/embeddings", api.door(api.embeddings), methods=["POST"]),
        Route("/v1/models", api.door(api.list), methods=["GET"]),
    ]


def model_card(name: str, begun: int) -> dict[str, Any]:
    """How `/v1/models` shows a model."""
    return {"id": name, "object": "model", "created": begun, "owned_by": "paritas"}


class _Api:
    def __init__(self, models: Models, body: int) -> None:
        self._models, self._most = models, body

    def door(self, answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
        """`answer`, whose errors are bodies as OpenAI's are."""

        async def opened(request: Request) -> Response:
            try:
                found: Response = await answer(request)
                return found
            except HTTPException:
                raise
            except _Gone:
                return Response(status_code=499)
            except ParitasError as error:
                return said(refusal(error))
            except Exception as error:
                log.exception("a request has failed")
                return said(refusal(error))

        return opened

    async def list(self, request: Request) -> Response:
        names = {*self._models.generators(), *self._models.embedders(), *self._models.others()}
        cards = [model_card(name, self._models.begun) for name in sorted(names)]
        return _json({"object": "list", "data": cards})

    # --- texts ---

    async def completions(self, request: Request) -> Response:
        self._refuse_early()
        given = asked.read(await self._body(request), asked.Completion)
        with contextlib.ExitStack() as held:
            return await self._completed(request, given, self._held(held, request, given.model, "generator"), held)

    async def _completed(
        self, request: Request, given: asked.Completion, model: Generator, held: contextlib.ExitStack
    ) -> Response:
        texts = asked.prompts(given.prompt, "prompt", MOST_TEXTS)
        prompts = await _read(model, texts)
        echoes = [""] * len(texts)
        if given.echo:
            echoes = [t if isinstance(t, str) else model.tokenizer.decode(t, skip_special_tokens=False) for t in texts]
        wanted = [wanted_of(model, given, ids, given.max_tokens or COMPLETION_TOKENS) for ids in prompts]
        return await self._answered(request, model, given, wanted, _Completions(given.model, echoes), held)

    async def chat(self, request: Request) -> Response:
        self._refuse_early()
        given = asked.read(await self._body(request), asked.Chat)
        with contextlib.ExitStack() as held:
            return await self._said(request, given, self._held(held, request, given.model, "generator"), held)

    async def _said(
        self, request: Request, given: asked.Chat, model: Generator, held: contextlib.ExitStack
    ) -> Response:
        messages = given.plain()
        try:
            text = await asyncio.to_thread(model.conversation, messages, given.chat_template_kwargs)
        except ParitasError as error:
            raise Wrong(str(error), "messages") from error
        ids = await asyncio.to_thread(model.tokens, text, whole=True)
        most = given.max_completion_tokens or given.max_tokens
        if most is None:
            most = max(1, min(model.longest, model.context - len(ids)))
        wanted = [wanted_of(model, given, ids, most)]
        return await self._answered(request, model, given, wanted, _Chat(given.model), held)

    async def _answered(
        self,
        request: Request,
        model: Generator,
        given: asked.Sampling,
        wanted: Sequence[Wanted],
        form: _Form,
        held: contextlib.ExitStack,
    ) -> Response:
        several = [
            dataclasses.replace(one, seed=(one.seed + copy) % 2**63) for one in wanted for copy in range(given.n or 1)
        ]
        form.copies = given.n or 1
        if len(several) > MOST_TEXTS:
            raise Wrong(f"{len(several)} texts are asked for at once; at most {MOST_TEXTS} are.", "n")
        stops = given.stops()
        run = _Run(model, several, stops)
        usage = Usage(sum(len(one.ids) for one in wanted))
        try:
            run.begin()
        except BaseException:
            run.close()
            raise
        if given.stream:
            with_usage = given.stream_options is not None and given.stream_options.include_usage
            return _Stream(_events(run, form, usage, with_usage), run, held.pop_all())
        choices = await _while_there(request, _collected(run, form, usage))
        return _json({**form.head(), "choices": choices, "usage": usage.told()})

    # --- embeddings ---

    async def embeddings(self, request: Request) -> Response:
        given = asked.read(await self._body(request), asked.Embeddings)
        with contextlib.ExitStack() as held:
            return await self._embedded(request, given, self._held(held, request, given.model, "embedder"))

    async def _embedded(self, request: Request, given: asked.Embeddings, model: Embedder) -> Response:
        if given.encoding_format not in (None, "float", "base64"):
            raise Wrong("encoding_format is float or base64.", "encoding_format")
        texts = asked.prompts(given.input, "input", 2048)
        ids = await _read(model, texts)
        found = await _while_there(request, asyncio.to_thread(model.embed, ids))
        if given.dimensions is not None and given.dimensions != found.shape[1]:
            raise Wrong(
                f"{given.model} makes embeddings of {found.shape[1]} numbers, and shorter ones are others: "
                "leave dimensions out.",
                "dimensions",
            )
        rows = found.astype("<f4")
        data = [
            {
                "object": "embedding",
                "index": place,
                "embedding": base64.b64encode(row.tobytes()).decode()
                if given.encoding_format == "base64"
                else row.tolist(),
            }
            for place, row in enumerate(rows)
        ]
        count = sum(map(len, ids))
        usage = {"prompt_tokens": count, "total_tokens": count}
        return _json({"object": "list", "model": given.model, "data": data, "usage": usage})

    # --- what all have ---

    def _refuse_early(self) -> None:
        """Before anything of a request is read."""
        generators = self._models.generators()
        if generators and not any(model.room for model in generators.values()):
            raise Refused("RESOURCE_EXHAUSTED", "The engine is currently overloaded, please try again later.", after=1)

    def _held(self, held: contextlib.ExitStack, request: Request, name: str, what: str) -> Any:
        """A model that stays until `held` is closed. Raises `Refused`, NOT_FOUND, or `Wrong` for another kind."""
        if "state" in request.scope:
            told(request.scope, model=name)
        there = self._models.generators() if what == "generator" else self._models.embedders()
        if name not in there:
            raise self._unknown(name, there, "does not go on with texts" if what == "generator" else "embeds no texts")
        return held.enter_context(self._models.hold(name, what)) if self._models.hold else there[name]

    def _unknown(self, name: str, there: Mapping[str, Any], does_not: str) -> Refused:
        others = {*self._models.generators(), *self._models.embedders(), *self._models.others()}
        if name in others:
            return Wrong(f"The model {name!r} {does_not}.", "model")
        found = Refused(
            "NOT_FOUND",
            f"The model {name!r} does not exist. There {'is' if len(there) == 1 else 'are'}: "
            f"{', '.join(sorted(there)) or 'none'}.",
        )
        found.param, found.word = "model", "model_not_found"  # type: ignore[attr-defined]
        return found

    async def _body(self, request: Request) -> bytes:
        told = request.headers.get("content-length", "")
        if told.isdigit() and int(told) > self._most:
            raise Refused("INVALID_ARGUMENT", f"The body has {told} bytes; at most {self._most} are read.", status=413)
        read = bytearray()
        async for piece in request.stream():
            read += piece
            if len(read) > self._most:
                raise Refused("INVALID_ARGUMENT", f"The body has more than {self._most} bytes.", status=413)
        return bytes(read)


async def _read(model: Generator | Embedder, texts: Sequence[str | list[int]]) -> list[list[int]]:
    """The tokens of texts, read beside the loop: a long one takes a while."""

    def read() -> list[list[int]]:
        return [model.tokens(text) if isinstance(text, str) else text for text in texts]

    return await asyncio.to_thread(read)


def wanted_of(model: Generator, given: asked.Sampling, ids: Sequence[int], most: int) -> Wanted:
    """What is not given is as the model's own generation configuration says, and else as OpenAI's servers have it."""
    says = model.says

    def or_own(value: Any, name: str, default: Any) -> Any:
        own = says.get(name)
        return value if value is not None else own if isinstance(own, int | float) else default

    if most > model.longest:
        raise Wrong(f"max_tokens is {most}; this server writes at most {model.longest} tokens.", "max_tokens")
    return Wanted(
        tuple(ids),
        most,
        least=min(given.min_tokens or 0, most),
        temperature=float(or_own(given.temperature, "temperature", 1.0)),
        top_p=float(or_own(given.top_p, "top_p", 1.0)) or 1e-9,
        top_k=max(0, int(or_own(given.top_k, "top_k", 0))),
        presence_penalty=given.presence_penalty or 0.0,
        frequency_penalty=given.frequency_penalty or 0.0,
        repetition_penalty=float(or_own(given.repetition_penalty, "repetition_penalty", 1.0)),
        seed=a_seed() if given.seed is None else given.seed % 2**63,
        ends=() if given.ignore_eos else model.ends,
    )


@dataclasses.dataclass
class Usage:
    prompt: int
    written: int = 0

    def told(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.written,
            "total_tokens": self.prompt + self.written,
        }


class _Form:
    """How an answer is written: a completion's and a conversation's differ."""

    whole: str
    part: str
    prefix: str

    def __init__(self, model: str) -> None:
        self._head = {"id": f"{self.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        self.copies = 1

    def head(self, *, part: bool = False) -> dict[str, Any]:
        return {**self._head, "object": self.part if part else self.whole}

    def begun(self, place: int) -> dict[str, Any] | None:
        raise NotImplementedError

    def piece(self, place: int, text: str) -> dict[str, Any]:
        raise NotImplementedError

    def ended(self, place: int, why: str) -> dict[str, Any]:
        raise NotImplementedError

    def choice(self, place: int, text: str, why: str) -> dict[str, Any]:
        raise NotImplementedError


class _Completions(_Form):
    whole = part = "text_completion"
    prefix = "cmpl"

    def __init__(self, model: str, echoes: Sequence[str]) -> None:
        super().__init__(model)
        self._echoes = echoes

    def begun(self, place: int) -> dict[str, Any] | None:
        echo = self._echoes[place // self.copies]
        return self.choice(place, "", None) if echo else None

    def piece(self, place: int, text: str) -> dict[str, Any]:
        return {"text": text, "index": place, "logprobs": None, "finish_reason": None}

    def ended(self, place: int, why: str) -> dict[str, Any]:
        return {**self.piece(place, ""), "finish_reason": why}

    def choice(self, place: int, text: str, why: str | None) -> dict[str, Any]:
        return {**self.piece(place, self._echoes[place // self.copies] + text), "finish_reason": why}


class _Chat(_Form):
    whole, part, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def begun(self, place: int) -> dict[str, Any] | None:
        return self._part(place, {"role": "assistant", "content": ""}, None)

    def piece(self, place: int, text: str) -> dict[str, Any]:
        return self._part(place, {"content": text}, None)

    def ended(self, place: int, why: str) -> dict[str, Any]:
        return self._part(place, {}, why)

    def _part(self, place: int, delta: dict[str, Any], why: str | None) -> dict[str, Any]:
        return {"index": place, "delta": delta, "logprobs": None, "finish_reason": why}

    def choice(self, place: int, text: str, why: str) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": place, "message": message, "logprobs": None, "finish_reason": why}


@dataclasses.dataclass(frozen=True)
class _Piece:
    """place: of the text among those of the request. end: "" while it goes on."""

    place: int
    text: str
    tokens: int
    end: str


class _Run:
    """The texts of one request, from their beginning to their end or the client's."""

    def __init__(self, model: Generator, wanted: Sequence[Wanted], stops: Sequence[str]) -> None:
        self._model, self._wanted, self._stops = model, wanted, stops
        self._numbers: dict[int, int] = {}
        self._pieces = [Pieces(model.tokenizer, stops) for _ in wanted]
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Queue[tuple[int, list[int], str]] = asyncio.Queue()

    def begin(self) -> None:
        for place, one in enumerate(self._wanted):
            self._numbers[place] = self._model.begin(one, self._teller(place))

    def _teller(self, place: int) -> Callable[[list[int], str], None]:
        def tell(tokens: list[int], end: str) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed: the server has stopped
                self._loop.call_soon_threadsafe(self._told.put_nowait, (place, tokens, end))

        return tell

    async def pieces(self) -> AsyncIterator[_Piece]:
        """What is written, as it comes. Raises `Refused` where it fails."""
        left = len(self._wanted)
        try:
            while left:
                place, tokens, end = await self._told.get()
                if place not in self._numbers:
                    continue
                if end.startswith("error"):
                    raise Refused("INTERNAL", end.removeprefix("error: "))
                ends = self._wanted[place].ends
                shown = tokens[:-1] if end == "stop" and tokens and tokens[-1] in ends else tokens
                found = self._pieces[place]
                text = found.add(shown)
                if end or found.stopped:
                    text += found.end()
                    if not end:
                        self._model.cancel(self._numbers[place])
                    del self._numbers[place]
                    left -= 1
                    end = "stop" if found.stopped else end
                if text or end or tokens:
                    yield _Piece(place, text, len(tokens), end)
        finally:
            self.close()

    def close(self) -> None:
        for number in self._numbers.values():
            self._model.cancel(number)
        self._numbers.clear()


async def _collected(run: _Run, form: _Form, usage: Usage) -> list[dict[str, Any]]:
    texts: dict[int, str] = {}
    ends: dict[int, str] = {}
    async for piece in run.pieces():
        texts[piece.place] = texts.get(piece.place, "") + piece.text
        usage.written += piece.tokens
        if piece.end:
            ends[piece.place] = piece.end
    return [form.choice(place, texts[place], ends[place]) for place in sorted(ends)]


class _Stream(StreamingResponse):
    """Events, and the end of what makes them: also where the client is gone before the first."""

    def __init__(self, events: AsyncIterator[bytes], run: _Run, held: contextlib.ExitStack) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._run, self._held = run, held

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._run.close()
            self._held.close()


async def _events(run: _Run, form: _Form, usage: Usage, with_usage: bool) -> AsyncIterator[bytes]:
    head = form.head(part=True)
    more = {"usage": None} if with_usage else {}

    def event(choice: dict[str, Any]) -> bytes:
        return _event({**head, "choices": [choice], **more})

    try:
        for place in range(len(run._wanted)):
            if (first := form.begun(place)) is not None:
                yield event(first)
        async for piece in run.pieces():
            usage.written += piece.tokens
            if piece.text:
                yield event(form.piece(piece.place, piece.text))
            if piece.end:
                yield event(form.ended(piece.place, piece.end))
        if with_usage:
            yield _event({**head, "choices": [], "usage": usage.told()})
        yield b"data: [DONE]\n\n"
    except ParitasError as error:  # the status is sent: what is left is to say it
        yield _event(body_of(refusal(error)))


class _Gone(Exception):
    """The client has hung up."""


async def _while_there(request: Request, answer: Any) -> Any:
    """What `answer` returns, unless the client hangs up before, which cancels it."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, waiting = asyncio.ensure_future(answer), asyncio.ensure_future(gone())
    try:
        await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise _Gone
        return working.result()
    finally:
        for task in (working, waiting):
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task


def body_of(error: Refused) -> dict[str, Any]:
    """An error as OpenAI's servers write it."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    code = getattr(error, "word", None)
    if error.code == "RESOURCE_EXHAUSTED":
        code = code or "overloaded"
    if code is None and "maximum context length" in str(error):
        code = "context_length_exceeded"
    return {"error": {"message": str(error), "type": kind, "param": getattr(error, "param", None), "code": code}}


def said(error: Refused) -> Response:
    headers = {"Retry-After": str(max(1, round(error.after)))} if error.after else {}
    return _json(body_of(error), error.status, headers)


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, dict(headers or {}), "application/json")


def _event(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
