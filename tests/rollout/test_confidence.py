"""Where a share may lie, however often one looks."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from appliance.rollout.confidence import least, most


@pytest.mark.parametrize(("hits", "trials"), [(0, 1), (1, 1), (0, 400), (3, 400), (200, 400), (400, 400), (0.7, 1)])
def test_what_was_seen_lies_between_and_the_more_doubt_the_closer(hits: float, trials: int) -> None:
    edges = [(least(hits, trials, doubt), most(hits, trials, doubt)) for doubt in (0.0001, 0.01, 0.1)]
    assert all(0 <= low <= hits / trials <= high <= 1 for low, high in edges)
    assert all(wide[0] <= narrow[0] and narrow[1] <= wide[1] for wide, narrow in pairwise(edges))


def test_of_nothing_nothing_is_known_and_of_much_nearly_all() -> None:
    assert (least(0, 0, 0.01), most(0, 0, 0.01)) == (0, 1)
    assert 0.29 < least(30_000, 100_000, 0.01) < 0.3 < most(30_000, 100_000, 0.01) < 0.31
    assert most(0, 10_000, 0.001) < 0.002


def test_another_word_for_hits_is_misses() -> None:
    assert least(3, 10, 0.01) == pytest.approx(1 - most(7, 10, 0.01), abs=1e-9)


@pytest.mark.parametrize("parts", [False, True])
def test_a_true_share_is_hardly_ever_left_out_at_any_of_all_looks(parts: bool) -> None:
    """Looked at after every trial; hits are whole, or parts of one whose mean is the share."""
    source, share, left_out = random.Random(5), 0.2, 0  # noqa: S311 - the same each time
    for _ in range(1000):
        hits = 0.0
        for trials in range(1, 61):
            hits += 0.5 * (source.random() < 2 * share) if parts else source.random() < share
            if least(hits, trials, 0.05) > share or most(hits, trials, 0.05) < share:
                left_out += 1
                break
    assert left_out <= 50
