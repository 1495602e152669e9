"""Whose turn it is: real fleet and engines on fake processes, whose load a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from appliance import config
from appliance.config import Accounts, Queue
from appliance.core import Caller, Operation, Request, ServiceClass, Task
from appliance.dispatch.line import Place
from appliance.dispatch.turns import Turns, priority_of
from appliance.engines import engine as engine_module
from appliance.engines.engine import Engine, State
from appliance.engines.fleet import Fleet
from appliance.engines.load import Load
from appliance.engines.served import Coming, Served
from appliance.engines.specs import Machine, specs
from appliance.errors import Loading, NotFound, Overloaded
from appliance.observe import Metrics
from tests.fakes.house import House
from tests.fakes.process import Clock, Nursery, nursery

CHAT = Operation("chat", "/v1/chat/completions", Task.CHAT, "messages")
HERE = Machine(cuda=False)


def request(
    team: str | None = "a", service_class: ServiceClass = ServiceClass.STANDARD, *, key: str = "k",
    user: str | None = None, stream: bool = True, choices: int = 1, tokens: int = 16, size: int = 64,
) -> Request:  # fmt: skip
    caller = Caller(key, user=user, team=team)
    return Request(
        "r", caller, CHAT, "chat", b"x" * size, stream=stream, choices=choices, service_class=service_class,
        most_prompt_tokens=tokens, most_completion_tokens=tokens,
    )  # fmt: skip


async def until(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not what():  # noqa: ASYNC110 - states change in the engine's own task
            await asyncio.sleep(0.005)


class Bench:
    """A fleet with one engine of 8 places, and turns on it whose clock stands still."""

    def __init__(self, house: House, fleet: Fleet, started: Nursery) -> None:
        self.house, self.fleet, self.started, self.clock = house, fleet, started, Clock()
        self.metrics = Metrics()
        self.turns = Turns(
            Queue(engine_waiting=100), Accounts(), lambda each: fleet.find(each.model), self.metrics, self.clock
        )
        self.metrics.watch_queues(self.turns.standings)
        self.waiting: list[asyncio.Task[Served]] = []

    def set(self, **settings: Any) -> None:
        self.turns.settings = Queue.model_validate(
            {"engine_waiting": 100, "headroom": 0, "first_token_factor": None} | settings
        )

    @property
    def engine(self) -> Engine:
        found = self.fleet.find("chat").engine
        assert found is not None
        return found

    def enter(self, *args: Any, **kwargs: Any) -> Place:
        return self.turns.enter(request(*args, **kwargs), self.fleet.find("chat"))

    def fill(self, count: int = 8, *args: Any, **kwargs: Any) -> list[Place]:
        """Places on the engine that have their first token."""
        places = [self.enter(*args, **kwargs) for _ in range(count)]
        assert not any(place.waiting for place in places)
        for place in places:
            place.first_token()
        return places

    async def told(self, load: Load) -> None:
        """The engine is read, and says this."""
        self.engine.load = load
        self.engine._tell()
        await asyncio.sleep(0)

    async def work_off(self, *loads: tuple[float, float]) -> None:
        """Readings of (seconds later, tokens so far), while somebody waits."""
        for seconds, tokens in loads:
            self.clock.now += seconds
            await self.told(Load(running=8, tokens=tokens, moved=tokens))


@pytest.fixture
async def bench(house: House, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(engine_module, "_PROBE_EVERY", 0.01)
    for name in ("one", "two"):
        house.card(name)
    house.serve("chat", "one", batching={"max_sequences": 8}, stall_seconds=600)
    loaded = config.load(house.write())
    (house.state / "run").mkdir(parents=True)

    async def connect(*_: object) -> Any:
        raise AssertionError("there is no endpoint")

    async with nursery() as started:
        fleet = Fleet(loaded, started.spawn, connect)
        await fleet.start(specs(loaded, HERE))
        made = Bench(house, fleet, started)
        made.set()
        await made.engine.until_ready()
        yield made
        await fleet.stop(0)


async def test_the_free_way_takes_no_wait(bench: Bench) -> None:
    place = bench.enter()
    assert not place.waiting
    assert await place.turn() is bench.fleet.find("chat")
    place.first_token()
    place.leave(3)
    place.leave(3)
    assert [standing.waiting for standing in bench.turns.standings()] == [0, 0, 0]


async def test_no_more_go_onto_the_engine_than_it_has_places(bench: Bench) -> None:
    places = bench.fill()
    last = bench.enter()
    assert last.waiting
    turn = asyncio.create_task(last.turn())
    await asyncio.sleep(0)
    assert not turn.done()
    places[0].leave(5)
    assert await turn is bench.fleet.find("chat")


async def test_each_choice_takes_a_place(bench: Bench) -> None:
    bench.fill(1, choices=8)
    assert bench.enter().waiting


async def test_a_request_larger_than_the_engine_runs_alone(bench: Bench) -> None:
    (large,) = bench.fill(1, choices=20)
    following = bench.enter(choices=20)
    assert following.waiting
    large.leave()
    assert not following.waiting


async def test_a_flood_of_one_team_lets_another_go_next(bench: Bench) -> None:
    places = bench.fill()
    flood = [bench.enter("a") for _ in range(50)]
    other = bench.enter("b")
    places[0].leave(5)
    places[1].leave(5)
    assert not other.waiting
    assert sum(not place.waiting for place in flood) == 1


async def test_a_place_is_kept_for_who_has_none(bench: Bench) -> None:
    bench.set(headroom=0.25)
    bench.fill(6, "a")
    assert bench.enter("a").waiting
    assert not bench.enter("b").waiting
    assert not bench.enter("c").waiting
    assert bench.enter("d").waiting, "all are taken"


async def test_batch_work_of_a_team_keeps_no_place_from_its_people(bench: Bench) -> None:
    bench.set(headroom=0.25)
    bench.fill(6, "a", ServiceClass.BATCH)
    assert bench.enter("a", ServiceClass.BATCH).waiting
    assert not bench.enter("a", ServiceClass.INTERACTIVE).waiting


async def test_beside_guests_a_flood_gets_no_more_than_leaves_their_first_tokens_in_time(bench: Bench) -> None:
    """Alone a first token takes 50 ms; each sequence beside it adds 20."""
    bench.set(first_token_factor=2)

    async def visit(team: str) -> None:
        sequences = sum(not place.waiting for place in flood)
        guest = bench.enter(team)
        assert not guest.waiting
        bench.clock.now += 0.05 + 0.02 * sequences
        guest.first_token()
        guest.leave(1)

    flood: list[Place] = []
    for _ in range(3):
        await visit("b")
    flood = [bench.enter("a") for _ in range(8)]
    for place in flood:
        place.first_token()
    assert sum(not place.waiting for place in flood) == 2, "a quarter of the places, at first"
    for _ in range(100):
        await visit("b")
        if not flood[0].waiting and flood[-1].waiting:  # answers end and others take their places
            flood.append(bench.enter("a"))
            flood.pop(0).leave(16)
            for place in flood:
                place.first_token()
    assert sum(not place.waiting for place in flood) in (2, 3), "beside two, it takes 90 ms, beside three, 110"
    bench.clock.now += 61
    flood.pop(0).leave(16)
    assert not any(place.waiting for place in flood[:7]), "nobody came for a minute"


async def test_teams_share_by_weight(bench: Bench) -> None:
    bench.turns.accounts = Accounts.model_validate({"teams": {"b": {"weight": 3}}})
    running = bench.fill()
    waiting = {team: [bench.enter(team) for _ in range(60)] for team in "ab"}
    on_engine: list[Place] = []
    for _ in range(40):
        running.pop().leave(16)
        gone = [place for places in waiting.values() for place in places if not place.waiting]
        new = [place for place in gone if place not in on_engine]
        for place in new:
            place.first_token()
        on_engine += new
        running = running + new
    shares = {team: sum(not place.waiting for place in places) for team, places in waiting.items()}
    assert shares["a"] + shares["b"] == 40
    assert shares["b"] == pytest.approx(30, abs=2)


async def test_keys_without_a_team_do_not_starve_each_other(bench: Bench) -> None:
    places = bench.fill(8, None, key="one")
    flood = [bench.enter(None, key="one") for _ in range(20)]
    by_key, by_user = bench.enter(None, key="two"), bench.enter(None, key="one", user="u")
    for place in places[:3]:
        place.leave(5)
    assert not by_key.waiting
    assert not by_user.waiting
    assert sum(not place.waiting for place in flood) == 1


async def test_higher_classes_go_first(bench: Bench) -> None:
    places = bench.fill()
    batch, standard, interactive = (
        bench.enter("a", each) for each in (ServiceClass.BATCH, ServiceClass.STANDARD, ServiceClass.INTERACTIVE)
    )
    order = []
    for place in places[:3]:
        place.leave(1)
        order.append([batch.waiting, standard.waiting, interactive.waiting])
    assert order == [[True, True, False], [True, False, False], [False, False, False]]


async def test_who_gives_up_waits_no_more(bench: Bench) -> None:
    places = bench.fill()
    first, second = bench.enter(), bench.enter()
    turn = asyncio.create_task(first.turn())
    await asyncio.sleep(0)
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)
    first.leave(0)
    assert [standing.waiting for standing in bench.turns.standings()] == [0, 1, 0]
    places[0].leave(1)
    assert not second.waiting


async def test_no_more_than_a_few_go_in_before_their_first_token(bench: Bench) -> None:
    bench.set(engine_waiting=2)
    first, second, third = (bench.enter(size=10_000) for _ in range(3))
    assert [place.waiting for place in (first, second, third)] == [False, False, True]
    second.first_token()
    assert not third.waiting


async def test_the_engine_says_that_enough_wait_inside(bench: Bench) -> None:
    bench.set(engine_waiting=2)
    (running,) = bench.fill(1, stream=False)
    await bench.told(Load(running=1, waiting=2))
    waiting = bench.enter()
    assert waiting.waiting
    await bench.told(Load(running=1, waiting=1))
    assert not waiting.waiting
    running.leave()


async def test_requests_without_a_stream_count_until_the_engine_has_surely_taken_them_in(bench: Bench) -> None:
    bench.set(engine_waiting=2)
    bench.fill(2, stream=False, size=10_000)
    waiting = bench.enter(stream=False, size=10_000)
    assert waiting.waiting
    bench.clock.now += 1
    async with asyncio.timeout(30):
        await waiting.turn()


async def test_a_full_cache_lets_nobody_in_until_it_is_less_full(bench: Bench) -> None:
    bench.fill(1)
    await bench.told(Load(running=1, kv_cache_share=0.96))
    waiting = bench.enter()
    assert waiting.waiting
    await bench.told(Load(running=1, kv_cache_share=0.5))
    assert not waiting.waiting


async def test_a_cache_that_stays_full_blocks_nobody_for_ever(bench: Bench) -> None:
    (only,) = bench.fill(1)
    await bench.told(Load(running=1, kv_cache_share=0.99))
    waiting = bench.enter()
    only.leave()
    assert not waiting.waiting


async def test_sequences_that_we_did_not_count_take_places_too(bench: Bench) -> None:
    """One embedding of many texts is one request to us."""
    bench.fill(1, stream=False)
    await bench.told(Load(running=8, waiting=50))
    assert bench.enter().waiting


async def test_who_would_wait_too_long_is_told_so_at_once(bench: Bench) -> None:
    bench.set(waits={"standard_seconds": 10, "interactive_seconds": 1000})
    bench.fill()
    waiting = [bench.enter() for _ in range(10)]
    work = 10 * (64 / 4 + 64)  # bytes of a prompt in tokens, and an ordinary answer
    await bench.work_off((1, 100), (1, 100 + work / 20), (1, 100 + 2 * work / 20))
    with pytest.raises(Overloaded) as refused:
        bench.enter()
    assert refused.value.code == "overloaded"
    assert refused.value.retry_after == pytest.approx(10, abs=1)
    assert "chat" in refused.value.message
    assert "standard" in refused.value.message
    assert bench.enter("a", ServiceClass.INTERACTIVE).waiting
    assert all(place.waiting for place in waiting)
    page = bench.metrics.render().decode()
    assert 'appliance_shed_total{model="chat",service_class="standard"} 1.0' in page
    assert 'appliance_queue_length{model="chat",service_class="standard"} 10.0' in page


async def test_a_newcomer_of_another_team_is_not_shed_for_a_flood(bench: Bench) -> None:
    bench.set(waits={"standard_seconds": 10})
    bench.fill()
    for _ in range(10):
        bench.enter("a")
    await bench.work_off((1, 100), (1, 104), (1, 108))
    with pytest.raises(Overloaded):
        bench.enter("a")
    assert bench.enter("b").waiting


async def test_the_queue_is_bounded(bench: Bench) -> None:
    bench.set(longest=3)
    bench.fill()
    waiting = [bench.enter() for _ in range(3)]
    with pytest.raises(Overloaded) as refused:
        bench.enter()
    assert refused.value.retry_after == 1
    waiting[0].leave()
    assert bench.enter().waiting


async def test_a_wait_that_becomes_far_longer_than_expected_ends(bench: Bench) -> None:
    bench.set(waits={"interactive_seconds": 0})
    bench.fill()
    place = bench.enter("a", ServiceClass.INTERACTIVE)
    with pytest.raises(Overloaded):
        await place.turn()
    place.leave()


async def test_nobody_waits_for_an_engine_that_is_not_ready(bench: Bench) -> None:
    bench.started.answers = False
    bench.fill()
    waiting = [bench.enter() for _ in range(50)]
    turns = [asyncio.create_task(place.turn()) for place in waiting]
    await asyncio.sleep(0)
    bench.started.spawned[-1].end(1)
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*turns, return_exceptions=True)
    assert all(isinstance(answer, Loading) for answer in answers)
    for place in waiting:
        place.leave()
    with pytest.raises(Loading):
        bench.enter()
    bench.started.answers = True


async def test_an_engine_that_failed_a_request_gets_no_other_for_a_moment(bench: Bench) -> None:
    """When it died, those who wait would follow those who failed before anybody knew of it."""
    places = bench.fill()
    waiting = bench.enter()
    places[0].leave(failed=True)
    places[1].leave(failed=True)
    assert waiting.waiting
    bench.clock.now += 1
    async with asyncio.timeout(30):
        await waiting.turn()


async def test_after_a_restart_the_places_of_before_are_free(bench: Bench) -> None:
    places = bench.fill()
    starts = bench.engine.starts
    bench.started.spawned[-1].end(1)
    await until(lambda: bench.engine.starts > starts and bench.engine.state is State.READY)
    for place in places:
        place.leave()
    bench.fill()


async def test_those_who_wait_for_an_engine_that_is_replaced_go_to_the_new_one(bench: Bench) -> None:
    places = bench.fill()
    old = bench.engine
    waiting = bench.enter()
    turn = asyncio.create_task(waiting.turn())
    bench.house.serve("chat", "two")
    loaded = config.load(bench.house.write())
    await bench.fleet.change(loaded, specs(loaded, HERE), lambda _: None)
    async with asyncio.timeout(30):
        served = await turn
    assert served is bench.fleet.find("chat")
    assert served.engine is not old
    for place in places:
        place.leave(4)
    waiting.leave(4)
    await until(lambda: old.state is State.STOPPED)
    await asyncio.sleep(0)
    assert [standing.waiting for standing in bench.turns.standings()] == [0, 0, 0], "that of the old one is forgotten"


async def test_a_turn_that_came_just_before_the_engine_was_replaced_goes_to_the_new_one(bench: Bench) -> None:
    place = bench.enter()
    bench.house.serve("chat", "two")
    loaded = config.load(bench.house.write())
    await bench.fleet.change(loaded, specs(loaded, HERE), lambda _: None)
    replaced = place.served.engine
    await until(lambda: replaced is not None and replaced.state is not State.READY)
    assert await place.turn() is bench.fleet.find("chat")


async def test_those_who_wait_for_a_model_that_is_served_no_more_are_told_so(bench: Bench) -> None:
    bench.fill()
    waiting = bench.enter()
    turn = asyncio.create_task(waiting.turn())
    await asyncio.sleep(0)
    bench.house.settings["models"].clear()
    bench.house.serve("other", "two")
    loaded = config.load(bench.house.write())
    await bench.fleet.change(loaded, specs(loaded, HERE), lambda _: None)
    async with asyncio.timeout(30):
        with pytest.raises(NotFound):
            await turn


def promised(bench: Bench, seconds: float = 60) -> Served:
    """`chat`, whose engine rests until a test says otherwise."""
    served = bench.fleet.find("chat")
    served.promise(Coming(seconds))
    bench.engine.state = State.IDLE
    return served


def come(bench: Bench) -> None:
    """What was promised is there."""
    bench.engine.state = State.READY
    bench.fleet.find("chat").keep()


async def test_those_who_ask_for_a_model_that_is_on_its_way_wait_for_it(bench: Bench) -> None:
    served = promised(bench)
    places = [bench.enter() for _ in range(9)]
    turns = [asyncio.create_task(place.turn()) for place in places]
    await asyncio.sleep(0)
    assert all(place.waiting for place in places)
    assert [standing.waiting for standing in bench.turns.standings()] == [0, 9, 0]
    come(bench)
    assert [place.waiting for place in places] == [False] * 8 + [True], "in their order, as far as there is room"
    assert await asyncio.gather(*turns[:8]) == [served] * 8
    assert bench.engine.leases == 8, "who has a turn holds the engine"
    places[0].leave()
    assert await turns[8] is served
    for place in places:
        place.leave()
    assert bench.engine.leases == 0
    assert [standing.waiting for standing in bench.turns.standings()] == [0, 0, 0]


async def test_who_stood_in_the_line_of_what_is_replaced_waits_on_whatever_its_class_allows(bench: Bench) -> None:
    bench.fill()
    bench.set(waits={"standard_seconds": 0.01})
    place = bench.enter()
    turn = asyncio.create_task(place.turn())
    promised(bench)
    bench.engine._tell()  # heard before any time is up
    await asyncio.sleep(0.05)
    assert place.waiting
    assert not turn.done()
    come(bench)
    place.leave()
    turn.cancel()


async def test_more_than_may_wait_for_what_is_on_its_way_are_refused(bench: Bench) -> None:
    bench.set(longest=2)
    promised(bench)
    places = [bench.enter() for _ in range(2)]
    with pytest.raises(Overloaded):
        bench.enter()
    places[0].leave()
    assert bench.enter().waiting


async def test_what_is_promised_and_does_not_come_in_time_is_told(bench: Bench) -> None:
    promised(bench, 0.02)
    with pytest.raises(Loading, match=r"hasn't answered within 0\.02 s"):
        await bench.enter().turn()


async def test_nobody_waits_where_the_config_lets_nobody(bench: Bench) -> None:
    promised(bench, 0)
    with pytest.raises(Loading):
        bench.enter()


async def test_what_is_promised_and_does_not_come_is_refused_as_ever(bench: Bench) -> None:
    served = promised(bench)
    turn = asyncio.create_task(bench.enter().turn())
    await asyncio.sleep(0)
    served.refuse_waiting()
    with pytest.raises(Loading):
        await turn
    with pytest.raises(Loading):
        bench.enter()


async def test_counting_tokens_takes_no_turn(bench: Bench) -> None:
    bench.fill()
    assert not bench.enter(tokens=0).waiting


async def test_what_an_engine_is_told_of_classes(bench: Bench) -> None:
    served = bench.fleet.find("chat")
    assert [priority_of(each, served) for each in ServiceClass] == [0, 10, 20]
