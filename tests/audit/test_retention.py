"""What was kept for long enough goes, and nothing else; the log proves itself before, between and after."""

from __future__ import annotations

import asyncio
import gzip
import json
import tempfile
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.audit import closed, holds, removal
from appliance.audit.archive import Actor
from appliance.audit.holds import Hold
from appliance.audit.record import Kind, moment
from appliance.audit.retention import Terms
from appliance.config.audit import Retention
from appliance.errors import AuditFailed
from tests.audit.days import ANNA, BEGIN, BEN, DAY, TERMS, Days, one_of_each

US = Actor.appliance()
STAYS = {
    "intent": 20, "outcome": 20, "strangers": 20, "refusal": 10, "content": 5, "act": 40, "incident": 30,
}  # fmt: skip


@pytest.fixture
async def days(tmp_path: Path) -> Any:
    async with Days(tmp_path) as opened:
        yield opened


# ---- what goes


@pytest.mark.parametrize("kind", list(STAYS))
async def test_each_kind_stays_for_its_days_and_goes_on_the_next(days: Days, kind: str) -> None:
    seq = (await one_of_each(days))[kind]
    await days.turn(STAYS[kind])
    await days.sweep.run(TERMS, US)
    assert seq in days.records()
    await days.turn()
    await days.sweep.run(TERMS, US)
    assert seq not in days.records()
    assert days.verdict().genuine


async def test_a_day_goes_as_a_whole_however_early_the_job_runs(days: Days) -> None:
    days.now = BEGIN - BEGIN % DAY + 1
    early = await days.put(Kind.CONTENT, {"subject": ANNA})
    days.now += DAY - 2
    late = await days.put(Kind.CONTENT, {"subject": ANNA})
    days.now += 5 * DAY
    await days.turn(0)
    await days.sweep.run(TERMS, US)
    assert {early, late} <= days.records().keys()
    days.now += 2
    await days.turn(0)
    await days.sweep.run(TERMS, US)
    assert not {early, late} & days.records().keys()


async def test_a_kind_of_a_later_version_stays(days: Days) -> None:
    assert not Terms.of(TERMS, (), days.now).old(b"novelty", b"1999-01-01T00:00:00.000Z")


async def test_a_segment_is_rewritten_once_for_each_kind_and_its_stub_covers_all_that_went(days: Days) -> None:
    await one_of_each(days)
    stub, counts = days.state / "audit" / "000000000001.stub.json", []
    for _ in range(45):
        await days.turn()
        await days.sweep.run(TERMS, US)
        assert days.verdict().genuine, days.verdict().lines()
        told = json.loads(stub.read_bytes()) if stub.exists() else {"kinds": {}}
        if told["kinds"] not in counts:
            counts.append(told["kinds"])
    assert counts == [
        {},
        {"content": 1},
        {"content": 1, "refusal": 1},
        {"content": 1, "intent": 1, "outcome": 1, "refusal": 1, "strangers": 1},
        {"content": 1, "incident": 1, "intent": 1, "outcome": 1, "refusal": 1, "strangers": 1},
        {"act": 1, "content": 1, "incident": 1, "intent": 1, "outcome": 1, "refusal": 1, "strangers": 1},
    ]
    assert told["sha256"] is None
    assert not (days.state / "audit" / "000000000001.jsonl.gz").exists()


async def test_in_the_place_of_a_record_its_hash_stays_and_nothing_it_said(days: Days) -> None:
    await days.put(Kind.CONTENT, {"subject": ANNA, "sealed": "what was asked"})
    await days.put(Kind.INTENT, {"subject": BEN})
    await days.turn(6)
    await days.sweep.run(TERMS, US)
    first = gzip.decompress((days.state / "audit" / "000000000001.jsonl.gz").read_bytes()).splitlines()[0]
    assert json.loads(first).keys() == {"kind", "seq", "sha256"}
    held = b"".join(file.read_bytes() for file in (days.state / "audit").rglob("*") if file.is_file())
    assert b"what was asked" not in held


