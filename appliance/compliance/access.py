"""Who has access, and what changed in it in a month. Persons who ask are counted, those who administer are named."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from appliance.accounts.keys import KeyRecord
from appliance.compliance.month import Month
from appliance.core import Role

NAMED = (Role.SUPER_ADMIN, Role.ADMIN, Role.AUDITOR)
"""Roles whose holders are named, since others have to know who may do this to them."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A key that opens; times are seconds since 1970. Without a user it is a program's."""

    id: str
    user: str
    team: str
    role: Role
    created: float
    expires: float | None


@dataclass(slots=True)
class Team:
    """Keys of a team's users that open. `users` are names, and empty while they are not to be shown."""

    keys: int = 0
    persons: int = 0
    programs: int = 0
    endless: int = 0
    """Keys that never expire."""
    users: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Change:
    """How many keys of a role came and went in the month."""

    role: Role
    created: int
    revoked: int
    expired: int
    active: int
    endless: int


@dataclass(frozen=True, slots=True)
class Access:
    """Who has access when the report is made."""

    named: Sequence[Holder]
    teams: dict[str, Team]
    """Of keys of the roles `user` and `power_user`; those without a team under an empty name."""
    changes: Sequence[Change]
    pseudonymous: bool


def access(keys: Iterable[KeyRecord], month: Month, now: float, *, pseudonymous: bool) -> Access:
    """The list of `keys` as it stands `now` (seconds since 1970), and what changed in `month`."""
    records = list(keys)
    active = [record for record in records if record.state(now) == "active"]
    named = [
        Holder(record.id, record.user or "", record.team or "", record.role, record.created, record.expires)
        for record in active
        if record.role in NAMED
    ]
    teams: defaultdict[str, Team] = defaultdict(Team)
    users: defaultdict[str, set[str]] = defaultdict(set)
    for record in active:
        if record.role not in NAMED:
            team = teams[record.team or ""]
            team.keys += 1
            team.programs += record.user is None
            team.endless += record.expires is None
            if record.user is not None:
                users[record.team or ""].add(record.user)
    for name, people in users.items():
        teams[name].persons = len(people)
        teams[name].users = [] if pseudonymous else sorted(people)
    changes = [_change(role, [record for record in records if record.role is role], month, now) for role in Role]
    return Access(
        sorted(named, key=lambda one: (NAMED.index(one.role), one.user, one.id)),
        dict(sorted(teams.items())),
        [change for change in changes if any((change.created, change.revoked, change.expired, change.active))],
        pseudonymous,
    )


def _change(role: Role, records: Sequence[KeyRecord], month: Month, now: float) -> Change:
    active = [record for record in records if record.state(now) == "active"]
    return Change(
        role,
        sum(month.holds(record.created) for record in records),
        sum(month.holds(record.revoked) for record in records),
        sum(record.revoked is None and month.holds(record.expires) and record not in active for record in records),
        len(active),
        sum(record.expires is None for record in active),
    )
