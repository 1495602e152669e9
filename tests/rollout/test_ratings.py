"""What callers say of their answers, and of nobody else's."""

from __future__ import annotations

import pytest

from appliance.core import Caller
from appliance.errors import NotFound
from appliance.rollout import ratings
from appliance.rollout.ratings import Ratings
from tests.fakes.process import Clock

ANNA, BEN, NOBODY = Caller("k1", user="anna"), Caller("k2", user="ben"), Caller("k3")
DAY = 24 * 3600.0


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def known(clock: Clock) -> Ratings:
    made = Ratings(clock)
    made.answered("r1", ANNA, "chat", "one@1")
    return made


def test_the_last_word_counts_and_the_same_again_counts_once(known: Ratings) -> None:
    assert known.rate("r1", ANNA, "up") == ("chat", "one@1")
    assert known.rate("r1", ANNA, "up") is None
    assert known.sums("chat", "one@1", 0) == (1, 0)
    assert known.rate("r1", ANNA, "down") == ("chat", "one@1")
    assert known.sums("chat", "one@1", 0) == (0, 1)
    assert known.sums("chat", "two@2", 0) == known.sums("other", "one@1", 0) == (0, 0)


def test_only_who_asked_may_rate_with_any_of_their_keys(known: Ratings) -> None:
    known.answered("r2", NOBODY, "chat", "one@1")
    for caller in (BEN, NOBODY, Caller("anna"), Caller("k9", user=None)):
        with pytest.raises(NotFound):
            known.rate("r1", caller, "up")
    assert known.rate("r1", Caller("another", user="anna"), "up") == ("chat", "one@1")
    assert known.rate("r2", NOBODY, "up") == ("chat", "one@1")


def test_the_same_id_of_another_is_another_request(known: Ratings) -> None:
    known.answered("r1", BEN, "chat", "two@2")
    assert known.rate("r1", BEN, "up") == ("chat", "two@2")
    assert known.rate("r1", ANNA, "down") == ("chat", "one@1")


def test_after_a_day_nobody_rates_any_more(known: Ratings, clock: Clock) -> None:
    clock.now += DAY
    assert known.rate("r1", ANNA, "up") is not None
    clock.now += 1
    with pytest.raises(NotFound, match="of the last 24 hours"):
        known.rate("r1", ANNA, "down")
    assert known.sums("chat", "one@1", clock.now - 2) == (1, 0)
    assert known.sums("chat", "one@1", clock.now) == (0, 0), "ratings go by the window, too"


def test_what_is_kept_is_bounded(known: Ratings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratings, "_MOST", 10)
    known.rate("r1", ANNA, "up")
    for number in range(10):
        known.answered(f"n{number}", ANNA, "chat", "one@1")
    with pytest.raises(NotFound):
        known.rate("r1", ANNA, "down")
    assert len(known._answers) == 10
    assert not known._rated


def test_of_who_is_erased_nothing_stays(known: Ratings) -> None:
    known.answered("r1", BEN, "chat", "one@1")
    known.rate("r1", ANNA, "up")
    known.forget("anna")
    with pytest.raises(NotFound):
        known.rate("r1", ANNA, "up")
    assert known.sums("chat", "one@1", 0) == (0, 0)
    assert known.rate("r1", BEN, "up") is not None