async def test_a_run_is_on_record_with_what_went_and_a_dry_one_tells_the_same(days: Days) -> None:
    await one_of_each(days)
    await days.turn(11)
    records = days.records()
    told = (await days.sweep.run(TERMS, US, dry=True)).told()
    assert days.records() == records
    assert not list((days.state / "audit").glob("*.new.gz"))
    assert (await days.sweep.run(TERMS, US)).told() == told
    await days.archive.journal.checkpoint_now()
    begun, done = (each for each in days.records().values() if each["body"].get("act") == "retention")
    assert begun["body"] == {"act": "retention", "by": {"role": "appliance"}, "phase": "intent"}
    assert done["body"] == {
        "act": "retention", "failed": 0, "held": 0, "newest": "2026-01-01T12:00:00.000Z", "of": begun["seq"],
        "oldest": "2026-01-01T12:00:00.000Z", "phase": "done", "removed": {"content": 1, "refusal": 1}, "segments": 1,
        "stubs": [{"first": 1, "kinds": {"content": 1, "refusal": 1}, "last": 7}],
    }  # fmt: skip
    assert done["body"].items() >= told.items()


async def test_what_is_written_while_the_clock_is_set_back_goes_no_sooner_than_what_came_before(days: Days) -> None:
    first = await days.put(Kind.CONTENT, {"subject": ANNA})
    days.now -= 3000 * DAY
    then = await days.put(Kind.CONTENT, {"subject": ANNA})
    act = await days.put(Kind.ACT, {"act": "keys.create", "phase": "done"})
    days.now += 3000 * DAY
    await days.turn(5)
    await days.sweep.run(TERMS, US)
    assert {first, then, act} <= days.records().keys()
    await days.turn()
    await days.sweep.run(TERMS, US)
    assert not {first, then} & days.records().keys()
    assert act in days.records()
    assert days.verdict().genuine


async def test_a_clock_that_was_ahead_for_a_while_keeps_nothing_that_came_after(days: Days) -> None:
    days.now += 3000 * DAY
    await days.put(Kind.CONTENT, {"subject": ANNA})
    days.now -= 3000 * DAY
    after = await days.put(Kind.CONTENT, {"subject": ANNA})
    await days.turn(6)
    await days.sweep.run(TERMS, US)
    assert after not in days.records()
    assert days.verdict().genuine


async def test_the_open_segment_is_never_touched(days: Days) -> None:
    days.now -= 30 * DAY
    seq = await days.put(Kind.CONTENT, {"subject": ANNA})
    days.sweep._wall = lambda: BEGIN
    await days.sweep.run(TERMS, US)
    assert seq in days.records()


# ---- holds


async def test_what_a_hold_keeps_stays_and_goes_once_it_is_released(days: Days) -> None:
    anna, ben = days.archive.subjects.of("anna").pseudonym, days.archive.subjects.of("ben").pseudonym
    mine = await days.put(Kind.INTENT, {"subject": anna})
    other = await days.put(Kind.INTENT, {"subject": ben})
    answer = await days.put(Kind.OUTCOME, {"intent": mine})
    others = await days.put(Kind.OUTCOME, {"intent": other})
    hold = await holds.place(days.archive, US, reason="case 7", subject="anna", now=days.now)
    await days.turn(30)
    swept = await days.sweep.run(TERMS, US)
    assert swept.removed.held == 2
    assert days.records().keys() & {mine, other, answer, others} == {mine, answer}
    await holds.release(days.archive, US, hold.id)
    await days.turn()
    await days.sweep.run(TERMS, US)
    assert not days.records().keys() & {mine, answer}
    assert days.verdict().genuine


async def test_an_answer_is_held_with_its_question_that_lies_in_an_older_segment(days: Days) -> None:
    anna = days.archive.subjects.of("anna").pseudonym
    days.now += 12 * 3600 - 1
    question = await days.put(Kind.INTENT, {"subject": anna})
    days.now += 2
    answer = await days.put(Kind.OUTCOME, {"intent": question})
    await holds.place(days.archive, US, reason="case 7", subject="anna", now=days.now)
    await days.turn(30)
    await days.sweep.run(TERMS, US)
    assert days.records().keys() >= {question, answer}


