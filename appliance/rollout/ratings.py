"""What callers say of answers, `up` or `down`: by the request's id, for a day, in memory only, and no text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from appliance.core import Caller
from appliance.errors import NotFound

Rating = Literal["up", "down"]
_MOST = 20_000
"""Answers that can be rated: the newest."""
_SECONDS = 24 * 3600.0


@dataclass(slots=True)
class _Answer:
    model: str
    version: str
    at: float
    rating: Rating | None = None
    rated_at: float = 0.0


class Ratings:
    """Answers that can be rated, and how they were."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: dict[tuple[str, str], _Answer] = {}  # in the order of time
        self._rated: dict[tuple[str, str], _Answer] = {}

    def answered(self, id_: str, caller: Caller, model: str, version: str) -> None:
        """Note that `version` has answered the request `id_` of `caller`. A later one of that id takes its place."""
        key = _who(caller), id_
        self._forget(key)
        self._answers[key] = _Answer(model, version, self._clock())
        while len(self._answers) > _MOST:
            self._forget(next(iter(self._answers)))

    def rate(self, id_: str, caller: Caller, rating: Rating) -> tuple[str, str] | None:
        """Note what `caller` says of an answer; the last word counts. The model and version that gave it.

        None where the same was said before. Raises `NotFound` for what `caller` never asked, or asked over a day ago.
        """
        key = _who(caller), id_
        answer = self._answers.get(key)
        now = self._clock()
        if answer is None or now - answer.at > _SECONDS:
            raise NotFound(
                "there is no answer of this request_id that this key could rate; it is the `x-request-id` of an answer "
                "to this key or user of the last 24 hours",
                param="request_id",
                code="unknown_request",
            )
        if answer.rating == rating:
            return None
        answer.rating, answer.rated_at = rating, now
        self._rated[key] = answer
        return answer.model, answer.version

    def forget(self, user: str) -> None:
        """Keep nothing of what `user` asked."""
        for key in [key for key in self._answers if key[0] == f"user {user}"]:
            self._forget(key)

    def sums(self, model: str, version: str, since: float) -> tuple[int, int]:
        """How many good and bad ratings `version` was given since that time of the clock."""
        found = [each.rating for each in self._of(model, version) if each.rated_at >= since]
        return found.count("up"), found.count("down")

    def _of(self, model: str, version: str) -> Iterator[_Answer]:
        return (each for each in self._rated.values() if (each.model, each.version) == (model, version))

    def _forget(self, key: tuple[str, str]) -> None:
        self._answers.pop(key, None)
        self._rated.pop(key, None)


def _who(caller: Caller) -> str:
    """Who may rate: the user with any key of theirs, else the key."""
    return f"user {caller.user}" if caller.user is not None else f"key {caller.key_id}"
