"""`appliance serve`, `apply`, `check-config` and `status`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from appliance.commands import FAILED, OK, write
from appliance.errors import ApplianceError, ConfigInvalid, Problem

_PATIENCE = 15.0
"""Seconds that a person waits for an appliance that doesn't answer."""


def serve(options: argparse.Namespace) -> int:
    """Run the appliance until it is told to stop."""
    from appliance import app, config

    return app.serve(config.load(options.config))


def check_config(options: argparse.Namespace) -> int:
    """Say whether the config is right, with the cards, secrets and certificates that it names."""
    from appliance import app, config
    from appliance.engines.fleet import check

    loaded = config.load(options.config)
    check(loaded)
    app.check(loaded)
    models = ", ".join(loaded.settings.models)
    write(
        json.dumps({"ok": True, "models": list(loaded.settings.models)})
        if options.json
        else f"✓ {options.config} is right (models: {models})"
    )
    return OK


def apply(options: argparse.Namespace) -> int:
    """Have the running appliance read its config again."""
    from appliance import config, control
    from appliance.console import Progress

    loaded = config.load(options.config)
    (status,) = control.ask(loaded.state, "GET", "/status")
    if status["config"] != str(loaded.file):
        what = f"the appliance on this state folder runs on {status['config']}; apply that, or restart it with this one"
        raise ConfigInvalid(str(loaded.file), [Problem("", what)])
    show = Progress()
    for line in control.ask(loaded.state, "POST", "/apply"):
        if "progress" in line:
            show.say(line["progress"])
        elif "error" in line:
            raise ApplianceError(f"nothing was changed: {line['error']}")
        else:
            show.done("applied")
            changes = line["changes"]
            write(
                json.dumps(line)
                if options.json
                else "\n".join(f"  {change}" for change in changes) or "  nothing to change"
            )
            return OK
    raise ApplianceError("the appliance ended before it had applied the config")


def status(options: argparse.Namespace) -> int:
    """Show the state of models and seal."""
    from appliance import config, control

    (status,) = control.ask(config.load(options.config).state, "GET", "/status", patience=_PATIENCE)
    ready = all(model["state"] in ("ready", "endpoint") for model in status["models"].values())
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
        f"config    {status['config']}",
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
    for name, model in status["models"].items():
        state = model["state"] + (f" ({model['stage']})" if model.get("stage") else "")
        about = f"{model['card']}, {model['requests']} requests now" if "card" in model else ""
        shown.append(f"model     {name:<16} {state:<10} {about}")
        faults = (model.get("reason"), *model.get("seal_missing", ()))
        shown += [alarm(f"        ! {fault}") for fault in faults if fault]
    return shown
