"""The gate, as the gateway holds it: asked about each request that might leave, and believed only if it answers.

Whatever goes wrong on the way, the request stays in the house.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import select
import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from appliance.clearance import NotCleared
from appliance.config import Config
from appliance.errors import ConfigInvalid, GateFailed, Problem
from appliance.privacy.asked import Asked, Explanation
from appliance.privacy.channel import (
    Frame,
    Malformed,
    asked_as_json,
    bytes_as_text,
    explanation_from,
    packed,
    received,
    verdict_from,
)
from appliance.privacy.notes import note, where
from appliance.privacy.verdict import Held, Verdict
from appliance.seal.child import Child, any_ended
from appliance.seal.parts import Seal

# -P: nothing is imported from wherever the appliance was started.
_COMMAND = ["-P", "-m", "appliance.privacy.process"]
# else numerical libraries start threads as they are loaded, and a process with threads can't seal itself
_ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
}
_MODEL = ("model.onnx", "tokenizer.json", "config.json")
PLACE = "gate"
"""What a verification calls these processes, and the folder below `state/run` that is all they see of the state."""
_MOST_PAYLOAD = 1024 * 1024
"""The most that `privacy.gate.most_kib` can be set to."""
_WAITING_EACH = 4
"""Requests for each detector that may be looked through or wait for it; more stay in the house at once."""
_GRACE = 1.0
"""Seconds beside a request's own limit in which the gate can say itself that it took too long."""
_CLEAR_SECONDS = 5.0


