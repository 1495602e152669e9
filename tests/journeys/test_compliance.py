"""A working day, and an auditor at the door: the report is made while people work, and the log knows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.__main__ import main
from tests.audit.chain import records
from tests.fakes.house import House, Running, until

CHAT = "/v1/chat/completions"


def appliance(house: House, *words: str) -> int:
    return main([*words, "--config", str(house.config)])


def test_a_report_is_made_while_the_appliance_works(
    house: House, start: Callable[..., Running], capsys: pytest.CaptureFixture[str]
) -> None:
    house.card("tiny", title="Das kleine Modell")
    house.serve("chat", "tiny")
    house.settings["accounts"] = {"use_cases": {"post": {"purpose": "Eingangspost sortieren"}}}
    house.write()
    key = house.keys("create", "--user", "Jürgen Groß", "--team", "Vertrieb", "--use-case", "post")["key"]
    running = start(house).ready()
    assert appliance(house, "egress", "verify") == 0
    body = {"model": "chat", "messages": [{"role": "user", "content": "tokens=3 streng geheim"}]}
    with running.client() as client:
        headers = {"authorization": f"Bearer {key}", "x-use-case": "post"}
        assert [client.post(CHAT, json=body, headers=headers).status_code for _ in range(3)] == [200] * 3
        assert client.post(CHAT, json=body, headers={"authorization": "Bearer nobody"}).status_code == 401
    folder = house.state / "audit"
    until(lambda: sum(each["kind"] == "outcome" for each in records(folder)) == 3)
    capsys.readouterr()
    assert appliance(house, "compliance", "report", "--output", str(house.folder / "out")) == 0
    page, paper, _ = map(Path, capsys.readouterr().out.split())
    text = page.read_text()
    for part in ("Das kleine Modell", "Eingangspost sortieren", "Vertrieb", "vollständig und unverändert"):
        assert part in text
    assert '<td><code>post</code></td><td class="figure">3</td>' in text
    for secret in ("Jürgen", "streng geheim", key):
        assert secret not in text
    for file in (page, paper):
        until(lambda file=file: appliance(house, "compliance", "check", str(file)) == 0)
    assert running.stop() == 0
    assert appliance(house, "compliance", "check", str(page)) == 0
    assert appliance(house, "audit", "verify") == 0
