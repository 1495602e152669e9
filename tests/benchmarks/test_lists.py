"""What the site's lists cost: a small amount of it."""

from __future__ import annotations

import json
import random
from pathlib import Path

from appliance.privacy.kinds import Kind
from benchmarks import lists


def test_figures_are_shown_and_kept(tmp_path: Path) -> None:
    assert lists.main(["--entries", "200", "--results", str(tmp_path)]) in (0, 1)
    kept = json.loads((tmp_path / "lists.json").read_text())
    assert kept["amount"] == {"entries": 200, "seed": 1}
    assert kept["ready_seconds"] > 0
    assert kept["written_ms_per_kb"] > 0


def test_a_list_holds_as_many_as_were_asked_for_and_the_same_each_time() -> None:
    drawn, again = (lists.entries(100, random.Random(3)) for _ in range(2))  # noqa: S311 - no secret
    assert [entry.kind for entry in drawn].count(Kind.CLIENT) == 80
    assert len(drawn) == 100
    assert drawn == again
