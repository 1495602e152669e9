"""What the appliance puts on record of itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from appliance.administration import Appliance
from appliance.config import Verify
from appliance.egress.assurance import Assurance, Verdict
from tests.fakes import journal

VERDICT = Verdict(1, "2026-11-22T00:00:00Z", 1_795_305_600.0, holds=True, failed=(), sha256="9f" * 32)


@pytest.fixture
def appliance(tmp_path: Path) -> Iterator[Appliance]:
    """One of which only the archive and the proof of the seal are real."""
    none: Any = SimpleNamespace()
    config: Any = SimpleNamespace(state=tmp_path)
    archive = journal.archive(tmp_path)
    yield Appliance(
        config=config, house=none, fleet=none, turns=none, office=none, archive=archive, testimony=none, outward={},
        identity=None, access_log=none, seal=none, wanted={}, endpoints={}, assurance=Assurance(Verify()), probing=none,
        rollouts=none,
    )  # fmt: skip
    archive.subjects.close()


def test_verdicts_pile_up_nowhere_while_nothing_can_be_put_on_record(appliance: Appliance) -> None:
    records: Any = appliance.archive.journal
    appliance.take(VERDICT)
    appliance.take(replace(VERDICT, number=2))
    assert records.acts() == [("egress.verdict", "done")], "what hasn't changed isn't told again"
    records.fail()
    for number in range(3, 300):
        appliance.take(replace(VERDICT, number=number, holds=False, failed=(f"check {number}",)))
    assert len(records.records) == 1
    assert appliance.assurance.failures == 297
    records.recover()
    appliance.take(replace(VERDICT, number=299, holds=False, failed=("check 299",)))
    told = records.records[-1]["body"]
    assert (len(records.records), told["report"], told["failed"]) == (2, 299, ["check 299"]), "how it is now is told"


def test_nobody_gets_a_pseudonym_for_standing_in_the_config(appliance: Appliance, tmp_path: Path) -> None:
    """They may have been erased: a new key would let the log speak of them again."""
    anna = appliance.archive.subjects.of("anna").pseudonym
    config = b"accounts: {users: {ben: {tokens_per_day: 7}, anna: {tokens_per_day: 8}, cleo: {tokens_per_day: 9}}}"
    applied = appliance._applied
    told = applied.changes(config)["diff"]
    assert all(
        f"+    {shown}: " in told for shown in ("person-without-pseudonym-1", anna, "person-without-pseudonym-2")
    )
    (tmp_path / "audit-work").mkdir(exist_ok=True)
    applied.keep(config)
    assert appliance._applied.changes(config)["diff"] == ""
    assert [appliance.archive.subjects.known(name) for name in ("ben", "cleo")] == [None, None]
