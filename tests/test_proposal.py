"""What an edited config would change, as it is told before anything does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance import config as configuration
from appliance.commands.applying import lines
from appliance.config import Config
from appliance.engines.planning import Plan, Step
from appliance.errors import DoesNotFit
from appliance.proposal import Proposal, diff, restarts

CHAT = {"chat": {"card": "one"}}
FAR = {"far": {"endpoint": "http://127.0.0.1:9"}}


def config(**settings: Any) -> Config:
    return configuration.of(Path("/etc/x/appliance.yaml"), yaml.safe_dump({"models": CHAT} | settings).encode())


OLD = config()


@pytest.mark.parametrize(
    ("changed", "section"),
    [
        ({"limits": {"choices": 1}}, "limits"),
        ({"watch": True}, "watch"),
        ({"queue": {"longest": 3}}, "queue"),
        ({"accounts": {"each_key": {"requests_per_minute": 3}}}, "accounts"),
        ({"engines": {"restart_backoff_seconds": 3}}, "engines"),
    ],
)
def test_sections_that_are_taken_over_while_it_runs_are_told(changed: dict[str, Any], section: str) -> None:
    new = config(**changed)
    proposal = Proposal(OLD, new, restarts(OLD.settings, new.settings, {}), Plan(()))
    assert (proposal.settings, proposal.refusal) == ([section], None)
    assert f"  {section:<16} is taken over while it runs" in lines(proposal.told())


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"listen": {"port": 1}}, ["listen"]),
        ({"egress": {"seal": "best-effort"}, "state": "other"}, ["egress", "state"]),
        ({"limits": {"connections": 7}}, ["limits"]),
        ({"models": CHAT | FAR}, ["models.far.endpoint"]),
    ],
)
def test_what_needs_a_restart_is_named_and_refuses_the_whole(changed: dict[str, Any], where: list[str]) -> None:
    new = config(**changed)
    proposal = Proposal(OLD, new, restarts(OLD.settings, new.settings, {}), None)
    assert [problem.where for problem in proposal.restart] == where
    told = proposal.told()
    assert all(each in told["refused"] for each in where)
    assert "restart" in told["refused"]
    shown = "\n".join(lines(told))
    assert ("An apply changes nothing" in shown, "What would change" in shown) == (True, False)


def test_an_endpoint_that_is_reached_already_needs_no_restart() -> None:
    new = config(models=CHAT | FAR)
    assert restarts(OLD.settings, new.settings, {"far": new.settings.models["far"]}) == []  # type: ignore[dict-item]


def test_the_edit_is_shown_as_people_know_it() -> None:
    shown = diff(b"a: 1\nb: 2\n", b"a: 1\nb: 3", "appliance.yaml")
    assert shown == (
        "--- appliance.yaml (in effect)\n+++ appliance.yaml\n@@ -1,2 +1,2 @@\n a: 1\n-b: 2\n+b: 3\n"
        "\\ No newline at end of file\n"
    )
    assert diff(OLD.text, OLD.text, "x") == ""


def test_a_swap_is_told_in_plain_words() -> None:
    steps = (
        Step("chat", "replace", "one@1", "two@2", 4.5, "it needs 4.5 GiB, and there is no room"),
        Step("far", "keep", "endpoint", "endpoint", 0, "nothing of it changes"),
    )
    memory = {"of": "main", "total": 24.0, "free": 3.25, "reserve": 1, "gpus": ()}
    told = Proposal(OLD, config(models={"chat": {"card": "two"}}), [], Plan(steps), memory=memory).told()
    assert [(step["name"], step["waits"]) for step in told["models"]] == [("chat", True), ("far", False)]
    shown = "\n".join(lines(told))
    assert "one@1 → two@2" in shown
    assert "requests wait" in shown
    assert "  memory           4.5 GiB are needed anew, 3.2 of 24.0 are free" in shown
    assert "far" not in shown, "what stays isn't told"
    assert "-    card: one\n+    card: two" in shown


def test_what_does_not_fit_is_told_with_the_numbers() -> None:
    refusal = DoesNotFit("not enough memory: chat needs 90 GiB")
    proposal = Proposal(OLD, OLD, [], refusal)
    assert proposal.refusal is refusal
    assert "90 GiB" in "\n".join(lines(proposal.told()))


def test_nothing_to_change_is_said() -> None:
    keep = Step("chat", "keep", "one@1", "one@1", 0, "nothing of it changes")
    assert lines(Proposal(OLD, OLD, [], Plan((keep,))).told())[-1].startswith("  nothing: all models and settings")
