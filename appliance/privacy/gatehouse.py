"""The gate's process: it looks through requests for the gateway, and is the only one that can clear them.

It is a fork of the template, made when that is sealed. The key that clearances are signed with is made here, after the
fork: no detector, and not the gateway either, ever has it in memory.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial

import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.clearance import NotCleared
from appliance.config import Privacy, Provider
from appliance.privacy.asked import Asked, Explanation
from appliance.privacy.channel import (
    Frame,
    Malformed,
    asked_from,
    explanation_as_json,
    packed,
    received,
    text_as_bytes,
    verdict_as_json,
)
from appliance.privacy.gate import Gate
from appliance.privacy.notes import note, where
from appliance.privacy.pool import Pool
from appliance.privacy.verdict import Held, Verdict

_FAILED = "the gate failed; what it printed says where"


def keep(
    channel: socket.socket, listener: socket.socket, template: int, privacy: Privacy,
    providers: Mapping[str, Provider], tell_key: Callable[[bytes], object],
) -> None:  # fmt: skip
    """Serve the gateway at `channel` until it ends; detectors come to `listener`, from the process `template`.

    `tell_key` is told the public key, raw, as soon as there is one.
    """
    key = Ed25519PrivateKey.generate()
    tell_key(key.public_key().public_bytes_raw())

    async def run() -> None:
        house = _Gatehouse(listener, template, privacy, providers, key)
        await house.serve(*await asyncio.open_unix_connection(sock=channel))

    # from Python 3.12 on, asyncio's own loop sends by a system call that the seal refuses
    uvloop.run(run())


class _Gatehouse:
    def __init__(
        self, listener: socket.socket, template: int, privacy: Privacy, providers: Mapping[str, Provider],
        key: Ed25519PrivateKey,
    ) -> None:  # fmt: skip
        self._seconds = privacy.detectors.seconds
        self._pool = Pool(listener, template, self._seconds, self._tell_standing)
        self._gate = Gate(privacy, providers, self._pool, key)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._writer: asyncio.StreamWriter

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._pool.start()
        try:
            while (frame := await received(reader)) is not None:
                self._on_frame(frame)
        except Malformed as why:
            note(f"{why}: the gateway is not itself any more")
        finally:
            self._pool.close()

    def _on_frame(self, frame: Frame) -> None:
        match frame:
            case {"do": "protect", "number": int(number)}:
                self._begin(number, partial(self._protect, asked_from(frame)))
            case {"do": "explain", "number": int(number)}:
                self._begin(number, partial(self._explain, asked_from(frame)))
            case {
                "do": "clear", "number": int(number), "ticket": str(ticket), "provider": str(provider),
                "method": str(method), "path": str(path), "body": str(body),
            }:  # fmt: skip
                self._begin(number, partial(self._clear, ticket, provider, method, path, body))
            case {"do": "forget", "ticket": str(ticket)}:
                self._gate.forget(ticket)
            case {"do": "drop", "number": int(number)}:
                if task := self._tasks.get(number):
                    task.cancel()
            case _:
                raise Malformed("what came is no order")

    def _begin(self, number: int, work: Callable[[], Awaitable[Frame]]) -> None:
        async def answer() -> None:
            self._say({"number": number, **await work()})

        task = self._tasks[number] = asyncio.get_running_loop().create_task(answer())
        task.add_done_callback(lambda _: self._tasks.pop(number, None))

    async def _protect(self, asked: Asked) -> Frame:
        try:
            return {"verdict": verdict_as_json(await self._gate.protect(self._bounded(asked)))}
        except Exception as error:
            return {"verdict": verdict_as_json(_failed(asked, error))}

    async def _explain(self, asked: Asked) -> Frame:
        try:
            return {"explanation": explanation_as_json(await self._gate.explain(self._bounded(asked)))}
        except Exception as error:
            return {"explanation": explanation_as_json(Explanation(_failed(asked, error)))}

    def _bounded(self, asked: Asked) -> Asked:
        return replace(asked, limit_seconds=min(asked.limit_seconds, self._seconds))

    async def _clear(self, ticket: str, provider: str, method: str, path: str, body: str) -> Frame:
        try:
            return {"clearance": self._gate.clear(ticket, provider, method, path, text_as_bytes(body))}
        except NotCleared as why:
            return {"not_cleared": str(why)}
        except Exception as error:
            note(where(error))
            return {"not_cleared": _FAILED}

    def _say(self, message: Frame) -> None:
        try:
            data = packed(message)
        except Malformed as why:  # who asked takes nothing for an answer that keeps the request
            note(str(why))
            data = packed({"number": message["number"]})
        self._writer.write(data)

    def _tell_standing(self) -> None:
        pool = self._pool
        self._say({"number": 0, "running": pool.running, "started": pool.started})


def _failed(asked: Asked, error: Exception) -> Verdict:
    note(where(error))
    return asked.stays(Held.GATE, _FAILED)
