"""What can go wrong with a server: each time it is said what to do, and it goes on by itself."""

from __future__ import annotations

import socket
import struct
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pg8000.dbapi
import pytest

from appliance.accounts.entries import Balance, Changes, Kind, Scope
from appliance.accounts.store import Look, Store, shared
from appliance.config import Postgresql
from appliance.errors import BooksUnavailable
from tests.accounts.conftest import Opener
from tests.accounts.store.entries import account, day_of, key, reservation
from tests.fakes.certificates import Authority
from tests.fakes.postgres import PASSWORD, Postgres

NAME = "Zoe Confidential"
SCOPE = Scope(Kind.USER, NAME)


@pytest.fixture
def store(on_postgresql: Opener) -> Store:
    opened = on_postgresql()
    opened.claim("here")
    return opened


def refused(do: Callable[[], object], what: str) -> None:
    with pytest.raises(BooksUnavailable, match=what) as why:
        do()
    said = "".join(traceback.format_exception(why.value))
    assert NAME not in said
    assert PASSWORD not in said
    assert "INSERT" not in said


def book(store: Store) -> None:
    with store.group(Look([account(SCOPE)])) as group:
        balance = group.balances.get(account(SCOPE), Balance())
        balance.tokens += 1
        group.put(Changes(balances={account(SCOPE): balance}, opened=[reservation(balance.tokens, SCOPE, user=NAME)]))


def test_all_is_refused_while_the_server_is_gone_and_goes_on_by_itself(store: Store, postgres: Postgres) -> None:
    book(store)
    postgres.stop(crash=True)
    try:
        for do in (
            lambda: book(store),
            store.keys_version,
            lambda: store.add_key(key(name=NAME)),
            lambda: store.beat(day_of),
            lambda: store.events(1),
        ):
            refused(do, r"PostgreSQL at 127.0.0.1:\d+ (doesn't answer|is being stopped)")
    finally:
        postgres.start()
    assert store.keys_version() == 0
    book(store)
    assert store.balances([account(SCOPE)]) == {account(SCOPE): Balance(2)}


def test_a_server_that_was_started_anew_between_two_groups_is_not_noticed(
    store: Store, postgres: Postgres, capfd: pytest.CaptureFixture[str]
) -> None:
    book(store)
    postgres.stop()
    postgres.start()
    book(store)
    assert store.balances([account(SCOPE)]) == {account(SCOPE): Balance(2)}
    assert tuple(capfd.readouterr()) == ("", "")  # no page of SQLAlchemy's about the old connection


def test_a_group_that_the_server_dies_in_is_refused_and_not_written(store: Store, postgres: Postgres) -> None:
    def interrupted() -> None:
        with store.group(Look()) as group:
            group.put(Changes(balances={account(SCOPE): Balance(1)}, opened=[reservation(1, user=NAME)]))
            postgres.stop(crash=True)
            postgres.start()

    refused(interrupted, "doesn't answer|is being stopped")
    with store.group(Look([account(SCOPE)], numbers=[1])) as group:
        assert (group.balances, group.open) == ({}, set())


