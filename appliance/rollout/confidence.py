"""Where a share may lie by what was seen of it, whenever and however often one looks. Pure.

A test made anew every second finds something in the end, whatever is true. But the likelihood of what was seen, taken
over all shares by Jeffreys' prior and divided by that of the true one, is a martingale of mean 1. By Ville's inequality
it ever exceeds 1/doubt with probability `doubt` at most (Robbins 1970; Howard and others 2021, "Time-uniform,
nonparametric, nonasymptotic confidence sequences"). Hits may be parts of a whole, which spread less than whole ones.
"""

from __future__ import annotations

import math

_HALVINGS = 24
"""They tell an edge to 1e-7."""


def least(hits: float, trials: int, doubt: float) -> float:
    """The smallest share that is believable after `hits` of `trials`; 0 where none were seen.

    With probability 1 - `doubt` neither this nor `most` is on the wrong side of the true one, at any of all looks.
    """
    return _edge(hits, trials, doubt, 0.0)


def most(hits: float, trials: int, doubt: float) -> float:
    """The largest share that is believable; 1 where none were seen."""
    return _edge(hits, trials, doubt, 1.0)


def _edge(hits: float, trials: int, doubt: float, out: float) -> float:
    """What of the shares between `hits / trials` and `out` is believable, up to its end."""
    if not trials:
        return out
    misses = trials - hits
    bound = _log_beta(hits + 0.5, misses + 0.5) - math.log(math.pi) + math.log(doubt)
    inside = hits / trials
    for _ in range(_HALVINGS):
        share = (inside + out) / 2
        if not 0 < share < 1:
            break
        if hits * math.log(share) + misses * math.log1p(-share) > bound:
            inside = share
        else:
            out = share
    return out


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
