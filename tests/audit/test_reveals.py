"""Reveals: two people, a reason, a day, and a record of each step; without one of them no name."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from appliance.audit import reveals
from appliance.audit.archive import Archive
from appliance.audit.reveals import ASKED_SECONDS, MOST_OPEN, SHOWN_SECONDS, Reveal, Reveals
from appliance.core import Caller, Role
from appliance.errors import AuditUnavailable, Conflict, Forbidden, NotFound
from tests.fakes import journal

WHY = "file 4711, suspected leak"
CHIEF = Caller("key_1", Role.SUPER_ADMIN, "carla")
AUDITOR = Caller("key_2", Role.AUDITOR, "otto")


@dataclass
class Key:
    user: str | None = None
    issued: float = 1.0
    issuers: tuple[str, ...] = ()


class Keys(dict[str, Key]):
    """What is kept of keys; those that are not told of were made on the host, for nobody."""

    def record(self, id_: str) -> Key | None:
        return None if id_.startswith("oidc_") else self.get(id_, Key())


class Clocks:
    def __init__(self) -> None:
        self.steady = 0.0
        self.wall = 1_795_305_600.0


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    made = journal.archive(tmp_path)
    made.subjects.of("anna")
    yield made
    made.subjects.close()


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def kept() -> Keys:
    return Keys()


@pytest.fixture
def room(archive: Archive, clocks: Clocks, kept: Keys) -> Reveals:
    return Reveals(archive, kept.record, clock=lambda: clocks.steady, wall=lambda: clocks.wall)


def anna(archive: Archive) -> str:
    known = archive.subjects.known("anna")
    assert known is not None
    return known.pseudonym


def log_of(archive: Archive) -> journal.Journal:
    kept: Any = archive.journal
    return kept  # type: ignore[no-any-return]


async def approved(room: Reveals, archive: Archive, asker: Caller = CHIEF, other: Caller = AUDITOR) -> Reveal:
    reveal = await room.ask(asker, anna(archive), WHY)
    return await room.approve(other, reveal.id)


@pytest.mark.parametrize(("asker", "other"), [(CHIEF, AUDITOR), (AUDITOR, CHIEF)])
async def test_one_asks_another_approves_and_both_are_told(
    room: Reveals, archive: Archive, asker: Caller, other: Caller
) -> None:
    reveal = await room.ask(asker, anna(archive), WHY)
    assert (await room.show(asker, reveal.id))[1] is None
    assert (await room.show(other, reveal.id))[1] is None
    await room.approve(other, reveal.id)
    for person in (asker, other):
        assert (await room.show(person, reveal.id))[1] == "anna"


async def test_every_step_is_on_record_with_reason_and_pseudonym_and_never_with_the_name(
    room: Reveals, archive: Archive
) -> None:
    reveal = await approved(room, archive)
    await room.show(CHIEF, reveal.id)
    log = log_of(archive)
    assert log.acts() == [
        (act, phase) for act in ("reveal.ask", "reveal.approve", "reveal.show") for phase in ("intent", "done")
    ]
    bodies = [record["body"] for record in log.records]
    pseudonyms = {person: archive.subjects.of(person).pseudonym for person in ("carla", "otto")}
    for body, who in zip(bodies[::2], ("carla", "otto", "carla"), strict=True):
        assert (body["subject"], body["reason"]) == (anna(archive), WHY)
        assert body["by"]["subject"] == pseudonyms[who]
    assert [body.get("reveal") for body in bodies] == [None, reveal.id, reveal.id, None, reveal.id, None]
    said = b"".join(log.lines) + repr(room.active()).encode() + str(reveal.described()).encode()
    for name in (b"anna", b"carla", b"otto"):
        assert name not in said


async def test_what_cant_be_put_on_record_isnt_done(room: Reveals, archive: Archive) -> None:
    waiting = await room.ask(CHIEF, anna(archive), WHY)
    ready = await approved(room, archive)
    log_of(archive).fail()
    for step in (
        lambda: room.ask(CHIEF, anna(archive), WHY),
        lambda: room.approve(AUDITOR, waiting.id),
        lambda: room.show(CHIEF, ready.id),
    ):
        with pytest.raises(AuditUnavailable):
            await step()
    assert [reveal.id for reveal in room.active()] == [waiting.id, ready.id]
    assert waiting.approved_by is None


ALIKE = ["carla", "Carla", "CARLA", "ｃａｒｌａ", " carla ", "Ｃarla"]


@pytest.mark.parametrize("name", ALIKE)
async def test_nobody_approves_their_own_with_a_second_key(room: Reveals, archive: Archive, name: str) -> None:
    reveal = await room.ask(CHIEF, anna(archive), WHY)
    with pytest.raises(Forbidden, match="one asks and another approves"):
        await room.approve(Caller("key_3", Role.AUDITOR, name), reveal.id)
    assert reveal.approved_by is None
    assert log_of(archive).acts()[-1] == ("reveal.approve", "failed"), "that it was tried is on record"
    assert (await room.show(CHIEF, reveal.id))[1] is None


@pytest.mark.parametrize(("one", "other"), [
    ("müller", "mu\u0308ller"), ("straße", "STRASSE"), ("a  b", "a b"), ("boss", "boss\ufe0f"), ("boss", "bo\u034fss"),
    ("boss", "bo\u3164ss"), ("boss", "boss\U000e0100"), ("bo\u00adss", "boss"),
])  # fmt: skip
async def test_two_ways_to_write_a_name_are_no_two_people(
    room: Reveals, archive: Archive, one: str, other: str
) -> None:
    reveal = await room.ask(Caller("key_1", Role.SUPER_ADMIN, one), anna(archive), WHY)
    with pytest.raises(Forbidden):
        await room.approve(Caller("key_2", Role.AUDITOR, other), reveal.id)


GHOST = Caller("key_g", Role.SUPER_ADMIN, "ghost")
TOKEN = Caller("oidc_1", Role.SUPER_ADMIN, "carla")
ONE_HAND = {
    "made by the asker's key": (CHIEF, AUDITOR, {"key_2": Key("otto", issuers=("key_1",))}),
    "made by the asker's other key": (
        CHIEF, AUDITOR, {"key_2": Key("otto", issuers=("key_5",)), "key_5": Key("Carla")},
    ),
    "made by somebody whom the asker made": (
        CHIEF, AUDITOR,
        {"key_2": Key("otto", issuers=("key_g", "key_1")), "key_1": Key("carla"), "key_g": Key("ghost")},
    ),
    "both made by a third": (
        GHOST, AUDITOR,
        {"key_g": Key("ghost", issuers=("key_9",)), "key_2": Key("otto", issuers=("key_9",)), "key_9": Key("boss")},
    ),
    "the asker's made by who approves": (
        CHIEF, AUDITOR, {"key_1": Key("carla", issuers=("key_8",)), "key_8": Key("otto")},
    ),
    "who approves made the asker's": (
        AUDITOR, CHIEF, {"key_2": Key("otto", issuers=("key_1",)), "key_1": Key("carla")},
    ),
    "made by a key of nobody's": (CHIEF, AUDITOR, {"key_2": Key("otto", issuers=("key_7",))}),
    "rotated before that was kept": (CHIEF, AUDITOR, {"key_2": Key("otto", issuers=("unknown",))}),
    "made by the asker's token": (TOKEN, AUDITOR, {"key_2": Key("otto", issuers=("oidc_1",))}),
    "made by a token that may be the asker's": (CHIEF, AUDITOR, {"key_2": Key("otto", issuers=("oidc_1",))}),
    "made by the asker's key, who comes with a token": (
        TOKEN, AUDITOR, {"key_2": Key("otto", issuers=("key_1",)), "key_1": Key("carla")},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("asker", "other", "told"), ONE_HAND.values(), ids=ONE_HAND)
async def test_two_keys_that_one_person_may_have_are_no_two_people(
    room: Reveals, archive: Archive, kept: Keys, asker: Caller, other: Caller, told: dict[str, Key]
) -> None:
    kept.update(told)
    reveal = await room.ask(asker, anna(archive), WHY)
    with pytest.raises(Forbidden, match="have the auditors' keys made or rotated on the host"):
        await room.approve(other, reveal.id)
    assert (reveal.approved_by, log_of(archive).acts()[-1]) == (None, ("reveal.approve", "failed"))
    assert (await room.show(asker, reveal.id))[1] is None


@pytest.mark.parametrize("issuers", [("key_5",), ("key_5", "key_6"), ()])
async def test_what_others_made_or_the_host_is_somebody_elses(
    room: Reveals, archive: Archive, kept: Keys, issuers: tuple[str, ...]
) -> None:
    kept.update({"key_2": Key("otto", issuers=issuers), "key_5": Key("dora"), "key_6": Key("emil")})
    assert (await approved(room, archive)).approved_by is not None


async def test_who_signs_in_is_whom_the_identity_provider_says(room: Reveals, archive: Archive, kept: Keys) -> None:
    signed_in = Caller("oidc_2", Role.AUDITOR, "otto")
    assert (await approved(room, archive, TOKEN, signed_in)).approved_by is not None
    kept["key_2"] = Key("otto", issuers=("oidc_3",))
    with pytest.raises(Forbidden, match="one person may have"):  # oidc_3 isn't carla's, and might be otto's
        await approved(room, archive, CHIEF, AUDITOR)


@pytest.mark.parametrize("late", [0.0, 1.0])
async def test_a_key_that_came_after_the_asking_approves_nothing(
    room: Reveals, archive: Archive, kept: Keys, clocks: Clocks, late: float
) -> None:
    reveal = await room.ask(CHIEF, anna(archive), WHY)
    kept["key_2"] = Key("otto", clocks.wall + late)
    with pytest.raises(Forbidden, match="after the reveal was asked for"):
        await room.approve(AUDITOR, reveal.id)
    kept["key_2"] = Key("otto", clocks.wall - 1)
    await room.approve(AUDITOR, reveal.id)


@pytest.mark.parametrize("whose", [CHIEF, AUDITOR])
async def test_who_has_a_key_of_one_of_them_rotated_is_shown_nothing(
    room: Reveals, archive: Archive, kept: Keys, clocks: Clocks, whose: Caller
) -> None:
    reveal = await approved(room, archive)
    kept[whose.key_id] = Key(whose.user, clocks.wall, ("key_9",))
    with pytest.raises(Forbidden, match="with the keys that they did it with"):
        await room.show(whose, reveal.id)


async def test_a_key_that_nothing_is_known_of_reveals_nothing(archive: Archive) -> None:
    with pytest.raises(Forbidden, match="isn't known"):
        await Reveals(archive, lambda _: None).ask(CHIEF, anna(archive), WHY)


async def test_what_an_erased_asker_asked_is_nobodys_to_approve(room: Reveals, archive: Archive) -> None:
    reveal = await room.ask(CHIEF, anna(archive), WHY)
    archive.subjects.erase("carla")
    assert "carla" not in str(asdict(reveal.asked_by)), "nothing in memory says who that was"
    with pytest.raises(Forbidden):
        await room.approve(AUDITOR, reveal.id)


async def test_a_look_before_anybody_approves_is_on_record(room: Reveals, archive: Archive) -> None:
    reveal = await room.ask(CHIEF, anna(archive), WHY)
    await room.show(AUDITOR, reveal.id)
    body = log_of(archive).records[-1]["body"]
    assert (body["act"], body["phase"], body["what"], body["reveal"]) == ("read", "done", "reveals", reveal.id)
    log_of(archive).fail()
    with pytest.raises(AuditUnavailable):
        await room.show(AUDITOR, reveal.id)


async def test_two_of_the_same_role_are_not_enough(room: Reveals, archive: Archive) -> None:
    for asker in (CHIEF, AUDITOR):
        reveal = await room.ask(asker, anna(archive), WHY)
        with pytest.raises(Forbidden):
            await room.approve(Caller("key_9", asker.role, "somebody else"), reveal.id)


@pytest.mark.parametrize("caller", [
    Caller("key_4", Role.SUPER_ADMIN), Caller("key_5", Role.AUDITOR), Caller("key_6", Role.ADMIN, "ben"),
])  # fmt: skip
async def test_a_key_of_nobodys_and_other_roles_reveal_nothing(room: Reveals, archive: Archive, caller: Caller) -> None:
    other = CHIEF if caller.role is Role.AUDITOR else AUDITOR
    waiting = await room.ask(other, anna(archive), WHY)
    ready = await approved(room, archive)
    before = len(log_of(archive).lines)
    for step in (
        lambda: room.ask(caller, anna(archive), WHY),
        lambda: room.approve(caller, waiting.id),
        lambda: room.show(caller, ready.id),
    ):
        with pytest.raises(Forbidden, match="nobody's"):
            await step()
    assert len(log_of(archive).lines) == before


@pytest.mark.parametrize("caller", [
    Caller("key_7", Role.SUPER_ADMIN, "dora"), Caller("key_8", Role.AUDITOR, "dora"),
    Caller("key_9", Role.AUDITOR, "carla"),
])  # fmt: skip
async def test_a_third_is_shown_no_name_and_the_attempt_is_on_record(
    room: Reveals, archive: Archive, caller: Caller
) -> None:
    reveal = await approved(room, archive)
    with pytest.raises(Forbidden, match="nobody else"):
        await room.show(caller, reveal.id)
    assert log_of(archive).acts()[-2:] == [("reveal.show", "intent"), ("reveal.show", "failed")]


async def test_it_is_shown_for_a_day_and_asked_for_a_week(room: Reveals, archive: Archive, clocks: Clocks) -> None:
    ready = await approved(room, archive)
    waiting = await room.ask(CHIEF, anna(archive), WHY)
    assert (ready.expires, waiting.expires) == ("2026-11-23T00:00:00.000Z", "2026-11-29T00:00:00.000Z")
    clocks.steady = SHOWN_SECONDS - 1
    assert (await room.show(CHIEF, ready.id))[1] == "anna"
    clocks.steady = SHOWN_SECONDS
    with pytest.raises(NotFound):
        await room.show(CHIEF, ready.id)
    clocks.steady = ASKED_SECONDS - 1
    assert room.active() == [waiting]
    late = await room.ask(AUDITOR, anna(archive), WHY)
    clocks.steady = ASKED_SECONDS
    with pytest.raises(NotFound):
        await room.approve(AUDITOR, waiting.id)
    assert room.active() == [late]


async def test_a_clock_that_is_set_back_makes_nothing_last_longer(
    room: Reveals, archive: Archive, clocks: Clocks
) -> None:
    reveal = await approved(room, archive)
    clocks.wall -= 30 * 86_400
    clocks.steady = SHOWN_SECONDS
    with pytest.raises(NotFound):
        await room.show(CHIEF, reveal.id)


async def test_approved_once_is_approved_and_doesnt_last_longer(
    room: Reveals, archive: Archive, clocks: Clocks
) -> None:
    reveal = await approved(room, archive)
    clocks.steady = SHOWN_SECONDS / 2
    for other in (AUDITOR, Caller("key_8", Role.AUDITOR, "dora")):
        with pytest.raises(Conflict, match="approved already"):
            await room.approve(other, reveal.id)
    assert reveal.approved_by is not None
    assert reveal.approved_by.pseudonym == archive.subjects.of("otto").pseudonym
    assert reveal.ends == SHOWN_SECONDS


async def test_of_two_who_approve_at_once_one_does(room: Reveals, archive: Archive) -> None:
    reveal = await room.ask(CHIEF, anna(archive), WHY)
    others = [AUDITOR, Caller("key_8", Role.AUDITOR, "dora")]
    came_to = await asyncio.gather(*(room.approve(each, reveal.id) for each in others), return_exceptions=True)
    assert sorted(type(each).__name__ for each in came_to) == ["Conflict", "Reveal"]
    shown = [await asyncio.gather(room.show(each, reveal.id), return_exceptions=True) for each in others]
    assert sorted(isinstance(each, Forbidden) for (each,) in shown) == [False, True]


async def test_the_unknown_and_the_erased_are_not_found_before_and_after(room: Reveals, archive: Archive) -> None:
    with pytest.raises(NotFound, match="nobody has this pseudonym"):
        await room.ask(CHIEF, "p_" + "0" * 24, WHY)
    ready = await approved(room, archive)
    waiting = await room.ask(CHIEF, anna(archive), WHY)
    archive.subjects.erase("anna")
    for step in (lambda: room.approve(AUDITOR, waiting.id), lambda: room.show(CHIEF, ready.id)):
        with pytest.raises(NotFound, match="erased"):
            await step()
    assert archive.subjects.known("anna") is None, "no step makes somebody known again"


async def test_only_so_many_are_open_and_what_is_over_makes_room(
    room: Reveals, archive: Archive, clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MOST_OPEN <= 1000
    monkeypatch.setattr(reveals, "MOST_OPEN", 3)
    for _ in range(3):
        await room.ask(CHIEF, anna(archive), WHY)
    with pytest.raises(Conflict, match="open already"):
        await room.ask(AUDITOR, anna(archive), WHY)
    clocks.steady = ASKED_SECONDS
    await room.ask(AUDITOR, anna(archive), WHY)
    assert len(room.active()) == 1


async def test_a_restart_forgets_them(room: Reveals, archive: Archive) -> None:
    reveal = await approved(room, archive)
    with pytest.raises(NotFound, match="before a restart"):
        await Reveals(archive, Keys().record).show(CHIEF, reveal.id)
