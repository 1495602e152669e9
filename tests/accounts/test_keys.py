"""Keys: seen once, stored hashed, refused when their time is over, and all that is wrong with one looks alike."""

from __future__ import annotations

import hmac
from dataclasses import replace
from typing import Any

import pytest

from appliance.accounts import keys
from appliance.accounts.keys import KeyRecord, Keyring
from appliance.core import Caller, DataClass, Role, ServiceClass
from appliance.errors import BooksUnavailable, Unauthenticated

PEPPER = bytes(range(32))
NOW = 1_800_000_000.0
YEAR = 365 * 86_400.0


class Clock:
    """The wall's time and the monotonic clock, both moved by hand."""

    def __init__(self) -> None:
        self.wall = NOW
        self.ticks = 1000.0

    def keyring(self, *records: KeyRecord) -> Keyring:
        """A keyring on these clocks, which was confirmed just now."""
        ring = Keyring(PEPPER, clock=lambda: self.wall, monotonic=lambda: self.ticks)
        ring.renew(records)
        ring.confirm(self.ticks)
        return ring


@pytest.fixture
def clock() -> Clock:
    return Clock()


def made(**changed: Any) -> tuple[str, KeyRecord]:
    """A key, and what is kept of it."""
    key = keys.make()
    record = KeyRecord("key_1", keys.digest_of(key, PEPPER), name="test", created=NOW, created_by="host")
    return key, replace(record, **changed)


def refusal(ring: Keyring, presented: str) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as caught:
        ring.authenticate(presented)
    return caught.value


def test_a_key_opens_and_says_who_asks(clock: Clock) -> None:
    key, record = made(
        user="anna", team="sales", role=Role.POWER_USER, use_cases=frozenset({"mail"}),
        service_class=ServiceClass.BATCH, data_class=DataClass.PERSONAL,
    )  # fmt: skip
    assert clock.keyring(record).authenticate(key) == Caller(
        "key_1", Role.POWER_USER, "anna", "sales", frozenset({"mail"}), ServiceClass.BATCH, DataClass.PERSONAL
    )


def test_a_key_is_256_random_bits_and_what_is_kept_is_a_hash_under_the_pepper() -> None:
    key, record = made()
    assert len(key.removeprefix(keys.PREFIX)) * 6 >= 256
    assert len({keys.make() for _ in range(1000)}) == 1000
    assert record.digest == hmac.digest(PEPPER, key.encode(), "sha256") != keys.digest_of(key, bytes(32))


@pytest.mark.parametrize("presented", ["sk-appliance-", "x", "x" * 100_000, "ä\udcff", "\x00", " ", "a.b.c"])
def test_anything_else_is_refused(clock: Clock, presented: str) -> None:
    refused = refusal(clock.keyring(made()[1]), presented)
    assert refused.code == "invalid_api_key"
    assert len(presented) < 6 or presented not in refused.message


def test_a_part_of_a_key_and_a_key_with_more_around_it_are_refused(clock: Clock) -> None:
    key, record = made()
    ring = clock.keyring(record)
    for near in (key[:-1], key[1:], key + "x", key.upper(), f" {key}", key + "\x00", key * 8):
        assert refusal(ring, near).code == "invalid_api_key"


def test_an_expired_key_is_refused_from_its_second_on(clock: Clock) -> None:
    key, record = made(expires=NOW + 60)
    ring = clock.keyring(record)
    clock.wall = NOW + 59.99
    assert ring.authenticate(key).key_id == "key_1"
    clock.wall = NOW + 60
    assert "expired" in str(refusal(ring, key).reason)


@pytest.mark.parametrize("jump", [-YEAR, 0, YEAR])
def test_a_revoked_key_stays_revoked_whatever_the_clock_says(clock: Clock, jump: float) -> None:
    key, record = made(revoked=NOW)
    ring = clock.keyring(record)
    clock.wall += jump
    assert "revoked" in str(refusal(ring, key).reason)


def test_a_clock_that_jumps_by_a_year_ends_only_what_expires(clock: Clock) -> None:
    lasting, first = made(id="key_1")
    ending, second = made(id="key_2", expires=NOW + 60)
    ring = clock.keyring(first, second)
    clock.wall += YEAR
    assert ring.authenticate(lasting).key_id == "key_1"
    refusal(ring, ending)
    clock.wall -= YEAR
    assert ring.authenticate(ending).key_id == "key_2"


