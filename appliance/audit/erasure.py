"""Erases a person: what the log says of them stays and verifies, and nobody can tell any more who it was.

nothing stands against it -> on record -> keys refused -> key destroyed -> books and old configs forget -> on record

What is done stays done when a later step fails, or the power does; to erase again completes it.
"""

from __future__ import annotations

import asyncio
import glob
import re
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from typing import Protocol

from appliance import strict_yaml
from appliance.audit import offices
from appliance.audit.archive import Actor, Archive
from appliance.audit.offices import OFFICES
from appliance.audit.record import clean
from appliance.audit.subjects import Subjects
from appliance.config import Config
from appliance.errors import AuditFailed, BadRequest, ConfigInvalid, Conflict, NotFound
from appliance.names import alike, proper

_MOST_LINES = 5


class Accounts(Protocol):
    """Keys and books, which know persons by name. All raise `BooksUnavailable`, and may be asked again."""

    async def users(self) -> Set[str]:
        """Whose keys there are, by name."""

    async def roles(self, subject: str) -> Set[str]:
        """Those of all keys that ever asked for a subject."""

    async def revoke(self, subject: str) -> Set[str]:
        """Refuse all keys of a subject from now on; the ids of all that ever asked for it."""

    async def forget(self, subject: str, key_ids: Set[str]) -> int:
        """Forget a subject, on disk and in memory; how many rows named it."""


class Kept(Protocol):
    """Configs of before, which may name persons."""

    def forget(self, name: str) -> int:
        """Have none of them hold the name; in how many it stood. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What was known of the person; the name as it was erased is nowhere in it."""

    pseudonym: str | None
    """Under which the log goes on speaking of them; None: it never did, or not since they were erased before."""
    keys: int
    """API keys, and accounts at the identity provider, that asked for them."""
    rows: int
    """Entries of the accounts that named them."""
    alike: list[str] = field(default_factory=list, repr=False)
    """Other names that read like theirs, without regard to case and width: they may be the same person's."""
    configs: int = 0
    """Configs of before that named them, and don't any more."""


async def erase(
    archive: Archive, accounts: Accounts, kept: Kept, config: Config, by: Actor, name: str, reason: str | None = None
) -> Erased:
    """Erase the subject `name`: a user, `key:ID` for a key that is nobody's, or the pseudonym of one. For whoever is or
    was an administrator or an auditor there has to be a `reason`; it goes on record.

    When this returns, no file of the appliance holds the name or the key it was sealed under. Raises `Conflict` while
    a hold or the config stands against it, `NotFound` for somebody whom nothing knows, `AuditUnavailable` when it can't
    be put on record (in all three cases nothing was done), `BooksUnavailable` when the accounts can't be changed,
    `AuditFailed` when the configs of before can't be.
    """
    if not name:
        raise BadRequest("subject: whom? give a name", param="subject")
    told = {"reason": clean(reason)} if reason else {}
    async with archive.holds.lock:
        name, pseudonym = _whom(archive.subjects, name)
        _require_not_of_the_host(name)
        _require_not_configured(config, name)
        _require_not_held(archive, pseudonym)
        if not reason:
            await _require_no_office(archive, accounts, name, pseudonym)
        async with archive.act("erase", by, subject=pseudonym, **told) as act:
            others = await accounts.users() | config.settings.accounts.users.keys() | archive.subjects.names()
            key_ids = await accounts.revoke(name)
            archive.subjects.erase(name)
            archive.forget(name)
            rows = await accounts.forget(name, key_ids)
            configs = await asyncio.to_thread(_forget, kept, name)
            if pseudonym is None and not rows and not configs:
                raise NotFound(
                    "nobody of this name is known here, neither in the log nor in the accounts; look how it is written "
                    "in `appliance keys list`. Somebody who was erased before can't be found again",
                    code="unknown_subject",
                )  # fmt: skip
            act.tell(keys=len(key_ids), rows=rows, configs=configs)
    return Erased(pseudonym, len(key_ids), rows, await asyncio.to_thread(_alike, name, others), configs)


