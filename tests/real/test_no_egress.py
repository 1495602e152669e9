"""The real engine and the real model in a house with a road to the outside: nothing is sent there.

python -m tests.real.test_no_egress sealed|unsealed     what happens in the house; prints what came of it
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.house import until
from tests.fakes.network import Outside
from tests.real.house import ANSWER, START, Appliance, card

CHAT = "/v1/chat/completions"
ASKED: Any = {
    "model": "chat",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "max_tokens": 8,
    "temperature": 0,
}
DAY = 3600.0
"""Seconds that the suite may take in the house; a tenth of it on a quiet machine."""


def work(client: httpx.Client) -> list[str]:
    """The answer in one piece, and from a stream."""
    whole = client.post(CHAT, json=ASKED).json()["choices"][0]["message"]["content"]
    streamed = ""
    with client.stream("POST", CHAT, json=ASKED | {"stream": True}) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                streamed += json.loads(line[6:])["choices"][0]["delta"].get("content", "")
    return [whole, streamed]


def sealed(folder: Path) -> list[str]:
    """Start the appliance, chat, stream, stop."""
    appliance = Appliance(folder, {"chat": card("smollm2-135m-int8")})
    try:
        appliance.ready()
        with appliance.http() as client:
            return work(client)
    finally:
        appliance.stop()


def unsealed(folder: Path) -> list[str]:
    """The same with the engine alone: the command and the environment that the appliance gives it, and no seal."""
    appliance = Appliance(folder, {"chat": card("smollm2-135m-int8")})
    try:
        server = until(lambda: appliance.engine("chat").get("server") or False, START)
        command, environment = server.cmdline(), server.environ()
    finally:
        appliance.stop()
    socket = folder / "engine.sock"
    command[command.index("--uds") + 1] = str(socket)
    with (folder / "engine.log").open("wb") as log:
        engine = subprocess.Popen(command, env=environment, cwd="/", stdout=log, stderr=log)
    try:
        transport = httpx.HTTPTransport(uds=str(socket))
        with httpx.Client(base_url="http://engine", transport=transport, timeout=ANSWER) as client:

            def healthy() -> bool:
                assert engine.poll() is None, (folder / "engine.log").read_text()
                try:
                    return client.get("/health").is_success
                except httpx.ConnectError:  # its socket is bound long before it listens
                    return False

            until(healthy, START, every=0.1)
            return work(client)
    finally:
        engine.terminate()
        engine.wait(60)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    with Outside(tmp_path) as outside:
        yield outside


def spend(outside: Outside, what: str) -> None:
    """Have it happen in the house, between two controls."""
    outside.control()
    command = [sys.executable, "-m", "tests.real.test_no_egress", what]
    done = outside.run(command, capture_output=True, timeout=2 * START)
    outside.control()
    assert done.returncode == 0, done.stderr
    whole, streamed = json.loads(done.stdout)
    assert whole == streamed
    assert "Paris" in whole


@pytest.mark.long  # with a way out, and the same engine, tests/real/test_burst.py shows it in each run
def test_the_real_engine_starts_works_and_ends_without_a_packet_or_a_name(outside: Outside) -> None:
    spend(outside, "sealed")
    assert outside.names() == []
    assert outside.sent() == []


@pytest.mark.long
def test_the_real_engine_does_not_even_try(outside: Outside) -> None:
    """Inside its seal it could look up names for ever and nobody would see it. Outside of it, it doesn't."""
    spend(outside, "unsealed")
    assert outside.names() == []
    assert outside.sent() == []


@pytest.mark.long
def test_a_full_day_of_the_test_suite_sends_nothing(outside: Outside) -> None:
    """All journeys, and all that is done to the real engine, clients included."""
    outside.control()
    suite = [sys.executable, "-m", "pytest", "-q", "-m", "not long", "-p", "no:cacheprovider"]
    # a day within the day would never end
    done = outside.run(
        [*suite, "--ignore-glob=*/test_no_egress.py", "tests/journeys", "tests/real"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=DAY,
    )
    outside.control()
    assert outside.names() == []
    assert outside.sent() == []
    assert done.returncode == 0, done.stdout


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="real-") as folder:
        print(json.dumps(globals()[sys.argv[1]](Path(folder))))  # noqa: T201 - the answer to whoever started it
