"""The log as auditors see it from afar: on a real log, with real keys."""

from __future__ import annotations

import asyncio
import csv
import gzip
import hashlib
import io
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.api.lookup import FILTERS, question_of
from appliance.audit import holds, search, table
from appliance.audit.archive import Actor, Archive
from appliance.audit.hidden import Hidden
from appliance.audit.holds import Holds
from appliance.audit.journal import Journal
from appliance.audit.question import FIELDS, LAST, Question
from appliance.audit.record import Kind
from appliance.audit.subjects import Subjects
from appliance.commands import search as search_command
from appliance.config.audit import Audit
from appliance.core import Caller, Role
from appliance.errors import BadRequest
from tests.fakes import journal as fake
from tests.fakes.office import Office, office

NOW = 1_795_363_200.0  # 2026-11-22T16:00:00Z
BERLIN = ZoneInfo("Europe/Berlin")
HIDDEN = Hidden(b"")
REQUEST = "req_0123456789abcdef01234567"


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Office]:
    """An office with a real archive, in which anna asked twice and ben once."""
    journal = await Journal.open(tmp_path / "audit", tmp_path / "audit-keys", Audit(), wall=lambda: NOW)
    archive = Archive(journal, Subjects.open(tmp_path / "audit-keys"), Holds.open(tmp_path / "audit-work", anew=True))
    for n, (user, team) in enumerate((("anna", "sales"), ("ben", "=cmd|'/c calc'!A1"), ("anna", "sales"))):
        who = archive.who(Actor.of(Caller("key_1", Role.USER, user, team)))
        request = archive.subjects.hidden.request(REQUEST if n == 0 else f"anna's {n}")
        told = {**who, "request": request, "model": "chat", "found": {"iban": n}}
        seq = journal.write(Kind.INTENT, told).seq
        outcome = {"intent": seq, "outcome": "served", "status": 200, "prompt_tokens": n}
        await journal.write(Kind.OUTCOME, outcome).kept()
    with office(tmp_path, archive) as made:
        yield made
    await archive.close(5)


@pytest.fixture
async def auditor(desk: Office) -> AsyncIterator[httpx.AsyncClient]:
    _, key = await desk.key(Role.AUDITOR, user="otto")
    async with desk.client(key) as client:
        yield client


def lines(folder: Path) -> list[bytes]:
    """All whole lines of the log in `folder`."""
    files = sorted((folder / "audit").glob("0*.jsonl*"))
    read = (gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes() for file in files)
    return b"".join(read).splitlines()


def pseudonym(desk: Office, name: str) -> str:
    known = desk.archive.subjects.known(name)
    assert known is not None
    return known.pseudonym


async def seqs(client: httpx.AsyncClient, **asked: str | int) -> list[int]:
    answer = await client.get("/admin/audit", params={"max_seq": 6, "order": "oldest", **asked})
    assert answer.status_code == 200, answer.text
    return [record["seq"] for record in answer.json()["data"]]


async def test_records_come_newest_first_as_they_stand_in_the_log(
    desk: Office, auditor: httpx.AsyncClient, tmp_path: Path
) -> None:
    answer = await auditor.get("/admin/audit", params={"max_seq": 6})
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert (body["object"], body["has_more"], body["next"]) == ("list", False, None)
    assert body["data"] == [json.loads(line) for line in lines(tmp_path)[:6]][::-1]
    assert all(line in answer.content for line in lines(tmp_path)[:6])
    for name in ("anna", "ben", "otto", "key_1"):
        assert f'"{name}"' not in answer.text, "what is sealed stays sealed"


