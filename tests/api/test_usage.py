"""Usage as it is asked for from afar: what a key sees of itself, and what administrators see of all."""

from __future__ import annotations

import asyncio
import csv
import io
import threading
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.accounts import reader
from appliance.accounts.entries import Account, Changes, Event, Kind, Scope, Span, Unit, UsageKey, Used
from appliance.accounts.persons import Persons
from appliance.accounts.reader import Reader
from appliance.accounts.statement import FIGURES, By
from appliance.api.usage import question_of
from appliance.config import Accounts, Allowance
from appliance.core import Caller, Role
from appliance.errors import BadRequest, BooksUnavailable
from tests.fakes.office import Office, office

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
USED = {
    UsageKey("2026-10-31", "key_1", "anna", "sales", "", "chat"): Used(1, 10, 20, 5, 0),
    UsageKey("2026-11-01", "key_1", "anna", "sales", "", "chat"): Used(2, 100, 200, 1, 0),
    UsageKey("2026-11-22", "key_2", "ben", "Ein, kauf", "mail", "small"): Used(3, 1000, 2000, 2, 1),
    UsageKey("2026-11-22", "key_3", "=cmd|'/c calc'!A1", "", "", "chat"): Used(4, 0, 7, 0, 0),
}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Office]:
    with office(tmp_path) as made:
        made.store.claim("here")
        made.store.commit(Changes(used=USED))
        made.house.usage = Reader(made.store, Accounts(), clock=lambda: NOW)
        yield made
        made.house.usage.close()


@pytest.fixture
async def admin(desk: Office) -> AsyncIterator[httpx.AsyncClient]:
    _, key = await desk.key(Role.ADMIN)
    async with desk.client(key) as client:
        yield client


async def test_a_key_sees_its_own_use(desk: Office) -> None:
    record, key = await desk.key(Role.USER, user="anna")
    used = UsageKey("2026-11-22", record.id, "anna", "", "", "chat")
    desk.store.commit(Changes(used={used: Used(1, 30, 4, 0, 0)}))
    desk.house.usage.apply(keys={record.id: Allowance(tokens_per_day=1000)})
    async with desk.client(key) as client:
        answer = await client.get("/v1/usage")
    assert answer.status_code == 200
    body = answer.json()
    assert body["key"]["today"]["prompt_tokens"] == 30
    assert body["user"]["month"]["prompt_tokens"] == 130
    assert [(budget["holder"], budget["limit"]) for budget in body["budgets"]] == [("key", 1000)]
    assert '"key_1"' not in answer.text, "anna's other key is not this one's business"


@pytest.mark.parametrize(
    ("path", "roles"),
    [
        ("/v1/usage", {Role.USER, Role.POWER_USER}),
        ("/admin/usage", {Role.ADMIN, Role.SUPER_ADMIN}),
        ("/admin/events", {Role.ADMIN, Role.SUPER_ADMIN}),
    ],
)
async def test_only_who_may_sees_it(desk: Office, path: str, roles: set[Role]) -> None:
    for role in Role:
        _, key = await desk.key(role)
        async with desk.client(key) as client:
            answer = await client.get(path)
        assert answer.status_code == (200 if role in roles else 403), role
        if role not in roles:
            assert answer.json()["error"]["code"] == "not_allowed"
            assert "anna" not in answer.text
    async with desk.client() as stranger:
        assert (await stranger.get(path)).status_code == 401


async def test_without_parameters_it_is_this_month_so_far(admin: httpx.AsyncClient) -> None:
    body = (await admin.get("/admin/usage")).json()
    sums = {"requests": 9, "prompt_tokens": 1100, "completion_tokens": 2207, "euros": "0.000000003", "unsettled": 1}
    assert body == {
        "object": "list", "from": "2026-11-01", "to": "2026-11-22", "time_zone": "Europe/Berlin", "by": [],
        "data": [sums], "total": sums,
    }  # fmt: skip


