"""The order of those who wait: by class, then fair by weight; decided without a clock or an engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core import ServiceClass
from appliance.dispatch.queue import ORDER, Entry, FairQueue

INTERACTIVE, STANDARD, BATCH = ORDER


def entry(
    flow: str, item: int = 0, *, weight: float = 1, cost: float = 10, service_class: ServiceClass = STANDARD
) -> Entry[int]:
    return Entry(item, service_class, flow, weight, cost)


def filled(*entries: Entry[int]) -> FairQueue[int]:
    queue: FairQueue[int] = FairQueue()
    for each in entries:
        queue.push(each)
    return queue


def taken(queue: FairQueue[int], most: int = 10**6) -> list[Entry[int]]:
    found: list[Entry[int]] = []
    while len(found) < most and (each := queue.pop()) is not None:
        found.append(each)
    return found


def test_nothing_waits_at_first() -> None:
    assert filled().pop() is None
    assert len(filled()) == 0


def test_within_a_flow_who_came_first_goes_first() -> None:
    assert [each.item for each in taken(filled(*(entry("a", number) for number in range(5))))] == [0, 1, 2, 3, 4]


def test_another_team_goes_next_after_a_flood() -> None:
    queue = filled(*(entry("a", number) for number in range(100)))
    taken(queue, 10)
    queue.push(entry("b"))
    assert "b" in [each.flow for each in taken(queue, 2)]


def test_higher_classes_go_first() -> None:
    order = [BATCH, STANDARD, INTERACTIVE, BATCH, INTERACTIVE]
    queue = filled(*(entry("a", number, service_class=each) for number, each in enumerate(order)))
    assert [each.item for each in taken(queue)] == [2, 4, 1, 0, 3]


def test_shares_go_by_weight() -> None:
    queue = filled(*(entry(flow, weight=weight) for _ in range(300) for flow, weight in (("a", 1), ("b", 3))))
    shares = Counter(each.flow for each in taken(queue, 200))
    assert shares["b"] == pytest.approx(150, abs=2)


def test_shares_are_of_tokens_and_not_of_requests() -> None:
    queue = filled(*(entry(flow, cost=cost) for _ in range(300) for flow, cost in (("a", 10), ("b", 40))))
    shares = Counter(each.flow for each in taken(queue, 200))
    assert shares["a"] == pytest.approx(160, abs=2)


def test_what_a_request_really_took_is_charged() -> None:
    """Both say 10 tokens; those of `b` come to 40."""
    queue = filled(*(entry(flow) for _ in range(300) for flow in ("a", "b")))
    shares: Counter[object] = Counter()
    for _ in range(200):
        (each,) = taken(queue, 1)
        shares[each.flow] += 1
        queue.charge(each, 40 if each.flow == "b" else 10)
    assert shares["a"] == pytest.approx(160, abs=2)


def test_what_a_request_did_not_take_is_given_back() -> None:
    queue = filled(*(entry(flow, cost=40) for _ in range(300) for flow in ("a", "b")))
    shares: Counter[object] = Counter()
    for _ in range(200):
        (each,) = taken(queue, 1)
        shares[each.flow] += 1
        queue.charge(each, 10 if each.flow == "b" else 40)
    assert shares["b"] == pytest.approx(160, abs=2)


def test_who_did_not_wait_saves_up_no_turns() -> None:
    queue = filled(*(entry("a", number) for number in range(100)), entry("b"))
    taken(queue, 60)
    for _ in range(40):
        queue.push(entry("b"))
    shares = Counter(each.flow for each in taken(queue, 20))
    assert shares["a"] == pytest.approx(10, abs=1)


def test_who_leaves_is_not_taken_and_costs_nothing() -> None:
    entries = [entry("a", number) for number in range(4)]
    queue = filled(*entries, entry("b", 9))
    queue.remove(entries[0])
    queue.remove(entries[2])
    queue.remove(entries[2])
    assert len(queue) == 3
    assert [each.item for each in taken(queue)] == [1, 9, 3]
    queue.remove(entries[1])
    assert len(queue) == 0


def test_a_flow_that_gave_up_and_comes_again_stands_once() -> None:
    queue = filled(entry("b"))
    for number in range(1000):
        gone = entry("a", number)
        queue.push(gone)
        queue.remove(gone)
    assert len(queue._classes[STANDARD]._heap) == 2
    queue.push(entry("a", 7))
    assert sorted(each.item for each in taken(queue)) == [0, 7]


def test_a_flow_that_may_not_go_holds_up_no_other() -> None:
    queue = filled(entry("a", 1), entry("a", 2), entry("b", 3))
    only: Callable[[str], Callable[[Entry[int]], bool]] = lambda flow: lambda each: each.flow == flow  # noqa: E731
    assert queue.pop(lambda _: False) is None
    found = queue.pop(only("b"))
    assert found is not None
    assert found.item == 3
    assert queue.pop(only("b")) is None
    assert [each.item for each in taken(queue)] == [1, 2]


def test_what_is_kept_from_a_class_is_not_for_those_below() -> None:
    queue = filled(entry("a", 1, service_class=BATCH), entry("b", 2, service_class=INTERACTIVE))
    assert queue.pop(lambda each: each.flow == "a") is None
    assert [each.item for each in taken(queue)] == [2, 1]


def test_ahead_is_all_of_higher_classes_and_a_share_of_the_own() -> None:
    queue = filled(*(entry("a", cost=10) for _ in range(100)))
    first = entry("b", cost=10)
    queue.push(first)
    assert queue.ahead(first) == (0, 0), "it is next, however many others wait"
    second = entry("b", cost=10)
    queue.push(second)
    assert queue.ahead(second) == (0, 20), "its own first one, and as much of the other team"
    queue.push(entry("c", cost=500, service_class=INTERACTIVE))
    assert queue.ahead(second) == (500, 20)
    last = entry("a", cost=10)
    queue.push(last)
    assert queue.ahead(last) == (500, 1020), "no more than all that waits"


FLOWS = st.sampled_from("abcd")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), FLOWS, st.sampled_from(ORDER), st.integers(1, 50)),
        st.tuples(st.just("pop"), st.sets(FLOWS)),
        st.tuples(st.just("remove"), st.integers(0, 100)),
        st.tuples(st.just("charge"), st.integers(0, 100), st.integers(0, 100)),
    ),
    max_size=120,
)
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5, "d": 7.0}


@given(STEPS)
def test_nothing_is_lost_nothing_is_idle_and_classes_hold(steps: list[tuple[object, ...]]) -> None:
    """Against a plain list: whoever may go does, the class is the highest that may, and the first of its flow goes."""
    queue: FairQueue[int] = FairQueue()
    waiting: list[Entry[int]] = []
    gone: list[Entry[int]] = []
    for number, step in enumerate(steps):
        match step:
            case ("push", str(flow), ServiceClass() as each, int(cost)):
                waiting.append(entry(flow, number, weight=WEIGHTS[flow], cost=cost, service_class=each))
                queue.push(waiting[-1])
            case ("pop", set(held)):
                found = queue.pop(lambda each, held=held: each.flow not in held)  # type: ignore[misc]
                highest = min((each.service_class for each in waiting), key=ORDER.index, default=None)
                may = [each for each in waiting if each.service_class is highest and each.flow not in held]
                assert (found is None) == (not may)
                if found is not None:
                    assert found is next(each for each in may if each.flow == found.flow)
                    waiting.remove(found)
                    gone.append(found)
            case ("remove", int(at)) if waiting:
                queue.remove(waiting.pop(at % len(waiting)))
            case ("charge", int(at), int(tokens)) if gone:
                queue.charge(gone[at % len(gone)], tokens)
        assert len(queue) == len(waiting) == len(list(queue))
        for each in ORDER:
            of_class = [one for one in waiting if one.service_class is each]
            assert queue.length(each) == len(of_class)
            assert queue.work(each) == pytest.approx(sum(one.cost for one in of_class))
    assert len(taken(queue)) == len(waiting)


@given(
    st.lists(st.tuples(st.sampled_from([0.5, 1, 2, 7]), st.lists(st.integers(1, 50), min_size=60, max_size=60)),
             min_size=2, max_size=5),
    st.integers(1, 50),
)  # fmt: skip
def test_shares_are_within_one_request_of_the_weights(flows: list[tuple[float, list[int]]], turns: int) -> None:
    """The bound of start-time fair queueing: while both wait, cost over weight differs by one request of each."""
    queue: FairQueue[int] = FairQueue()
    for number, (weight, costs) in enumerate(flows):
        for cost in costs:
            queue.push(entry(str(number), number, weight=weight, cost=cost))
    got = [0.0] * len(flows)
    for each in taken(queue, turns):
        got[each.item] += each.cost
    for one, (weight, costs) in enumerate(flows):
        for other, (weight_of_other, costs_of_other) in enumerate(flows):
            apart = got[one] / weight - got[other] / weight_of_other
            assert apart <= max(costs) / weight + max(costs_of_other) / weight_of_other + 1e-6


@given(st.lists(st.tuples(FLOWS, st.integers(1, 50)), min_size=1, max_size=60), st.integers(1, 50))
def test_nobody_starves_inside_a_class(others: list[tuple[str, int]], cost: int) -> None:
    """A newcomer goes before any other flow has had more than its own share twice over, however many come after it."""
    queue = filled(*(entry(flow, cost=size) for flow, size in others))
    newcomer = entry("new", -1, cost=cost)
    queue.push(newcomer)
    for turn in range(5 * 51):
        each = queue.pop()
        if each is newcomer:
            break
        queue.push(entry(others[turn % len(others)][0], cost=50))
    else:
        pytest.fail("it was never taken")