async def test_every_filter_finds_what_it_names(desk: Office, auditor: httpx.AsyncClient) -> None:
    anna = pseudonym(desk, "anna")
    for asked, wanted in (
        ({"kind": "intent"}, [1, 3, 5]),
        ({"subject": anna}, [1, 5]),
        ({"team": "sales"}, [1, 5]),
        ({"team": "=cmd|'/c calc'!A1"}, [3]),
        ({"role": "user", "model": "chat"}, [1, 3, 5]),
        ({"request": REQUEST}, [1]),
        ({"request": "anna's 2"}, [5]),
        ({"request": desk.house.logged("anna's 2")}, [5]),
        ({"intent": 3}, [4]),
        ({"outcome": "served", "min_seq": 3}, [4, 6]),
        ({"from": "2026-11-22", "to": "2026-11-22", "kind": "outcome"}, [2, 4, 6]),
        ({"from": "2026-11-22T17:00:00+01:00", "to": "2026-11-22T16:00:00Z"}, [1, 2, 3, 4, 5, 6]),
        ({"to": "2026-11-22T15:59:59.999Z"}, []),
        ({"from": "2026-11-22T16:00:00.001Z"}, []),
        ({"from": "2026-11-23"}, []),
        ({"subject": "p_" + "0" * 24}, []),
        ({"key": "key_1"}, []),
        ({"act": "read", "use_case": "mail"}, []),
    ):
        assert await seqs(auditor, **asked) == wanted, asked


async def test_pages_go_on_where_the_last_ended(auditor: httpx.AsyncClient) -> None:
    for order, wanted in (("newest", [6, 5, 4, 3, 2, 1]), ("oldest", [1, 2, 3, 4, 5, 6])):
        told, asked = [], {"max_seq": 6, "limit": 4, "order": order}
        while True:
            page = (await auditor.get("/admin/audit", params=asked)).json()
            told.append([record["seq"] for record in page["data"]])
            if not page["has_more"]:
                break
            asked["after"] = page["next"]
        assert told == [wanted[:4], wanted[4:]]


