"""What can go wrong with a file: nothing is kept by halves, it is said what to do, and it goes on by itself."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from appliance.accounts.entries import Balance, Changes, Kind, Scope, UsageKey, Used
from appliance.accounts.store import Store, embedded
from appliance.errors import BooksUnavailable
from tests.accounts.conftest import Opener
from tests.accounts.store.entries import DAY, account, day_of, key, reservation

ROOT = Path(__file__).resolve().parents[3]
NAME = "Zoe Confidential"
USE = UsageKey(DAY, "key_1", NAME, "", "", "chat")
CHANGES = Changes(
    balances={account(Scope(Kind.USER, NAME)): Balance(1)},
    opened=[reservation(1, user=NAME)],
    used={USE: Used(1)},
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_BUSY_SECONDS", 0.1)


@pytest.fixture
def store(on_sqlite: Opener) -> Store:
    opened = on_sqlite()
    opened.claim("here")
    return opened


def refused(do: Callable[[], object], what: str) -> None:
    with pytest.raises(BooksUnavailable, match=what) as why:
        do()
    said = "".join(traceback.format_exception(why.value))
    assert NAME not in said
    assert "INSERT" not in said


def nothing_was_kept(store: Store) -> None:
    assert store.balances([account(Scope(Kind.USER, NAME))]) == {}
    assert store.usage(DAY, DAY, None) == []
    assert store.recover(day_of) == []


def it_goes_on(store: Store) -> None:
    store.commit(CHANGES)
    assert store.recover(day_of) == CHANGES.opened


def test_a_store_that_another_program_locks_is_refused_until_it_lets_go(store: Store, tmp_path: Path) -> None:
    store.commit(Changes())
    with closing(sqlite3.connect(tmp_path / "accounts.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for do in (lambda: store.commit(CHANGES), lambda: store.add_key(key()), lambda: store.recover(day_of)):
            refused(do, "locked by another program.*end what holds it open")
        assert store.keys_version() == 0  # who only reads isn't stopped
    nothing_was_kept(store)
    it_goes_on(store)


@contextmanager
def full_disk(engine: Engine) -> Iterator[None]:
    """No page more than there are, for connections that are opened from now on."""

    def limit(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # SQLite takes the size that it has as the least

    event.listen(engine, "connect", limit)
    engine.dispose()
    try:
        yield
    finally:
        event.remove(engine, "connect", limit)
        engine.dispose()


def test_on_a_full_disk_all_is_refused_until_there_is_room(store: Store) -> None:
    many = {UsageKey(DAY, f"key_{number}", NAME, "", "", "chat" * 200): Used(1) for number in range(300)}
    engine = store._database.engine
    with full_disk(engine):
        refused(lambda: store.commit(Changes(CHANGES.balances, {}, CHANGES.opened, [], many)), "the disk is full: free")
        nothing_was_kept(store)
    it_goes_on(store)


def test_a_limit_on_the_size_of_files_is_named(store: Store) -> None:
    store.commit(Changes())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        refused(lambda: store.commit(CHANGES), "ulimit -f")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    nothing_was_kept(store)
    it_goes_on(store)


@contextmanager
def ordinary(folder: Path) -> Iterator[None]:
    """As a user whom modes of files hold back, and who owns the folder."""
    if os.geteuid() != 0:
        yield
        return
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, "nobody")
    os.seteuid(folder.stat().st_uid)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_file_that_may_not_be_written_is_refused() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Store.sqlite(folder).close()
        (folder / "accounts.db").chmod(0o400)
        with ordinary(folder):
            refused(lambda: Store.sqlite(folder), "have the user that runs the appliance own it")
            (folder / "accounts.db").chmod(0o600)
            Store.sqlite(folder).close()


@pytest.mark.parametrize("what", ["removed", "replaced"])
def test_a_file_that_is_taken_away_under_an_open_store_is_noticed(store: Store, tmp_path: Path, what: str) -> None:
    store.commit(Changes())
    store.keys_version()  # on a connection that is kept
    file = tmp_path / "accounts.db"
    file.rename(tmp_path / "elsewhere")
    if what == "replaced":
        shutil.copy(tmp_path / "elsewhere", file)
    refused(lambda: store.commit(CHANGES), "was removed or replaced")
    refused(lambda: store.add_key(key()), "was removed or replaced")
    refused(store.keys_version, "was removed or replaced")  # keys that were revoked in another file go on to open
    (tmp_path / "elsewhere").rename(file)
    it_goes_on(store)


@pytest.mark.parametrize("content", [b"no database at all, and long enough" * 100, b""], ids=["text", "nothing"])
def test_a_file_that_is_no_database_is_refused_and_an_empty_one_is_filled(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "accounts.db").write_bytes(content)
    if content:
        refused(lambda: Store.sqlite(tmp_path), "restore it from a backup")
        assert (tmp_path / "accounts.db").read_bytes() == content
    else:
        Store.sqlite(tmp_path).close()


def test_a_damaged_page_is_refused(on_sqlite: Opener, tmp_path: Path) -> None:
    first = on_sqlite()
    first.add_key(key())
    first.close()
    file = tmp_path / "accounts.db"
    whole = file.read_bytes()
    file.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    refused(lambda: Store.sqlite(tmp_path).keys(), "is damaged: stop the appliance and restore it from a backup")


def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = Store.sqlite(tmp_path)
        store.claim("here")
        store.commit(CHANGES)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert modes == {"accounts.db": 0o600, "accounts.db-wal": 0o600, "accounts.db-shm": 0o600}


@pytest.mark.parametrize("name", ["accounts.db", "accounts.db-wal", "accounts.db-shm"])
def test_no_link_is_followed(tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / name).symlink_to(target)
    refused(lambda: Store.sqlite(tmp_path / "store"), "is a symbolic link")
    assert target.read_bytes() == b""


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    refused(lambda: Store.sqlite(tmp_path / "state"), "state is no folder: see `state` in the config")


def test_the_command_line_and_the_gateway_write_side_by_side(
    on_sqlite: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # as patient as in earnest
    gateway, console = on_sqlite(), on_sqlite()
    gateway.claim("here")
    with ThreadPoolExecutor() as pool:
        made = pool.submit(lambda: [console.add_key(key(number)) for number in range(50)])
        for number in range(200):
            gateway.commit(Changes(opened=[reservation(number)], used={USE: Used(1)}))
        made.result()
    assert len(gateway.keys()) == 50
    assert console.usage(DAY, DAY, None)[0][1].requests == len(console.recover(day_of)) == 200


COMMITTING = """
import sys, pathlib
from appliance.accounts.entries import Changes, Used
from appliance.accounts.store import Store
from tests.accounts.store.entries import reservation
from tests.accounts.store.test_faults_of_sqlite import USE
store = Store.sqlite(pathlib.Path(sys.argv[1]))
store.claim("here")
for number in range(10**9):
    store.commit(Changes(opened=[reservation(number)], used={USE: Used(1)}))
    print(number, flush=True)
"""


def test_what_was_told_is_there_after_a_kill(on_sqlite: Opener, tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMMITTING, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(30)]
        process.kill()
        told += [int(line) for line in process.stdout.read().split()]
    store = on_sqlite()
    booked = store.usage(DAY, DAY, None)[0][1].requests
    assert [each.number for each in store.recover(day_of)] == list(range(booked))
    assert len(told) <= booked <= len(told) + 1


def test_what_was_committed_is_on_disk(store: Store) -> None:
    with store._database.engine.connect() as connection:
        found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    assert found == ["wal", 2]  # FULL: synced at each commit
