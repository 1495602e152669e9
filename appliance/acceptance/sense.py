"""Whether what a model says makes sense: pure, and strict only where a right model can't fail."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from appliance.acceptance.asking import Answer, Likelihood

_SHORTEST = 8
_ONE_TOKEN = 0.75
_SAME_NATS = 0.01


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer as it was when the weights first passed."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]


def over_and_over(answers: Sequence[Answer]) -> bool:
    """Whether most answers are one token over and over. A small model does it now and then, a broken one always."""
    long = [answer.tokens for answer in answers if len(answer.tokens) >= _SHORTEST]
    return 2 * sum(map(_one_token, long)) > len(answers)


def all_alike(answers: Sequence[Answer]) -> bool:
    """Whether different questions (two or more) get one and the same answer."""
    return len(answers) > 1 and len({answer.tokens for answer in answers}) == 1


def _one_token(tokens: Sequence[int]) -> bool:
    return Counter(tokens).most_common(1)[0][1] >= _ONE_TOKEN * len(tokens)


def same_text(before: str, after: str) -> bool:
    """Whether a tokenizer has given a text back: some put a space in front, or write letters in another form."""
    return _plain(before) == _plain(after)


def _plain(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())


def likeliest(found: Likelihood, of: Kept) -> float:
    """The share of an answer's tokens that an engine finds likeliest where they stand, 0 to 1.

    `found` is for prompt and answer together. It is 1 for what the engine would answer itself, and stays near it
    when sums come out a little differently: only near-ties change places. Of an answer of no tokens it is 0.
    """
    if not of.tokens:
        return 0.0
    return sum(rank == 1 for rank in found.ranks[-len(of.tokens) :]) / len(of.tokens)


def same(nats: Mapping[str, float], before: Mapping[str, float]) -> bool:
    """Whether it finds the same texts as likely as it did, but for what rounding makes of it."""
    return nats.keys() == before.keys() and all(abs(nats[each] - before[each]) < _SAME_NATS for each in nats)


def sound(vector: Sequence[float]) -> bool:
    """Whether all are numbers, and not all of them zero."""
    return all(map(math.isfinite, vector)) and any(vector)


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Of the angle between two vectors of one length: 1 for the same direction, 0 where one has none."""
    lengths = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0