async def test_a_page_that_found_little_says_where_to_go_on(
    auditor: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_PAGE_LINES", 1)
    monkeypatch.setattr(search, "_BLOCK", 600)
    page = (await auditor.get("/admin/audit", params={"request": REQUEST, "max_seq": 6})).json()
    assert (page["data"], page["has_more"]) == ([], True)
    while page["has_more"]:
        asked = {"request": REQUEST, "max_seq": 6, "after": page["next"]}
        page = (await auditor.get("/admin/audit", params=asked)).json()
        if page["data"]:
            break
    assert [record["seq"] for record in page["data"]] == [1]


async def test_each_read_is_on_record_with_what_was_asked_before_it_is_answered(
    desk: Office, auditor: httpx.AsyncClient
) -> None:
    await auditor.get("/admin/audit", params={"kind": "outcome", "request": "anna's own words", "limit": 2})
    asked = {"kind": "act", "min_seq": 7, "order": "oldest"}
    begun, done, now = (await auditor.get("/admin/audit", params=asked)).json()["data"]
    told = {"kind": "outcome", "request": desk.house.logged("anna's own words"), "limit": "2"}
    assert begun["body"]["filters"] == told
    assert (begun["body"]["act"], begun["body"]["phase"]) == ("read", "intent")
    assert begun["body"]["by"]["subject"] == pseudonym(desk, "otto")
    assert done["body"] == {"act": "read", "of": begun["seq"], "phase": "done", "records": 0}
    assert now["body"]["filters"]["kind"] == "act", "what reads the log finds itself there"


@pytest.mark.parametrize("path", ["/admin/audit", "/admin/audit/export"])
async def test_what_was_typed_goes_on_record_hidden_unless_the_log_or_the_config_has_it(
    desk: Office, auditor: httpx.AsyncClient, tmp_path: Path, path: str
) -> None:
    words = ("team", "model", "use_case", "act", "incident", "outcome", "code", "key")
    for name in words:
        assert (await auditor.get(path, params={name: "Erika Mustermann"})).status_code == 200
    assert b"Erika" not in b"".join(lines(tmp_path))
    await auditor.get(path, params={"model": "chat", "role": "auditor", "key": "key_12ab", "use_case": "nothing"})
    await auditor.get(path, params={"model": "chat", "team": "sales", "request": "anna's 2"})
    await auditor.get(path)  # on disk before it is answered, and so is all before it
    bodies = [json.loads(line)["body"] for line in lines(tmp_path)][6:]
    bodies = bodies[: next(n for n, body in enumerate(bodies) if body.get("filters") == {})]
    *typed, clear, unknown = [body for body in bodies if body["phase"] == "intent"]
    hidden = desk.archive.subjects.hidden
    assert [body["filters"] for body in typed] == [{name: hidden.word("Erika Mustermann")} for name in words]
    use_case = hidden.word("nothing")
    assert clear["filters"] == {"model": "chat", "role": "auditor", "key": "key_12ab", "use_case": use_case}
    request = hidden.request("anna's 2")
    assert unknown["filters"] == {"model": "chat", "team": hidden.word("sales"), "request": request}
    assert bodies[-1]["filters"] == {"model": "chat", "team": "sales", "request": request}, "the log has them"
    assert "filters" not in bodies[-3]


async def test_an_api_key_in_a_filter_is_refused_and_neither_repeated_nor_put_on_record(
    auditor: httpx.AsyncClient, tmp_path: Path
) -> None:
    key = auditor.headers["authorization"].removeprefix("Bearer ")
    before = len(lines(tmp_path))
    for name in FILTERS:
        answer = await auditor.get("/admin/audit", params={name: f" {key}"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
        assert key not in answer.text
    assert len(lines(tmp_path)) == before


async def test_what_cant_be_put_on_record_is_not_shown(tmp_path: Path) -> None:
    archive = fake.archive(tmp_path)
    archive.subjects.of("anna")
    with office(tmp_path, archive) as desk:
        _, key = await desk.key(Role.AUDITOR, user="otto")
        journal: Any = archive.journal
        (journal.folder / "000000000001.jsonl").write_text('{"at":"x","body":{},"kind":"act","prev":"","seq":1}\n')
        journal.fail()
        async with desk.client(key) as client:
            for path in ("/admin/audit", "/admin/audit/export", "/admin/audit/export?format=csv"):
                answer = await client.get(path)
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "audit_unavailable"), path
            reveal = {"subject": pseudonym(desk, "anna"), "reason": "file 4711, suspected leak"}
            assert (await client.post("/admin/audit/reveals", json=reveal)).status_code == 503
            assert (await client.get("/admin/audit/reveals")).status_code == 503
            assert (await client.get("/admin/audit/status")).json()["well"] is False


# ---- export


async def test_an_export_is_the_log_line_by_line_up_to_itself_and_its_hash_is_on_record(
    auditor: httpx.AsyncClient, tmp_path: Path
) -> None:
    answer = await auditor.get("/admin/audit/export")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"] == 'attachment; filename="audit-7.jsonl"'
    told = answer.content.splitlines()
    assert told == lines(tmp_path)[:7]
    head = "0" * 64
    for line in told:
        assert json.loads(line)["prev"] == head
        head = hashlib.sha256(line).hexdigest()
    (done,) = (await auditor.get("/admin/audit", params={"min_seq": 8, "max_seq": 8})).json()["data"]
    digest = hashlib.sha256(answer.content).hexdigest()
    assert done["body"] == {"act": "export", "of": 7, "phase": "done", "records": 7, "sha256": digest}


async def test_an_export_of_some_has_these(auditor: httpx.AsyncClient) -> None:
    asked = {"format": "jsonl", "kind": "outcome", "min_seq": 3}
    told = (await auditor.get("/admin/audit/export", params=asked)).content.splitlines()
    assert [json.loads(line)["seq"] for line in told] == [4, 6]
    nothing = await auditor.get("/admin/audit/export", params={"team": "nobody"})
    assert (nothing.status_code, nothing.content) == (200, b"")


async def test_csv_opens_in_a_spreadsheet_and_does_nothing_there(desk: Office, auditor: httpx.AsyncClient) -> None:
    answer = await auditor.get("/admin/audit/export", params={"format": "csv", "max_seq": 6})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert answer.headers["content-disposition"] == 'attachment; filename="audit-7.csv"'
    head, *rows = csv.reader(io.StringIO(answer.content.decode(), newline=""))
    assert tuple(head) == table.COLUMNS
    told = [dict(zip(head, row, strict=True)) for row in rows]
    assert [row["seq"] for row in told] == ["1", "2", "3", "4", "5", "6"]
    assert told[2]["team"] == "'=cmd|'/c calc'!A1"
    assert (told[0]["subject"], told[0]["more"]) == (pseudonym(desk, "anna"), '{"found":{"iban":0}}')
    assert (told[3]["intent"], told[3]["prompt_tokens"]) == ("3", "1")
    assert "sealed" not in answer.text


def scope(key: str) -> dict[str, Any]:
    """A request for an export, as a server hands it over."""
    headers = [(b"authorization", f"Bearer {key}".encode())]
    return {"type": "http", "method": "GET", "path": "/admin/audit/export", "headers": headers, "query_string": b"",
            "raw_path": b"/admin/audit/export", "root_path": "", "scheme": "http", "server": ("office", 80),
            "client": ("here", 1), "http_version": "1.1", "asgi": {"version": "3.0"}}  # fmt: skip


async def test_an_export_ends_though_the_log_is_written_to_all_the_while(
    desk: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_BLOCK", 600)
    _, key = await desk.key(Role.AUDITOR, user="otto")
    content = b""

    async def send(message: dict[str, Any]) -> None:
        nonlocal content
        content += message.get("body", b"")
        await desk.archive.journal.write(Kind.INCIDENT, {"incident": "one more"}).kept()

    await asyncio.wait_for(desk.app(scope(key), asyncio.Event().wait, send), 10)  # type: ignore[arg-type]
    assert [json.loads(line)["seq"] for line in content.splitlines()] == [1, 2, 3, 4, 5, 6, 7]


async def test_a_client_that_leaves_is_on_record_with_what_it_had(
    desk: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_BLOCK", 600)
    _, key = await desk.key(Role.AUDITOR, user="otto")
    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)
        if len(sent) == 3:
            gone.set()
            await asyncio.Event().wait()

    await asyncio.wait_for(desk.app(scope(key), receive, send), 10)  # type: ignore[arg-type]
    assert len(sent) == 3
    async with desk.client(key) as client:
        asked = {"act": "export", "order": "oldest"}
        begun, failed = (await client.get("/admin/audit", params=asked)).json()["data"]
    assert (failed["body"]["phase"], failed["body"]["of"]) == ("failed", begun["seq"])
    assert failed["body"]["records"] >= 1


# ---- what can't be asked, and what can't be read

WRONG = [
    ("from=2026-13-01", "from", "must be a day such as 2026-11-30, or a moment"),
    ("from=2026-11-22T15:50:11", "from", "must be a day"),
    ("from=2026-11-22T15:50:11 01:00", "from", "(in a URL, + is %2B)"),
    ("from=", "from", "must be a day"),
    ("to=yesterday", "to", "must be a day"),
    ("from=2026-11-23&to=2026-11-22", "to", "lies before `from`"),
    ("kind=intents", "kind", "must be one of intent, outcome"),
    ("subject=anna", "subject", "must be a pseudonym"),
    ("subject=p_" + "A" * 24, "subject", "must be a pseudonym"),
    ("intent=x", "intent", "must be a whole number"),
    ("intent=0", "intent", "must be a whole number"),
    ("min_seq=-1", "min_seq", "must be a whole number"),
    ("max_seq=" + "9" * 30, "max_seq", "must be a whole number"),
    ("min_seq=9&max_seq=8", "max_seq", "is less than `min_seq`"),
    ("limit=1001", "limit", "must be a whole number from 1 to 1000"),
    ("after=²", "after", "must be a whole number"),
    ("order=up", "order", "must be one of newest, oldest"),
    ("team=a&team=b", "team", "stands twice"),
    ("team=a%00b", "team", "printable"),
    ("act=" + "x" * 257, "act", "at most 256"),
    ("usecase=mail", "usecase", "did you mean `use_case`?"),
    ("user=anna", "user", "there is no such parameter here"),
]


async def test_a_wrong_parameter_is_named_and_nothing_was_read(desk: Office, auditor: httpx.AsyncClient) -> None:
    for query, param, says in WRONG:
        paths = ["/admin/audit"] if param in ("limit", "after", "order") else ["/admin/audit", "/admin/audit/export"]
        for path in paths:
            answer = await auditor.get(f"{path}?{query}")
            assert answer.status_code == 400, query
            error = answer.json()["error"]
            assert error["param"] == param, query
            assert says in error["message"], query
    for query, param in (("format=xml", "format"), ("limit=1", "limit"), ("order=oldest", "order")):
        assert (await auditor.get(f"/admin/audit/export?{query}")).json()["error"]["param"] == param
    for path in ("status", "reveals"):
        assert (await auditor.get(f"/admin/audit/{path}?x=1")).json()["error"]["param"] == "x"
    assert desk.archive.journal.head[0] == 6


@given(st.dictionaries(st.sampled_from([*FILTERS]), st.text(max_size=30)))
def test_whatever_is_asked_is_a_question_or_a_refusal_of_one_parameter(given: dict[str, str]) -> None:
    try:
        question = question_of(given, BERLIN, HIDDEN)
    except BadRequest as refusal:
        named = refusal.param
    else:
        named = "from"
        assert question.since < question.until
        assert question.least <= question.most
    assert named in {*given, "from"}


def test_days_are_those_of_the_zone_and_what_is_named_last_is_included() -> None:
    day = question_of({"from": "2026-11-22", "to": "2026-11-22"}, BERLIN, HIDDEN)
    assert (day.since, day.until) == ("2026-11-21T23:00:00.000Z", "2026-11-22T23:00:00.000Z")
    changed = question_of({"from": "2026-10-25", "to": "2026-10-25"}, BERLIN, HIDDEN)
    assert (changed.since, changed.until) == ("2026-10-24T22:00:00.000Z", "2026-10-25T23:00:00.000Z")
    moment = question_of({"from": "2026-11-22T15:50:11Z", "to": "2026-11-22T15:50:11.999Z"}, BERLIN, HIDDEN)
    assert (moment.since, moment.until) == ("2026-11-22T15:50:11.000Z", "2026-11-22T15:50:12.000Z")
    assert question_of({}, BERLIN, HIDDEN) == Question()
    assert question_of({"max_seq": str(LAST)}, BERLIN, HIDDEN).most == LAST


async def test_a_log_that_cant_be_read_says_what_to_do_and_nothing_of_the_inside(
    auditor: httpx.AsyncClient, tmp_path: Path
) -> None:
    (tmp_path / "audit" / "000000000001.jsonl.gz").write_bytes(b"\x1f\x8b broken")
    answer = await auditor.get("/admin/audit", params={"order": "oldest"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "audit_unreadable")
    assert "appliance audit verify" in answer.text
    assert str(tmp_path) not in answer.text
    with pytest.raises(Exception, match=r"can't be read"):  # the head is sent: a client must not take it for all
        await auditor.get("/admin/audit/export")


# ---- how it is


async def test_the_status_tells_what_an_auditor_notes(desk: Office, auditor: httpx.AsyncClient) -> None:
    archive = desk.archive
    checkpoint = await archive.journal.checkpoint_now()
    assert checkpoint is not None
    told = (await auditor.get("/admin/audit/status")).json()
    signed = {"number": 1, "sha256": checkpoint.sha256, "at": checkpoint.at, "first": 1, "last": 6}
    days = {"requests_days": 180, "refusals_days": 90, "content_days": 30, "acts_days": 3653, "incidents_days": 1096}
    assert told == {
        "object": "audit.status", "records": 6, "head": archive.journal.head[1], "checkpoint": signed,
        "fingerprint": archive.journal.fingerprint, "well": True, "failures": 0, "waiting": 0, "unsigned_seconds": 0.0,
        "retention": days, "holds": [], "holds_known": True, "works_council": True,
    }  # fmt: skip
    await holds.place(archive, Actor.host(), reason="file 4711", since="2026-11-01", now=NOW)
    archive_holds: Any = archive.holds
    (held,) = (await auditor.get("/admin/audit/status")).json()["holds"]
    assert (held["reason"], held["since"]) == ("file 4711", "2026-11-01")
    archive_holds.trouble = "/state/audit-work/holds.json is gone"
    lost = await auditor.get("/admin/audit/status")
    assert (lost.json()["holds"], lost.json()["holds_known"]) == (None, False)
    assert "/state" not in lost.text


# ---- reveals


@pytest.mark.parametrize("works_council", [True, False])
async def test_a_person_is_revealed_to_two_people(desk: Office, *, works_council: bool) -> None:
    desk.house.audit = Audit(works_council=works_council)
    anna = pseudonym(desk, "anna")
    async with AsyncExitStack() as stack:
        chief, auditor, third = [
            await stack.enter_async_context(desk.client((await desk.key(role, user=user))[1]))
            for role, user in ((Role.SUPER_ADMIN, "carla"), (Role.AUDITOR, "otto"), (Role.AUDITOR, "carla"))
        ]
        order = {"subject": anna, "reason": "  file 4711, suspected leak "}
        asked = await chief.post("/admin/audit/reveals", json=order)
        assert asked.status_code == 201
        reveal = asked.json()
        assert (reveal["state"], reveal["subject"], reveal["reason"]) == ("asked", anna, "file 4711, suspected leak")
        assert reveal["asked_by"] == {"role": "super_admin", "subject": pseudonym(desk, "carla")}
        path = f"/admin/audit/reveals/{reveal['id']}"
        assert "name" not in (await chief.get(path)).json()
        for own in (chief, third):
            refused = await own.post(f"{path}/approve")
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "two_people")
        approved = await auditor.post(f"{path}/approve")
        assert (approved.status_code, approved.json()["state"]) == (200, "approved")
        for one in (chief, auditor):
            shown = await one.get(path)
            assert (shown.json()["name"], shown.headers["cache-control"]) == ("anna", "no-store")
        assert (await third.get(path)).status_code == 403
        for one in (chief, auditor, third):
            listed = await one.get("/admin/audit/reveals")
            assert [each["id"] for each in listed.json()["data"]] == [reveal["id"]]
            for name in ("anna", "carla", "otto"):
                assert name not in listed.text + asked.text + approved.text
        records = (await auditor.get("/admin/audit", params={"subject": anna, "kind": "act"})).json()["data"]
        assert [record["body"]["act"] for record in records[::-1]] == [
            "reveal.ask", "read", *["reveal.approve"] * 3, *["reveal.show"] * 3,
        ]  # fmt: skip


async def test_what_a_record_holds_of_a_person_opens_for_the_two_and_for_nobody_else(desk: Office) -> None:
    anna = desk.archive.subjects.of("anna")
    ticket = desk.archive.journal.write(
        Kind.CONTENT, {"intent": 1, "part": "asked", "subject": anna.pseudonym, "sealed": anna.seal(b"what she asked")}
    )
    await ticket.kept()
    async with AsyncExitStack() as stack:
        chief, auditor, third = [
            await stack.enter_async_context(desk.client((await desk.key(role, user=user))[1]))
            for role, user in ((Role.SUPER_ADMIN, "carla"), (Role.AUDITOR, "otto"), (Role.AUDITOR, "tess"))
        ]
        order = {"subject": anna.pseudonym, "reason": "file 4711, suspected leak"}
        reveal = f"/admin/audit/reveals/{(await chief.post('/admin/audit/reveals', json=order)).json()['id']}"
        path = f"{reveal}/records/{ticket.seq}"
        assert (await chief.get(path)).json()["error"]["code"] == "two_people", "nobody has approved it yet"
        await auditor.post(f"{reveal}/approve")
        for one in (chief, auditor):
            opened = await one.get(path)
            assert (opened.json()["kind"], opened.json()["unsealed"]) == ("content", "what she asked")
            assert opened.headers["cache-control"] == "no-store"
        assert (await third.get(path)).json()["error"]["code"] == "two_people"
        for other in (ticket.seq + 1, ticket.seq + 10_000):
            refused = await chief.get(f"{reveal}/records/{other}")
            assert (refused.status_code, refused.json()["error"]["code"]) == (404, "nothing_sealed")
        records = (await auditor.get("/admin/audit", params={"act": "reveal.unseal"})).json()["data"]
        assert {record["body"]["record"] for record in records if "record" in record["body"]} >= {ticket.seq}
        desk.archive.subjects.erase("anna")
        assert (await chief.get(path)).json()["error"]["code"] == "subject_not_found"


@pytest.mark.parametrize("how", ["a new key", "through another super_admin", "rotated", "a look-alike"])
async def test_a_super_admin_alone_reveals_nobody_with_a_key_of_their_own_making(desk: Office, how: str) -> None:
    order = {"subject": pseudonym(desk, "anna"), "reason": "file 4711, suspected leak"}
    otto, _ = await desk.key(Role.AUDITOR, user="otto")
    _, boss = await desk.key(Role.SUPER_ADMIN, user="boss")

    async def make(key: str, role: Role, user: str) -> httpx.Response:
        async with desk.client(key) as client:
            return await client.post("/admin/keys", json={"user": user, "role": role})

    match how:
        case "a new key":
            second = (await make(boss, Role.AUDITOR, "nobody there")).json()["key"]
        case "through another super_admin":
            ghost = (await make(boss, Role.SUPER_ADMIN, "ghost")).json()["key"]
            second = (await make(ghost, Role.AUDITOR, "nobody there")).json()["key"]
        case "rotated":
            async with desk.client(boss) as client:
                second = (await client.post(f"/admin/keys/{otto.id}/rotate")).json()["key"]
        case _:
            assert (await make(boss, Role.AUDITOR, "boss\ufe0f")).status_code == 400
            _, second = await desk.key(Role.AUDITOR, user="boss\ufe0f")  # of before such names were refused
    async with desk.client(boss) as chief, desk.client(second) as other:
        path = f"/admin/audit/reveals/{(await chief.post('/admin/audit/reveals', json=order)).json()['id']}"
        refused = await other.post(f"{path}/approve")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "two_people")
        assert "name" not in (await chief.get(path)).json()


async def test_whoever_looks_at_the_reveals_is_on_record(desk: Office, auditor: httpx.AsyncClient) -> None:
    assert (await auditor.get("/admin/audit/reveals")).status_code == 200
    looks = (await auditor.get("/admin/audit", params={"act": "read"})).json()["data"]
    assert [each["body"]["phase"] for each in looks if each["body"].get("what") == "reveals"] == ["done"]


async def test_a_wrong_order_for_a_reveal_is_named(desk: Office, auditor: httpx.AsyncClient) -> None:
    right = {"subject": pseudonym(desk, "anna"), "reason": "file 4711, suspected leak"}
    for wrong, param in (
        ({"subject": "anna"}, "subject"),
        ({"subject": right["subject"] + "\n"}, "subject"),
        ({"subject": 5}, "subject"),
        ({"reason": "why not"}, "reason"),
        ({"reason": " " * 20}, "reason"),
        ({"reason": "x" * 501}, "reason"),
        ({"reason": "file 4711\nsuspected leak"}, "reason"),
        ({"user": "anna"}, "user"),
    ):
        answer = await auditor.post("/admin/audit/reveals", json=right | wrong)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), wrong
    unknown = await auditor.post("/admin/audit/reveals", json=right | {"subject": "p_" + "0" * 24})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "subject_not_found")
    for method, path in (("GET", "/admin/audit/reveals/reveal_0"), ("POST", "/admin/audit/reveals/reveal_0/approve")):
        assert (await auditor.request(method, path)).json()["error"]["code"] == "reveal_not_found"
    _, nobodys = await desk.key(Role.AUDITOR)
    async with desk.client(nobodys) as client:
        refused = await client.post("/admin/audit/reveals", json=right)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "two_people")
    assert "--user" in refused.text
    assert desk.archive.journal.head[0] == 6


def test_every_filter_is_one_that_records_can_be_asked_by() -> None:
    assert set(FILTERS) == {"from", "to", "kind", "min_seq", "max_seq", *FIELDS}
    assert set(FILTERS) == set(search_command.FILTERS)
