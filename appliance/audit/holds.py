"""Legal holds: what a court, an authority or an audit wants kept, however old it is.

They lie in holds.json. Each is put on record before it is in effect, so a lost file can be made anew from the log;
until then nothing is removed and nobody is erased.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance import durable
from appliance.audit.record import clean, moment
from appliance.errors import AuditFailed, BadRequest
from appliance.signing import written

if TYPE_CHECKING:
    from appliance.audit.archive import Actor, Archive

REPAIR = (
    "nothing is removed from the log and nobody can be erased; "
    "`appliance audit holds --repair` makes holds.json anew from the log"
)
_EAST, _WEST = timedelta(hours=14), timedelta(hours=12)
"""How far zones are from UTC: a day that is held is held wherever it is that day."""


@dataclass(frozen=True, slots=True)
class Hold:
    """What is held: all records of some days, or those of one person, or both at once: that person's of those days."""

    id: str
    reason: str
    since: str | None
    """The first day, `2026-11-01`; None: from the beginning."""
    until: str | None
    """The last day; None: without end."""
    subject: str | None
    """A person's pseudonym; None: everybody."""
    by: str
    """The pseudonym of whoever asked for it."""
    at: str
    """When it was asked for, as records have it."""

    @property
    def span(self) -> tuple[str, str]:
        """The moments it covers, as records write them; the second is not among them any more."""
        return (
            _moment(datetime.combine(date.fromisoformat(self.since), datetime.min.time()) - _EAST)
            if self.since
            else "",
            _moment(datetime.combine(date.fromisoformat(self.until), datetime.min.time()) + timedelta(days=1) + _WEST)
            if self.until
            else "~",
        )


class Holds:
    """The holds in effect. For one event loop; what `add` and `remove` did is on disk when they return.

    Whoever removes records or a person has `lock` from looking at the holds until it is done.
    """

    def __init__(self, file: Path, active: Iterable[Hold], trouble: str | None = None) -> None:
        self._file = file
        self._active = tuple(active)
        self.trouble = trouble
        """Why the holds are not known, with what to do; None when they are."""
        self.lock = asyncio.Lock()

    @classmethod
    def open(cls, folder: Path, *, anew: bool = False) -> Holds:
        """Those in `folder`. `anew`: the log is empty, so that there can't be any yet; then both are made.

        What can't be read stops removals, not the appliance: see `trouble`.
        """
        file = folder / "holds.json"
        try:
            if anew and not file.exists():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                durable.replace(file, _content(()))
            return cls(file, _read(file.read_bytes()))
        except FileNotFoundError:
            return cls(file, (), f"{file} is gone, so what is held is not known: {REPAIR}")
        except (OSError, ValueError) as cause:
            why = cause.strerror if isinstance(cause, OSError) else cause
            return cls(file, (), f"{file} can't be read ({why}), so what is held is not known: {REPAIR}")

    def require(self) -> None:
        """Raise `AuditFailed` while the holds are not known."""
        if self.trouble is not None:
            raise AuditFailed(self.trouble)

    @property
    def active(self) -> tuple[Hold, ...]:
        """The holds in effect, in order of their making. Raises `AuditFailed` while they are not known."""
        self.require()
        return self._active

    def on_subject(self, pseudonym: str) -> list[str]:
        """Why this person may not be erased, one reason for each hold; empty when it is allowed.

        A hold of days holds all that was recorded in them, also who it was: it counts for everybody.
        """
        if self.trouble is not None:
            return [self.trouble]
        return [f"{each.id}: {each.reason}" for each in self._active if each.subject in (None, pseudonym)]

    def add(self, hold: Hold) -> None:
        """Put `hold` into effect. Raises `AuditFailed`; then nothing has changed."""
        self._keep((*self.active, hold))

    def remove(self, hold: Hold) -> None:
        """Put it out of effect. Raises `AuditFailed`; then nothing has changed."""
        self._keep(tuple(each for each in self.active if each != hold))

    def make_anew(self, active: Iterable[Hold]) -> None:
        """Put `active` in the place of all that was known. Raises `AuditFailed`; then nothing has changed."""
        self._keep(tuple(active))
        self.trouble = None

    def find(self, id_: str) -> Hold:
        """The hold of that id. Raises `BadRequest` where there is none, `AuditFailed` while they are not known."""
        for each in self.active:
            if each.id == id_:
                return each
        raise BadRequest(f"there is no hold {clean(id_, 40)}; appliance audit holds shows them", param="id")

    def _keep(self, active: tuple[Hold, ...]) -> None:
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            durable.replace(self._file, _content(active))
        except OSError as cause:
            raise AuditFailed(f"{self._file} can't be written: {cause.strerror}; nothing has changed") from cause
        self._active = active


