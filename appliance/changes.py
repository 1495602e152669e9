"""What of the config has changed, as it goes on record: without secrets, comments and the names of persons.

Files are compared as they were understood, so that order of writing and comments, in which anything may stand, are
no part of it.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from appliance import durable
from appliance.audit.subjects import Subjects
from appliance.engines.command import Spec

_SECRET = re.compile(r"(?:.*_)?(?:key|password|pepper|secret|token)")
_PERSONS = ("accounts", "users")
_MOST_BYTES = 64 * 1024
"""Of a diff; what is over is cut."""


def shown(config: bytes, pseudonym: Callable[[str], str], hide: Callable[[str], str]) -> str:
    """The text of a config that is known to be right, as it may be kept and put on record.

    Where a secret is found (`key: env.NAME`) stands what `hide` makes of that, so that a change shows. In place of each
    person under `accounts.users` stands the pseudonym, and in place of what is set for them that of what is set for
    all: whoever knows the config knows persons by their limits, and would learn their pseudonyms from those.
    """
    plain = yaml.safe_load(config)
    return yaml.safe_dump(_shown(plain, (), pseudonym, hide), sort_keys=True, allow_unicode=True, width=10_000)


def _shown(value: Any, at: tuple[str, ...], pseudonym: Callable[[str], str], hide: Callable[[str], str]) -> Any:
    if isinstance(value, Mapping):
        if at == _PERSONS:
            every = hide(yaml.safe_dump(value, sort_keys=True))
            return {pseudonym(str(name)): every for name in value}
        return {str(name): _shown(each, (*at, str(name)), pseudonym, hide) for name, each in value.items()}
    if isinstance(value, list):
        return [_shown(each, at, pseudonym, hide) for each in value]
    if at and isinstance(value, str) and _SECRET.fullmatch(at[-1]):
        return hide(value)
    return value


def between(before: str, after: str) -> dict[str, Any]:
    """What changed from one shown config to another, for a record; `before` is empty for the first one.

    `sections`: those that differ, sorted. `diff`: unified; over 64 KiB it is cut, and `diff_bytes` says how long it
    was.
    """
    old, new = yaml.safe_load(before) or {}, yaml.safe_load(after) or {}
    told: dict[str, Any] = {"sections": sorted(name for name in old | new if old.get(name) != new.get(name))}
    lines = difflib.unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), "old", "new")
    whole = "".join(lines).encode("utf-8", "replace")
    if len(whole) > _MOST_BYTES:
        told["diff_bytes"] = len(whole)
    return {**told, "diff": whole[:_MOST_BYTES].decode(errors="ignore")}


class Applied:
    """The config that was last in effect, as it is shown, in a file: so the next run, too, can tell what changed."""

    def __init__(self, file: Path, pseudonym: Callable[[str], str], hide: Callable[[str], str]) -> None:
        """`hide` makes the same of the same, and nobody can try out of what: see `audit.hidden`."""
        self._file = file
        self._hide = hide
        self._pseudonym = pseudonym

    def changes(self, config: bytes) -> dict[str, Any]:
        """What `config` changes: see `between`. Where the file is gone or unfit, all of it is new."""
        try:
            before = self._file.read_text()
            before = before if isinstance(yaml.safe_load(before), dict) else ""
        except (OSError, ValueError, yaml.YAMLError):
            before = ""
        return between(before, shown(config, self._pseudonym, self._hide))

    def keep(self, config: bytes) -> None:
        """Note that `config` is in effect. Where that fails, the next change tells of this one, too."""
        try:
            durable.replace(self._file, shown(config, self._pseudonym, self._hide).encode())
        except OSError as cause:
            logging.getLogger("appliance").warning("%s can't be written: %s", self._file, cause.strerror)


def persons(subjects: Subjects) -> Callable[[str], str]:
    """Shows persons of the config by pseudonym. Whoever has none is given none: they may have been erased."""
    others: dict[str, str] = {}

    def shown(name: str) -> str:
        subject = subjects.known(name)
        if subject is not None:
            return subject.pseudonym
        return others.setdefault(name, f"person-without-pseudonym-{len(others) + 1}")

    return shown


def weights(wanted: Mapping[str, Spec]) -> dict[str, dict[str, str]]:
    """The card that answers for each model, and the SHA-256 of the record of its weights; an adapter's, too."""
    told = {}
    for name, spec in wanted.items():
        told[name] = base = {"card": spec.settings.card, "weights": spec.fingerprint}
        told |= {each: {**base, "adapter": adapter.fingerprint} for each, adapter in spec.adapters.items()}
    return told


def swaps(before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """The models that something else answers for, with what did and what does; None for nothing."""
    return [
        {"model": name, "old": before.get(name), "new": after.get(name)}
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
