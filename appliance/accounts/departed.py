"""Users and keys that were erased a moment ago, so that no request that was on its way brings them back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from appliance.accounts.entries import Kind, Scope, Want
from appliance.accounts.keys import unknown

SECONDS = 3600.0
"""No request is on its way for so long. Whoever signs in with an identity provider's token may come back then."""


class Departed:
    """Whom nothing may be booked on, for an hour after they were erased. Any thread may ask."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: dict[Scope, float] = {}

    def add(self, scopes: Iterable[Scope]) -> None:
        """They are erased from now on."""
        now = self._clock()
        kept = {scope: until for scope, until in self._until.items() if until > now}
        self._until = kept | dict.fromkeys(scopes, now + SECONDS)

    def __contains__(self, scope: Scope) -> bool:
        return self._until.get(scope, 0.0) > self._clock()

    def names(self, want: Want) -> bool:
        """Whether one of them asks."""
        if not self._until:
            return False
        return Scope(Kind.KEY, want.key_id) in self or (want.user is not None and Scope(Kind.USER, want.user) in self)

    def refuse(self, want: Want) -> None:
        """Raise `Unauthenticated` if one of them asks."""
        if self.names(want):
            raise unknown("erased a moment ago")