def test_nobody_waits_long_for_a_server_that_says_nothing(
    database: Postgresql, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(shared, "_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mute = database.model_copy(update={"port": silent.getsockname()[1]})
        refused(lambda: Store.postgresql(mute, PASSWORD, None, None), "doesn't answer.*see that it runs")


def test_what_is_no_postgresql_is_refused(database: Postgresql) -> None:
    def answer(door: socket.socket) -> None:
        caller, _ = door.accept()
        with caller:
            caller.recv(1000)
            caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100)

    with socket.create_server(("127.0.0.1", 0)) as door, ThreadPoolExecutor() as pool:
        pool.submit(answer, door)
        other = database.model_copy(update={"port": door.getsockname()[1]})
        refused(lambda: Store.postgresql(other, PASSWORD, None, None), "doesn't answer.*see that it runs")


@pytest.mark.parametrize("asked", [0, 3, 5], ids=["nothing", "the password", "its MD5"])
def test_who_listens_in_its_place_is_not_told_the_password_and_not_taken_for_it(
    database: Postgresql, asked: int
) -> None:
    heard = []

    def pretend(door: socket.socket) -> None:
        caller, _ = door.accept()
        with caller:
            caller.recv(1000)
            salt = b"salt" if asked == 5 else b""
            caller.sendall(b"R" + struct.pack("!ii", 8 + len(salt), asked) + salt + b"Z" + struct.pack("!i", 5) + b"I")
            heard.append(caller.recv(1000))

    with socket.create_server(("127.0.0.1", 0)) as door, ThreadPoolExecutor() as pool:
        pool.submit(pretend, door)
        other = database.model_copy(update={"port": door.getsockname()[1]})
        refused(lambda: Store.postgresql(other, PASSWORD, None, None), "asks for no SCRAM")
    assert not heard[0].startswith(b"p"), "an answer to what it asked"


def test_over_tcp_in_clear_text(database: Postgresql) -> None:
    store = Store.postgresql(database, PASSWORD, None, None)
    assert store.keys_version() == 0
    store.close()


def test_a_folder_as_host_is_a_server_on_this_host(database: Postgresql, postgres: Postgres) -> None:
    local = database.model_copy(update={"host": str(postgres.folder), "tls": True})
    store = Store.postgresql(local, PASSWORD, None, None)
    assert store.keys_version() == 0
    store.close()


@pytest.mark.parametrize(
    ("changed", "password", "what"),
    [
        ({"database": "nowhere"}, PASSWORD, "has no such database: make it, or correct `accounts.store.postgresql.dat"),
        ({}, "wrong", "refused the role: see `accounts.store.postgresql.user` and `password`"),
        ({"user": "stranger"}, PASSWORD, "refused the role"),
        ({}, None, "refused the role"),
        ({"port": 1}, PASSWORD, "doesn't answer"),
        ({"tls": True}, PASSWORD, "speaks no TLS"),
    ],
)
def test_what_is_wrong_in_the_config_is_named(
    database: Postgresql, changed: dict[str, Any], password: str | None, what: str
) -> None:
    refused(lambda: Store.postgresql(database.model_copy(update=changed), password, None, None), what)


def test_tls_is_verified_for_the_name_of_the_host_also_through_a_socket(
    database: Postgresql, postgres: Postgres, tmp_path: Path
) -> None:
    authority, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    house = database.model_copy(update={"host": "db.house", "tls": True})
    with postgres.with_tls(authority.issue("db.house")) as way:
        store = Store.postgresql(house, PASSWORD, way, authority.file)
        store.claim("here")
        book(store)
        store.close()
        for host, ca in (("db.house", stranger.file), ("db.house", None), ("other.house", authority.file)):
            other = house.model_copy(update={"host": host})
            refused(lambda other=other, ca=ca: Store.postgresql(other, PASSWORD, way, ca), "certificate that isn't tr")
    refused(lambda: Store.postgresql(house, PASSWORD, way, tmp_path / "none.pem"), "postgresql.ca: .*none.pem")
    (tmp_path / "none.pem").write_text("no certificate")
    refused(lambda: Store.postgresql(house, PASSWORD, way, tmp_path / "none.pem"), "postgresql.ca: .*none.pem")


def test_a_server_that_takes_tls_off_is_not_followed(database: Postgresql, postgres: Postgres, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    house = database.model_copy(update={"host": "db.house", "tls": True})
    refused(lambda: Store.postgresql(house, PASSWORD, postgres.socket, authority.file), "speaks no TLS")


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("53100", "full disk"),
        ("25006", "standby"),
        ("53300", "max_connections"),
        ("42501", "own them"),
        ("99999", "look at its log"),
    ],
)
def test_the_server_s_words_are_not_repeated(store: Store, code: str, what: str) -> None:
    said = store._database.why(pg8000.dbapi.DatabaseError({"C": code, "M": f"column holds {NAME}", "D": NAME}))
    assert what in said
    assert code in said
    assert NAME not in said


def test_settings_of_the_server_do_not_weaken_what_is_promised(
    store: Store, postgres: Postgres, database: Postgresql
) -> None:
    for setting in (
        "synchronous_commit = off",
        "default_transaction_isolation = 'serializable'",
        "statement_timeout = 0",
    ):
        postgres.ask(f"ALTER DATABASE {database.database} SET {setting}")
    store._database.engine.dispose()
    with store._database.engine.connect() as connection:
        found = [
            connection.exec_driver_sql(f"SHOW {name}").scalar()
            for name in ("synchronous_commit", "transaction_isolation", "statement_timeout")
        ]
    assert found == ["on", "read committed", "4s"]
