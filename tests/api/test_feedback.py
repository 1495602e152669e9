"""/v1/feedback takes a request's id and a word, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.core import Caller, Role
from appliance.errors import NotFound
from tests.fakes.office import Office, office

RATED = {"request_id": "req_1", "rating": "up"}


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Office]:
    with office(tmp_path) as made:
        yield made


async def rate(room: Office, body: Any, role: Role = Role.USER) -> tuple[int, Any]:
    _, key = await room.key(role, user="anna")
    async with room.client(key) as client:
        answer = await client.post("/v1/feedback", json=body)
    return answer.status_code, answer.json()["error"] if answer.content else None


async def test_it_is_handed_on_under_the_id_that_logs_have(room: Office) -> None:
    heard: list[tuple[str, str | None, str]] = []

    def noted(id_: str, caller: Caller, rating: str) -> None:
        heard.append((id_, caller.user, rating))

    room.pipeline.rate = noted
    assert await rate(room, RATED) == (204, None)
    assert await rate(room, {"request_id": "anna-q@house.example", "rating": "down"}) == (204, None)
    names = room.house.logged("req_1"), room.house.logged("anna-q@house.example")
    assert heard == [(names[0], "anna", "up"), (names[1], "anna", "down")]
    assert "anna" not in names[1]


async def test_of_what_one_never_got_it_is_404(room: Office) -> None:
    def unknown(*_: object) -> None:
        raise NotFound("there is no such answer", code="unknown_request", param="request_id")

    room.pipeline.rate = unknown
    status, error = await rate(room, RATED)
    assert (status, error["code"], error["param"]) == (404, "unknown_request", "request_id")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"request_id": "r"}, "rating"),
        ({"rating": "up"}, "request_id"),
        (RATED | {"rating": "good"}, "rating"),
        (RATED | {"request_id": ""}, "request_id"),
        (RATED | {"request_id": "r" * 129}, "request_id"),
        (RATED | {"comment": "Frau Weiß said that it was good"}, "comment"),
        ([], None),
    ],
)
async def test_what_is_wrong_is_named_and_a_text_is_never_taken(room: Office, body: Any, param: str | None) -> None:
    room.pipeline.rate = lambda *_: pytest.fail("it may not be heard")
    status, error = await rate(room, body)
    assert (status, error["param"]) == (400, param)
    assert "Weiß" not in error["message"]


@pytest.mark.parametrize("role", [Role.ADMIN, Role.SUPER_ADMIN, Role.AUDITOR])
async def test_who_may_not_ask_has_nothing_to_rate(room: Office, role: Role) -> None:
    assert (await rate(room, RATED, role))[0] == 403