def _forget(kept: Kept, name: str) -> int:
    try:
        return kept.forget(name)
    except OSError as cause:
        what = f"the configs that were applied before may still hold the name: {cause.filename}: {cause.strerror}"
        raise AuditFailed(f"{what}. Erase again once they can be written") from cause


def _whom(subjects: Subjects, asked: str) -> tuple[str, str | None]:
    """The name, and the pseudonym where there is one."""
    subject = subjects.meant(asked)
    if subject is None:
        return asked, None
    for name in (asked, proper(asked), subject.name):
        if subjects.known(name) is subject:
            return name, subject.pseudonym
    raise BadRequest("subject: the key store holds only the beginning of this long name; give it whole")


def _alike(name: str, others: Iterable[str]) -> list[str]:
    return sorted(each for each in others if each != name and alike(each) == alike(name))


def left(config: Config, name: str) -> list[str]:
    """Where `name` still stands that nobody but an administrator can change: lines of the config, of configs of before,
    of what editors and rollbacks left beside it, and of plain logs."""
    found = []
    beside = sorted(config.file.parent.glob(f"{glob.escape(config.file.name)}?*"))
    before = sorted((config.state / "configs").glob("*.yaml"))
    for file in (config.file, *beside, *before, *sorted((config.state / "logs").glob("**/*.log*"))):
        lines = file.read_text("utf-8", "replace").splitlines() if file.is_file() else []
        numbers = [str(number) for number, line in enumerate(lines, 1) if names(line, name)]
        if numbers:
            more = f" and {len(numbers) - _MOST_LINES} more" if len(numbers) > _MOST_LINES else ""
            found.append(f"{file}, line {', '.join(numbers[:_MOST_LINES])}{more}")
    return found


def names(text: str, name: str) -> bool:
    """Whether `text` holds `name`, as a word of its own."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


def _require_not_of_the_host(name: str) -> None:
    if name.startswith("host:"):
        raise Conflict(
            "subject: what was done on this host stays put down to whoever did it: it is evidence, and kept as such "
            "(DSGVO Art. 17(3)(e)). Its time is audit.retention.acts_days. Nothing was done",
            code="subject_of_host",
        )


async def _require_no_office(archive: Archive, accounts: Accounts, name: str, pseudonym: str | None) -> None:
    held = OFFICES & await accounts.roles(name)
    folder = archive.journal.folder
    if not held and (pseudonym is None or not await asyncio.to_thread(offices.on_record, folder, pseudonym)):
        return
    raise Conflict(
        "subject: this person is or was an administrator or an auditor, and once they are erased, nobody can tell any "
        "more who did what they did, which may be evidence (DSGVO Art. 17(3)(e)). If they are to be erased, say why "
        "with --reason, which goes on record; give a file number and no name. Nothing was done",
        code="subject_in_office",
    )


def _require_not_configured(config: Config, name: str) -> None:
    """Whoever the config names would be given a key again the next time it is applied, and stands in it anyway."""
    line = strict_yaml.line_of(strict_yaml.raw(config.file, ConfigInvalid), ("accounts", "users", name))
    if line is None and name not in config.settings.accounts.users:
        return
    where = f"line {line} of {config.file} names this person, under accounts.users: remove it, and" if line else "first"
    raise Conflict(f"{where} run `appliance apply`; then erase again. Nothing was done", code="subject_in_config")


def _require_not_held(archive: Archive, pseudonym: str | None) -> None:
    reasons = [] if pseudonym is None else archive.holds.on_subject(pseudonym)
    if reasons:
        raise Conflict(
            f"this person can't be erased while records of theirs are held ({'; '.join(reasons)}); "
            "`appliance audit release` ends a hold. Nothing was done",
            code="subject_held",
        )
