"""The comparison of gateways and the other figures: small amounts, to see that they are measured at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import load, memory, overhead, throughput
from benchmarks.gateways import Upstream, all_gateways, request


def test_gateways_are_compared_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--rounds", "1", "--requests", "400", "--connections", "4", "--chunks", "5", "--gap-ms", "1"]
    arguments = ["--only", "direct", "appliance", "unsealed", "litellm", *small]
    assert overhead.main([*arguments, "--peers", str(tmp_path), "--results", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "- litellm: not installed" in said.err

    saved = json.loads((tmp_path / "overhead.json").read_text())
    assert list(saved["medians"]) == ["direct", "appliance", "unsealed"]
    for ours in (saved["medians"]["appliance"], saved["medians"]["unsealed"]):
        assert ours["failed"] == 0
        assert 0 < ours["request_us"] < 100_000
        assert ours["resident_mb"] > 10
    assert said.out.count("with the seal") == 3
    assert saved["medians"]["direct"]["request_us"] is None
    assert len(saved["rounds"]["appliance"]) == 1
    assert "| appliance" in (tmp_path / "overhead.md").read_text()
    assert (tmp_path / "overhead.svg").read_text().startswith("<svg")


def test_an_unknown_gateway_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        overhead.main(["--only", "ngnix"])
    assert "ngnix" in capsys.readouterr().err


def test_a_gateway_that_is_not_installed_says_how(tmp_path: Path) -> None:
    reasons = {gateway.name: gateway.missing() for gateway in all_gateways(tmp_path)}
    assert reasons["direct"] == reasons["appliance"] == ""
    assert "peers.sh" in reasons["vllm-router"]


@pytest.mark.parametrize("by_socket", [False, True])
def test_the_upstream_streams_as_many_chunks_as_asked(upstream: Upstream, *, by_socket: bool) -> None:
    """Role, seven words, finish reason, usage, [DONE]."""
    target = str(upstream.socket) if by_socket else upstream.port
    body = request(stream=True, chunks=7) | {"stream_options": {"include_usage": True}}
    outcome = load.apply(load.Work(target, body, connections=2, requests=6))
    assert (outcome.answered, outcome.failed, outcome.chunks) == (6, 0, 6 * 11)
    assert all(0 < first <= whole for first, whole in zip(outcome.first_token_ms, outcome.end_to_end_ms, strict=True))


def test_failures_are_counted_and_told(upstream: Upstream) -> None:
    """A stream that is none has failed."""
    outcome = load.apply(load.Work(upstream.port, request(stream=True), path="/health", requests=3))
    assert (outcome.answered, outcome.failed) == (0, 3)
    assert "ended early" in outcome.first_failure


def test_a_target_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConnectionError):
        load.apply(load.Work("/nowhere.sock", request(stream=False)))


def test_the_slope_leaves_out_how_memory_settles() -> None:
    settled = [memory.Reading(100_000 * step, 80.0 + 3.0 * step) for step in range(6)]
    growing_at_first = [memory.Reading(-100_000 * step, 20.0) for step in range(6, 0, -1)]
    assert memory.slope([*growing_at_first, *settled]) == pytest.approx(3.0)


def test_kept_throughput_is_the_median_of_pairs() -> None:
    """One pair in which the machine was busy elsewhere doesn't decide."""
    ratios = [0.99, 0.98, 0.5, 0.985, 0.99]
    pairs = [(throughput.Batch(100, 1), throughput.Batch(100 * ratio, 1)) for ratio in ratios]
    kept = throughput.Result(16, pairs).kept()
    assert kept.median == pytest.approx(0.985)
    assert kept.low <= kept.median <= kept.high


@pytest.mark.parametrize(
    ("ratios", "mark"), [([0.98, 0.99] * 5, "✓"), ([0.9, 0.95] * 5, "✗"), ([0.7, 0.99, 1.3] * 3, "?")]
)
def test_a_verdict_is_given_only_where_the_pairs_agree(ratios: list[float], mark: str) -> None:
    pairs = [(throughput.Batch(100, 1), throughput.Batch(100 * ratio, 1)) for ratio in ratios]
    assert throughput.verdict(throughput.Result(16, pairs)).startswith(mark)
