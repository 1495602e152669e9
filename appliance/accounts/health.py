"""Whether the store takes entries, and since when; and what the log tells about the books."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterable, Sized

from appliance.accounts.entries import Event, Kind
from appliance.accounts.persons import Persons
from appliance.errors import BooksUnavailable

_log = logging.getLogger("appliance.accounts")


class Health:
    """Says no to everything from the first failure until the store has taken an entry again. For one thread."""

    def __init__(self) -> None:
        self.well = True
        self.failures = 0
        """Attempts to write that failed, since the start."""
        self._wrote = time.monotonic()

    def require(self) -> None:
        """Raise `BooksUnavailable` while nothing can be written."""
        if not self.well:
            raise refusal()

    def failed(self, why: str) -> None:
        """An attempt to write failed; told once, until it works again."""
        self.failures += 1
        if self.well:
            _log.error("the books can't be written, so nothing is answered: %s", why)
        self.well = False

    def wrote(self) -> None:
        """The store has taken what it was given."""
        self._wrote = time.monotonic()
        if not self.well:
            _log.warning("the books are written again")
        self.well = True

    def describe(self, waiting: int) -> dict[str, float]:
        """For metrics, with the number of entries that wait to be written.

        `seconds_since_written` is how old what is on disk is at most, when something waits.
        """
        return {
            "well": float(self.well),
            "failures": float(self.failures),
            "waiting": float(waiting),
            "seconds_since_written": time.monotonic() - self._wrote,
        }


def refusal() -> BooksUnavailable:
    """What callers are told; why it is so, only the log tells."""
    return BooksUnavailable(
        "what is used can't be booked at the moment, so nothing is answered; try again in a few seconds",
        code="books_unavailable", retry_after=5,
    )  # fmt: skip


def why(cause: BaseException) -> str:
    """A failure for the log; of one that nobody foresaw only its kind, since it may quote what was written."""
    return str(cause) if isinstance(cause, BooksUnavailable) else type(cause).__name__


def tell(events: Iterable[Event], persons: Persons) -> None:
    """Log thresholds that were reached. Users are persons, so they are told apart by pseudonym, or a hash only."""
    for event in events:
        (kind, name), span, start = event.account
        if persons.veiled:
            name = persons.scope(event.account.scope)
        elif kind is Kind.USER:
            name = hashlib.sha256(name.encode()).hexdigest()[:8]
        _log.warning("%s %s has used %d %% of its %s of the %s %s", kind, name, event.percent, event.unit, span, start)


def tell_left(left: Sized) -> None:
    """Log reservations that were booked in full, since whoever made them ended before they were settled."""
    if left:
        _log.warning("requests that were in flight when an appliance ended, and are booked in full: %d", len(left))


def tell_unwritten() -> None:
    """Log that something is lost with this process."""
    _log.error("the appliance ends before all was written; what isn't settled in the store is booked in full later")
