"""What goes wrong is put on record when it begins and when it is over, once each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from appliance.incidents import BOOKS, ENGINE, SEAL, Standing, Transition, Trouble, Watcher, plain, transitions

CHAT = Trouble(ENGINE, "chat")
WELL = Standing({}, {"chat": 1})
BEGINS: dict[str, Any] = {"begins": True, "ends": False}
ENDS: dict[str, Any] = {"begins": False, "ends": True}

TABLE = [
    ("nothing new", WELL, WELL, []),
    ("the first look, all well", Standing(), WELL, []),
    ("the first look, not well", Standing(), Standing({Trouble(BOOKS): "full"}), [
        Transition(Trouble(BOOKS), **BEGINS, why="full")
    ]),
    ("it goes on, for another reason", Standing({CHAT: "a"}, {"chat": 2}), Standing({CHAT: "b"}, {"chat": 3}), []),
    ("an engine fails", WELL, Standing({CHAT: "died"}, {"chat": 2}), [Transition(CHAT, **BEGINS, why="died")]),
    ("and is well again", Standing({CHAT: "died"}, {"chat": 2}), Standing({}, {"chat": 2}), [Transition(CHAT, **ENDS)]),
    ("it failed and was well again between two looks", WELL, Standing({}, {"chat": 2}), [
        Transition(CHAT, begins=True, ends=True)
    ]),
    ("that was before the first look", Standing(), Standing({}, {"chat": 2}), [
        Transition(CHAT, begins=True, ends=True)
    ]),
    ("another engine answers for the model", Standing({}, {"chat": 5}), WELL, []),
    ("a model is new", Standing(), Standing({}, {"chat": 1}), []),
    ("a model that failed is served no more", Standing({CHAT: "died"}, {"chat": 4}), Standing(), [
        Transition(CHAT, **ENDS)
    ]),
    ("one ends as another begins", Standing({Trouble(BOOKS): ""}), Standing({Trouble(SEAL): "canary"}), [
        Transition(Trouble(BOOKS), **ENDS), Transition(Trouble(SEAL), **BEGINS, why="canary")
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_what_has_begun_and_ended(before: Standing, after: Standing, expected: list[Transition]) -> None:
    assert transitions(before, after) == expected


def test_what_is_put_on_record_says_what_and_for_how_long() -> None:
    told: list[Mapping[str, Any]] = []
    standing, now = [WELL], [100.0]
    watcher = Watcher(lambda: standing[0], told.append, clock=lambda: now[0])
    for at, state in (
        (0.0, WELL), (1.0, Standing({CHAT: "it died"}, {"chat": 2})), (9.0, Standing({CHAT: "it died"}, {"chat": 3})),
        (11.0, Standing({}, {"chat": 3})), (12.0, Standing({}, {"chat": 4})), (13.0, Standing({}, {"chat": 4})),
    ):  # fmt: skip
        standing[0], now[0] = state, at
        watcher.look()
    assert told == [
        {"incident": "engine_down", "phase": "begin", "model": "chat", "why": "it died"},
        {"incident": "engine_down", "phase": "end", "model": "chat", "seconds": 10},
        {"incident": "engine_down", "phase": "end", "model": "chat", "seconds": 0},
    ]


def test_of_a_reason_only_our_own_words_stay() -> None:
    """What an engine wrote last may quote what it was asked."""
    assert plain("the engine ended (exit status 1): ValueError: prompt 'Frau M.'; see /x") == (
        "the engine ended (exit status 1)"
    )
    assert plain("no token moved for 60 s though there was work (stalled)").endswith("(stalled)")
    assert len(plain("x" * 5000)) == 200