async def test_sums_by_anything_over_any_time(admin: httpx.AsyncClient) -> None:
    asked = {"from": "2026-10-01", "to": "2026-11-30", "by": "month,team", "model": "chat"}
    body = (await admin.get("/admin/usage", params=asked)).json()
    assert body["by"] == ["month", "team"]
    assert [(row["month"], row["team"], row["requests"]) for row in body["data"]] == [
        ("2026-10", "sales", 1), ("2026-11", "", 4), ("2026-11", "sales", 2),
    ]  # fmt: skip
    assert body["total"]["requests"] == 7
    nothing = (await admin.get("/admin/usage", params={"from": "2025-01-01", "to": "2026-01-01", "by": "day"})).json()
    assert (nothing["data"], nothing["total"]["requests"]) == ([], 0)


async def test_csv_opens_in_a_spreadsheet_and_does_nothing_there(admin: httpx.AsyncClient) -> None:
    answer = await admin.get("/admin/usage", params={"by": "user,team", "format": "csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert answer.headers["content-disposition"] == 'attachment; filename="usage-2026-11-01-2026-11-22.csv"'
    assert answer.text.count("\r\n") == 4
    head, *lines = csv.reader(io.StringIO(answer.content.decode(), newline=""))
    assert tuple(head) == ("user", "team", *FIGURES)
    assert lines == [
        ["'=cmd|'/c calc'!A1", "", "4", "0", "7", "0.000000000", "0"],
        ["anna", "sales", "2", "100", "200", "0.000000001", "0"],
        ["ben", "Ein, kauf", "3", "1000", "2000", "0.000000002", "1"],
    ]
    empty = await admin.get("/admin/usage", params={"by": "team", "team": "nobody", "format": "csv"})
    assert empty.text == "team,requests,prompt_tokens,completion_tokens,euros,unsettled\r\n"


WRONG = [
    ("from=2026-13-01", "from", "must be a day such as 2026-11-30"),
    ("from=20261101", "from", "must be a day such as 2026-11-30"),
    ("from=2026-W47-1", "from", "must be a day such as 2026-11-30"),
    ("from=", "from", "must be a day such as 2026-11-30"),
    ("to=9999-12-31", "to", "must be a day such as 2026-11-30"),
    ("to=2026-10-01", "to", "lies before `from`, 2026-11-01"),
    ("from=2026-11-02&to=2026-11-01", "to", "lies before `from`"),
    ("from=2020-01-01&to=2026-11-01", "to", "within three years"),
    ("by=teams", "by", "must be some of day, month, key, user, team, use_case, model"),
    ("by=team,", "by", "must be some of"),
    ("by=", "by", "must be some of"),
    ("by=team,team", "by", "names something twice"),
    ("format=xml", "format", "must be one of json, csv"),
    ("team=a&team=b", "team", "stands twice"),
    ("team=a%00b", "team", "printable"),
    ("user=" + "x" * 257, "user", "at most 256"),
    ("use-case=mail", "use-case", "did you mean `use_case`?"),
    ("day=2026-11-01", "day", "there is no such parameter here"),
    ("key_id=key_1", "key_id", "there is no such parameter here; did you mean `key`?"),
]


async def test_a_wrong_parameter_is_named(admin: httpx.AsyncClient) -> None:
    for query, param, says in WRONG:
        answer = await admin.get(f"/admin/usage?{query}")
        assert answer.status_code == 400, query
        error = answer.json()["error"]
        assert error["param"] == param, query
        assert says in error["message"], query


@given(st.dictionaries(st.sampled_from(["from", "to", "by", *By]), st.text(max_size=20)))
def test_whatever_is_asked_is_a_question_or_a_refusal_of_one_parameter(given: dict[str, str]) -> None:
    try:
        question = question_of(given, date(2026, 11, 22))
    except BadRequest as refusal:
        named = refusal.param
    else:
        named = "from"
        assert question.since <= question.until
    assert named in ("from", "to", "by")


async def test_events_come_newest_first(desk: Office, admin: httpx.AsyncClient) -> None:
    account = Account(Scope(Kind.TEAM, "sales"), Span.MONTH, "2026-11-01")
    marks = [(70, NOW - 20), (90, NOW - 10), (100, NOW)]
    desk.store.commit(Changes(events=[Event(account, Unit.TOKENS, percent, at) for percent, at in marks]))
    told = (await admin.get("/admin/events")).json()["data"]
    assert [event["percent"] for event in told] == [100, 90, 70]
    assert told[0] == {
        "at": "2026-11-22T13:00:00+01:00", "holder": "team", "name": "sales", "span": "month", "start": "2026-11-01",
        "unit": "tokens", "percent": 100,
    }  # fmt: skip
    assert len((await admin.get("/admin/events?limit=2")).json()["data"]) == 2
    for wrong in ("0", "-1", "1001", "x", "²", "", "1" * 300):
        assert (await admin.get("/admin/events", params={"limit": wrong})).json()["error"]["param"] == "limit", wrong


# ---- works-council mode

KEYS = {"key_1": "anna", "key_2": "ben"}


@pytest.fixture
async def council(desk: Office) -> Office:
    """The same desk, with everybody shown by pseudonym; the third has none."""
    for name in ("anna", "ben"):
        desk.archive.subjects.of(name)
    persons = Persons(desk.archive.subjects, KEYS.get, veiled=True)
    desk.house.usage.close()
    desk.house.usage = Reader(desk.store, Accounts(), clock=lambda: NOW, persons=persons)
    return desk


def pseudonym(desk: Office, name: str) -> str:
    return desk.archive.subjects.of(name).pseudonym


async def test_persons_are_shown_by_pseudonym_and_in_the_order_of_pseudonyms(
    council: Office, admin: httpx.AsyncClient
) -> None:
    anna, ben = (pseudonym(council, name) for name in ("anna", "ben"))
    for by in ("user", "key"):
        told = (await admin.get("/admin/usage", params={"by": by})).json()["data"]
        assert {row[by]: row["requests"] for row in told} == {anna: 2, ben: 3, "person without pseudonym": 4}
        assert [row[by] for row in told] == sorted(row[by] for row in told)
    table = (await admin.get("/admin/usage", params={"by": "user,key", "format": "csv"})).text
    assert "anna" not in table
    assert "key_1" not in table


async def test_a_key_made_for_somebody_tells_nothing_of_their_other_keys(council: Office) -> None:
    _, boss = await council.key(Role.ADMIN)
    council.house.usage.apply(accounts=Accounts(each_user=Allowance(tokens_per_month=100_000)))
    async with council.client(boss) as client:
        minted = (await client.post("/admin/keys", json={"user": "anna"})).json()["key"]
    async with council.client(minted) as client:
        told = (await client.get("/v1/usage")).json()
    assert told["user"] == {"name": "anna"}
    assert (told["key"]["month"]["requests"], told["budgets"][0]["holder"]) == (0, "user")
    assert "used" not in told["budgets"][0]


@pytest.mark.parametrize("how", ["works-council mode", "by name", "a token", "nobody's"])
async def test_a_rotated_key_tells_nothing_of_before_where_others_are_told_all(council: Office, how: str) -> None:
    persons = Persons(council.archive.subjects, KEYS.get, veiled=how != "by name")
    rotated = datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp()
    usage = Reader(council.store, Accounts(), clock=lambda: NOW, persons=persons, rotated=lambda _: rotated)
    caller = Caller("oidc_1" if how == "a token" else "key_1", user=None if how == "nobody's" else "anna")
    told = await usage.own(caller)
    usage.close()
    if how == "works-council mode":
        assert (told["key"]["month"]["requests"], told["user"]) == (0, {"name": "anna"})
    elif how == "nobody's":
        assert told["key"]["month"]["requests"] == 2
    else:
        assert told["user"]["month"]["requests"] == 2


async def test_a_filter_takes_a_pseudonym_and_no_name(council: Office, admin: httpx.AsyncClient) -> None:
    anna = pseudonym(council, "anna")
    for param in ("user", "key"):
        told = (await admin.get("/admin/usage", params={param: anna, "by": "model"})).json()
        assert [(row["model"], row["requests"]) for row in told["data"]] == [("chat", 2)]
    for param, value in (("user", "anna"), ("user", "nobody"), ("key", "key_1")):
        for form in ("json", "csv"):
            refused = await admin.get("/admin/usage", params={param: value, "format": form})
            error = refused.json()["error"]
            assert (refused.status_code, error["param"], error["code"]) == (400, param, "pseudonym_needed")
    nobody = (await admin.get("/admin/usage", params={"user": "p_" + "0" * 24})).json()
    assert nobody["data"] == []


async def test_events_of_persons_and_their_keys_are_told_by_pseudonym(
    council: Office, admin: httpx.AsyncClient
) -> None:
    used = {UsageKey("2026-11-22", "oidc_00ff", "ben", "", "", "chat"): Used(1, 1, 1, 0, 0)}
    keys = [(Kind.KEY, name) for name in ("key_1", "oidc_00ff", "key_9")]
    holders = [(Kind.USER, "anna"), *keys, (Kind.TEAM, "sales")]
    events = [
        Event(Account(Scope(kind, name), Span.DAY, "2026-11-22"), Unit.TOKENS, 90, NOW - number)
        for number, (kind, name) in enumerate(holders)
    ]
    council.store.commit(Changes(used=used, events=events))
    told = (await admin.get("/admin/events")).json()["data"]
    anna, ben = (pseudonym(council, name) for name in ("anna", "ben"))
    assert [event["name"] for event in told] == [anna, anna, ben, "key_9", "sales"]


async def test_ones_own_use_has_the_own_name(council: Office) -> None:
    _, key = await council.key(Role.USER, user="anna")
    async with council.client(key) as client:
        assert (await client.get("/v1/usage")).json()["user"]["name"] == "anna"


# ---- faults of the store


class Faulty:
    """A store that does as a test says, and answers when it doesn't."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.calls = 0
        self.fails_at = 1

    def usage(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls >= self.fails_at:
            raise BooksUnavailable("accounts.db: the disk is on fire; call somebody")
        return self._store.usage(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.parametrize("path", ["/admin/usage", "/admin/usage?format=csv&by=day", "/v1/usage"])
async def test_a_store_that_is_gone_is_a_503_that_says_nothing_of_the_inside(
    desk: Office, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    desk.house.usage = Reader(Faulty(desk.store), Accounts(), clock=lambda: NOW)
    _, key = await desk.key(Role.USER if path == "/v1/usage" else Role.ADMIN)
    async with desk.client(key) as client:
        answer = await client.get(path)
    desk.house.usage.close()
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "books_unavailable"
    assert "fire" not in answer.text
    assert "the disk is on fire" in caplog.text


async def test_a_table_that_breaks_off_doesnt_look_whole(desk: Office) -> None:
    """The head is sent already: a client must not take what it has for all there is."""
    faulty = Faulty(desk.store)
    faulty.fails_at = 2
    desk.house.usage = Reader(faulty, Accounts(), clock=lambda: NOW)
    _, key = await desk.key(Role.ADMIN)
    async with desk.client(key) as client:
        with pytest.raises(RuntimeError):
            await client.get("/admin/usage?by=day&from=2026-10-01&format=csv")
    desk.house.usage.close()


async def test_a_store_that_hangs_holds_up_nobody_for_long(desk: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_PATIENCE", 0.05)
    released = threading.Event()
    faulty: Any = Faulty(desk.store)
    faulty.usage = lambda *_: released.wait(30) and []
    desk.house.usage = Reader(faulty, Accounts(), clock=lambda: NOW)
    _, key = await desk.key(Role.ADMIN)
    async with desk.client(key) as client:
        try:
            answer = await asyncio.wait_for(client.get("/admin/usage"), 10)
        finally:
            released.set()
    desk.house.usage.close()
    assert answer.status_code == 503
