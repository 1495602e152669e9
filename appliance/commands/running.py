"""`appliance serve`, `check-config` and `status`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from appliance.commands import FAILED, OK, write

_PATIENCE = 15.0
"""Seconds that a person waits for an appliance that doesn't answer."""


def serve(options: argparse.Namespace) -> int:
    """Run the appliance until it is told to stop."""
    from appliance import app, config

    return app.serve(config.load(options.config))


def check_config(options: argparse.Namespace) -> int:
    """Say whether the config is right, with the cards, secrets and certificates that it names."""
    from appliance import app, config
    from appliance.engines.specs import check

    loaded = config.load(options.config)
    check(loaded)
    app.check(loaded)
    models = ", ".join(loaded.settings.names)
    write(
        json.dumps({"ok": True, "models": list(loaded.settings.names)})
        if options.json
        else f"✓ {options.config} is right (models: {models})"
    )
    return OK


def status(options: argparse.Namespace) -> int:
    """Show the state of models and seal."""
    from appliance import config, control

    # also while the file is being edited, and isn't right
    (status,) = control.ask(config.state_of(options.config), "GET", "/status", patience=_PATIENCE)
    ready = all(model["state"] == "endpoint" or model["well"] for model in status["models"].values())
    if options.json:
        write(json.dumps(status, indent=1))
    else:
        write("\n".join(lines(status)))
    return OK if ready and not status["egress"]["verify"]["refuses"] else FAILED


def gate(standing: Mapping[str, Any] | None) -> list[str]:
    """What left the house since the start, and what stayed; nothing where nothing may leave."""
    from appliance.console import alarm

    if standing is None:
        return []
    if standing["gone"]:
        return [alarm("gate      has ended, so nothing leaves the house until the appliance is started again")]
    answered, held, masked = (
        ", ".join(f"{name} {count}" for name, count in sorted(standing[which].items(), key=lambda each: -each[1]))
        for which in ("answered", "held", "masked")
    )
    shown = [f"gate      answered outside: {answered or 'none'}; stayed: {held or 'none'}"]
    return shown + ([f"          replaced by placeholders: {masked}"] if masked else [])


def _version(version: Mapping[str, Any]) -> str:
    if "number" not in version:
        return ", in effect but not kept: see the log"
    return f", version {version['number']} since {version['at']} by {version['by']}"


def _edits(version: Mapping[str, Any]) -> list[str]:
    """What of the config isn't in effect, and why."""
    if version["applying"]:
        return ["an apply is under way"]
    if version["unapplied"] is None:
        return ["the file can't be read; what it held is in effect"]
    if not version["unapplied"]:
        return []
    refused = version["refused"]
    edits = "the file has edits that are not in effect; `appliance apply --dry-run` shows them"
    return [edits, *([f"the last apply changed nothing: {refused}"] if refused else [])]


def lines(status: dict[str, Any]) -> list[str]:
    """What `appliance status` shows."""
    from appliance.console import alarm

    egress = status["egress"]
    proof = egress["verify"]
    last = proof["last"]
    if last is None:
        proven = "not yet" if proof["every_seconds"] else "only when asked: appliance egress verify"
    else:
        came_to = "holds" if last["holds"] else alarm(f"FAILED: {', '.join(last['failed'])}")
        proven = f"{came_to}, report {last['number']}, {last['time']}"
    shown = [
        f"address   {status['address']}",
        f"config    {status['config']}{_version(status['version'])}",
        *(alarm(f"        ! {part}") for part in _edits(status["version"])),
        f"egress    {egress['mode']}; the gateway's seal holds: {', '.join(egress['holds']) or 'nothing'}",
        *(alarm(f"        ! {part}") for part in egress["missing"]),
        f"proof     {alarm('OVERDUE; the last: ') if proof['overdue'] else ''}{proven}",
        *([alarm(f"        ! every request is refused: the proof {proof['refuses']}")] if proof["refuses"] else []),
    ]
    if not status["books"]["well"]:
        shown.append(alarm("books     can't be written, so every request is refused: see the store, and the log"))
    if not status["audit"]["well"]:
        why = status["audit"]["trouble"]
        shown.append(alarm(f"audit     can't be written, so every request is refused: {why}"))
    outward = {name: status["audit"][name]["trouble"] for name in ("shipping", "timestamps") if name in status["audit"]}
    shown += [alarm(f"{name:<9} {trouble}") for name, trouble in outward.items() if trouble]
    if status["identity"] and status["identity"]["trouble"]:
        shown.append(alarm(f"identity  its keys could not be fetched: {status['identity']['trouble']}"))
    shown += gate(status["gate"])
    for name, trial in status["rollouts"]["running"].items():
        shown.append(f"rollout   {name:<16} {trial['mode']} of {trial['candidate']['version']}: {trial['verdict']}")
    for name, decided in status["rollouts"]["decided"].items():
        shown.append(f"rollout   {name:<16} {decided['card']} {decided['what']}; {decided['advice']}")
    for name, model in status["models"].items():
        state = model["state"] + (f" ({model['stage']})" if model.get("stage") else "")
        about = f"{model['card']}, {model['requests']} requests now" if "card" in model else ""
        shown.append(f"model     {name:<16} {state:<10} {about}")
        trouble = model.get("trouble")
        given_up = trouble and trouble not in (status["version"]["refused"] or "")  # else it stands above
        faults = (model.get("reason"), trouble if given_up else None, *model.get("seal_missing", ()))
        shown += [alarm(f"        ! {fault}") for fault in faults if fault]
    return shown
