"""The keys in memory follow the store: soon, without hanging on it, and by themselves once it is back."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from appliance.accounts.keys import KeyRecord, Keyring
from appliance.accounts.registry import KeyOrder, Registry
from appliance.accounts.store import Store
from appliance.accounts.watch import Watch
from appliance.config import Allowance
from appliance.errors import BooksUnavailable, NotFound, Unauthenticated

PEPPER = bytes(range(32))


class Lost:
    """A real store that can be out of reach, or hang."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self.missed = asyncio.Event()
        self.fault: Exception | None = None
        self.free = threading.Event()
        self.free.set()
        self.read = self.looked = 0

    def keys_version(self) -> int:
        self.looked += 1
        assert self.free.wait(20)
        if self.fault is not None:
            self._loop.call_soon_threadsafe(self.missed.set)
            raise self.fault
        return self._store.keys_version()

    def keys(self) -> list[KeyRecord]:
        self.read += 1
        return self._store.keys()

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


class Room:
    """A watch on a store that can be lost, with its time set by hand."""

    def __init__(self, folder: Path) -> None:
        self.ticks = 1000.0
        self.told: asyncio.Queue[Mapping[str, Allowance]] = asyncio.Queue()
        self.real = Store.sqlite(folder)
        self.store = Lost(self.real)
        self.keyring = Keyring(PEPPER, monotonic=lambda: self.ticks)
        self.registry = Registry(self.store, PEPPER)  # type: ignore[arg-type]
        self.elsewhere = Registry(self.real, PEPPER)
        self.watch = Watch(self.keyring, self.registry, self.told.put_nowait, every=0.001, monotonic=lambda: self.ticks)


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    made = Room(tmp_path)
    yield made
    made.store.free.set()
    made.watch.close()
    made.real.close()


async def test_what_is_made_or_revoked_elsewhere_takes_effect_at_the_next_look(room: Room) -> None:
    record, key = room.elsewhere.create(KeyOrder())
    await room.watch.look()
    assert room.keyring.authenticate(key).key_id == record.id
    room.elsewhere.revoke(record.id)
    assert room.keyring.authenticate(key), "not before it"
    await room.watch.look()
    with pytest.raises(Unauthenticated):
        room.keyring.authenticate(key)


async def test_all_who_come_with_unknown_keys_share_one_look_and_those_made_before_it_are_found(room: Room) -> None:
    first, early = room.elsewhere.create(KeyOrder())
    asked = asyncio.gather(*(room.watch.freshen() for _ in range(50)))
    second, late = room.elsewhere.create(KeyOrder())
    await asked
    assert room.keyring.authenticate(early).key_id == first.id
    assert room.keyring.authenticate(late).key_id == second.id
    assert room.store.looked == 1


async def test_a_look_for_an_unknown_key_gives_up_on_a_store_that_hangs_or_fails(room: Room) -> None:
    for fault in (BooksUnavailable("the disk is gone"), ValueError("a row of a later version")):
        room.store.fault = fault
        await room.watch.freshen()
    room.store.free.clear()
    async with asyncio.timeout(20):
        await room.watch.freshen()
    room.store.fault = None


async def test_what_is_done_here_takes_effect_before_the_answer(room: Room) -> None:
    record, key = await room.watch.ask(lambda registry: registry.create(KeyOrder()))
    assert room.keyring.authenticate(key).key_id == record.id
    await room.watch.ask(lambda registry: registry.revoke(record.id))
    with pytest.raises(Unauthenticated):
        room.keyring.authenticate(key)


async def test_keys_are_read_only_when_one_has_changed(room: Room) -> None:
    room.elsewhere.create(KeyOrder())
    for _ in range(5):
        await room.watch.look()
    assert room.store.read == 1
    room.elsewhere.create(KeyOrder())
    await room.watch.look()
    assert room.store.read == 2


async def test_allowances_of_keys_are_told_whenever_one_changes(room: Room) -> None:
    room.elsewhere.create(KeyOrder())
    limited, _ = room.elsewhere.create(KeyOrder(allowance=Allowance(tokens_per_day=5)))
    await room.watch.look()
    await room.watch.look()
    assert room.told.get_nowait() == {limited.id: Allowance(tokens_per_day=5)}
    assert room.told.empty()


async def test_nobody_comes_in_on_allowances_that_the_books_could_not_take(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    _, key = room.elsewhere.create(KeyOrder(allowance=Allowance(tokens_per_day=5)))
    with monkeypatch.context() as broken:
        broken.setattr(room.watch, "_tell", lambda _: 1 / 0)
        for _ in range(2):
            await room.watch.look()
            with pytest.raises(BooksUnavailable):
                room.keyring.authenticate(key)
    await room.watch.look()
    assert room.told.qsize() == 1
    assert room.keyring.authenticate(key)


@pytest.mark.parametrize(
    "fault", [BooksUnavailable("the disk is gone"), ValueError("a row of a later version: secret")]
)
async def test_a_store_that_is_gone_is_told_of_once_and_what_comes_back_lets_in_again(
    room: Room, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="appliance.accounts")
    watching = asyncio.create_task(room.watch.run())
    async with asyncio.timeout(20):
        await room.told.get()
        room.store.fault = fault
        for _ in range(3):
            room.store.missed.clear()
            await room.store.missed.wait()
        _, key = room.elsewhere.create(KeyOrder())
        room.ticks += 6
        with pytest.raises(BooksUnavailable):
            room.keyring.authenticate(key)
        room.store.fault = None
        await room.told.get()
    assert room.keyring.authenticate(key)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    lost, *found = caplog.messages
    assert lost.startswith("keys can't be read: ")
    assert found in ([], ["keys can be read again"])
    assert "secret" not in caplog.text


async def test_a_snapshot_counts_from_when_the_store_was_asked_not_from_when_it_answered(room: Room) -> None:
    _, key = room.elsewhere.create(KeyOrder())
    room.store.free.clear()
    look = asyncio.create_task(room.watch.look())
    await asyncio.sleep(0)
    room.ticks += 6
    room.store.free.set()
    await look
    with pytest.raises(BooksUnavailable):
        room.keyring.authenticate(key)
    await room.watch.look()
    assert room.keyring.authenticate(key)


async def test_who_asks_a_hanging_store_is_told_after_a_while(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.accounts.watch._PATIENCE", 0.01)
    room.store.free.clear()
    look = asyncio.create_task(room.watch.look())
    with pytest.raises(BooksUnavailable, match="before you try again"):
        await room.watch.ask(lambda registry: registry.create(KeyOrder()))
    room.store.free.set()
    await look


async def test_a_key_that_was_made_is_shown_even_if_the_store_is_lost_right_after(room: Room) -> None:
    def made(registry: Registry) -> str:
        _, key = registry.create(KeyOrder())
        room.store.fault = BooksUnavailable("gone")
        return key

    assert (await room.watch.ask(made)).startswith("sk-")


async def test_what_the_store_says_is_for_the_log_and_refusals_come_through(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    def lost(_: Registry) -> None:
        raise BooksUnavailable("could not open /srv/state/accounts.db")

    with pytest.raises(BooksUnavailable) as caught:
        await room.watch.ask(lost)
    assert "/srv" not in str(caught.value)
    assert "/srv/state/accounts.db" in caplog.text
    with pytest.raises(NotFound):
        await room.watch.ask(lambda registry: registry.revoke("key_0"))
