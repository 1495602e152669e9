"""Records as OTLP logs in JSON, and what a collector's answers mean. Pure.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from appliance.audit.record import Kind
from appliance.audit.tail import Record

PATH = "/v1/logs"
_INFO, _WARN = 9, 13
_ABOUT_RECORDS = frozenset({400, 413, 422})
_LATER = frozenset({408, 429, 500, 502, 503, 504})
_LONGEST_WAIT = 3600.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Later(Exception):
    """Nothing of a delivery counts as taken, and why. It is to be repeated, in `seconds` at the soonest."""

    def __init__(self, why: str, seconds: float = 0.0) -> None:
        super().__init__(why)
        self.seconds = seconds


def encode(records: Sequence[Record], resource: Mapping[str, str]) -> bytes:
    """A delivery of records that have a line. The body of each is its line as it is, so that hashes can be checked."""
    scope = {"scope": {"name": "appliance.audit"}, "logRecords": [_log_record(each) for each in records]}
    about = {"attributes": [_text(name, value) for name, value in resource.items()]}
    delivery = {"resourceLogs": [{"resource": about, "scopeLogs": [scope]}]}
    return json.dumps(delivery, ensure_ascii=False, separators=(",", ":")).encode()


def _log_record(record: Record) -> dict[str, Any]:
    # numbers of 64 bits stand as texts in protobuf's JSON
    moment = str((datetime.fromisoformat(record.at) - _EPOCH) // timedelta(milliseconds=1) * 1_000_000)
    warns = record.kind == Kind.INCIDENT
    return {
        "timeUnixNano": moment,
        "observedTimeUnixNano": moment,
        "severityNumber": _WARN if warns else _INFO,
        "severityText": "WARN" if warns else "INFO",
        "eventName": f"audit.{record.kind}",
        "body": {"stringValue": record.line.decode("utf-8", "replace")},
        "attributes": [
            {"key": "audit.seq", "value": {"intValue": str(record.seq)}},
            _text("audit.kind", record.kind),
            _text("audit.sha256", record.sha256),
        ],
    }


def _text(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "value": {"stringValue": value}}


def took_all(status: int, body: bytes, retry_after: str = "", *, now: datetime) -> bool:
    """Whether a collector took a whole delivery; False if it refuses something in it, and would again.

    Raises `Later` for all else: it is too busy or broken, or refuses us and not what was sent.
    """
    if 200 <= status < 300:
        return _rejected(body) == 0
    if status in _ABOUT_RECORDS:
        return False
    also = "; the outlet's lines on standard error say why" if status == 502 else ""
    raise Later(f"it answered {status}{also}", _wait(retry_after, now) if status in _LATER else 0.0)


def _rejected(body: bytes) -> int:
    """How many records of a delivery that was answered with success were rejected all the same."""
    if not body.strip():
        return 0
    try:
        told = json.loads(body)
        return int((told.get("partialSuccess") or {}).get("rejectedLogRecords") or 0)
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise Later("it answered with success and something that is no OTLP") from None


def _wait(retry_after: str, now: datetime) -> float:
    """Seconds that a Retry-After asks for: it is a number, or a date. At most an hour."""
    try:
        seconds = float(retry_after) if retry_after.isdigit() else (_date(retry_after) - now).total_seconds()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), _LONGEST_WAIT)


def _date(text: str) -> datetime:
    date = parsedate_to_datetime(text)
    return date if date.tzinfo else date.replace(tzinfo=UTC)
