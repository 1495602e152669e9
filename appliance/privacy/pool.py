"""The detectors, as the gate has them: whoever is free gets the next task, and what they answer is checked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import struct
from collections.abc import Callable, Sequence
from typing import Any

from appliance.privacy.asked import DetectorFailed
from appliance.privacy.channel import Frame, Malformed, packed, received, spans_from
from appliance.privacy.kinds import Span
from appliance.privacy.notes import note
from appliance.seal.evidence import running

_CREDENTIALS = struct.Struct("3i")
_WHERE = re.compile(r"\w{1,60} at [\w ]{1,60}(\.py:\d{1,6})?", re.ASCII)
"""As `notes.where` writes it. A detector that isn't itself any more could write anything else there."""
_LANGUAGE = re.compile(r"[a-z-]{0,16}")


class _Worker:
    """One detector's process. It is killed by its descriptor, so never another under the same number."""

    def __init__(self, life: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.life = life
        self.gone = False
        self._reader = reader
        self._writer = writer

    async def ask(self, task: Frame) -> Frame | None:
        """The answer; None when it ended over it."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(packed(task))
            await self._writer.drain()
        return await received(self._reader)

    def kill(self) -> None:
        """End it, also where it is stopped."""
        if not self.gone:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.life, signal.SIGKILL)

    def close(self) -> None:
        """It has ended."""
        self.gone = True
        os.close(self.life)
        self._writer.close()


class Pool:
    """All of them; an `appliance.privacy.asked.Detect`."""

    def __init__(self, listener: socket.socket, template: int, seconds: float, changed: Callable[[], None]) -> None:
        """Workers come to `listener`; the process `template` starts them. A task may take `seconds`.

        `changed` is called when one has come or gone.
        """
        self._listener = listener
        self._template = template
        self._seconds = seconds
        self._changed = changed
        self._workers: set[_Worker] = set()
        self._free: asyncio.Queue[_Worker] = asyncio.Queue()
        self._joining: set[asyncio.Task[None]] = set()
        self._replaced = True
        self.started = 0
        """How many have come so far."""

    @property
    def running(self) -> int:
        """How many there are now."""
        return len(self._workers)

    def start(self) -> None:
        """Take in workers from now on."""
        loop = asyncio.get_running_loop()
        self._listener.settimeout(0)
        loop.add_reader(self._listener, self._on_worker)
        life = os.pidfd_open(self._template)

        def ended() -> None:
            loop.remove_reader(life)
            self._replaced = False

        loop.add_reader(life, ended)

    def close(self) -> None:
        """End them all."""
        for worker in self._workers:
            worker.kill()

    async def find(self, texts: Sequence[str], *, strict: bool = False) -> list[list[Span]]:
        """See `Detect`."""
        return await self._ask("find", texts, spans_from, strict=strict)

    async def language(self, texts: Sequence[str]) -> list[str]:
        """See `Detect`."""
        return await self._ask("language", texts, _language)

    async def known(self, texts: Sequence[str]) -> list[list[tuple[int, int]]]:
        """See `Detect`."""
        return await self._ask("known", texts, _words)

    async def _ask(self, do: str, texts: Sequence[str], read: Callable[[str, object], Any], **more: Any) -> list[Any]:
        if not texts:
            return []
        worker = await self._next()
        try:
            answer = await worker.ask({"do": do, "texts": list(texts), "seconds": self._seconds, **more})
            answers = _answers(answer, len(texts))
            checked = [read(text, each) for text, each in zip(texts, answers, strict=True)]
        except (Malformed, DetectorFailed) as why:
            worker.kill()
            note(str(why))
            raise DetectorFailed(str(why)) from None
        except BaseException:  # it works on what nobody waits for any more
            worker.kill()
            raise
        self._free.put_nowait(worker)
        return checked

    async def _next(self) -> _Worker:
        while self._workers or self._replaced:
            worker = await self._free.get()
            if not worker.gone:
                return worker
        raise DetectorFailed("no detector is left, and none can be started")

    def _on_worker(self) -> None:
        try:
            channel, _ = self._listener.accept()
        except OSError:  # it ended before it was let in
            return
        pid, user, _ = _CREDENTIALS.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        with contextlib.suppress(OSError):  # it has ended
            life = os.pidfd_open(pid)
            if user == os.geteuid() and running(pid).parent == self._template:
                self._join(life, channel)
                return
            os.close(life)
        channel.close()

    def _join(self, life: int, channel: socket.socket) -> None:
        task = asyncio.get_running_loop().create_task(self._take_in(life, channel))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    async def _take_in(self, life: int, channel: socket.socket) -> None:
        worker = _Worker(life, *await asyncio.open_unix_connection(sock=channel))
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(life)
            worker.close()
            self._workers.discard(worker)
            self._changed()

        loop.add_reader(life, ended)
        self._workers.add(worker)
        self._free.put_nowait(worker)
        self.started += 1
        self._changed()


def _answers(answer: Frame | None, count: int) -> list[Any]:
    match answer:
        case {"answers": list(answers)} if len(answers) == count:
            return answers
        case {"error": str(error)} if _WHERE.fullmatch(error):
            raise DetectorFailed(f"a detector failed: {error}")
        case None:
            raise DetectorFailed("a detector ended, or was too slow")
    raise Malformed("a detector's answer is none")


def _language(text: str, told: object) -> str:
    if isinstance(told, str) and _LANGUAGE.fullmatch(told):
        return told
    raise Malformed("a detector's language is none")


def _words(text: str, told: object) -> list[tuple[int, int]]:
    words = []
    for each in told if isinstance(told, list) else [None]:
        match each:
            case [int(start), int(end)] if 0 <= start < end <= len(text):
                words.append((start, end))
            case _:
                raise Malformed("a word is nowhere in the text")
    return words
