"""Who is answered by the candidate: drawn by a stable hash, evenly, and the same ones for as long as it lasts."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core import Caller, Operation, Request, Task
from appliance.dispatch.choose import choose, drawn, shadow
from appliance.engines.served import Arms, Split
from appliance.errors import BadRequest

CHAT = Operation("chat", "/v1/chat/completions", Task.CHAT, "messages")
NAMES = [f"user{number}@house.example" for number in range(20_000)]


def request(
    user: str | None = None, *, team: str | None = None, key: str = "k", id_: str = "r", tokens: int = 8
) -> Request:
    caller = Caller(key, user=user, team=team)
    return Request(id_, caller, CHAT, "chat", b"{}", most_prompt_tokens=tokens, most_completion_tokens=tokens)


def served(version: str, **more: Any) -> Any:
    about = {"engine": object(), "context_length": 512, "ready": True, "task": Task.CHAT, "name": "chat"}
    return SimpleNamespace(**about | {"version": version} | more)


STABLE, CANDIDATE = served("one"), served("two")


def share(split: Split, made: Callable[[str], Request]) -> float:
    return sum(drawn(made(name), split) for name in NAMES) / len(NAMES)


@pytest.mark.parametrize("percent", [0, 1, 10, 50, 99, 100])
@pytest.mark.parametrize(
    ("by", "made"),
    [
        ("user", request),
        ("team", lambda name: request("anna", team=name)),
        ("request", lambda name: request("anna", id_=name)),
        ("user", lambda name: request(key=name)),
        ("team", lambda name: request(key=name)),
    ],
)
def test_of_many_the_share_is_what_was_asked_for(by: Any, made: Callable[[str], Request], percent: float) -> None:
    """Within 5 standard deviations; of 0 and 100 percent exactly."""
    expected = percent / 100
    deviation = (expected * (1 - expected) / len(NAMES)) ** 0.5
    assert abs(share(Split(percent, by, "s"), made) - expected) <= 5 * deviation


@given(st.text(), st.floats(0, 100), st.floats(0, 100), st.text(max_size=8))
def test_a_larger_share_keeps_all_whom_a_smaller_one_had(user: str, one: float, other: float, salt: str) -> None:
    small, large = sorted((one, other))
    if drawn(request(user), Split(small, "user", salt)):
        assert drawn(request(user), Split(large, "user", salt))


def test_another_rollout_draws_anew() -> None:
    first, second = ({name for name in NAMES if drawn(request(name), Split(50, "user", salt))} for salt in "ab")
    assert 0.45 < len(first & second) / len(first) < 0.55


def test_who_asks_stays_with_one_whatever_they_ask() -> None:
    split = Split(50, "user", "s")
    for name in NAMES[:100]:
        asked = [request(name, team=f"t{number}", key=f"k{number}", id_=f"r{number}") for number in range(20)]
        assert len({drawn(each, split) for each in asked}) == 1


def test_a_user_is_no_team_and_no_key_of_the_same_name() -> None:
    split = Split(50, "team", "s")
    told = [
        (drawn(request(key=name), split), drawn(request(name), split), drawn(request("x", team=name), split))
        for name in NAMES
    ]
    assert len(set(told)) == 8, "all combinations occur, so they are drawn apart"


def test_the_candidate_answers_its_share_and_the_stable_one_the_rest() -> None:
    arms = Arms(STABLE, CANDIDATE, Split(50, "user", "s"))
    for name in NAMES[:100]:
        expected = CANDIDATE if drawn(request(name), Split(50, "user", "s")) else STABLE
        assert choose(request(name), arms) is expected


ALL = Split(100, "request", "s")


@pytest.mark.parametrize(
    "arms",
    [
        Arms(STABLE),
        Arms(STABLE, CANDIDATE),
        Arms(STABLE, CANDIDATE, mirror=ALL),
        Arms(STABLE, served("two", ready=False), ALL),
        Arms(STABLE, served("two", task=Task.EMBEDDING), ALL),
        Arms(STABLE, served("two", context_length=15), ALL),
    ],
    ids=["alone", "standing by", "a shadow", "not ready", "for something else", "of a shorter context"],
)
def test_all_else_is_answered_by_the_stable_one(arms: Arms) -> None:
    assert choose(request("anna"), arms) is STABLE


def test_a_shorter_context_answers_what_surely_fits() -> None:
    shorter = served("two", context_length=256)
    assert choose(request(tokens=128), Arms(STABLE, shorter, ALL)) is shorter
    assert choose(request(tokens=129), Arms(STABLE, shorter, ALL)) is STABLE
    assert choose(request(tokens=4096), Arms(STABLE, CANDIDATE, ALL)) is CANDIDATE, "bounds are estimates"


def test_what_the_model_is_not_for_is_refused() -> None:
    with pytest.raises(BadRequest, match="is for embedding"):
        choose(request(), Arms(served("one", task=Task.EMBEDDING)))


def test_a_copy_goes_to_a_shadow_of_this_house_that_is_ready_and_to_nothing_else() -> None:
    assert shadow(request(), Arms(STABLE, CANDIDATE, mirror=ALL)) is CANDIDATE
    assert shadow(request(), Arms(STABLE, CANDIDATE, mirror=Split(0, "request", "s"))) is None
    assert shadow(request(), Arms(STABLE, CANDIDATE, ALL)) is None
    assert shadow(request(), Arms(STABLE, served("two", engine=None), mirror=ALL)) is None, "no endpoint"
    assert shadow(request(), Arms(STABLE, served("two", ready=False), mirror=ALL)) is None
    assert shadow(request(), Arms(STABLE)) is None
