"""The alert rules are Prometheus's own language, and fire when they should."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "configs" / "prometheus"
METRICS = {
    "up",
    "appliance_egress_holds",
    "appliance_egress_failures_total",
    "appliance_egress_verified_timestamp_seconds",
}


def test_each_alert_says_where_what_and_how_bad() -> None:
    (group,) = yaml.safe_load((FOLDER / "egress.yaml").read_text())["groups"]
    names = [rule["alert"] for rule in group["rules"]]
    assert names == ["ApplianceEgressNotProven", "ApplianceEgressProofOverdue", "ApplianceEgressUnknown"]
    for rule in group["rules"]:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"] == {"severity": "critical"}
        assert "$labels.instance" in rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(".")


def test_they_ask_for_metrics_that_docs_promise_and_each_has_a_case() -> None:
    rules = (FOLDER / "egress.yaml").read_text()
    asked = {
        name for expression in re.findall(r"expr: (.*)", rules) for name in re.findall(r"appliance_\w+", expression)
    }
    assert asked == METRICS - {"up"}
    docs = (FOLDER.parents[1] / "docs" / "egress.md").read_text()
    assert all(f"`{name}`" in docs for name in asked)
    cases = (FOLDER / "tests" / "egress.yaml").read_text()
    for name in re.findall(r"alert: (\w+)", rules):
        assert re.search(rf"alertname: {name}\s+exp_alerts:\s", cases), f"no case in which {name} fires"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool isn't installed (Debian: prometheus)")
def test_prometheus_understands_them_and_they_fire_as_their_cases_say() -> None:
    for command in (["check", "rules", FOLDER / "egress.yaml"], ["test", "rules", FOLDER / "tests" / "egress.yaml"]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
