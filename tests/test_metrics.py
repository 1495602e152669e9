"""What Prometheus and the access log are told of each version."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from appliance.core import Caller, Operation, Request, Task
from appliance.observe import AccessLog, Metrics, Record

CHAT = Operation("chat", "/x", Task.CHAT, "messages")
LABELS = re.compile(r"^(appliance_\w+)\{(.*)\} ", re.MULTILINE)


def ended(
    metrics: Metrics, version: str, *, model: str = "chat", tokens: int = 3, provider: str | None = None
) -> Record:
    record = metrics.open(Request("r", Caller("k"), CHAT, model, b"{}"))
    with record:
        if version:
            record.turn(version)
        record.provider = provider
        for _ in range(tokens):
            record.token()
    metrics.settle(record)
    return record


def versions(metrics: Metrics, name: str, model: str = "chat") -> list[str]:
    """In order of their names, as labels of `name`."""
    found = {
        version[1]
        for series, labels in LABELS.findall(metrics.render().decode())
        if series.startswith(name) and f'model="{model}"' in labels
        if (version := re.search('version="(.*?)"', labels))
    }
    return sorted(found)


SERIES = ("appliance_requests", "appliance_request_seconds", "appliance_time_to_first_token_seconds",
          "appliance_inter_token_seconds", "appliance_tokens", "appliance_feedback", "appliance_copies")  # fmt: skip


def test_each_request_counts_for_the_version_that_answered() -> None:
    metrics = Metrics()
    ended(metrics, "one@1")
    ended(metrics, "two@2")
    ended(metrics, "", provider="far")
    ended(metrics, "", tokens=0)
    for name in SERIES[:5]:
        assert versions(metrics, name) == ["", "one@1", "outside", "two@2"]
    page = metrics.render().decode()
    assert 'appliance_requests_total{model="chat",operation="chat",outcome="answered",version="one@1"} 1.0' in page
    assert 'appliance_inter_token_seconds_count{model="chat",version="two@2"} 2.0' in page


def test_a_copy_is_timed_and_is_no_request() -> None:
    metrics = Metrics()
    record = metrics.open(Request("r", Caller("k"), CHAT, "chat", b"{}"))
    with record:
        record.turn("two@2")
        record.token()
    metrics.timed(record)
    assert versions(metrics, "appliance_request_seconds") == ["two@2"]
    assert versions(metrics, "appliance_requests") == []


def test_of_many_versions_the_last_few_are_shown_and_of_another_model_all_stay() -> None:
    metrics = Metrics()
    ended(metrics, "first@0", model="other")
    for number in range(20):
        ended(metrics, f"v{number:02}")
        metrics.rated("chat", f"v{number:02}", "up")
        metrics.copied("chat", f"v{number:02}", "answered")
    for name in SERIES:
        assert versions(metrics, name) == [f"v{number:02}" for number in range(12, 20)], name
    assert versions(metrics, "appliance_requests", "other") == ["first@0"]
    ended(metrics, "v00")
    assert versions(metrics, "appliance_requests")[0] == "v00", "one that still answers comes back"
    assert len(metrics._labelled) == 9


def test_the_version_that_serves_all_the_while_stays_however_many_are_tried_beside_it() -> None:
    metrics = Metrics()
    for number in range(20):
        ended(metrics, "serves@1")
        ended(metrics, f"v{number:02}")
    assert 'outcome="answered",version="serves@1"} 20.0' in metrics.render().decode()


def test_the_mean_gap_is_of_two_tokens_at_least() -> None:
    metrics = Metrics()
    assert ended(metrics, "one@1", tokens=0).gap is None
    assert ended(metrics, "one@1", tokens=1).gap is None
    record = ended(metrics, "one@1", tokens=5)
    assert record.gap == (record.last - record.first) / 4


async def test_the_access_log_has_the_version(tmp_path: Path) -> None:
    persons: Any = type("Persons", (), {"caller": lambda _, caller: caller.key_id})()
    log = AccessLog(tmp_path, persons)
    log.write(ended(Metrics(), "one@1"))
    log.write(ended(Metrics(), ""))
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "requests.log").read_text().splitlines()]
    assert [line["version"] for line in lines] == ["one@1", None]
