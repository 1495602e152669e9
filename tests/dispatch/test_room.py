"""How much room an engine has, by its own account and by what is known of the moments since."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.config import Queue
from appliance.dispatch.room import Room, Stay
from appliance.engines.load import Load

STEP = 100
"""Tokens that the engine reads in one step; as many as a prompt has here."""
FREE = {"engine_waiting": 100, "headroom": 0, "first_token_factor": None}


def queue(**settings: Any) -> Queue:
    return Queue.model_validate(FREE | settings)


def stay(
    share: str = "a", *, weight: float = 1, sequences: int = 1, stream: bool = True, prompt: float = STEP,
    awaited: bool = True,
) -> Stay:  # fmt: skip
    return Stay(share, weight, sequences, stream, prompt, awaited)


def on(room: Room, *stays: Stay, now: float = 0.0) -> None:
    """They come and go onto the engine."""
    for each in stays:
        room.come(each)
        room.take(each, now)


def off(room: Room, *stays: Stay) -> None:
    for each in stays:
        room.leave(each)
        room.go(each)


def begun(room: Room, count: int, share: str = "a", now: float = 0.0) -> list[Stay]:
    """Streams that have their first token."""
    stays = [stay(share) for _ in range(count)]
    on(room, *stays, now=now)
    for each in stays:
        room.started(each, queue(), now)
    return stays


def test_there_is_room_until_all_places_are_taken() -> None:
    room = Room(4, STEP)
    stays = begun(room, 3)
    assert room.open(queue(), 0)
    stays += begun(room, 1)
    assert not room.open(queue(), 0)
    off(room, stays[0])
    assert room.open(queue(), 0)


def test_an_empty_engine_always_has_room() -> None:
    room = Room(1, STEP)
    room.read(Load(running=9, waiting=9, kv_cache_share=1))
    assert room.open(queue(), 0)


def test_what_has_just_left_is_no_stranger() -> None:
    """A reading shows the last step; four of eight have ended since."""
    room = Room(8, STEP)
    stays = begun(room, 8)
    off(room, *stays[:4])
    room.read(Load(running=8))
    assert room.taken == 4


def test_what_we_did_not_count_takes_places() -> None:
    room = Room(8, STEP)
    begun(room, 2)
    room.read(Load(running=8, waiting=3))
    assert room.taken == 11
    room.read(Load(running=2))
    assert room.taken == 2


def test_streams_wait_inside_until_their_first_token() -> None:
    room = Room(8, STEP)
    first, second = stay(), stay()
    on(room, first, second)
    assert not room.open(queue(engine_waiting=2), 100)
    room.started(first, queue(), 100)
    assert room.open(queue(engine_waiting=2), 100)
    room.read(Load(running=1, waiting=3))
    assert room.open(queue(engine_waiting=2), 100), "of what it says waits, only one has no token yet"


def test_others_wait_inside_for_a_moment_or_while_the_engine_says_so() -> None:
    room = Room(8, STEP)
    on(room, stay(stream=False), stay(stream=False))
    assert not room.open(queue(engine_waiting=2), 0.05)
    assert room.closed_until() == pytest.approx(0.1)
    assert room.open(queue(engine_waiting=2), 0.11)
    assert room.closed_until() is None
    room.read(Load(waiting=2))
    assert not room.open(queue(engine_waiting=2), 0.2)


def test_short_prompts_that_one_step_reads_together_may_all_go_in() -> None:
    room = Room(64, STEP)
    on(room, *(stay(prompt=20) for _ in range(4)))
    assert room.open(queue(engine_waiting=2), 0)
    on(room, stay(prompt=20))
    assert not room.open(queue(engine_waiting=2), 0)


def test_short_prompts_do_not_go_on_where_the_engine_says_that_they_wait() -> None:
    room = Room(64, STEP)
    on(room, *(stay(prompt=1) for _ in range(4)))
    room.read(Load(waiting=2))
    assert not room.open(queue(engine_waiting=2), 0)


def test_a_full_cache_closes_it() -> None:
    room = Room(8, STEP)
    begun(room, 1)
    room.read(Load(running=1, kv_cache_share=0.9))
    assert room.open(queue(kv_cache_share=0.95), 0)
    assert not room.open(queue(kv_cache_share=0.9), 0)


def grants(room: Room, share: str, **settings: Any) -> bool:
    newcomer = stay(share)
    room.come(newcomer)
    granted = room.grants(newcomer, queue(**settings), 0)
    room.go(newcomer)
    return granted


def test_the_last_places_are_kept_for_who_has_less_than_its_share() -> None:
    room = Room(16, STEP)
    begun(room, 13, "a")
    assert grants(room, "a", headroom=0.125)
    begun(room, 1, "a")
    assert not grants(room, "a", headroom=0.125)
    assert grants(room, "b", headroom=0.125)
    begun(room, 1, "b")
    assert grants(room, "b", headroom=0.125), "its share would be a third"
    assert grants(room, "a", headroom=0)


def test_a_heavy_team_may_have_more_of_the_last_places() -> None:
    room = Room(16, STEP)
    heavy = [stay("a", weight=15) for _ in range(14)]
    on(room, *heavy)
    newcomer = stay("a", weight=15)
    room.come(newcomer)
    assert room.grants(newcomer, queue(headroom=0.125), 0)
    heavy.append(newcomer)
    room.take(newcomer, 0)
    assert not room.grants(newcomer, queue(headroom=0.125), 0), "fifteen of sixteen are its share beside another"


def test_a_flood_beside_guests_gets_no_more_than_leaves_them_in_time() -> None:
    room = Room(64, STEP)
    off(room, *begun(room, 1, "b"))
    begun(room, 16, "a")
    assert not grants(room, "a", first_token_factor=2)
    assert grants(room, "a")
    assert grants(room, "b", first_token_factor=2)


def test_nobody_waits_for_the_first_token_of_a_batch_job() -> None:
    room = Room(64, STEP)
    job = stay("b", awaited=False)
    on(room, job)
    off(room, job)
    begun(room, 16, "a")
    assert grants(room, "a", first_token_factor=2)


def test_nothing_is_left_of_who_has_gone() -> None:
    room = Room(8, STEP)
    stays = [stay(f"{number}", weight=0.1 * number + 0.1, stream=number % 2 == 0) for number in range(7)]
    on(room, *stays)
    off(room, *stays)
    assert (room.sequences, room._whole, room._weights) == (0, 0, 0)
    assert [len(kept) for kept in (room._shares, room._silent, room._fresh)] == [0, 0, 0]
