"""A line for each request."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path
from typing import Protocol

from appliance.core import Caller
from appliance.errors import Refused
from appliance.observe.log import Rotating
from appliance.observe.record import Record

_LOG_BYTES = 64 * 2**20
_FLUSH_SECONDS = 0.5


class Persons(Protocol):
    """How whoever uses the appliance is shown in logs."""

    def caller(self, caller: Caller) -> str:
        """In place of the key's id."""

    def text(self, text: str) -> str:
        """A line of ours that may name keys, as it may be shown."""


class AccessLog:
    """One JSON line per request, in a file that rotates at 64 MiB.

    Lines are written twice a second: a write for each request would take longer than making the line. What
    must not be lost belongs in the audit log, not here.
    """

    def __init__(self, folder: Path, persons: Persons) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._persons = persons
        self._handler = Rotating(folder / "requests.log", maxBytes=_LOG_BYTES, backupCount=8, encoding="utf-8")
        self._lines: list[str] = []

    def write(self, record: Record) -> None:
        """Note how a request went."""
        request = record.request
        self._add(
            {
                "time": round(time.time(), 3),
                "request": request.id,
                "key": self._persons.caller(request.caller),
                "model": request.model,
                "version": record.version or None,
                "operation": request.operation.name,
                "provider": record.provider,
                "outcome": record.outcome,
                "status": record.status,
                "prompt_tokens": record.usage.prompt_tokens,
                "completion_tokens": record.usage.completion_tokens,
                "first_token_ms": round((record.first - record.began) * 1000, 1) if record.first else None,
                "total_ms": round((record.ended - record.began) * 1000, 1),
            }
        )

    def refused(self, id_: str, caller: Caller | None, operation: str | None, refusal: Refused) -> None:
        """Note a request that was refused before it was known to be one for a model."""
        self._add(
            {
                "time": round(time.time(), 3),
                "request": id_,
                "key": self._persons.caller(caller) if caller is not None else None,
                "operation": operation,
                "outcome": "refused",
                "status": refusal.status,
                "code": refusal.code,
                "reason": self._persons.text(refusal.reason) if refusal.reason is not None else None,
            }
        )

    def _add(self, line: dict[str, object]) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_later(_FLUSH_SECONDS, self.flush)
        self._lines.append(json.dumps(line))

    def flush(self) -> None:
        """Write the lines that wait."""
        lines, self._lines = self._lines, []
        if lines:
            self._handler.emit(logging.LogRecord("requests", logging.INFO, "", 0, "\n".join(lines), None, None))

    def close(self) -> None:
        """Write what waits and close the file."""
        self.flush()
        self._handler.close()
