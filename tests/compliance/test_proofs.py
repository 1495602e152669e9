"""The month's verifications: how many held, which failed, and where there was none though somebody asked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from appliance.compliance.collect import Facts
from appliance.compliance.month import Month
from appliance.compliance.proofs import Proofs, proofs, within
from appliance.egress.ledger import Ledger
from tests.compliance import sample
from tests.egress import found

MONTH = Month.of(datetime(2026, 11, 1, tzinfo=UTC).date(), sample.config.Accounts().zone, sample.NOW)
HOUR = timedelta(hours=1)


def entered(folder: Path, *times: datetime) -> Path:
    report = found.built(*found.holding())
    for at in times:
        Ledger(folder).append({**report, "time": f"{at:%Y-%m-%dT%H:%M:%SZ}"})
    return folder


def test_reports_of_other_months_do_not_count(tmp_path: Path) -> None:
    since = MONTH.since.astimezone(UTC)
    folder = entered(tmp_path, since - HOUR, since, since + HOUR, sample.NOW)
    told = proofs(folder, MONTH, 3600)
    assert (told.count, told.held, told.first, told.last) == (2, 2, 2, 3)
    assert told.fingerprint in (folder / "key.pub").read_text()
    assert told.last_sha256 == Ledger(folder).read(3)["sha256"]
    assert not told.faults


def test_a_gap_is_longer_than_the_interval_and_a_minute(tmp_path: Path) -> None:
    since = MONTH.since.astimezone(UTC)
    late = timedelta(seconds=3661)
    times = [since - HOUR / 2, since + HOUR / 2, since + HOUR * 3 / 2, since + HOUR * 3 / 2 + late]
    told = proofs(entered(tmp_path, *times), MONTH, 3600)
    assert [(gap.since, gap.until) for gap in told.gaps] == [(times[2], times[3]), (times[3], MONTH.until)]
    assert told.gaps[0].due == times[2] + HOUR


def test_on_demand_only_the_moment_of_each_is_proven(tmp_path: Path) -> None:
    since = MONTH.since.astimezone(UTC)
    told = proofs(entered(tmp_path, since - HOUR, since + HOUR), MONTH, 0)
    assert [(gap.due, gap.until) for gap in told.gaps] == [
        (MONTH.since, since + HOUR), (since + HOUR, MONTH.until),
    ]  # fmt: skip


def test_before_the_very_first_one_nothing_is_proven_however_soon_it_came(tmp_path: Path) -> None:
    since = MONTH.since.astimezone(UTC)
    first, *_ = proofs(entered(tmp_path, since + HOUR / 2), MONTH, 3600).gaps
    assert (first.since, first.due, first.until) == (MONTH.since, MONTH.since, since + HOUR / 2)


def test_a_month_without_any_is_one_gap(tmp_path: Path) -> None:
    folder = tmp_path / "egress"
    assert proofs(folder, MONTH, 3600) == Proofs(interval=HOUR)
    folder.mkdir()
    told = proofs(folder, MONTH, 3600)
    assert (told.count, [(gap.since, gap.until) for gap in told.gaps]) == (0, [(MONTH.since, MONTH.until)])


def test_a_chain_that_was_cut_is_told_of(tmp_path: Path) -> None:
    since = MONTH.since.astimezone(UTC)
    folder = entered(tmp_path, since, since + HOUR, since + 2 * HOUR)
    lines = (folder / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "ledger.jsonl").write_bytes(b"".join(lines[:-1]))
    assert "cut off the end" in proofs(folder, MONTH, 3600).faults[0]


def test_what_failed_is_named_by_its_checks_and_requests_in_gaps_are_counted(good: Facts, bad: Facts) -> None:
    assert (good.proofs.held, good.unproven) == (good.proofs.count, [])
    assert [failed.number for failed in bad.proofs.failed] == [21]
    assert {"threads", "probes"} <= set(bad.proofs.failed[0].checks)
    ((gap, asked),) = bad.unproven
    assert gap.until - gap.since == 7 * HOUR + timedelta(seconds=7)
    assert asked > 20


def test_the_last_restart_in_a_gap_is_found(bad: Facts) -> None:
    (gap, _), *_ = bad.unproven
    inside = gap.since + HOUR
    assert within(gap, [gap.since - HOUR, inside, gap.until + HOUR]) == inside
    assert within(gap, [gap.since, gap.until]) is None


@pytest.mark.parametrize("strange", ["key.pub", "head.json"])
def test_a_ledger_that_can_not_be_read_is_told_of(tmp_path: Path, strange: str) -> None:
    folder = entered(tmp_path, MONTH.since.astimezone(UTC))
    (folder / strange).unlink()
    (folder / strange).mkdir()
    assert strange in " ".join(proofs(folder, MONTH, 3600).faults)
