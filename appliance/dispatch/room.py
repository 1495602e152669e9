"""How much room an engine has: its own account, and what we know of the moments since. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from appliance.config import Queue
from appliance.dispatch.guests import Guests
from appliance.engines.load import Load

_TAKEN_IN = 0.1
"""Seconds after which an engine has surely taken in a request whose first token nobody sees (one without a stream)."""


@dataclass(eq=False, slots=True)
class Stay:
    """One request's time in front of the engine and on it.

    `share` is who has a share of the engine, `prompt` about how many tokens are to be read before the first answers,
    `awaited` whether somebody waits for that one.
    """

    share: Hashable
    weight: float
    sequences: int
    stream: bool
    prompt: float = 0.0
    awaited: bool = True


@dataclass(slots=True)
class _Share:
    weight: float
    requests: int = 0
    """In front of the engine and on it."""
    sequences: int = 0
    """On it."""


class Room:
    """What is on one engine, and whether more may go there. Times are seconds on any one clock."""

    def __init__(self, places: int, step: int) -> None:
        """`places` is how many sequences the engine computes together, `step` how many tokens it reads in one step."""
        self.places = places
        self._step = step
        self.sequences = 0
        """On the engine, by our own count: each choice of a request is one."""
        self._most = 0
        """The most of them since the last reading."""
        self._strangers = 0
        """Sequences that the engine has and we didn't count, such as the many texts of one embedding."""
        self._load = Load()
        self._guests = Guests(places)
        self._shares: dict[Hashable, _Share] = {}
        self._weights = 0.0
        self._silent: set[Stay] = set()
        """Streams on the engine without a token yet."""
        self._fresh: OrderedDict[Stay, float] = OrderedDict()
        """Requests without a stream that came onto the engine a moment ago, and when."""
        self._whole = 0
        """All on the engine that don't stream."""

    def come(self, stay: Stay) -> None:
        """It stands in front of the engine from now on."""
        share = self._shares.get(stay.share)
        if share is None:
            share = self._shares[stay.share] = _Share(stay.weight)
            self._weights += stay.weight
        share.requests += 1

    def go(self, stay: Stay) -> None:
        """It has gone, without having been on the engine or after `leave`."""
        share = self._shares[stay.share]
        share.requests -= 1
        if not share.requests:
            del self._shares[stay.share]
            self._weights = self._weights - share.weight if self._shares else 0.0

    def take(self, stay: Stay, now: float) -> None:
        """It goes onto the engine."""
        share = self._shares[stay.share]
        if stay.stream:
            guest = stay.awaited and share.requests == 1
            self._guests.sent(stay, stay.share, self.sequences, now, guest=guest)
        self.sequences += stay.sequences
        self._most = max(self._most, self.sequences)
        share.sequences += stay.sequences
        if stay.stream:
            self._silent.add(stay)
        else:
            self._whole += 1
            self._fresh[stay] = now

    def started(self, stay: Stay, settings: Queue, now: float) -> None:
        """Its first token has come."""
        self._silent.discard(stay)
        if settings.first_token_factor is not None:
            self._guests.came(stay, now, settings.first_token_factor)

    def leave(self, stay: Stay) -> None:
        """It is on the engine no more."""
        self.sequences -= stay.sequences
        self._shares[stay.share].sequences -= stay.sequences
        self._silent.discard(stay)
        if stay.stream:
            self._guests.gone(stay)
        else:
            self._whole -= 1
            self._fresh.pop(stay, None)

    def read(self, load: Load) -> None:
        """The engine was read anew. A reading is as of its last step, so what has just left may still be in it."""
        self._load = load
        self._strangers = max(0, load.running + load.waiting - self._most)
        self._most = self.sequences

    @property
    def taken(self) -> int:
        """Places that are taken."""
        return self.sequences + self._strangers

    def open(self, settings: Queue, now: float) -> bool:
        """Whether anything may go onto the engine now."""
        if not self.sequences:
            return True  # nothing will end that could make more room
        return (
            self.taken < self.places
            and self._load.kv_cache_share < settings.kv_cache_share
            and self._told < settings.engine_waiting
            and self._begins_soon(settings.engine_waiting, now)
        )

    @property
    def _told(self) -> int:
        """Sequences that wait inside the engine by its own account, but for those that have a token by now."""
        return self._load.waiting if self._whole else min(self._load.waiting, len(self._silent))

    def _begins_soon(self, few: int, now: float) -> bool:
        """Whether what was sent and has not begun is little: a `few` requests, or less than one step reads."""
        while self._fresh and next(iter(self._fresh.values())) <= now - _TAKEN_IN:
            self._fresh.popitem(last=False)
        if len(self._silent) + len(self._fresh) < few:
            return True
        return sum(each.prompt for each in (*self._silent, *self._fresh)) < self._step

    def closed_until(self) -> float | None:
        """When it may be open without anything else happening; None: not before something happens."""
        return next(iter(self._fresh.values())) + _TAKEN_IN if self._fresh else None

    def grants(self, stay: Stay, settings: Queue, now: float) -> bool:
        """Whether a place may go to `stay`, with regard to others.

        The last ones go only to who has less than its share, reckoned with one more that isn't there yet, for whom
        those places are kept. And who has something on the engine gets no more than lets guests' first tokens come
        in time.
        """
        share = self._shares[stay.share]
        if not share.sequences:
            return True
        if (
            settings.first_token_factor is not None
            and self.taken >= int(self._guests.beside)
            and self._guests.near(stay.share, now)
        ):
            return False
        if self.places - self.taken > int(settings.headroom * self.places):
            return True
        return share.sequences < self.places * share.weight / (self._weights + 1)
