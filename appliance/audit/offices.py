"""Who is or was an administrator or an auditor: what they did is evidence, also of those who have left."""

from __future__ import annotations

import json
from collections.abc import Set
from pathlib import Path

from appliance.audit.question import Question
from appliance.audit.search import Search
from appliance.core import Role
from appliance.errors import AuditFailed

OFFICES: Set[str] = frozenset({Role.ADMIN, Role.SUPER_ADMIN, Role.AUDITOR})
_MARKS = tuple(b'"role":"%s"' % role.encode() for role in OFFICES)


def on_record(folder: Path, pseudonym: str) -> bool:
    """Whether somebody did something in such a role, as the log in `folder` tells; and where it can't be read.

    Looks through all of it: for a thread.
    """
    search = Search(folder)
    try:
        return any(
            _in_office(line, pseudonym)
            for step in search.steps(Question(fields={"subject": pseudonym}))
            for line in step.lines
            if any(mark in line for mark in _MARKS)
        )
    except AuditFailed:
        return True
    finally:
        search.close()


def _in_office(line: bytes, pseudonym: str) -> bool:
    body = json.loads(line)["body"]
    return any(part.get("subject") == pseudonym and part.get("role") in OFFICES for part in (body, body.get("by", {})))
