"""Rubbish is told from sense, and only what a right model can't do counts as rubbish."""

from __future__ import annotations

import math

import pytest

from appliance.acceptance import sense
from appliance.acceptance.asking import Answer, Likelihood
from appliance.acceptance.golden import Marks, fewer, total
from appliance.acceptance.sense import Kept
from appliance.acceptance.speed import Speed, times_slower
from appliance.acceptance.texts import ENGLISH, GERMAN, tongues, version


def answer(*tokens: int) -> Answer:
    return Answer("text", "stop", (1, 2), tokens)


def likelihood(*ranks: int) -> Likelihood:
    return Likelihood((-1.0,) * len(ranks), ranks, "")


@pytest.mark.parametrize(
    ("answers", "broken"),
    [
        ([answer(*[7] * 24)] * 4, True),
        ([answer(*[7] * 20, 1, 2, 3, 4)] * 3 + [answer(*range(24))], True),
        ([answer(*[7] * 24), answer(*range(24)), answer(*range(24))], False),
        ([answer(7, 7)] * 4, False),  # "No."
        ([answer(*[7] * 14, *range(10))] * 4, False),  # a small model that dwells on a word
    ],
)
def test_one_token_over_and_over_is_rubbish_where_most_answers_are_so(answers: list[Answer], broken: bool) -> None:
    assert sense.over_and_over(answers) is broken


def test_one_answer_to_every_question_is_rubbish() -> None:
    assert sense.all_alike([answer(1, 2), answer(1, 2)])
    assert not sense.all_alike([answer(1, 2), answer(1, 3)])
    assert not sense.all_alike([answer(1, 2)])


def test_a_tokenizer_may_add_space_and_change_the_form_of_letters_but_lose_none() -> None:
    assert sense.same_text("Grüße, 1 €", " Gru\u0308ße, 1 €")
    assert not sense.same_text("Grüße, 1 €", "Gru?e, 1 €")


def test_only_the_tokens_of_the_answer_count_for_what_is_likeliest() -> None:
    kept = Kept(prompt=(1, 2, 3), tokens=(4, 5))
    assert sense.likeliest(likelihood(9, 9, 1, 1), kept) == 1
    assert sense.likeliest(likelihood(1, 1, 1, 2), kept) == 0.5


def test_of_an_answer_that_is_not_there_or_not_wholly_judged_nothing_is_likeliest() -> None:
    """As a file that somebody damaged may hold it, or an engine that tells less than it was asked."""
    assert sense.likeliest(likelihood(1, 1, 1), Kept(prompt=(1, 2, 3, 4), tokens=())) == 0
    assert sense.likeliest(likelihood(1), Kept(prompt=(1, 2), tokens=(4, 5))) == 0.5


def test_vectors_are_numbers_and_not_all_zero() -> None:
    assert sense.sound((0.0, 1.0))
    assert not sense.sound((0.0, 0.0))
    assert not sense.sound((math.nan, 1.0))
    assert not sense.sound((math.inf, 1.0))
    assert sense.cosine((1, 0), (2, 0)) == 1
    assert sense.cosine((1, 0), (0, 3)) == 0
    assert sense.cosine((0, 0), (0, 3)) == 0, "no direction is like no other"


@pytest.mark.parametrize(
    ("new", "old", "times"),
    [
        (Speed(0.1, 0.03, 0.05), Speed(0.1, 0.03, 0.05), 1),
        (Speed(0.1, 0.09, 0.05), Speed(0.1, 0.03, 0.05), 3),
        (Speed(0.1, 0.03, 0.20), Speed(0.1, 0.03, 0.05), 4),  # slow only with several at once
        (Speed(0.1, 0.004, 0.004), Speed(0.1, 0.0001, 0.0001), 1),  # faster than anybody reads
        (Speed(0.1, 0.03, 0.06), Speed(0.1, 0.06, None), 1),  # the old one had callers: several beside several
        (Speed(0.1, 0.03, 0.18), Speed(0.1, 0.06, None), 3),
        (Speed(0.4, 0.03, 0.05), Speed(0.1, 0.03, 0.05), 1),
        (Speed(2.0, 0.03, 0.05), Speed(0.5, 0.03, 0.05), 4),  # slow to begin
        (Speed(0.1, 0.01, 0.05), Speed(0.1, 0.03, 0.05), 1),
    ],
)
def test_how_many_times_slower(new: Speed, old: Speed, times: float) -> None:
    assert times_slower(new, old) == pytest.approx(times)


def test_the_better_of_two_measurements_is_the_one_that_nothing_held_up() -> None:
    assert Speed(2, 0.1, None).best(Speed(1, 0.2, 0.5)) == Speed(1, 0.1, 0.5)
    assert Speed(2, 0.1, None).best(Speed(1, 0.2, None)) == Speed(1, 0.1, None)


def test_marks_are_compared_for_sets_that_both_were_asked() -> None:
    old = {"a@1": Marks(10, 10), "b@1": Marks(0, 10)}
    assert fewer({"a@1": Marks(5, 10), "c@1": Marks(0, 10)}, old) == 50
    assert fewer({"a@2": Marks(5, 10)}, old) is None
    assert total(old).percent == 50


def test_a_card_is_tried_in_the_languages_that_the_gate_speaks() -> None:
    assert list(tongues(["de-AT", "fr"])) == ["German"]
    assert list(tongues(["de", "en"])) == ["English", "German"]
    assert list(tongues(["fr"])) == ["English"]
    assert version(*ENGLISH.questions) != version(*GERMAN.questions) != version()
