"""`appliance apply`, `rollback` and `versions`: an edited config comes into effect, or one of before does again."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
from collections.abc import Set
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.commands import OK, write
from appliance.errors import ApplianceError, ConfigInvalid, NotRunning, Problem

if TYPE_CHECKING:
    from appliance.config import Config

_PATIENCE = 15.0
_REFUSED = 2
_HOW = {
    "settings": "its engine goes on",
    "beside": "the new one starts beside the old one, which answers until then; no request waits",
    "replace": "the old one ends before the new one starts; requests wait meanwhile",
    "sleep": "the old one sleeps while the new one starts; requests wait meanwhile",
    "start": "starts; nobody is served by it yet",
    "stop": "is served no more, once its requests are answered",
    "rollout": "is tried beside what answers",
    "drop": "is tried no more",
}
"""What becomes of a model, in words."""


def apply(options: argparse.Namespace) -> int:
    """Have the running appliance read its config again; or have it say what that would change."""
    from appliance import config

    loaded = config.load(options.config)
    _require_same(loaded.state, loaded.file)
    if options.dry_run:
        return _dry_run(options, loaded.state)
    return _apply(options, loaded.state)


def rollback(options: argparse.Namespace) -> int:
    """Put a config that was in effect before into its file again, and apply it."""
    from appliance import config, durable, plain, state, strict_yaml
    from appliance.versions import Versions

    file, folder = config.place(options.config), config.state_of(options.config)
    versions = Versions(folder / "configs")
    wanted = versions.named(options.version)
    if runs := state.is_served(folder):
        _require_same(folder, file)
    if options.dry_run:
        return _dry_run(options, folder, wanted.number)
    text = versions.text(wanted)
    target = config.of(file, text)
    if runs:
        _require_same_walls(target)
    try:
        edited = strict_yaml.raw(file, ConfigInvalid)
        saved = _save(file, edited, {version.kept for version in versions.all()})
        durable.change(file, text)
    except OSError as cause:
        raise ApplianceError(f"nothing was changed: {file} can't be replaced: {cause.strerror}") from cause
    if not options.json:
        write(f"{file} is as version {wanted.number} was" + (f"; what stood there is in {saved.name}" if saved else ""))
    if not runs:
        if options.json:
            write(json.dumps({"version": wanted.number, "applied": False}))
        else:
            write("no appliance runs; it is in effect when one is started")
        return OK
    try:
        return _apply(options, folder)
    except NotRunning:  # it may be in effect, and the next start will see to it
        raise
    except ApplianceError as refusal:
        try:
            if plain.read(file, len(text) + 1) == text:  # else somebody has edited it since
                durable.change(file, edited)
                if saved is not None:
                    saved.unlink()
        except OSError as cause:
            what = f"{refusal}. But {file} can't be put back, and is still as version {wanted.number} was"
            raise ApplianceError(f"{what}: {cause.strerror}") from cause
        raise


def versions(options: argparse.Namespace) -> int:
    """List the configs that were in effect."""
    from appliance import config, control
    from appliance.versions import Versions

    folder = config.state_of(options.config)
    every = Versions(folder / "configs").all()
    try:
        (status,) = control.ask(folder, "GET", "/status", patience=_PATIENCE)
        now = status["version"].get("number")
    except NotRunning:
        now = None
    if options.json:
        write(json.dumps([asdict(version) | {"in_effect": version.number == now} for version in every]))
        return OK
    for version in every:
        what = "; ".join(version.changes) or "no model and no setting"
        back = f" (version {version.rollback} again)" if version.rollback else ""
        note = " (without a person who was erased)" if version.rewritten else ""
        mark = "  ← in effect" if version.number == now else ""
        write(f"{version.number:>4}  {version.at}  {version.by:<12}  {what}{back}{note}{mark}")
    if not every:
        write("none yet: the first is kept when the appliance starts")
    return OK


def _require_same(state: Path, file: Path) -> None:
    """Raise unless an appliance runs on the state folder, and on this config."""
    from appliance import control

    (status,) = control.ask(state, "GET", "/status", patience=_PATIENCE)
    if status["config"] != str(file):
        what = f"the appliance on this state folder runs on {status['config']}; apply that, or restart it with this one"
        raise ConfigInvalid(str(file), [Problem("", what)])


def _require_same_walls(target: Config) -> None:
    """Raise where a version would open what is closed now, or change anything else that takes a restart.

    The running appliance refuses that, too. But it could write to the folder of versions, and if it was taken over, the
    next start would be unsealed by what it put there: so it isn't asked, but the file, and what it can't write to.
    """
    from appliance import config
    from appliance.egress import started
    from appliance.egress.owner import as_owner
    from appliance.proposal import restarts

    with as_owner(target.state):
        note = started.read(target.state / "egress")
    egress = target.settings.egress
    problems = [
        Problem(f"egress.{name}", f"is {then} in that version and {here} here: change it by hand, and restart")
        for name, then, here in (("mode", egress.mode, note.mode), ("seal", egress.seal, note.seal))
        if then != here
    ]
    with contextlib.suppress(ConfigInvalid):  # what is wrong in it may be why somebody goes back
        now = config.load(target.file).settings
        reached = {name: model for name, model in now.models.items() if isinstance(model, config.RemoteModel)}
        problems += restarts(now, target.settings, reached)
    if problems:
        raise ConfigInvalid(f"nothing was changed; {target.file}", problems)


def _dry_run(options: argparse.Namespace, state: Path, version: int | None = None) -> int:
    from appliance import control
    from appliance.console import Progress

    show = Progress()
    for line in control.ask(state, "POST", "/plan", {"version": version}):
        if "progress" in line:
            show.say(line["progress"])
        elif "error" in line:
            raise _refusal(line)
        else:
            show.clear()
            proposal = line["proposal"]
            write(json.dumps(proposal) if options.json else "\n".join(lines(proposal)))
            return _REFUSED if proposal["refused"] else OK
    raise ApplianceError("the appliance ended before it had made a plan")


def _apply(options: argparse.Namespace, state: Path) -> int:
    from appliance import control
    from appliance.console import Progress

    show, plan = Progress(), None
    for line in control.ask(state, "POST", "/apply"):
        if "progress" in line:
            show.say(line["progress"])
        elif "plan" in line:
            plan = line["plan"]
            show.clear()
            if not options.json:
                write("\n".join(lines(plan)))
        elif "error" in line:
            raise _refusal(line)
        else:
            show.done("applied")
            (status,) = control.ask(state, "GET", "/status", patience=_PATIENCE)
            number = status["version"].get("number")
            if options.json:
                write(json.dumps({**line, "plan": plan, "version": number}))
            else:
                write("\n".join(f"  {change}" for change in line["changes"]) or "  nothing to change")
                write(f"version {number} is in effect" if number else "in effect, but it can't be kept: see the log")
            return OK
    raise NotRunning("the appliance ended before it had applied the config; the next start serves what the file says")


def _refusal(line: dict[str, Any]) -> ApplianceError:
    if problems := line.get("problems"):
        return ConfigInvalid(f"nothing was changed; {line['file']}", [Problem(**problem) for problem in problems])
    return ApplianceError(f"nothing was changed: {line['error']}")


def _save(file: Path, edited: bytes, kept: Set[str]) -> Path | None:
    """Keep a text that is about to be replaced beside its file, unless it is among those `kept`; where."""
    import hashlib

    from appliance import durable, plain

    if hashlib.sha256(edited).hexdigest() in kept:
        return None
    there = file.resolve()
    names = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    free = (there.with_name(f"{there.name}.before-rollback{each}") for each in names)
    beside = next(each for each in free if not each.exists() or plain.read(each, len(edited) + 1) == edited)
    durable.beside(there, beside, edited)
    return beside


def lines(proposal: dict[str, Any]) -> list[str]:
    """A plan, as people read it."""
    from appliance.console import alarm, bold

    changing = [step for step in proposal["models"] if step["action"] != "keep"]
    shown = [] if proposal["refused"] else [bold("What would change")]
    for step in changing:
        versions = " → ".join(dict.fromkeys(each for each in (step["old"], step["new"]) if each))
        shown.append(f"  {step['name']:<16} {versions}")
        shown.append(f"  {'':<16} {_HOW.get(step['action'], step['action'])}")
        shown.append(f"  {'':<16} ({step['why']})")
    shown += [f"  {section:<16} is taken over while it runs" for section in proposal["settings"]]
    if (memory := proposal["memory"]) and any(step["needs_gib"] for step in changing):
        needed = sum(step["needs_gib"] for step in changing)
        kind = "GPU memory" if memory["of"] == "gpu" else "memory"
        there = f"{memory['free']:.1f} of {memory['total']:.1f} are free"
        shown.append(f"  {kind:<16} {needed:.1f} GiB are needed anew, {there}")
    if not changing and not proposal["settings"] and not proposal["refused"]:
        shown.append("  nothing: all models and settings stay as they are")
    shown += [f"  {note}" for note in proposal["notes"]]
    shown += ["", *proposal["diff"].splitlines()] if proposal["diff"] else []
    shown += ["", alarm(f"An apply changes nothing as it is: {proposal['refused']}")] if proposal["refused"] else []
    return shown
