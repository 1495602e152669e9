"""A running appliance removes what is old by itself, and takes orders about it on its control socket."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from appliance.__main__ import WRONG_INPUT, main
from appliance.audit.segments import lines, listed
from appliance.audit.verifier import verify
from tests.audit.days import Days, one_of_each
from tests.fakes.house import House, Running, until

GONE = {"content": 1, "intent": 1, "outcome": 1, "refusal": 1, "strangers": 1}


@pytest.fixture
def house(house: House) -> House:
    """A house whose log begins on 2026-01-01, with a record of each kind."""
    house.card("tiny")
    house.serve("chat", "tiny")
    house.settings["audit"] = {"retention": {"requests_days": 30}}

    async def begin() -> None:
        async with Days(house.state) as days:
            days.archive.subjects.of("anna")
            await one_of_each(days)
            await days.turn()

    house.state.mkdir(mode=0o700)
    asyncio.run(begin())
    return house


def audit(house: House, *words: str) -> tuple[int, Any]:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        status = main(["audit", *words, "--json", "--config", str(house.config)])
    return status, json.loads(output.getvalue())


def test_soon_after_the_start_it_removes_what_is_old_by_itself(house: House, start: Callable[..., Running]) -> None:
    start(house)
    stub = house.state / "audit" / "000000000001.stub.json"
    assert until(lambda: json.loads(stub.read_bytes()) if stub.exists() else False)["kinds"] == GONE
    (done,) = until(lambda: _runs(house))
    assert done["removed"] == GONE
    assert verify(house.state / "audit").genuine


def test_what_is_held_stays_and_what_is_released_goes_while_it_runs(
    house: House, start: Callable[..., Running]
) -> None:
    house.write()
    status, held = audit(house, "hold", "--since", "2026-01-01", "--until", "2026-01-01", "--reason", "file 7")
    assert status == 0
    running = start(house).ready()
    (by_itself,) = until(lambda: _runs(house))  # soon after the start
    assert (by_itself["removed"], by_itself["held"]) == ({}, 5)
    assert audit(house, "holds") == (0, [held])
    assert audit(house, "hold", "--subject", "anna", "--reason", "file 8")[0] == 0
    assert audit(house, "release", held["id"])[0] == 0
    assert audit(house, "release", held["id"])[0] == WRONG_INPUT
    status, told = audit(house, "retention", "--dry-run")
    assert (status, told["removed"]) == (0, GONE)
    assert audit(house, "retention", "--now") == (0, told)
    assert audit(house, "retention", "--now")[1]["removed"] == {}
    verdict = verify(house.state / "audit")
    assert verdict.genuine, verdict.lines()
    assert verdict.removed == 5
    with running.client() as client:
        asked = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
        assert client.post("/v1/chat/completions", json=asked).status_code == 200
    assert running.stop() == 0
    assert verify(house.state / "audit").genuine


def test_without_knowing_what_is_held_nothing_goes_until_the_list_is_made_anew(
    house: House, start: Callable[..., Running]
) -> None:
    (house.state / "audit-work" / "holds.json").unlink()
    start(house)
    told = until(lambda: [each for each in records(house, "incident") if each["incident"] == "retention_failed"])
    assert "appliance audit holds --repair" in told[0]["why"]
    status, refused = audit(house, "retention", "--now")
    assert (status, refused["error"]) == (1, told[0]["why"])
    assert "holds_lost" in [each["incident"] for each in records(house, "incident")]
    assert audit(house, "holds", "--repair") == (0, [])
    assert audit(house, "retention", "--now")[1]["removed"] == GONE


def records(house: House, kind: str) -> list[dict[str, Any]]:
    """The bodies of the records of that kind, while more are written."""
    told = (json.loads(line) for each in listed(house.state / "audit") for line in lines(each))
    return [each["body"] for each in told if "body" in each and each["kind"] == kind]


def _runs(house: House) -> list[dict[str, Any]]:
    return [each for each in records(house, "act") if (each["act"], each["phase"]) == ("retention", "done")]
