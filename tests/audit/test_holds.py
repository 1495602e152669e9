"""Holds are on record before they count, outlive a restart, and when they are lost nothing is removed or erased."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from appliance import durable
from appliance.audit import holds
from appliance.audit.archive import Actor
from appliance.audit.holds import Hold, Holds, from_log
from appliance.audit.orders import Orders
from appliance.audit.record import moment
from appliance.config.audit import Retention
from appliance.errors import AuditFailed, AuditUnavailable, BadRequest
from tests.audit.days import Days

HOST = Actor("host:root", "host", user="root")
DAMAGE = [b"", b"{", b"[]", b'{"holds":[],"sha256":"0"}', b'{"holds":[{}]}', b"\xff", b"[" * 100_000]


@pytest.fixture
async def days(tmp_path: Path) -> Any:
    async with Days(tmp_path) as opened:
        opened.archive.subjects.of("anna")
        yield opened


def some(**changed: Any) -> Hold:
    told = {"since": None, "until": None, "subject": None} | changed
    return Hold(id="hold_1", reason="case 7", by="p_x", at="2026-01-01T00:00:00.000Z", **told)


async def acts(days: Days, *names: str) -> list[dict[str, Any]]:
    await days.archive.journal.checkpoint_now()
    return [told["body"] for told in days.records().values() if told["body"].get("act") in names]


async def place(days: Days, **told: Any) -> Hold:
    return await holds.place(days.archive, HOST, **({"reason": "case 7", "now": days.now} | told))


async def test_a_hold_and_its_release_are_on_record_by_pseudonym_and_outlive_a_restart(days: Days) -> None:
    anna = days.archive.subjects.of("anna").pseudonym
    hold = await place(days, subject="anna", since="2026-01-01")
    assert hold.subject == anna
    await days.close()
    await days.open()
    assert days.archive.holds.active == (hold,)
    await holds.release(days.archive, HOST, hold.id)
    await days.close()
    await days.open()
    assert days.archive.holds.active == ()
    told = await acts(days, "hold", "release")
    assert [(each["act"], each["phase"]) for each in told] == [
        ("hold", "intent"), ("hold", "done"), ("release", "intent"), ("release", "done"),
    ]  # fmt: skip
    assert told[0]["hold"] == {
        "at": "2026-01-01T12:00:00.000Z", "by": days.archive.subjects.of("host:root").pseudonym, "id": hold.id,
        "reason": "case 7", "since": "2026-01-01", "subject": anna, "until": None,
    }  # fmt: skip
    assert told[0]["target"]["subject"] == anna
    assert "anna" not in json.dumps(told)
    assert "anna" not in (days.state / "audit-work" / "holds.json").read_text()


async def test_a_pseudonym_does_for_a_name(days: Days) -> None:
    anna = days.archive.subjects.of("anna").pseudonym
    assert (await place(days, subject=anna)).subject == anna


async def test_a_name_like_a_pseudonym_is_that_pseudonym_first(days: Days) -> None:
    """Such names are refused today; a key that is older may have one."""
    anna = days.archive.subjects.of("anna").pseudonym
    days.archive.subjects.of(anna)
    hold = await place(days, subject=anna)
    assert hold.subject == anna
    sealed = (await acts(days, "hold"))[0]["target"]
    assert sealed["subject"] == anna


@pytest.mark.parametrize(
    ("told", "field"),
    [
        ({}, "since"),
        ({"reason": "  ", "since": "2026-01-01"}, "reason"),
        ({"since": "yesterday"}, "since"),
        ({"since": "0001-01-01"}, "since"),
        ({"until": "9999-12-31"}, "until"),
        ({"since": "2026-01-02", "until": "2026-01-01"}, "until"),
        ({"subject": "nobody"}, "subject"),
        ({"subject": ""}, "subject"),
    ],
)
async def test_what_cannot_be_meant_is_refused_and_names_the_field(
    days: Days, told: dict[str, Any], field: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        await place(days, **told)
    assert refused.value.param == field
    assert not await acts(days, "hold")


async def test_a_hold_that_is_not_there_cannot_be_released(days: Days) -> None:
    with pytest.raises(BadRequest, match="appliance audit holds shows them"):
        await holds.release(days.archive, HOST, "hold_x")


async def test_what_cannot_be_put_on_record_or_on_disk_is_not_held(days: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(durable, "replace", full)
        with pytest.raises(AuditFailed, match="No space left on device; nothing has changed"):
            await place(days, since="2026-01-01")
    assert days.archive.holds.active == ()
    assert [each["phase"] for each in await acts(days, "hold")] == ["intent", "failed"]
    await days.close()
    with pytest.raises(AuditUnavailable):
        await place(days, since="2026-01-01")
    assert days.archive.holds.active == ()
    await days.open()


# ---- what a hold is for


def test_who_is_held_cannot_be_erased_and_a_hold_of_days_counts_for_everybody(tmp_path: Path) -> None:
    held = Holds.open(tmp_path, anew=True)
    assert held.on_subject("p_a") == []
    held.add(some(subject="p_a"))
    assert held.on_subject("p_a") == ["hold_1: case 7"]
    assert held.on_subject("p_b") == []
    held.add(some(since="2026-01-01"))
    assert held.on_subject("p_b") == ["hold_1: case 7"]


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Europe/Berlin", "Etc/GMT+12"])
def test_a_day_is_held_as_a_whole_wherever_it_is(zone: str) -> None:
    since, until = some(since="2026-03-29", until="2026-03-29").span
    first = datetime(2026, 3, 29, tzinfo=ZoneInfo(zone))
    last = datetime(2026, 3, 29, 23, 59, 59, 999_000, tzinfo=ZoneInfo(zone))
    assert since <= moment(first.timestamp()) < moment(last.timestamp()) < until
    assert not since <= moment(datetime(2026, 3, 27, 23, tzinfo=UTC).timestamp())


# ---- lost and damaged


async def test_the_first_start_is_no_loss_and_every_later_one_without_the_file_is(days: Days) -> None:
    file = days.state / "audit-work" / "holds.json"
    assert file.exists()
    assert days.archive.holds.trouble is None
    await place(days, since="2026-01-01")
    await days.close()
    file.unlink()
    for _ in range(2):
        await days.open()
        assert "is gone" in (days.archive.holds.trouble or "")
        await days.close()
    await days.open()


@pytest.mark.parametrize("content", DAMAGE)
async def test_a_damaged_file_stops_erasing_and_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "holds.json").write_bytes(content)
    held = Holds.open(tmp_path, anew=True)
    (reason,) = held.on_subject("p_a")
    assert "holds.json can't be read" in reason
    assert "appliance audit holds --repair" in reason
    for use in (lambda: held.active, lambda: held.add(some()), lambda: held.find("hold_1")):
        with pytest.raises(AuditFailed, match="holds --repair"):
            use()
    assert (tmp_path / "holds.json").read_bytes() == content


def test_each_flipped_bit_is_seen(tmp_path: Path) -> None:
    Holds.open(tmp_path, anew=True).add(some(subject="p_a"))
    content = (tmp_path / "holds.json").read_bytes()
    for bit in range(8 * len(content.rstrip())):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match="damaged"):
            holds._read(bytes(flipped))


async def test_a_lost_file_is_made_anew_from_the_log(days: Days) -> None:
    stays = await place(days, subject="anna")
    await days.turn()
    ends = await place(days, since="2026-01-01", until="2026-01-02")
    await holds.release(days.archive, HOST, ends.id)
    await days.turn()
    also = await place(days, until="2026-02-01")
    await days.close()
    (days.state / "audit-work" / "holds.json").write_bytes(b"?")
    await days.open()
    with pytest.raises(AuditFailed, match="holds --repair"):
        await place(days, since="2026-01-01")
    orders = Orders(days.archive, days.state)
    told = await orders.carry_out("repair", {}, HOST, Retention())
    assert [each["id"] for each in told["holds"]] == [stays.id, also.id]
    assert days.archive.holds.trouble is None
    assert days.archive.holds.active == (stays, also)
    assert Holds.open(days.state / "audit-work").active == (stays, also)
    assert (await acts(days, "holds.repair"))[-1]["holds"] == [stays.id, also.id]


async def test_the_acts_from_which_holds_are_made_anew_stay_as_long_as_the_holds(days: Days) -> None:
    hold = await place(days, since="2026-01-01", until="2026-01-01")
    await days.turn(5000)
    await days.sweep.run(Retention(), Actor.appliance())
    orders = Orders(days.archive, days.state)
    assert [each["id"] for each in (await orders.carry_out("repair", {}, HOST, Retention()))["holds"]] == [hold.id]


def record(seq: int, act: str, phase: str, **body: Any) -> dict[str, Any]:
    return {"seq": seq, "body": {"act": act, "phase": phase, **body}}


HOLD = {"hold": {name: getattr(some(), name) for name in Hold.__slots__}}


@pytest.mark.parametrize(
    ("log", "held"),
    [
        ([record(1, "hold", "intent", **HOLD), record(2, "hold", "done", of=1)], True),
        ([record(1, "hold", "intent", **HOLD)], True),
        ([record(1, "hold", "intent", **HOLD), record(2, "hold", "failed", of=1)], False),
        ([record(1, "hold", "intent", **HOLD), record(2, "release", "intent", **HOLD)], True),
        ([*(log := [record(1, "hold", "intent", **HOLD), record(2, "release", "intent", **HOLD)]),
          record(3, "release", "failed", of=2)], True),
        ([*log, record(3, "release", "done", of=2)], False),
        ([record(1, "keys.create", "intent"), record(2, "keys.create", "done", of=1)], False),
    ],
)  # fmt: skip
def test_what_is_in_doubt_is_held(log: list[dict[str, Any]], *, held: bool) -> None:
    assert bool(from_log(log)) is held
