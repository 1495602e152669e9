"""Stores to test on: an SQLite file, and a database of a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.accounts.store import Store
from appliance.config import Postgresql
from tests.fakes import postgres as servers
from tests.fakes.postgres import PASSWORD, Postgres

Opener = Callable[[], Store]


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL. A test that stops it starts it again."""
    yield from servers.postgres()


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[Opener]:
    """Opens one SQLite store, as often as it is called."""
    yield from _closing(lambda: Store.sqlite(tmp_path))


@pytest.fixture(scope="session")
def _database(postgres: Postgres) -> Postgresql:
    return postgres.database()


@pytest.fixture
def database(postgres: Postgres, _database: Postgresql) -> Postgresql:
    """An empty database, as the config names it."""
    postgres.empty(_database)
    return _database


@pytest.fixture
def on_postgresql(postgres: Postgres, database: Postgresql) -> Iterator[Opener]:
    """Opens a store in one database of a PostgreSQL, as often as it is called."""
    yield from _closing(lambda: Store.postgresql(database, PASSWORD, postgres.socket, None))


@pytest.fixture(params=["sqlite", "postgresql"])
def opener(request: pytest.FixtureRequest) -> Opener:
    """Opens a store of either kind, always the same one."""
    opened: Opener = request.getfixturevalue(f"on_{request.param}")
    return opened


@pytest.fixture
def store(opener: Opener) -> Store:
    """A store of either kind, claimed by the appliance `here`."""
    opened = opener()
    opened.claim("here")
    return opened


def _closing(open_one: Opener) -> Iterator[Opener]:
    opened: list[Store] = []

    def begin() -> Store:
        opened.append(open_one())
        return opened[-1]

    yield begin
    for each in opened:
        each.close()
