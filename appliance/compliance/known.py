"""Whether a report is one that the log knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from appliance.audit import segments
from appliance.errors import AuditFailed


def find(folder: Path, sha256: str) -> dict[str, Any] | None:
    """The record of the making of the file with that checksum: its `seq`, `at` and the report's `month`.

    None if there is none in the log in `folder`. Raises `AuditFailed` for a log that can't be read to its end, unless
    the record was found before. Whether the log is genuine is for a verification to tell.
    """
    mark = sha256.encode()
    try:
        found = segments.listed(folder)
    except OSError as cause:
        raise AuditFailed(f"{folder} can't be read: {cause.strerror}; run this where the appliance runs") from cause
    for segment in reversed(found):
        for line in segments.lines(segment):
            if mark in line and (known := _report(line, sha256)) is not None:
                return known
    return None


def _report(line: bytes, sha256: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
        body = record["body"]
        if record["kind"] != "act" or body["act"] != "report" or sha256 not in (body.get("html"), body.get("pdf")):
            return None
        return {"seq": record["seq"], "at": record["at"], "month": body["month"]}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
