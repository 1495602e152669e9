"""The control socket: how `appliance apply` and `appliance status` talk to the running appliance.

A Unix socket of mode 0600 in the private state folder, so whoever may open it is the administrator. It has
none of the API's paths, and the API has none of its.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from appliance.accounts.keys import LOCAL
from appliance.administration import Appliance
from appliance.api import policy
from appliance.api.bodies.base import parse
from appliance.api.bodies.policy import Explain, explained
from appliance.api.wire import PEER
from appliance.audit.archive import Act, Actor, Archive
from appliance.audit.orders import ORDERS, refused
from appliance.core import ServiceClass
from appliance.egress.assurance import Verdict
from appliance.engines.engine import Engine
from appliance.engines.served import Tell
from appliance.errors import ApplianceError, Invalid, NotAnswering, NotRunning, in_full
from appliance.proposal import Proposal
from appliance.trial import Held, try_out

_LONGEST_LOAN = 24 * 3600.0
_LONGEST_LINE = 1 << 22
_TAKEN = frozenset({"act", "by", "key", "name", "of", "phase", "target"})
_OVERFLOW = 65534
"""What the kernel shows for a user whom a namespace doesn't know."""


def build(appliance: Appliance) -> Starlette:
    """The application behind the control socket."""
    turn = asyncio.Lock()

    async def status(_: Request) -> Response:
        return JSONResponse(appliance.status())

    async def apply(request: Request) -> Response:
        return StreamingResponse(_applying(appliance, _host(request)), media_type="application/x-ndjson")

    async def plan(request: Request) -> Response:
        body = await request.body()
        version = (json.loads(body) or {}).get("version") if body else None
        return StreamingResponse(_planning(appliance, version), media_type="application/x-ndjson")

    async def places(_: Request) -> Response:
        engines = appliance.probing.engines()
        missing = {place: seal.missing for place, seal in appliance.probing.seals().items()}
        return JSONResponse({
            "engines": {place: process.pid for place, process in engines.items()},
            "folders": {place: process.folder.name for place, process in engines.items()},
            "missing": {"gateway": appliance.seal.missing, **missing},
        })  # fmt: skip

    async def probe(request: Request) -> Response:
        return JSONResponse(await appliance.probing.probe(await request.json()))

    async def verdict(request: Request) -> Response:
        told = await request.json()
        appliance.take(Verdict(**told | {"failed": tuple(told["failed"])}))
        return JSONResponse({})

    async def lend(request: Request) -> Response:
        asked = await request.json()
        seconds = min(float(asked["seconds"]), _LONGEST_LOAN)
        service_class = ServiceClass(asked.get("class", ServiceClass.STANDARD))
        try:
            async with appliance.archive.act("keys.lend", _host(request), key=LOCAL, seconds=int(seconds)):
                return JSONResponse({"key": appliance.house.keys.lend(seconds, service_class), "seconds": seconds})
        except ApplianceError as refusal:
            return JSONResponse({"error": in_full(refusal)})

    async def trial(request: Request) -> Response:
        card, by = str((await request.json())["card"]), _host(request)

        def trial(tell: Tell) -> AbstractAsyncContextManager[tuple[str, Engine]]:
            return try_out(turn, appliance.fleet, appliance.archive, appliance.config, card, tell, by)

        return Held(trial, appliance.stopping)

    async def act(request: Request) -> Response:
        try:
            return JSONResponse({"seq": await _on_record(appliance.archive, await request.json(), _host(request))})
        except ValueError as refusal:
            return JSONResponse({"error": str(refusal)}, 400)
        except ApplianceError as refusal:
            return JSONResponse({"error": in_full(refusal)})

    async def erase(request: Request) -> Response:
        asked = await request.json()
        try:
            return JSONResponse(asdict(await appliance.erase(str(asked["subject"]), _host(request), asked["reason"])))
        except ApplianceError as refusal:
            return JSONResponse({"error": in_full(refusal), "code": getattr(refusal, "code", None)})

    async def explain(request: Request) -> Response:
        settings = appliance.config.settings
        try:
            wanted = parse(Explain, await request.body())
            asked = wanted.asked(settings.privacy, settings.accounts, settings.limits)
            explanation = await policy.explain(appliance.house, asked, _host(request))
            return JSONResponse(await asyncio.to_thread(explained, explanation, settings.privacy, words=True))
        except ApplianceError as refusal:
            return JSONResponse({"error": in_full(refusal), "code": getattr(refusal, "code", None)})

    async def rollout(request: Request) -> Response:
        asked, by, rollouts = await request.json(), _host(request), appliance.rollouts
        try:
            match asked["do"]:
                case "promote":
                    done = await rollouts.promote(str(asked["name"]), by)
                case "drop":
                    done = await rollouts.drop(str(asked["name"]), by)
                case _:
                    done = await rollouts.weigh(str(asked["name"]), float(asked["percent"]), by)
        except ApplianceError as refusal:
            return JSONResponse({"error": in_full(refusal)})
        return JSONResponse({"done": done})

    def order(name: str) -> Route:
        async def carry_out(request: Request) -> Response:
            try:
                return JSONResponse(await appliance.carry_out(name, await request.json(), _host(request)))
            except ApplianceError as refusal:
                return JSONResponse(refused(refusal))

        return Route(f"/audit/{name}", carry_out, methods=["POST"])

    return Starlette(
        routes=[
            Route("/status", status),
            Route("/apply", apply, methods=["POST"]),
            Route("/plan", plan, methods=["POST"]),
            Route("/rollout", rollout, methods=["POST"]),
            Route("/keys/lend", lend, methods=["POST"]),
            Route("/trial", trial, methods=["POST"]),
            Route("/egress/places", places),
            Route("/egress/probe", probe, methods=["POST"]),
            Route("/egress/verdict", verdict, methods=["POST"]),
            Route("/audit/acts", act, methods=["POST"]),
            Route("/audit/erase", erase, methods=["POST"]),
            Route("/policy/explain", explain, methods=["POST"]),
            *map(order, ORDERS),
        ]
    )