class Guard:
    """The gate and its detectors. They end when `close` is called, and when this process ends, however it ends."""

    @classmethod
    def start(cls, config: Config) -> Guard:
        """Start them and wait until they are sealed, some seconds. Call it before the gateway seals itself.

        Raises `SealUnavailable` when the kernel refuses a part that `egress.seal` demands, `ConfigInvalid`, and
        `GateFailed`, also for lists of the site's that can't be read.
        """
        return cls(config)

    def __init__(self, config: Config) -> None:
        """See `start`."""
        privacy, egress = config.settings.privacy, config.settings.egress
        detectors = privacy.detectors
        if detectors.rampart is not None:
            detectors = detectors.model_copy(update={"rampart": _model(config, detectors.rampart)})
            privacy = privacy.model_copy(update={"detectors": detectors})
        folder = config.state / "run" / PLACE
        folder.mkdir(mode=0o700)
        self._channel, far = socket.socketpair()
        with far:
            self._child = Child("gate", _COMMAND, [far], GateFailed, _ONE_THREAD)
        try:
            self._child.say(
                {
                    "privacy": privacy.model_dump(mode="json"),
                    "lists": str(config.lists),
                    "providers": {
                        # without their keys, which are nothing of the gate's
                        name: provider.model_dump(mode="json", exclude={"key"})
                        for name, provider in egress.providers.items()
                    },
                    "folder": str(folder),
                    "best_effort": egress.seal == "best-effort",
                }
            )
            seal, told = self._child.sealed()
            self.public_key = bytes.fromhex(told["public_key"])
            """With which clearances are checked: Ed25519, raw."""
            self.pids = {self._child.pid: "template", int(told["gate"]): PLACE}
            """What each process id is; the detectors are children of the first."""
            self._lives = [os.pidfd_open(pid) for pid in self.pids]
        except BaseException:
            self._end()
            raise
        self.seals: dict[str, Seal] = {PLACE: seal}
        """What holds around them all."""
        self._seconds = detectors.seconds
        self._most = _WAITING_EACH * detectors.processes
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Frame]] = {}
        self._looking = 0
        self._connected = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._listening: asyncio.Task[None] | None = None
        self._gone = False
        self._verdicts: Counter[str] = Counter()
        self._standing: dict[str, float] = {"running": 0, "started": 0}

    async def protect(self, asked: Asked) -> Verdict:
        """May it leave, and in which words? Never raises but when it is cancelled: whatever fails is held."""
        verdict = await self._protect(asked)
        self._verdicts[verdict.held or "released"] += 1
        return verdict

    async def _protect(self, asked: Asked) -> Verdict:
        if refusal := self._refusal(asked):
            return refusal
        try:
            return verdict_from((await self._look("protect", asked)).get("verdict"))
        except Exception as error:
            return asked.stays(Held.GATE, _in_words(error))

    async def explain(self, asked: Asked) -> Explanation:
        """What would happen to it, and why; nothing of it is kept. Fails as `protect` does."""
        if refusal := self._refusal(asked):
            return Explanation(refusal)
        try:
            return explanation_from((await self._look("explain", asked)).get("explanation"))
        except Exception as error:
            return Explanation(asked.stays(Held.GATE, _in_words(error)))

    async def clear(self, ticket: str, provider: str, method: str, path: str, body: bytes) -> str:
        """The clearance of these final bytes for that provider: the value of the header. Raises `NotCleared`."""
        order = {
            "do": "clear", "ticket": ticket, "provider": provider, "method": method, "path": path,
            "body": bytes_as_text(body),
        }  # fmt: skip
        try:
            match await self._ask(order, _CLEAR_SECONDS):
                case {"clearance": str(clearance)}:
                    return clearance
                case {"not_cleared": str(why)}:
                    refusal = why
                case _:
                    refusal = "the gate gave an answer that is none"
        except Exception as error:
            refusal = _in_words(error)
        raise NotCleared(refusal)

    def forget(self, ticket: str) -> None:
        """Nothing more is cleared for this ticket, and nothing of its request is kept."""
        self._say({"do": "forget", "ticket": ticket})

    async def ended(self) -> None:
        """Return when the gate, or what starts detectors, has ended: nothing, or less and less, can leave from then on.

        One caller at a time; cancel it before `close`.
        """
        await any_ended(self._lives)

    async def probe(self, order: Mapping[str, Any]) -> dict[str, str]:
        """Carry out an order of `appliance.seal.probes` inside their seal: what became of each attempt.

        Raises `GateFailed`, and `TimeoutError` after some seconds without an answer.
        """
        return await self._child.probe(order)

    def describe(self) -> dict[str, float]:
        """For metrics: what was released and what was held for which reason, and how the detectors stand."""
        return {
            "released": self._verdicts["released"],
            **{f"held_{held}": self._verdicts[held] for held in Held},
            "looking": self._looking,
            "detectors": self._standing["running"],
            "detectors_started": self._standing["started"],
            "detectors_replaced": float(not _have_ended(self._lives[:1])),
            "gone": float(self._gone or _have_ended(self._lives[1:])),
        }

    def close(self) -> None:
        """End them."""
        if self._listening is not None:
            self._listening.cancel()
        for life in self._lives:
            os.close(life)
        self._lives = []
        self._end()

    def _end(self) -> None:
        self._channel.close()
        self._child.end()
        self._child.wait()

    def _refusal(self, asked: Asked) -> Verdict | None:
        if len(asked.payload) > _MOST_PAYLOAD:
            return asked.stays(Held.TOO_LARGE, "it is larger than anything that may leave")
        if self._looking >= self._most:
            return asked.stays(Held.DETECTOR, "too many requests are being looked through")
        return None

    async def _look(self, do: str, asked: Asked) -> Frame:
        self._looking += 1
        try:
            seconds = min(asked.limit_seconds, self._seconds) + _GRACE
            return await self._ask({"do": do, **asked_as_json(asked)}, seconds)
        finally:
            self._looking -= 1

    async def _ask(self, order: Frame, seconds: float) -> Frame:
        """The gate's answer. Raises `GateFailed`, `TimeoutError` and `Malformed`."""
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        await self._connected.wait()
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            if not self._say({"number": number, **order}):
                raise GateFailed("the gate has ended")
            async with asyncio.timeout(seconds):
                told: Frame = await answer
                return told
        finally:
            if self._waiting.pop(number, None) is not None:
                self._say({"number": number, "do": "drop"})

    def _say(self, order: Frame) -> bool:
        """Whether there is anybody to hear it."""
        if self._writer is None or self._writer.is_closing():
            return False
        self._writer.write(packed(order))
        return True

    async def _listen(self) -> None:
        """A task of its own: were the connection made by the first who asks, it would end with him."""
        try:
            reader, self._writer = await asyncio.open_unix_connection(sock=self._channel)
            self._connected.set()
            while (frame := await received(reader)) is not None:
                self._on_frame(frame)
        except (Malformed, OSError) as error:
            note(_in_words(error))
        finally:
            self._gone = True
            self._connected.set()
            if self._writer is not None:
                self._writer.close()
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(GateFailed("the gate has ended"))

    def _on_frame(self, frame: Frame) -> None:
        match frame:
            case {"number": 0, "running": int(running), "started": int(started)}:
                self._standing = {"running": running, "started": started}
            case {"number": int(number)} if (answer := self._waiting.pop(number, None)) is not None:
                if not answer.done():
                    answer.set_result(frame)
            case {"verdict": {"ticket": str(ticket)}} if ticket:  # it came too late
                self.forget(ticket)


def _in_words(error: Exception) -> str:
    """Why there is no answer; holds nothing of the request."""
    match error:
        case GateFailed() | Malformed():
            return str(error)
        case TimeoutError():
            return "the gate gave no answer in time"
    note(where(error))
    return "the gate can't be asked"


def _model(config: Config, folder: Path) -> Path:
    found = config.path(folder)
    if lacking := [name for name in _MODEL if not (found / name).is_file()]:
        what = f"{found} lacks {', '.join(lacking)}; name a folder that has all, or leave it out"
        raise ConfigInvalid(str(config.file), [Problem("privacy.detectors.rampart", what)])
    return found


def _have_ended(lives: Sequence[int]) -> bool:
    """Whether one of the processes has ended, or all were closed."""
    ended = select.poll()
    for life in lives:
        ended.register(life, select.POLLIN)
    return not lives or bool(ended.poll(0))
