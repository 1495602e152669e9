"""Records as OTLP logs, and what a collector's answers mean."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.audit import otlp
from appliance.audit.otlp import Later, took_all
from appliance.audit.record import Chain, Kind
from appliance.audit.tail import Record
from tests.fakes.collector import read

NOW = datetime(2026, 11, 22, 15, 50, 11, tzinfo=UTC)
AT = 1_795_362_611.123


def record(chain: Chain, kind: Kind, body: dict[str, object]) -> Record:
    line = chain.append(kind, body, AT)
    return Record(chain.seq, kind.value, "2026-11-22T15:50:11.123Z", line, chain.head)


def test_a_delivery_is_right_by_opentelemetrys_own_definitions() -> None:
    chain = Chain(6)
    records = [record(chain, Kind.INTENT, {"request": "r"}), record(chain, Kind.INCIDENT, {"incident": "disk"})]
    resource = {"service.name": "inference-appliance", "host.name": "gpu1"}
    first, second = read(otlp.encode(records, resource))
    assert first == {
        "seq": 7, "kind": "intent", "line": records[0].line.decode(), "event": "audit.intent",
        "nanoseconds": 1_795_362_611_123_000_000, "severity": 9, "resource": resource,
    }  # fmt: skip
    assert (second["event"], second["severity"]) == ("audit.incident", 13)


@given(st.dictionaries(st.text(), st.text() | st.integers(-(2**53), 2**53) | st.none(), max_size=4))
def test_whatever_stands_in_a_record_arrives_as_it_is(body: dict[str, object]) -> None:
    chain = Chain()
    try:
        made = record(chain, Kind.ACT, body)
    except ValueError:  # can't be put on record
        return
    (heard,) = read(otlp.encode([made], {}))  # which checks the hash
    assert json.loads(heard["line"])["body"] == body


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b""), (200, b"{}"), (204, b""), (201, b" \n"), (200, b'{"partialSuccess":{}}'),
     (200, b'{"partialSuccess":null}'), (200, b'{"partialSuccess":{"rejectedLogRecords":"0","errorMessage":"mind"}}')],
)  # fmt: skip
def test_taken(status: int, body: bytes) -> None:
    assert took_all(status, body, now=NOW)


@pytest.mark.parametrize(
    ("status", "body"),
    [(400, b""), (413, b"too large"), (422, b""), (200, b'{"partialSuccess":{"rejectedLogRecords":"3"}}'),
     (200, b'{"partialSuccess":{"rejectedLogRecords":1}}')],
)  # fmt: skip
def test_refused_for_what_is_in_it(status: int, body: bytes) -> None:
    assert not took_all(status, body, now=NOW)


@pytest.mark.parametrize("status", [301, 401, 403, 404, 405, 408, 415, 429, 500, 501, 502, 503, 504])
def test_to_be_sent_again(status: int) -> None:
    with pytest.raises(Later, match=str(status)):
        took_all(status, b"{}", now=NOW)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"7", b'{"partialSuccess":3}', b"[" * 100_000, b"\xff"])
def test_success_of_something_else_is_none(body: bytes) -> None:
    with pytest.raises(Later, match="no OTLP"):
        took_all(200, body, now=NOW)


@pytest.mark.parametrize(
    ("status", "asked", "seconds"),
    [(429, "7", 7), (503, "Sun, 22 Nov 2026 15:51:11 GMT", 60), (503, "Sun, 22 Nov 2026 15:51:11", 60),
     (503, "Sun, 22 Nov 2020 15:51:11 GMT", 0), (429, "999999999", 3600), (429, "soon", 0), (429, "", 0),
     (429, "-3", 0), (429, "\u00b2", 0), (401, "7", 0)],
)  # fmt: skip
def test_a_collector_says_when_to_come_back(status: int, asked: str, seconds: float) -> None:
    with pytest.raises(Later) as later:
        took_all(status, b"", asked, now=NOW)
    assert later.value.seconds == seconds