async def place(
    archive: Archive,
    by: Actor,
    *,
    reason: str,
    since: str | None = None,
    until: str | None = None,
    subject: str | None = None,
    now: float,
) -> Hold:
    """Hold all records of some days, or of the person named `subject`, from the moment this returns.

    `since` and `until` are days. Raises `BadRequest` for what can't be meant, `AuditUnavailable`, `AuditFailed`.
    """
    first, last = _day("since", since), _day("until", until)
    if not reason.strip():
        raise BadRequest("reason: say what it is held for, such as a file number; it stands in the log", param="reason")
    if first is None and last is None and subject is None:
        raise BadRequest("say what to hold: days (since, until), a person (subject), or both", param="since")
    if first and last and last < first:
        raise BadRequest("until: this day is before the first one", param="until")
    async with archive.holds.lock:
        person = archive.subjects.meant(subject) if subject is not None else None
        if subject is not None and person is None:
            raise BadRequest("subject: nobody of this name is in the log, or has been erased from it", param="subject")
        hold = Hold(
            f"hold_{secrets.token_hex(6)}", clean(reason.strip()), first, last, person.pseudonym if person else None,
            str(archive.who(by).get("subject", by.role)), moment(now),
        )  # fmt: skip
        archive.holds.require()
        async with archive.act("hold", by, target=person.name if person else None, hold=asdict(hold)):
            archive.holds.add(hold)
    return hold


async def release(archive: Archive, by: Actor, id_: str) -> Hold:
    """Hold no longer what the hold `id_` did. Raises `BadRequest`, `AuditUnavailable`, `AuditFailed`."""
    async with archive.holds.lock:
        hold = archive.holds.find(id_)
        async with archive.act("release", by, hold=asdict(hold)):
            archive.holds.remove(hold)
    return hold


async def repair(archive: Archive, by: Actor, acts: Iterable[Mapping[str, Any]]) -> tuple[Hold, ...]:
    """Make holds.json anew from `acts`, all acts of the log in order; the holds that are in effect then.

    `acts` is gone through in a thread. Raises `AuditUnavailable`, and `AuditFailed`: then nothing has changed.
    """
    async with archive.holds.lock, archive.act("holds.repair", by) as act:
        try:
            found = await asyncio.to_thread(from_log, acts)
        except (ValueError, KeyError, TypeError) as cause:
            raise AuditFailed("an act in the log can't be read; `appliance audit verify` tells which") from cause
        archive.holds.make_anew(found)
        act.tell(holds=[each.id for each in found])
    return archive.holds.active


def from_log(acts: Iterable[Mapping[str, Any]]) -> list[Hold]:
    """The holds in effect after `acts`: the whole records of kind act, in order.

    One that was begun and not known to have failed counts as made; a release counts only once it is known as done.
    """
    begun: dict[int, tuple[str, Hold]] = {}
    active: dict[str, Hold] = {}
    for record in acts:
        body = record["body"]
        if body.get("act") not in ("hold", "release"):
            continue
        if body["phase"] == "intent":
            hold = Hold(**body["hold"])
            begun[record["seq"]] = body["act"], hold
            if body["act"] == "hold":
                active[hold.id] = hold
        elif body.get("of") in begun:
            what, hold = begun.pop(body["of"])
            if (what, body["phase"]) in (("hold", "failed"), ("release", "done")):
                active.pop(hold.id, None)
    return list(active.values())


def _content(active: Iterable[Hold]) -> bytes:
    holds = [asdict(each) for each in active]
    return written({"holds": holds, "sha256": hashlib.sha256(written(holds)).hexdigest()}) + b"\n"


def _read(content: bytes) -> list[Hold]:
    try:
        told = json.loads(content)
        if hashlib.sha256(written(told["holds"])).hexdigest() != told["sha256"]:
            raise ValueError
        return [Hold(**each) for each in told["holds"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("it is damaged, or was changed by hand") from None


def _day(field: str, text: str | None) -> str | None:
    try:
        day = None if text is None else date.fromisoformat(text)
    except ValueError:
        day = date.min
    if day is not None and not 1970 < day.year < 9999:
        raise BadRequest(f"{field}: give a day such as 2026-11-22", param=field)
    return day.isoformat() if day else None


def _moment(at: datetime) -> str:
    return moment(at.replace(tzinfo=UTC).timestamp())
