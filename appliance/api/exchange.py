"""One HTTP exchange: authenticate, read, parse, run the pipeline, answer; or say why not."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from appliance.accounts.keys import LOCAL, Keyring
from appliance.accounts.reader import Reader
from appliance.accounts.roles import Permission
from appliance.accounts.watch import Watch
from appliance.api import envelope
from appliance.api.admission import Purpose, Tokens, admit, purpose
from appliance.api.bodies.base import Body, Bound, parse
from appliance.audit.archive import Archive
from appliance.config import Accounts, Limits, Privacy
from appliance.config.audit import Audit
from appliance.core import Caller, Dialect, Operation, Request
from appliance.dispatch.turns import priority_of
from appliance.engines.fleet import TRIAL, Fleet
from appliance.engines.served import Served
from appliance.errors import BodyTooLarge, Loading, Refused
from appliance.observe import Metrics
from appliance.pipeline import Pipeline
from appliance.privacy.guard import Guard

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_STREAM_HEAD = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # tells a proxy in front to pass events on as they come
]


class Failed(Refused):
    """An error of our own making; what went wrong is in the log, under the request's id."""

    status = 500


class CallerGone(Exception):
    """The caller closed the connection before its answer was complete."""


@dataclass(slots=True)
class House:
    """What the API stands on. `limits`, `accounts` and `audit` may be replaced while running."""

    keys: Keyring
    fleet: Fleet
    pipeline: Pipeline
    metrics: Metrics
    limits: Limits
    accounts: Accounts
    watch: Watch
    usage: Reader
    archive: Archive
    audit: Audit
    privacy: Privacy
    identity: Tokens | None = None
    guard: Guard | None = None
    """The privacy gate; None where nothing may leave."""

    def logged(self, id_: str) -> str:
        """A request's id as it stands in every log: see `audit.hidden`."""
        return self.archive.subjects.hidden.request(id_)

    def served(self, name: str, caller: Caller | None) -> Served:
        """What answers for `name`. Raises `NotFound`, also for a card on trial, which only keys lent here know."""
        if name.startswith(TRIAL) and (caller is None or caller.key_id != LOCAL):
            raise self.fleet.unknown(name)
        return self.fleet.find(name)


def request_id(scope: Scope) -> str:
    """The caller's `x-request-id` where it is a sensible one, else a new one. The same for each call with a scope."""
    known: str | None = scope.get("request_id")
    if known is not None:
        return known
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return f"req_{secrets.token_hex(12)}"


async def read_body(receive: Receive, most: int) -> bytes:
    """The whole body. Raises `BodyTooLarge`, or `CallerGone`."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        body: bytes = message.get("body", b"")
        if len(body) > most:
            raise BodyTooLarge(f"the body is over {most} bytes", code="body_too_large")
        return body
    parts, size = [], 0
    while True:
        if message["type"] == "http.disconnect":
            raise CallerGone
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > most:
            raise BodyTooLarge(f"the body is over {most} bytes", code="body_too_large")
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()


class HttpReply:
    """A `Reply` over ASGI."""

    __slots__ = ("_dialect", "_id", "_noted", "_send", "begun")

    def __init__(self, send: Send, id_: str, dialect: Dialect) -> None:
        self._send = send
        self._id = id_
        self._dialect = dialect
        self._noted: dict[bytes, bytes] = {}
        self.begun = False

    def note(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Send `headers`, too, at the head of what comes; of one name the last."""
        self._noted.update(headers)

    async def whole(self, body: bytes) -> None:
        """Send a JSON answer under 200."""
        await self._answer(200, body)

    async def begin(self) -> None:
        """Send the head of an event stream."""
        self.begun = True
        headers = [*_STREAM_HEAD, (b"x-request-id", self._id.encode()), *self._noted.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def frames(self, data: bytes) -> None:
        """Send events; waits while the caller reads slowly."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """Close the event stream."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def refuse(self, refusal: Refused) -> None:
        """Send an error: as an answer, or as the last event of a stream that has begun."""
        if self.begun:
            await self.frames(envelope.event(refusal, self._dialect, self._id))
            await self.end()
            return
        self.note(envelope.headers(refusal))
        await self._answer(refusal.status, envelope.whole(refusal, self._dialect, self._id))

    async def _answer(self, status: int, body: bytes) -> None:
        self.begun = True
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", self._id.encode()),
            *self._noted.items(),
        ]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


class Exchange(Response):
    """Answers one request for an operation. A starlette response, so that FastAPI hands over everything."""

    background = None

    def __init__(self, house: House, operation: Operation, body: type[Body], permission: Permission) -> None:
        self._house = house
        self._operation = operation
        self._body = body
        self.permission = permission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the exchange. Never raises but for a bug in the server underneath."""
        id_ = request_id(scope)
        reply = HttpReply(send, id_, self._operation.dialect)
        house = self._house
        request = None
        try:
            caller = await admit(scope, self.permission, house)
            wanted = purpose(scope, caller, house.accounts.use_cases, house.privacy.floor)
            raw = await read_body(receive, house.limits.body_bytes)
            asked = partial(self._request, house.logged(id_), caller, wanted, raw)
            request = asked()
            await while_listened_to(receive, house.pipeline.run(request, reply, asked))
        except Refused as refusal:
            house.metrics.refusals.labels(refusal.code or "other").inc()
            if request is None:  # else the pipeline has written its line
                house.pipeline.refused(house.logged(id_), scope.get("caller"), self._operation.name, refusal)
            await reply.refuse(refusal)
        except CallerGone:
            pass
        except asyncio.CancelledError:  # only the server's end does that, when its time to drain is over
            await reply.refuse(Loading("the appliance is stopping; try again later", code="stopping", retry_after=30))
            raise
        except Exception as bug:  # whatever it is, the caller gets an answer without its details
            # the type and place only: the text of an unforeseen error could hold a prompt
            trace = bug.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
            told = house.logged(id_), type(bug).__name__, where
            logging.getLogger("appliance.api").error("request %s: %s at %s", *told)
            await reply.refuse(Failed("the appliance failed; the log has more under this request's id"))

    def _request(self, id_: str, caller: Caller, wanted: Purpose, raw: bytes, model: str | None = None) -> Request:
        """What `raw` asks for, of `model` instead of the one that it names."""
        body = parse(self._body, raw)
        if model is not None:
            body.model = model
        served = self._house.served(body.model, caller)
        body.check(Bound(self._house.limits, served.context_length))
        model, usage_wanted = body.model, body.wants_usage()  # before `payload` sets what is ours to set
        priority = priority_of(wanted.service_class, served)
        payload = body.payload(served.upstream_name, served.default_tokens, priority)
        prompt, completion = body.most_tokens(payload, served.context_length)
        return Request(
            id=id_,
            caller=caller,
            operation=self._operation,
            model=model,
            stream=body.wants_stream(),
            choices=body.wanted_choices(),
            usage_wanted=usage_wanted,
            payload=payload,
            most_prompt_tokens=prompt,
            most_completion_tokens=completion,
            use_case=wanted.use_case,
            service_class=wanted.service_class,
            data_class=wanted.data_class,
            local_only=wanted.local_only,
        )


async def while_listened_to(receive: Receive, work: Awaitable[None]) -> None:
    """Do `work`; cancel it and raise `CallerGone` if the caller leaves before it is done."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - always inside one
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        await work
    except asyncio.CancelledError:
        if gone and task.uncancel() == 0:
            raise CallerGone from None
        raise
    finally:
        watcher.cancel()
