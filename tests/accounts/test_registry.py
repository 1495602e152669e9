"""What can be done with keys, on the real store: by an administrator of the host, and by callers of each role."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from appliance.accounts import keys
from appliance.accounts.keys import KeyRecord, Keyring
from appliance.accounts.registry import KeyOrder, Registry, check
from appliance.accounts.store import Store
from appliance.config import Accounts, Allowance, Prices, UseCase
from appliance.config.accounts import ModelPrice
from appliance.core import Caller, DataClass, Role, ServiceClass
from appliance.errors import BadRequest, Conflict, Forbidden, NotFound, Unauthenticated

PEPPER = bytes(range(32))
NOW = 1_800_000_000.0


class Room:
    """A registry on a real store, at a time that a test sets."""

    def __init__(self, store: Store) -> None:
        self.now = NOW
        self.store = store
        self.registry = Registry(self.store, PEPPER, clock=lambda: self.now)

    def opens(self, key: str) -> bool:
        """Whether a key opens now, as the store has it."""
        ring = Keyring(PEPPER, clock=lambda: self.now, monotonic=lambda: 0.0)
        ring.renew(self.store.keys())
        ring.confirm(0.0)
        try:
            ring.authenticate(key)
        except Unauthenticated:
            return False
        return True


@pytest.fixture
def room(store: Store) -> Room:
    return Room(store)


def test_a_key_is_kept_as_it_was_ordered_and_its_secret_is_not(room: Room, tmp_path: Path) -> None:
    assert room.registry.empty
    order = KeyOrder(
        name="mail sorter", user="anna", team="sales", role=Role.POWER_USER, use_cases=frozenset({"mail", "night"}),
        service_class=ServiceClass.BATCH, data_class=DataClass.PERSONAL,
        allowance=Allowance(tokens_per_day=5, euros_per_month=0.5), expires=NOW + 9,
    )  # fmt: skip
    record, key = room.registry.create(order)
    assert not room.registry.empty
    assert room.registry.select() == [record]
    assert record == KeyRecord(
        id=record.id, digest=keys.digest_of(key, PEPPER), name="mail sorter", created=NOW, created_by="host",
        user="anna", team="sales", role=Role.POWER_USER, use_cases=order.use_cases, service_class=ServiceClass.BATCH,
        data_class=DataClass.PERSONAL, allowance=order.allowance, expires=NOW + 9, issued=NOW,
    )  # fmt: skip
    assert room.opens(key)
    secret = key.removeprefix(keys.PREFIX).encode()
    for file in tmp_path.iterdir():
        assert secret not in file.read_bytes(), file


def test_a_rotated_key_keeps_its_id_and_the_old_one_opens_for_the_overlap(room: Room) -> None:
    record, old = room.registry.create(KeyOrder(user="anna"))
    after, new = room.registry.rotate(record.id, 3600)
    assert (after.id, after.user, after.previous_until) == (record.id, "anna", NOW + 3600)
    assert (room.opens(old), room.opens(new)) == (True, True)
    room.now += 3600
    assert (room.opens(old), room.opens(new)) == (False, True)


def test_without_an_overlap_the_old_key_ends_for_good_whatever_the_clock_says(room: Room) -> None:
    record, old = room.registry.create(KeyOrder())
    after, new = room.registry.rotate(record.id, 0)
    assert after.previous_until is None
    for jump in (0.0, -1.0, -365 * 86_400.0):
        room.now = NOW + jump
        assert (room.opens(old), room.opens(new)) == (False, True)


def test_rotating_twice_ends_the_oldest_at_once(room: Room) -> None:
    record, first = room.registry.create(KeyOrder())
    _, second = room.registry.rotate(record.id, 3600)
    _, third = room.registry.rotate(record.id, 3600)
    assert [room.opens(key) for key in (first, second, third)] == [False, True, True]


def test_a_rotation_keeps_the_end_unless_it_names_another(room: Room) -> None:
    record, old = room.registry.create(KeyOrder(expires=NOW + 60))
    after, new = room.registry.rotate(record.id, 3600)
    assert (after.expires, after.previous_until) == (NOW + 60, NOW + 60)
    after, newer = room.registry.rotate(record.id, 3600, expires=NOW + 9999)
    assert (after.expires, after.previous_until) == (NOW + 9999, NOW + 60)
    room.now += 60
    assert [room.opens(key) for key in (old, new, newer)] == [False, False, True]


def test_an_expired_key_comes_back_only_as_another_with_a_new_end(room: Room) -> None:
    record, old = room.registry.create(KeyOrder(expires=NOW + 60))
    room.now += 61
    with pytest.raises(Conflict, match="is expired; create a new key"):
        room.registry.rotate(record.id, 3600)
    _, new = room.registry.rotate(record.id, 3600, expires=room.now + 60)
    assert (room.opens(old), room.opens(new)) == (False, True)


def test_revoking_ends_the_key_and_the_one_before_it_for_good(room: Room) -> None:
    record, old = room.registry.create(KeyOrder())
    _, new = room.registry.rotate(record.id, 3600)
    first = room.registry.revoke(record.id)
    assert first.state(room.now) == "revoked"
    assert (room.opens(old), room.opens(new)) == (False, False)
    room.now += 60
    assert room.registry.revoke(record.id) == first, "twice does nothing"
    for expires in (None, room.now + 60):
        with pytest.raises(Conflict, match="is revoked"):
            room.registry.rotate(record.id, 3600, expires=expires)


def test_a_key_that_is_revoked_while_it_is_rotated_stays_revoked(room: Room) -> None:
    record, old = room.registry.create(KeyOrder())
    plain = room.store.rotate_key

    def slow(*arguments: object) -> bool:
        room.store.revoke_key(record.id, room.now)
        return plain(*arguments)  # type: ignore[arg-type]

    room.store.rotate_key = slow  # type: ignore[method-assign, assignment]
    with pytest.raises(Conflict, match="was revoked meanwhile"):
        room.registry.rotate(record.id, 3600)
    assert not room.opens(old)


@pytest.mark.parametrize("shown", ["key_0", "key_00ff00ff00ff"])
def test_an_unknown_id_is_named(room: Room, shown: str) -> None:
    for what in (room.registry.revoke, lambda id_: room.registry.rotate(id_, 0)):
        with pytest.raises(NotFound, match=shown):
            what(shown)


def test_a_key_given_in_the_place_of_an_id_is_not_repeated(room: Room) -> None:
    _, key = room.registry.create(KeyOrder())
    for what in (key, f"key_{key}", "key_0 or 1=1"):
        with pytest.raises(NotFound) as caught:
            room.registry.revoke(what)
        assert what not in f"{caught.value} {caught.value.reason}"


def test_lists_are_by_user_and_team(room: Room) -> None:
    made = []
    for user, team in (("anna", "sales"), ("ben", "sales"), ("anna", None), (None, None)):
        made.append(room.registry.create(KeyOrder(user=user, team=team))[0].id)
        room.now += 1
    for asked, expected in (
        ({}, made), ({"user": "anna"}, [made[0], made[2]]), ({"team": "sales"}, made[:2]),
        ({"user": "anna", "team": "sales"}, made[:1]), ({"user": "nobody"}, []),
    ):  # fmt: skip
        assert [record.id for record in room.registry.select(**asked)] == expected


@pytest.mark.parametrize("by", Role)
def test_who_may_touch_whose_keys(room: Room, by: Role) -> None:
    caller = Caller("key_admin", by)
    for of in Role:
        record, key = room.registry.create(KeyOrder(role=of))
        may = by is Role.SUPER_ADMIN or (by is Role.ADMIN and of in (Role.USER, Role.POWER_USER))
        assert (record in room.registry.select(by=caller)) == may
        attempts = (
            partial(room.registry.create, KeyOrder(role=of)),
            partial(room.registry.rotate, record.id, 0),
            partial(room.registry.revoke, record.id),
        )
        for attempt in attempts:
            if may:
                attempt(by=caller)
                continue
            with pytest.raises(Forbidden) as caught:
                attempt(by=caller)
            assert caught.value.code == "not_allowed"
        assert room.opens(key) == (not may)
        assert {each.created_by for each in room.registry.select() if each.role is of} == (
            {"host", "key_admin"} if may else {"host"}
        )


def test_a_key_tells_by_whose_keys_it_came_about(room: Room) -> None:
    """Whoever made or rotated a key may hold it, and then all that was made or rotated with it; for good."""

    def made(by: Caller | None = None) -> Caller:
        return room.registry.create(KeyOrder(role=Role.SUPER_ADMIN), by)[0].caller

    def rotated(key: Caller, by: Caller | None, overlap: float = 0) -> tuple[str, ...]:
        room.now += 1
        record, _ = room.registry.rotate(key.key_id, overlap, by=by)
        assert (record.issued, record.created < record.issued) == (room.now, True)
        return record.issuers

    boss, carla, dora = made(), made(), made()
    ghost = made(boss)
    puppet = made(ghost)
    known = {record.id: record.issuers for record in room.registry.select()}
    assert [known[each.key_id] for each in (boss, ghost, puppet)] == [
        (), (boss.key_id,), (ghost.key_id, boss.key_id),
    ]  # fmt: skip
    assert rotated(ghost, ghost) == (ghost.key_id, boss.key_id), "nobody rotates their maker away"
    assert rotated(carla, boss) == (boss.key_id,)
    assert rotated(dora, boss) == (boss.key_id,)
    assert rotated(carla, dora) == (dora.key_id, boss.key_id)
    assert boss.key_id in rotated(dora, carla), "nor do two by each other"
    assert rotated(carla, None, 60) == (dora.key_id, boss.key_id), "the old one opens, too"
    assert rotated(carla, None) == ()
    assert rotated(puppet, Caller("oidc_1", Role.SUPER_ADMIN, "zoe")) == ("oidc_1",)


def test_an_order_is_held_to_the_config() -> None:
    accounts = Accounts(use_cases={"mail": UseCase()})
    check(KeyOrder(use_cases=frozenset({"mail"})), accounts, {"chat"})
    check(KeyOrder(allowance=Allowance(at_limit="step_down", step_down_to="chat")), accounts, {"chat"})
    with pytest.raises(BadRequest, match=r"use_cases: night is none of .* \(mail\)") as caught:
        check(KeyOrder(use_cases=frozenset({"mail", "night"})), accounts, {"chat"})
    assert caught.value.param == "use_cases"
    with pytest.raises(BadRequest, match="no model 'gone'") as caught:
        check(KeyOrder(allowance=Allowance(at_limit="step_down", step_down_to="gone")), accounts, {"chat"})
    assert caught.value.param == "allowance.step_down_to"
    in_euros = KeyOrder(allowance=Allowance(euros_per_day=5))
    with pytest.raises(BadRequest, match="limits euros, and 'chat' has no price") as caught:
        check(in_euros, accounts, {"chat"})
    assert caught.value.param == "allowance"
    free = ModelPrice(prompt_euros_per_million=0, completion_euros_per_million=0)
    check(in_euros, Accounts(prices=Prices(models={"chat": free})), {"chat"})