async def test_a_hold_that_comes_while_a_run_prepares_counts(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    seqs = await one_of_each(days)
    await days.turn(30)
    prepare, loop = removal.prepare, asyncio.get_running_loop()
    placed: list[Hold] = []

    def interrupted(*told: Any, **more: Any) -> Any:
        prepared = prepare(*told, **more)
        if not placed:
            place = holds.place(days.archive, US, reason="late", since="2026-01-01", now=days.now)
            placed.append(asyncio.run_coroutine_threadsafe(place, loop).result(20))
        return prepared

    monkeypatch.setattr(removal, "prepare", interrupted)
    swept = await days.sweep.run(TERMS, US)
    assert placed
    assert not swept.removed.kinds
    assert days.records().keys() >= set(seqs.values())
    assert not list((days.state / "audit").glob("*.stub.json"))


async def test_without_knowing_the_holds_nothing_goes(days: Days) -> None:
    seqs = await one_of_each(days)
    await days.turn(100)
    await days.close()
    (days.state / "audit-work" / "holds.json").unlink()
    await days.open()
    for dry in (True, False):
        with pytest.raises(AuditFailed, match="holds --repair"):
            await days.sweep.run(TERMS, US, dry=dry)
    assert days.records().keys() >= set(seqs.values())


async def test_while_a_person_is_held_an_unreadable_segment_stops_everything(days: Days) -> None:
    days.archive.subjects.of("anna")
    await holds.place(days.archive, US, reason="case 7", subject="anna", now=days.now)
    await days.turn()
    seq = await days.put(Kind.CONTENT, {"subject": BEN})
    await days.turn(100)
    file = days.state / "audit" / "000000000001.jsonl.gz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(AuditFailed, match=r"000000000001.jsonl.gz may speak of a person who is held"):
        await days.sweep.run(TERMS, US)
    assert seq in [told["seq"] for told in days.lines(but=file) if "body" in told]


async def test_only_segments_in_which_something_is_due_are_read(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        await one_of_each(days)
        await days.turn()
    read: list[str] = []
    slices = closed.slices
    for room in (closed, removal):
        monkeypatch.setattr(room, "slices", lambda segment: read.append(segment.file.name) or slices(segment))
    await days.sweep.run(TERMS, US)
    assert len(read) == 5
    read.clear()
    await days.sweep.run(TERMS, US)
    assert not read
    await days.turn(1)
    read.clear()
    await days.sweep.run(TERMS, US)
    assert sorted(read)[0] == "000000000001.jsonl.gz"
    assert len(read) == 2  # the first, and the new one to see what is in it


@pytest.mark.parametrize("damage", [b"", b"[]", b"{}", b'{"000000000001.jsonl.gz": 3}', b"\xff", b"[" * 100_000])
async def test_notes_that_are_damaged_are_made_anew(days: Days, damage: bytes) -> None:
    await one_of_each(days)
    await days.turn(6)
    (days.state / "audit-work" / "contents.json").write_bytes(damage)
    assert (await days.sweep.run(TERMS, US)).removed.kinds == {"content": 1}


# ---- whatever happens


Event = tuple[Kind, str | None, int, int]
events = st.lists(
    st.tuples(
        st.sampled_from(Kind),
        st.sampled_from([None, ANNA, BEN]),
        st.integers(0, 6),  # which of the last intents it belongs to
        st.sampled_from([0, 0, 0, 1, 1, 2, 7, -1]),  # days that go by
    ),
    min_size=1,
    max_size=40,
)
span = st.none() | st.integers(-2, 40)
held = st.lists(st.tuples(span, span, st.sampled_from([None, ANNA, BEN])), max_size=2)
terms = st.builds(
    lambda content, more, refusals, acts, incidents: Retention(
        content_days=content, requests_days=content + more, refusals_days=refusals, acts_days=acts,
        incidents_days=incidents,
    ),
    *[st.integers(1, 20)] * 5,
)  # fmt: skip


async def any_log_at_all(state: Path, what: list[Event], held: list[Any], terms: Retention, later: list[int]) -> None:
    async with Days(state) as days:
        intents: list[int] = []
        for kind, person, back, gap in what:
            days.now += gap * DAY
            body: dict[str, Any] = {"subject": person} if person else {"note": 1}
            if kind in (Kind.OUTCOME, Kind.CONTENT) and intents:
                body["intent"] = intents[-1 - back % len(intents)]
            ticket = days.archive.journal.write(kind, body)
            if kind is Kind.INTENT:
                intents.append(ticket.seq)
        active = []
        for number, (since, until, subject) in enumerate(held):
            first, last = (None if each is None else _day(BEGIN + each * DAY) for each in (since, until))
            active.append(Hold(f"hold_{number}", "why", first, last, subject, "host", "2026-01-01T00:00:00.000Z"))
            await days.put(Kind.ACT, {"act": "hold", "hold": {"id": f"hold_{number}"}, "phase": "intent"})
            days.archive.holds.add(active[-1])
        for gap in later:
            await days.turn(gap)
            before = days.records()
            dry = await days.sweep.run(terms, US, dry=True)
            done = await days.sweep.run(terms, US)
            assert dry.told() == done.told()
            assert not done.failed
            after = days.records()
            expected = {seq for seq, record in before.items() if goes(record, before, active, terms, days.now)}
            assert before.keys() - after.keys() == expected
            assert all(after[seq] == before[seq] for seq in before.keys() & after.keys())
            assert sum(done.removed.kinds.values()) == len(expected)
            verdict = days.verdict()
            assert verdict.genuine, verdict.lines()
            if active:
                days.archive.holds.remove(active.pop())


def goes(
    record: Mapping[str, Any], all_: Mapping[int, Mapping[str, Any]], active: list[Hold], terms: Retention, now: float
) -> bool:
    """What has to be: told in another way than the appliance has it."""
    kind, body = record["kind"], record["body"]
    field = {"refusal": "refusals", "content": "content", "act": "acts", "incident": "incidents"}.get(kind, "requests")
    before = [each["at"] for seq, each in all_.items() if seq <= record["seq"] and each["at"] <= moment(now)]
    written = max(record["at"], *before) if before else record["at"]
    age = (date.fromisoformat(_day(now)) - date.fromisoformat(written[:10])).days
    if age <= getattr(terms, f"{field}_days"):
        return False
    of = all_.get(body.get("intent", 0))
    for hold in active:
        if hold.id == body.get("hold", {}).get("id"):
            return False
        if hold.subject is None and (_within(record["at"], hold) or _within(written, hold)):
            return False
        named = [each for each in (record, of) if each and each["body"].get("subject") == hold.subject]
        if hold.subject is not None and any(_within(each["at"], hold) for each in named):
            return False
    return True


def _within(moment: str, hold: Hold) -> bool:
    at = datetime.fromisoformat(moment.removesuffix("Z"))
    first = datetime.fromisoformat(hold.since or "1970-01-02") - timedelta(hours=14)
    last = datetime.fromisoformat(hold.until or "9000-01-01") + timedelta(hours=36)
    return first <= at < last


def _day(at: float) -> str:
    return date.fromtimestamp(at).isoformat()


def _try(example: Callable[..., Any], *told: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(example(Path(folder), *told))


later = st.lists(st.integers(1, 15), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events, held, terms, later)
def test_of_any_log_just_what_is_old_and_not_held_goes(
    what: list[Event], held: list[Any], terms: Retention, later: list[int]
) -> None:
    _try(any_log_at_all, what, held, terms, later)


@pytest.mark.long
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events, held, terms, later)
def test_of_any_of_five_hundred_logs_just_what_is_old_and_not_held_goes(
    what: list[Event], held: list[Any], terms: Retention, later: list[int]
) -> None:
    _try(any_log_at_all, what, held, terms, later)
