"""`appliance rollout ...`: two versions side by side, and what is decided about them."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from appliance.commands import OK, write
from appliance.errors import ApplianceError

_PATIENCE = 15.0
_ROWS: tuple[tuple[str, str, Callable[[Mapping[str, Any]], str | None]], ...] = (
    ("version", "", lambda arm: str(arm["version"])),
    ("state", "", lambda arm: str(arm["state"])),
    ("requests", "", lambda arm: f"{arm['requests']:,}"),
    ("failed", "", lambda arm: _of(arm["failures"], arm["requests"])),
    ("first token", "p50 / p95", lambda arm: _times(arm, "first_token")),
    ("between tokens", "p50 / p95", lambda arm: _times(arm, "token")),
    ("end to end", "p50 / p95", lambda arm: _times(arm, "total")),
    ("tokens", "in / out", lambda arm: f"{arm['prompt_tokens']:,} / {arm['completion_tokens']:,}"),
    ("rated good", "", lambda arm: _of(arm["good"], arm["good"] + arm["bad"])),
    ("agreement", "", lambda arm: None if arm["agreement"] is None else f"{arm['agreement']:.0%} of {arm['compared']}"),
)


def show(options: argparse.Namespace) -> int:
    """Show the rollouts under way, and what was decided."""
    from appliance import config, control

    (status,) = control.ask(config.load(options.config).state, "GET", "/status", patience=_PATIENCE)
    rollouts = status["rollouts"]
    write(json.dumps(rollouts, indent=1) if options.json else "\n".join(lines(rollouts)))
    return OK


def promote(options: argparse.Namespace) -> int:
    """Have the candidate take over."""
    return _order(options, "promote")


def drop(options: argparse.Namespace) -> int:
    """Have the candidate get nothing any more."""
    return _order(options, "drop")


def weight(options: argparse.Namespace) -> int:
    """Give the candidate another share."""
    return _order(options, "weight", percent=options.percent)


def _order(options: argparse.Namespace, what: str, **more: Any) -> int:
    from appliance import config, control

    state = config.load(options.config).state
    (answer,) = control.ask(state, "POST", "/rollout", {"do": what, "name": options.name, **more})
    if "error" in answer:
        raise ApplianceError(f"nothing was changed: {answer['error']}")
    write(json.dumps(answer) if options.json else answer["done"])
    return OK


def lines(rollouts: Mapping[str, Any]) -> list[str]:
    """What `appliance rollout` shows."""
    shown: list[str] = []
    for name, trial in rollouts["running"].items():
        share = "" if trial["mode"] == "blue-green" else f", {trial['percent']:g} % by {trial['by']}"
        window = f"{trial['elapsed_seconds']:.0f} of {trial['window_seconds']:g} s"
        shown.append(f"{name}   {trial['mode']}{share}; {window}, at least {trial['least_requests']} requests")
        shown.append(f"  {'':<26}{'now':<30}candidate")
        for title, unit, value in _ROWS:
            old, new = value(trial["stable"]), value(trial["candidate"])
            if old is not None or new is not None:
                shown.append(f"  {title:<16}{unit:<10}{old or '-':<30}{new or '-'}".rstrip())
        shown += [f"  so far: {trial['verdict']}", ""]
    for name, decision in rollouts["decided"].items():
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(decision["at"]))
        share = "" if decision["what"] != "weight" else f" {decision['percent']:g} %"
        shown.append(
            f"{name}   {decision['card']}: {decision['what']}{share} on {at} ({decision['by']}): {decision['why']}"
        )
        shown += [f"  {decision['advice']}", ""]
    return shown[:-1] or ["no rollout: name a candidate under models.NAME.rollout, and run `appliance apply`"]


def _of(part: int, whole: int) -> str:
    return f"{part:,} ({100 * part / whole:.1f} %)" if whole else "-"


def _times(arm: Mapping[str, Any], name: str) -> str | None:
    times = [arm[f"{name}_p{share}_seconds"] for share in (50, 95)]
    return None if None in times else " / ".join(f"{each * 1000:.0f}" for each in times) + " ms"
