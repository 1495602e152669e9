"""Who is shown, and how: in works-council mode nobody by name, no key by which one is known, and nobody ranked."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from appliance.accounts import health, statement
from appliance.accounts.entries import Account, Changes, Event, Kind, Scope, Span, Unit, UsageKey, Used
from appliance.accounts.persons import UNKNOWN, Persons
from appliance.accounts.statement import By, Question
from appliance.accounts.store import Store
from appliance.audit.subjects import Subjects
from appliance.core import Caller
from appliance.errors import BadRequest

PEOPLE = ("anna", "ben", "clara", "dora", "emil", "fritz", "gerd", "hanna")
KEYS = {"key_a1": "anna", "key_a2": "anna", "key_b1": "ben", "key_c1": "clara"}
PSEUDONYM = re.compile(r"p_[0-9a-f]{24}")


@pytest.fixture
def subjects(tmp_path: Path) -> Iterator[Subjects]:
    made = Subjects.open(tmp_path / "audit-keys")
    for name in PEOPLE:
        made.of(name)
    yield made
    made.close()


@pytest.fixture
def persons(subjects: Subjects) -> Persons:
    return Persons(subjects, KEYS.get, veiled=True)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.sqlite(tmp_path)
    store.claim("here")
    yield store
    store.close()


def rows(store: Store, persons: Persons, *by: By, **where: str) -> list[dict[str, Any]]:
    question = Question(date(2026, 11, 1), date(2026, 11, 30), by, {By(name): value for name, value in where.items()})
    return [row for page in statement.pages(store, question, Used(), persons) for row in page]


def used(store: Store, *entries: tuple[str, str, str, int], day: str = "2026-11-22") -> None:
    """Key, user, team and requests."""
    store.commit(
        Changes(
            used={UsageKey(day, key, user, team, "", "chat"): Used(n, n, n, n, 0) for key, user, team, n in entries}
        )
    )


# ---- one by one


def test_a_person_is_a_pseudonym_and_nobody_is_put_into_the_key_store_by_being_looked_at(
    persons: Persons, subjects: Subjects
) -> None:
    assert PSEUDONYM.fullmatch(persons.user("anna"))
    assert persons.user("anna") == persons.user("anna") != persons.user("ben")
    before = len(subjects)
    assert persons.user("whoever") == UNKNOWN
    assert len(subjects) == before
    assert persons.user("") == "", "nobody"
    subjects.erase("anna")
    assert persons.user("anna") == UNKNOWN


def test_a_persons_key_is_the_person_and_a_key_of_nobody_is_itself(persons: Persons) -> None:
    anna = persons.user("anna")
    assert persons.key("key_a1") == persons.key("key_a2") == anna
    assert persons.key("key_77", "ben") == persons.user("ben"), "whose it was when it was used counts"
    assert persons.key("key_77") == "key_77"
    assert persons.key("oidc_1f1f") == UNKNOWN, "somebody who signs in is a person, whoever it is"
    persons.meet("oidc_1f1f", "clara")
    assert persons.key("oidc_1f1f") == persons.user("clara")
    assert persons.caller(Caller("key_a1", user="anna")) == anna
    assert persons.caller(Caller("key_local")) == "key_local"


def test_a_line_for_the_log_names_no_persons_key(persons: Persons) -> None:
    assert persons.text("key_a1 is revoked") == f"{persons.user('anna')} is revoked"
    assert persons.text("oidc_ab12 and key_77") == f"{UNKNOWN} and key_77"


def test_by_name_everything_is_as_it_is() -> None:
    named = Persons(None, KEYS.get)
    assert (named.user("anna"), named.key("key_a1"), named.text("key_a1 is revoked")) == (
        "anna", "key_a1", "key_a1 is revoked",
    )  # fmt: skip
    assert named.meant({"user": "anna", "key_id": "key_a1"}) == {"user": "anna", "key_id": "key_a1"}
    assert named.behind(Scope(Kind.USER, "anna")) == Scope(Kind.USER, "anna")


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"user": "anna"}, "user"), ({"user": "nobody I know"}, "user"), ({"user": UNKNOWN}, "user"),
        ({"user": "p_short"}, "user"), ({"key_id": "key_a1"}, "key"), ({"key_id": "oidc_00"}, "key"),
    ],
)  # fmt: skip
def test_a_filter_that_names_a_person_is_refused_and_says_how_instead(
    persons: Persons, asked: dict[str, str], param: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        persons.meant(asked)
    assert (refused.value.param, refused.value.code) == (param, "pseudonym_needed")
    assert "by=user" in str(refused.value)
    assert "reveal" in str(refused.value)
    assert "anna" not in str(refused.value)


def test_a_pseudonym_filters_as_the_person_or_as_all_the_persons_keys(persons: Persons) -> None:
    anna, ben = persons.user("anna"), persons.user("ben")
    assert persons.meant({"user": anna, "team": "sales"}) == {"user": "anna", "team": "sales"}
    assert persons.meant({"key_id": anna}) == {"user": "anna"}
    assert persons.meant({"key_id": anna, "user": anna}) == {"user": "anna"}
    assert persons.meant({"key_id": anna, "user": ben}) == {"key_id": anna, "user": "ben"}, "which nothing fits"
    assert persons.meant({"key_id": "key_77", "user": ""}) == {"key_id": "key_77", "user": ""}
    stranger = "p_" + "0" * 24
    assert persons.meant({"user": stranger}) == {"user": stranger}, "which nothing fits either"


def test_the_holder_behind_what_is_shown(persons: Persons) -> None:
    anna = persons.user("anna")
    assert persons.behind(Scope(Kind.USER, anna)) == Scope(Kind.USER, "anna")
    assert persons.behind(Scope(Kind.KEY, anna)) is None, "it may be several keys"
    assert persons.behind(Scope(Kind.USER, UNKNOWN)) is None
    for same in (Scope(Kind.KEY, "key_77"), Scope(Kind.TEAM, "sales")):
        assert persons.behind(same) == same


# ---- rows


def test_rows_by_user_and_by_key_show_pseudonyms_and_add_up(store: Store, persons: Persons) -> None:
    used(store, ("key_a1", "anna", "sales", 1), ("key_a2", "anna", "sales", 2), ("key_b1", "ben", "sales", 4),
         ("key_77", "", "sales", 8), ("oidc_9", "clara", "", 16), ("key_z", "zoe", "", 32))  # fmt: skip
    by_user = {row["user"]: row["requests"] for row in rows(store, persons, By.USER)}
    by_key = {row["key"]: row["requests"] for row in rows(store, persons, By.KEY)}
    anna, ben, clara = map(persons.user, ("anna", "ben", "clara"))
    assert by_user == {anna: 3, ben: 4, "": 8, clara: 16, UNKNOWN: 32}
    assert by_key == {anna: 3, ben: 4, "key_77": 8, clara: 16, UNKNOWN: 32}
    assert [row["requests"] for row in rows(store, persons, By.TEAM, user=anna)] == [3]
    assert [row["requests"] for row in rows(store, persons, By.KEY, key=anna)] == [3]


def test_the_order_is_that_of_pseudonyms_and_neither_of_names_nor_of_amounts(store: Store, persons: Persons) -> None:
    used(store, *((f"key_{name}", name, "", 10 * number) for number, name in enumerate(PEOPLE, 1)))
    used(store, *((f"key_{name}", name, "", 10 * number) for number, name in enumerate(PEOPLE, 1)), day="2026-11-21")
    found = rows(store, persons, By.DAY, By.USER)
    shown = [(row["day"], row["user"]) for row in found]
    pseudonyms = [persons.user(name) for name in PEOPLE]
    assert shown == [(day, each) for day in ("2026-11-21", "2026-11-22") for each in sorted(pseudonyms)]
    if sorted(pseudonyms) != pseudonyms:  # one time in 40,000 the two orders are the same
        assert [row["requests"] for row in found[:8]] != sorted(row["requests"] for row in found[:8])


# ---- events


def event(kind: Kind, name: str) -> Event:
    return Event(Account(Scope(kind, name), Span.DAY, "2026-11-22"), Unit.TOKENS, 90, 0.0)


def test_events_are_logged_without_names(persons: Persons, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "appliance.accounts")
    happened = [
        event(Kind.USER, "anna"),
        event(Kind.KEY, "key_a1"),
        event(Kind.KEY, "key_77"),
        event(Kind.TEAM, "sales"),
    ]
    health.tell(happened, persons)
    anna = persons.user("anna")
    assert [line.split(" has used")[0] for line in caplog.messages] == [
        f"user {anna}", f"key {anna}", "key key_77", "team sales",
    ]  # fmt: skip
    caplog.clear()
    health.tell(happened, Persons())
    assert "anna" not in caplog.text, "nor are users logged by name without works-council mode"
    assert "key_a1" in caplog.text
