"""Erases a person: what the log says of them stays and verifies, and nobody can tell any more who it was.

look that nothing stands against it -> on record -> keys refused -> key destroyed -> books forget -> on record

What is done stays done when a later step fails, or the power does; to erase again completes it.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from typing import Protocol

from appliance import strict_yaml
from appliance.audit.archive import Actor, Archive
from appliance.audit.subjects import Subjects
from appliance.config import Config
from appliance.errors import BadRequest, ConfigInvalid, Conflict, NotFound

_MOST_LINES = 5


class Accounts(Protocol):
    """Keys and books, which know persons by name. Both raise `BooksUnavailable`, and may be asked again."""

    async def revoke(self, subject: str) -> Set[str]:
        """Refuse all keys of a subject from now on; the ids of all that ever asked for it."""

    async def forget(self, subject: str, key_ids: Set[str]) -> int:
        """Forget a subject, on disk and in memory; how many rows named it."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What was known of the person; the name is nowhere in it."""

    pseudonym: str | None
    """Under which the log goes on speaking of them; None: it never did, or not since they were erased before."""
    keys: int
    """API keys, and accounts at the identity provider, that asked for them."""
    rows: int
    """Entries of the accounts that named them."""


async def erase(archive: Archive, accounts: Accounts, config: Config, by: Actor, name: str) -> Erased:
    """Erase the subject `name`: a user, `key:ID` for a key that is nobody's, `host:USER`, or the pseudonym of one.

    When this returns, no file of the appliance holds the name or the key it was sealed under. Raises `Conflict` while
    a hold or the config stands against it, `NotFound` for somebody whom nothing knows, `AuditUnavailable` when it can't
    be put on record (in all three cases nothing was done), `BooksUnavailable` when the accounts can't be changed.
    """
    if not name:
        raise BadRequest("subject: whom? give a name", param="subject")
    async with archive.holds.lock:
        name, pseudonym = _whom(archive.subjects, name)
        _require_not_configured(config, name)
        _require_not_held(archive, pseudonym)
        async with archive.act("erase", by, subject=pseudonym) as act:
            key_ids = await accounts.revoke(name)
            archive.subjects.erase(name)
            archive.forget(name)
            rows = await accounts.forget(name, key_ids)
            if pseudonym is None and not rows:
                raise NotFound(
                    "nobody of this name is known here, neither in the log nor in the accounts; look how it is written "
                    "in `appliance keys list`. Somebody who was erased before can't be found again",
                    code="unknown_subject",
                )  # fmt: skip
            act.tell(keys=len(key_ids), rows=rows)
    return Erased(pseudonym, len(key_ids), rows)


def _whom(subjects: Subjects, asked: str) -> tuple[str, str | None]:
    """The name, and the pseudonym where there is one."""
    if (subject := subjects.known(asked)) is not None:
        return asked, subject.pseudonym
    if (subject := subjects.find(asked)) is None:
        return asked, None
    if subjects.known(subject.name) is None:
        raise BadRequest("subject: the key store holds only the beginning of this long name; give it whole")
    return subject.name, subject.pseudonym


def left(config: Config, name: str) -> list[str]:
    """Where `name` still stands that nobody but an administrator can change: lines of the config and of plain logs."""
    found = []
    for file in (config.file, *sorted((config.state / "logs").glob("**/*.log*"))):
        lines = file.read_text("utf-8", "replace").splitlines() if file.is_file() else []
        numbers = [str(number) for number, line in enumerate(lines, 1) if names(line, name)]
        if numbers:
            more = f" and {len(numbers) - _MOST_LINES} more" if len(numbers) > _MOST_LINES else ""
            found.append(f"{file}, line {', '.join(numbers[:_MOST_LINES])}{more}")
    return found


def names(text: str, name: str) -> bool:
    """Whether `text` holds `name`, as a word of its own."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) is not None


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
