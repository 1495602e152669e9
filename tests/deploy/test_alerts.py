"""The alert rules are Prometheus's own language, and fire when they should."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from appliance.observe import Metrics

FOLDER = Path(__file__).parents[2] / "configs" / "prometheus"
ALERTS = {
    "egress": {
        "ApplianceEgressNotProven": "critical",
        "ApplianceEgressProofOverdue": "critical",
        "ApplianceEgressUnknown": "critical",
    },
    "accounts": {
        "ApplianceBooksNotWritten": "critical",
        "ApplianceBudgetUsedUp": "warning",
        "ApplianceOverloaded": "warning",
    },
    "audit": {"ApplianceAuditNotWritten": "critical", "ApplianceAuditNotSigned": "warning"},
    "privacy": {
        "ApplianceGateGone": "warning",
        "ApplianceDetectorsFail": "warning",
        "ApplianceProvidersFail": "warning",
    },
    "models": {"ApplianceModelFails": "warning", "ApplianceCandidateDropped": "warning"},
}
METRICS = {
    "egress": {
        "appliance_egress_holds",
        "appliance_egress_failures_total",
        "appliance_egress_verified_timestamp_seconds",
    },
    "accounts": {"appliance_books_well", "appliance_refusals_total"},
    "audit": {"appliance_audit_well", "appliance_audit_unsigned_seconds"},
    "privacy": {"appliance_gate_gone", "appliance_gate_held_detector", "appliance_held_total"},
    "models": {"appliance_requests_total", "appliance_rollout_decisions_total"},
}
"""What the rules of a page of docs ask for."""


@pytest.mark.parametrize("page", ALERTS)
def test_each_alert_says_where_what_and_how_bad(page: str) -> None:
    (group,) = yaml.safe_load((FOLDER / f"{page}.yaml").read_text())["groups"]
    assert {rule["alert"]: rule["labels"]["severity"] for rule in group["rules"]} == ALERTS[page]
    for rule in group["rules"]:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"].keys() == {"severity"}
        assert "$labels.instance" in rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(".")


@pytest.mark.parametrize("page", ALERTS)
def test_they_ask_for_metrics_that_docs_promise_and_each_has_a_case(page: str) -> None:
    (group,) = yaml.safe_load((FOLDER / f"{page}.yaml").read_text())["groups"]
    asked = {name for rule in group["rules"] for name in re.findall(r"appliance_\w+", rule["expr"])}
    assert asked == METRICS[page]
    docs = (FOLDER.parents[1] / "docs" / f"{page}.md").read_text()
    assert all(f"`{name}`" in docs for name in asked)
    cases = (FOLDER / "tests" / f"{page}.yaml").read_text()
    for rule in group["rules"]:
        name = rule["alert"]
        assert re.search(rf"alertname: {name}\s+exp_alerts:\s", cases), f"no case in which {name} fires"


def test_the_appliance_has_the_metrics_of_accounts_audit_privacy_and_models() -> None:
    metrics = Metrics()
    metrics.watch_audit(
        lambda: {"well": 1.0, "records": 9.0, "waiting": 0.0, "failures": 0.0, "checkpoint_age_seconds": 1.0}
    )
    metrics.watch_books(lambda: {"well": 1.0, "waiting": 0.0, "failures": 0.0})
    metrics.watch_gate(lambda: {"gone": 0.0, "held_detector": 0.0})
    metrics.held.labels("providers").inc()
    metrics.refusals.labels("budget_exceeded").inc()
    metrics.requests.labels("chat", "chat", "failed", "one@1").inc()
    metrics.decisions.labels("chat", "dropped", "rule").inc()
    shown = metrics.render().decode()
    for name in METRICS["accounts"] | METRICS["audit"] | METRICS["privacy"] | METRICS["models"]:
        assert re.search(rf"^{name}\b", shown, re.MULTILINE), name


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool isn't installed (Debian: prometheus)")
@pytest.mark.parametrize("page", ALERTS)
def test_prometheus_understands_them_and_they_fire_as_their_cases_say(page: str) -> None:
    for command in (["check", "rules", FOLDER / f"{page}.yaml"], ["test", "rules", FOLDER / "tests" / f"{page}.yaml"]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
