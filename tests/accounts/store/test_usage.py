"""What was used, summed up in all the ways that one can ask for."""

from __future__ import annotations

import pytest

from appliance.accounts.entries import Changes, Span, UsageKey, Used
from appliance.accounts.store import Store

NONE = UsageKey("", "", "", "", "", "")


@pytest.fixture
def booked(store: Store) -> Store:
    def used(day: str, key: str, user: str, team: str, model: str, requests: int) -> tuple[UsageKey, Used]:
        return UsageKey(day, key, user, team, "", model), Used(requests, 10 * requests, requests, 10**15 * requests)

    entries = [
        used("2026-10-31", "k1", "zoe", "red", "chat", 1),
        used("2026-11-01", "k1", "zoe", "red", "chat", 2),
        used("2026-11-01", "k2", "", "red", "chat", 4),
        used("2026-11-30", "k3", "bob", "blue", "small", 8),
        used("2026-12-01", "k1", "zoe", "red", "small", 16),
    ]
    store.commit(Changes(used=dict(entries)))
    return store


def requests(lines: list[tuple[UsageKey, Used]]) -> list[tuple[UsageKey, int]]:
    return [(key, used.requests) for key, used in lines]


def test_over_all(booked: Store) -> None:
    assert booked.usage("2026-01-01", "2026-12-31", None) == [(NONE, Used(31, 310, 31, 31 * 10**15, 0))]


def test_nothing_used_is_no_line(booked: Store) -> None:
    assert booked.usage("2025-01-01", "2025-12-31", None) == []
    assert booked.usage("2025-01-01", "2025-12-31", Span.DAY, ["user"]) == []


def test_both_days_are_included(booked: Store) -> None:
    assert requests(booked.usage("2026-11-01", "2026-11-30", None)) == [(NONE, 14)]


def test_by_month(booked: Store) -> None:
    assert requests(booked.usage("2026-10-01", "2026-12-31", Span.MONTH)) == [
        (NONE._replace(day="2026-10-01"), 1),
        (NONE._replace(day="2026-11-01"), 14),
        (NONE._replace(day="2026-12-01"), 16),
    ]


def test_by_day_and_team(booked: Store) -> None:
    assert requests(booked.usage("2026-11-01", "2026-12-31", Span.DAY, ["team"])) == [
        (NONE._replace(day="2026-11-01", team="red"), 6),
        (NONE._replace(day="2026-11-30", team="blue"), 8),
        (NONE._replace(day="2026-12-01", team="red"), 16),
    ]


def test_of_one_key_by_model(booked: Store) -> None:
    assert requests(booked.usage("2026-01-01", "2026-12-31", None, ["model"], {"key_id": "k1"})) == [
        (NONE._replace(model="chat"), 3),
        (NONE._replace(model="small"), 16),
    ]


def test_empty_text_asks_for_those_without(booked: Store) -> None:
    assert requests(booked.usage("2026-01-01", "2026-12-31", None, ["key_id"], {"user": "", "team": "red"})) == [
        (NONE._replace(key_id="k2"), 4)
    ]


@pytest.mark.parametrize("name", ["day", "password", 'user" --'])
def test_only_fields_that_there_are(booked: Store, name: str) -> None:
    with pytest.raises(ValueError, match="usage is kept by"):
        booked.usage("2026-01-01", "2026-12-31", None, [name])
    with pytest.raises(ValueError, match="usage is kept by"):
        booked.usage("2026-01-01", "2026-12-31", None, where={name: ""})
