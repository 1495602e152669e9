"""The privacy gate's real processes on a config of their own, with a detector that does as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from appliance import config
from appliance.config import Config
from appliance.core import DataClass
from appliance.privacy import guard as guards
from appliance.privacy.asked import Asked
from appliance.privacy.guard import Guard
from tests.fakes import detector
from tests.fakes.house import House

PROVIDER = {"url": "https://api.mistral.ai/v1", "region": "eu", "agreement": "AVV 1"}


def configured(house: House, **privacy: Any) -> Config:
    """A config by which everything may leave, pseudonymised."""
    rule = {"may": "pseudonymise", "purpose": "office work", "regions": ["eu"], "agreement": "AVV 1"}
    house.settings["models"] = {"chat": {"endpoint": "unix:/nowhere"}}
    house.write(
        egress={"mode": "anonymized", "providers": {"mistral": PROVIDER}},
        privacy={"floor": "public", "policy": [{"data_class": str(each), **rule} for each in DataClass], **privacy},
    )
    made = config.load(house.config)
    (made.state / "run").mkdir(parents=True)
    return made


@contextlib.asynccontextmanager
async def guarded(
    house: House, monkeypatch: pytest.MonkeyPatch, command: Sequence[str] = detector.COMMAND, **detectors: Any
) -> AsyncIterator[Guard]:
    """A guard whose detector is the one that `command` installs."""
    monkeypatch.setattr(guards, "_COMMAND", list(command))
    guard = Guard.start(configured(house, detectors={"seconds": 5, **detectors}))
    try:
        yield guard
    finally:
        guard.close()


def instead(house: House) -> list[str]:
    """A command that runs the appliance with the detector that does as it is told: for `Running`."""
    script = (
        "import sys; from appliance.__main__ import main; from appliance.privacy import guard; "
        "from tests.fakes import detector; guard._COMMAND = detector.COMMAND; sys.exit(main(sys.argv[1:]))"
    )
    return [sys.executable, "-c", script, "serve", "--config", str(house.config)]


def chat(text: str) -> bytes:
    """A request that says `text`."""
    return json.dumps({"model": "chat", "messages": [{"role": "user", "content": text}]}).encode()


def asked(text: str, seconds: float = 30) -> Asked:
    """May that leave?"""
    return Asked("chat", chat(text), DataClass.INTERNAL, None, seconds)


def process(guard: Guard, name: str) -> psutil.Process:
    """The `template` or the `gate`."""
    (pid,) = (pid for pid, does in guard.pids.items() if does == name)
    return psutil.Process(pid)


def workers(guard: Guard) -> list[psutil.Process]:
    """The detectors that run now."""
    return [each for each in process(guard, "template").children() if each.pid not in guard.pids]


async def soon(what: Callable[[], Any], patience: float = 20) -> Any:
    """Wait until `what()` is true, and return it; the event loop goes on meanwhile."""
    async with asyncio.timeout(patience):
        while not (result := what()):  # noqa: ASYNC110 - processes tell
            await asyncio.sleep(0.01)
    return result


def secret_file(house: House) -> Path:
    """A key as the state holds them."""
    file = house.state / "audit-keys" / "signing.pem"
    file.parent.mkdir(parents=True)
    file.write_text("a key")
    return file
