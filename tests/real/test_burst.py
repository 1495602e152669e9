"""The real engine, two providers outside and a witness on the road: what the engine can't answer leaves masked.

python -m tests.real.test_burst     be the house; prints what came of it
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.certificates import Authority
from tests.fakes.house import until
from tests.fakes.network import Outside
from tests.fakes.providers import Play, provider
from tests.journeys.test_burst import ADDRESSES, KEYS, LETTER, NAMES, ORIGINALS, sections
from tests.real.house import START, Appliance, card

LONG = LETTER + " Bitte antworte ausführlich und freundlich." * 60
CONTEXT = 512


def happen(folder: Path) -> dict[str, Any]:
    """Ask what the engine can answer, what is too long for it, and then with the engine gone."""
    from pyroute2 import IPRoute

    with IPRoute() as link:
        for address in ADDRESSES.values():
            link.addr("add", index=1, address=address, prefixlen=32)
    authority = Authority(folder)
    told: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        doubles = {
            name: stack.enter_context(provider(authority.issue(NAMES[name]), (ADDRESSES[name], 443), KEYS[name]))
            for name in NAMES
        }
        appliance = _Bursting(folder, {"chat": card("smollm2-135m-int8") | {"context_length": CONTEXT}}, authority)
        stack.callback(appliance.stop)
        appliance.ready()
        client = stack.enter_context(appliance.http())

        def ask(name: str, content: str) -> None:
            body = {"model": "chat", "messages": [{"role": "user", "content": content}], "max_tokens": 64}
            answer = client.post("/v1/chat/completions", json=body)
            own = {key: value for key, value in answer.headers.items() if key.startswith("x-appliance-")}
            told[name] = {"status": answer.status_code, "headers": own, "body": answer.json()}

        ask("short", LETTER)
        ask("too long", LONG)
        appliance.engine("chat")["server"].kill()
        until(lambda: appliance.status()["models"]["chat"]["state"] != "ready", START)
        doubles["far"].say(Play(status=529))
        ask("engine gone", LETTER)
        told["stream"] = _streamed(client)
        told["received"] = {name: double.received.decode("utf-8", "replace") for name, double in doubles.items()}
    return told


def _streamed(client: httpx.Client) -> str:
    body = {"model": "chat", "messages": [{"role": "user", "content": LETTER}], "max_tokens": 64, "stream": True}
    text = ""
    with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                (choice,) = json.loads(line[6:])["choices"] or [{"delta": {}}]
                text += choice["delta"].get("content") or ""
    return text


class _Bursting(Appliance):
    """The real appliance with a way out."""

    def __init__(self, folder: Path, models: dict[str, Any], authority: Authority) -> None:
        self._more = sections(folder, authority)
        super().__init__(folder, models)

    def write(self, **changed: Any) -> None:
        super().write(**self._more, **changed)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with Outside(tmp_path_factory.mktemp("street")) as outside:
        command = [sys.executable, "-m", "tests.real.test_burst"]
        done = outside.run(command, stdout=subprocess.PIPE, timeout=START, check=True)
        outside.control()
        told: dict[str, Any] = json.loads(done.stdout)
        return told | {"sent": [str(packet) for packet in outside.sent() if packet.kind != "udp"]}


@pytest.mark.engine
def test_the_engine_answers_what_it_can(seen: dict[str, Any]) -> None:
    assert (seen["short"]["status"], seen["short"]["headers"]["x-appliance-route"]) == (200, "local")


@pytest.mark.engine
def test_what_is_too_long_for_it_is_answered_outside_and_comes_back_with_the_names(seen: dict[str, Any]) -> None:
    answer = seen["too long"]
    assert (answer["status"], answer["headers"]["x-appliance-provider"]) == (200, "far"), answer
    assert answer["body"]["choices"][0]["message"]["content"] == LONG


@pytest.mark.engine
def test_with_the_engine_gone_the_second_provider_answers_where_the_first_is_overloaded(seen: dict[str, Any]) -> None:
    answer = seen["engine gone"]
    assert (answer["status"], answer["headers"]["x-appliance-provider"]) == (200, "near"), answer
    assert answer["body"]["choices"][0]["message"]["content"] == LETTER
    assert seen["stream"] == LETTER


@pytest.mark.engine
def test_both_got_placeholders_and_nothing_else_left(seen: dict[str, Any]) -> None:
    for received in seen["received"].values():
        assert "Klient_001" in received
        assert [each for each in ORIGINALS if each.lower() in received.lower()] == []
    assert seen["sent"] == []


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="out", dir="/var/tmp") as name:
        print(json.dumps(happen(Path(name))))  # noqa: T201 - the answer to whoever started it