def test_a_keyring_knows_whose_a_key_is_and_when_it_was_rotated(clock: Clock) -> None:
    _, record = made(user="anna")
    ring = clock.keyring(record)
    assert (ring.record(record.id), ring.owner(record.id), ring.rotated(record.id)) == (record, "anna", None)
    assert (ring.record("oidc_1"), ring.owner("oidc_1"), ring.rotated("oidc_1")) == (None, None, None)
    ring.renew([replace(record, previous=b"old", issued=7.0)])
    assert ring.rotated(record.id) == 7.0


def test_a_rotated_key_opens_beside_the_new_one_for_the_overlap(clock: Clock) -> None:
    old, before = made()
    new, record = made(previous=before.digest, previous_until=NOW + 60)
    ring = clock.keyring(record)
    assert ring.authenticate(old) == ring.authenticate(new)
    clock.wall += 60
    assert ring.authenticate(new).key_id == "key_1"
    assert "rotated" in str(refusal(ring, old).reason)


def test_what_ends_a_rotated_key_ends_both(clock: Clock) -> None:
    old, before = made()
    new, record = made(previous=before.digest, previous_until=NOW + 600, expires=NOW + 60)
    ring = clock.keyring(record)
    clock.wall += 60
    for key in (old, new):
        assert "expired" in str(refusal(ring, key).reason)
    ring.renew([replace(record, expires=None, revoked=NOW)])
    for key in (old, new):
        assert "revoked" in str(refusal(ring, key).reason)


def test_all_that_is_wrong_looks_alike(clock: Clock) -> None:
    expired, first = made(id="key_1", expires=NOW - 1)
    revoked, second = made(id="key_2", revoked=NOW)
    rotated, before = made()
    _, third = made(id="key_3", previous=before.digest, previous_until=NOW)
    ring = clock.keyring(first, second, third)
    shown = {
        (str(each), each.code, each.param, each.retry_after, each.status)
        for each in (refusal(ring, presented) for presented in (expired, revoked, rotated, "sk-appliance-none", "ä"))
    }
    assert len(shown) == 1


def test_a_renewed_keyring_knows_only_what_the_store_holds(clock: Clock) -> None:
    first, one = made(id="key_1")
    second, two = made(id="key_2")
    ring = clock.keyring(one)
    refusal(ring, second)
    ring.renew([two])
    assert ring.authenticate(second).key_id == "key_2"
    refusal(ring, first)


def test_nobody_is_let_in_on_what_was_not_confirmed_for_five_seconds(clock: Clock) -> None:
    key, record = made()
    ring = clock.keyring(record)
    clock.ticks += 5
    assert ring.authenticate(key)
    clock.ticks += 0.1
    for presented in (key, "sk-appliance-none", ring.lend(60)):
        with pytest.raises(BooksUnavailable) as caught:
            ring.authenticate(presented)
        assert (caught.value.status, caught.value.retry_after) == (503, 5)
    ring.confirm(clock.ticks)
    assert ring.authenticate(key)


def test_nobody_is_let_in_before_the_store_was_read_once() -> None:
    with pytest.raises(BooksUnavailable):
        Keyring(PEPPER).authenticate("sk-appliance-none")


def test_a_lent_key_ends_with_its_time_and_no_wall_clock(clock: Clock) -> None:
    ring = clock.keyring()
    key = ring.lend(60)
    clock.wall -= YEAR
    for _ in range(20):
        clock.ticks += 2.9
        ring.confirm(clock.ticks)
        assert ring.authenticate(key) == Caller("key_local")
    ring.renew([])
    assert ring.authenticate(key)
    clock.ticks += 2.1
    refusal(ring, key)


def test_nothing_that_is_printed_of_a_key_holds_what_opens_or_its_digest(clock: Clock) -> None:
    key, record = made(previous=b"\xaa" * 32, previous_until=NOW + 60)
    ring = clock.keyring(record)
    printed = f"{record!r} {record} {ring!r} {ring.authenticate(key)!r} {refusal(ring, key[:-1])!r}"
    for secret in (key, key.removeprefix(keys.PREFIX), record.digest.hex(), repr(record.digest), "\\xaa", PEPPER.hex()):
        assert secret not in printed