def _host(request: Request) -> Actor:
    """Whoever asks here, as the kernel says: the socket is open to the administrators of this host only."""
    uid = int(request.scope["extensions"][PEER]["uid"])
    # under a seal without privileges this process knows one user, and sees all others as one: only root could connect
    return Actor.host(0 if uid == _OVERFLOW and uid != os.getuid() else uid)


async def _on_record(archive: Archive, told: dict[str, Any], by: Actor) -> int:
    """Put on record what a command on this host begins to do, or has done; the number of the beginning's record.

    Raises ValueError for what can't be put there.
    """
    name, phase, of = str(told["name"]), told["phase"], told.get("of")
    if taken := _TAKEN & told.get("told", {}).keys():
        raise ValueError(f"told: {', '.join(sorted(taken))} is the log's own to say")
    about = {"target": told.get("target"), "key": told.get("key"), **told.get("told", {})}
    if phase == "intent":
        return await archive.begin(name, by, **about)
    act = Act(int(of or 0))
    act.tell(**about)
    archive.end(name, act, "done" if phase == "done" else "failed")
    return act.seq


Put = Callable[[dict[str, Any]], None]


def _applying(appliance: Appliance, by: Actor) -> AsyncIterator[str]:
    """Lines of JSON: `{"progress": ...}` and a `{"plan": ...}`, then one of `{"changes": [...]}` and `{"error": ...}`.

    It goes on when nobody reads them any more.
    """

    async def work(put: Put) -> dict[str, Any]:
        def tell(text: str) -> None:
            put({"progress": text})

        def show(proposal: Proposal) -> None:
            put({"plan": proposal.told()})

        return {"changes": await appliance.apply(tell, by, show)}

    return _lines("apply", work)


def _planning(appliance: Appliance, version: int | None) -> AsyncIterator[str]:
    """Lines of JSON: `{"progress": ...}`, then one of `{"proposal": ...}` and `{"error": ...}`."""

    async def work(put: Put) -> dict[str, Any]:
        proposal = await appliance.plan(lambda text: put({"progress": text}), version)
        return {"proposal": proposal.told()}

    return _lines("plan", work)


async def _lines(what: str, work: Callable[[Put], Awaitable[dict[str, Any]]]) -> AsyncIterator[str]:
    """What `work` puts, and in the end what it returns, or why it failed, as lines of JSON."""
    lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    last: dict[str, Any] = {}

    async def worked() -> None:
        try:
            last.update(await work(lines.put_nowait))
        except ApplianceError as refusal:
            last["error"] = in_full(refusal)
            if isinstance(refusal, Invalid):
                last.update(file=refusal.file, problems=[asdict(problem) for problem in refusal.problems])
        except Exception as bug:  # whoever waits for the last line would wait for ever
            logging.getLogger("appliance.control").exception("%s failed", what)
            last.update({"error": f"{type(bug).__name__}; the appliance's log has more"})
        lines.put_nowait(last)

    # goes on when the administrator's terminal is closed: a swap is never left half done
    task = asyncio.create_task(worked())
    while True:
        line = await lines.get()
        yield json.dumps(line) + "\n"
        if line is last:
            await task
            return


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, patience: float | None) -> None:
        super().__init__("appliance", timeout=patience)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def ask(
    state: Path, method: str, path: str, body: dict[str, Any] | None = None, patience: float | None = None
) -> Iterator[dict[str, Any]]:
    """Ask the appliance that runs on `state`; yield the JSON of each line of its answer.

    Raises `NotRunning` when none does, or when it breaks off or says too much; `NotAnswering` when one runs, but hasn't
    said all within `patience` seconds.
    """
    connection = _UnixConnection(state / "run" / "control.sock", patience)
    ends = None if patience is None else time.monotonic() + patience
    try:
        connection.request(
            method, path, json.dumps(body) if body is not None else None, {"content-type": "application/json"}
        )
        response = connection.getresponse()
        while line := response.readline(_LONGEST_LINE):
            if not line.endswith((b"\n", b"}")):
                raise http.client.HTTPException("it says too much at once")
            yield json.loads(line)
            if ends is not None and connection.sock is not None:
                connection.sock.settimeout(max(0.001, ends - time.monotonic()))
    except (ValueError, RecursionError) as cause:
        raise NotRunning(f"the appliance on {state} says what can't be understood: {type(cause).__name__}") from cause
    except (FileNotFoundError, ConnectionRefusedError) as cause:
        raise NotRunning(f"no appliance runs on {state}; `make serve` starts one") from cause
    except (TimeoutError, BlockingIOError) as cause:  # the second: so many wait already that no more can
        raise NotAnswering(f"an appliance runs on {state}, but doesn't answer within {patience:g} seconds") from cause
    except (OSError, http.client.HTTPException) as cause:
        raise NotRunning(f"the appliance on {state} broke off: {cause}") from cause
    finally:
        connection.close()
