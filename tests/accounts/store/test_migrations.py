"""A database is brought up to date when it is opened, whoever is first."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from appliance.accounts.store import Store, migrations
from appliance.accounts.store.schema import tables
from appliance.errors import BooksUnavailable
from tests.accounts.conftest import Opener
from tests.accounts.store.entries import key
from tests.fakes.postgres import PASSWORD, Postgres

ROOT = Path(__file__).resolve().parents[3]
FIRST = text(
    "INSERT INTO keys (id, digest, name, created, created_by, role, use_cases, service_class, previous) "
    "VALUES (:id, :digest, '', 5.0, :created_by, 'user', '[]', 'standard', :previous)"
)
"""A key as the first books have it."""


def test_migrations_make_what_the_schema_says(store: Store) -> None:
    with store._database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": migrations.TABLE, "compare_type": True})
        assert compare_metadata(context, tables) == []


def test_the_newest_step_is_the_one_that_is_looked_for() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_current_head() == migrations.NEWEST


def test_a_database_is_opened_again_as_it_was(opener: Opener) -> None:
    opener().add_key(key())
    assert opener().keys() == [key()]


def test_a_database_of_a_newer_version_is_refused(opener: Opener) -> None:
    store = opener()
    with store._database.engine.begin() as connection:
        connection.execute(text("UPDATE appliance_version SET version_num = '9999'"))
    with pytest.raises(BooksUnavailable, match=r"9999.*install the newer version again, or restore"):
        opener()


def test_keys_of_the_first_books_are_known_by_who_made_them(opener: Opener) -> None:
    """Who rotated a key wasn't kept: such a key, and all that were made with it, could be anybody's."""
    store = opener()
    with store._database.engine.begin() as connection:
        tables.drop_all(connection)
        connection.execute(text(f"DROP TABLE {migrations.TABLE}"))
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for number, maker, previous in (
            (1, "host", None), (2, "key_1", None), (3, "key_2", None), (4, "key_1", b"old"), (5, "key_4", None),
            (6, "host", b"old"), (7, "oidc_1", None), (8, "key_8", None), (9, "an earlier version", None),
        ):  # fmt: skip
            row = {"id": f"key_{number}", "digest": bytes([number]), "created_by": maker, "previous": previous}
            connection.execute(FIRST, row)
    before = time.time()
    records = opener().keys()
    found = {each.id: each for each in records}
    assert {id_: each.issuers for id_, each in found.items()} == {
        "key_1": (), "key_2": ("key_1",), "key_3": ("key_2", "key_1"), "key_4": ("unknown", "key_1"),
        "key_5": ("key_4", "key_1", "unknown"), "key_6": ("unknown",), "key_7": ("oidc_1",), "key_8": ("key_8",),
        "key_9": ("an earlier version",),
    }  # fmt: skip
    assert [each.issued for id_, each in sorted(found.items()) if id_ not in ("key_4", "key_6")] == [5.0] * 7
    assert min(found["key_4"].issued, found["key_6"].issued) >= before


def test_a_step_that_fails_leaves_nothing_and_is_made_again(opener: Opener) -> None:
    store = opener()
    with store._database.engine.begin() as connection:  # back to a database in which a stranger has a table
        tables.drop_all(connection)
        connection.execute(text(f"DROP TABLE {migrations.TABLE}"))
        connection.execute(text('CREATE TABLE "usage" (strange INTEGER)'))
    with pytest.raises(BooksUnavailable):
        opener()
    with store._database.engine.begin() as connection:
        assert inspect(connection).get_table_names() == ["usage"]
        connection.execute(text('DROP TABLE "usage"'))
    assert opener().keys() == []


def test_two_processes_may_open_a_new_file_at_once_and_print_nothing(tmp_path: Path) -> None:
    program = "import sys, pathlib; from appliance.accounts.store import Store; Store.sqlite(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", f"{program}.keys_version()", str(tmp_path)]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)]
    assert [(each.communicate()[0], each.returncode) for each in both] == [(b"", 0), (b"", 0)]


def test_several_appliances_may_open_a_new_database_at_once(postgres: Postgres) -> None:
    settings = postgres.database()

    def begin(_: int) -> int:
        store = Store.postgresql(settings, PASSWORD, postgres.socket, None)
        try:
            return store.keys_version()
        finally:
            store.close()

    with ThreadPoolExecutor() as pool:
        assert list(pool.map(begin, range(4))) == [0, 0, 0, 0]


def test_opening_leaves_logging_alone(
    opener: Opener, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    before = [(log, log.level, list(log.handlers)) for log in (logging.getLogger(), logging.getLogger("appliance"))]
    opener()
    assert before == [(log, log.level, list(log.handlers)) for log, _, _ in before]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert tuple(capfd.readouterr()) == ("", "")
