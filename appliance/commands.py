"""What each command of the command line does.

Imports stand inside: `appliance status` should not wait for a web framework to load.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.errors import ApplianceError, ConfigInvalid, LedgerFailed, NotAnswering, Problem, VerificationFailed

if TYPE_CHECKING:
    from appliance.accounts.store import Store
    from appliance.config import Config
    from appliance.egress.signing import Entry

OK, FAILED = 0, 1
_PATIENCE = 15.0
"""Seconds that a person waits for an appliance that doesn't answer."""


def write(text: str) -> None:
    """Write a line, or several, to whoever reads the output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@contextlib.contextmanager
def store_of(config: Config) -> Iterator[Store]:
    """The store of keys and books, opened by the command line itself.

    Raises `ConfigInvalid` where `state` is a folder of somebody else's, `BooksUnavailable` for a store that is gone.
    """
    from appliance import state
    from appliance.accounts.opening import open_store
    from appliance.egress.owner import as_owner

    # as root, too: what root made there would lock the appliance's own user out
    with as_owner(config.state) if config.state.exists() else contextlib.nullcontext():
        if config.settings.accounts.store.postgresql is None:
            state.require_fit(config)
        store = open_store(config)
        try:
            yield store
        finally:
            store.close()


def serve(options: argparse.Namespace) -> int:
    """Run the appliance until it is told to stop."""
    from appliance import app, config

    return app.serve(config.load(options.config))


def check_config(options: argparse.Namespace) -> int:
    """Say whether the config and the cards it names are right."""
    from appliance import config
    from appliance.engines.fleet import check

    loaded = config.load(options.config)
    check(loaded)
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
        write("\n".join(_status_lines(status)))
    return OK if ready and not status["egress"]["verify"]["refuses"] else FAILED


def _status_lines(status: dict[str, Any]) -> list[str]:
    from appliance.console import alarm

    egress = status["egress"]
    proof = egress["verify"]
    last = proof["last"]
    if last is None:
        proven = "not yet" if proof["every_seconds"] else "only when asked: appliance egress verify"
    else:
        came_to = "holds" if last["holds"] else alarm(f"FAILED: {', '.join(last['failed'])}")
        proven = f"{came_to}, report {last['number']}, {last['time']}"
    lines = [
        f"address   {status['address']}",
        f"config    {status['config']}",
        f"egress    {egress['mode']}; the gateway's seal holds: {', '.join(egress['holds']) or 'nothing'}",
        *(alarm(f"        ! {part}") for part in egress["missing"]),
        f"proof     {alarm('OVERDUE; the last: ') if proof['overdue'] else ''}{proven}",
        *([alarm(f"        ! every request is refused: the proof {proof['refuses']}")] if proof["refuses"] else []),
    ]
    if not status["books"]["well"]:
        lines.append(alarm("books     can't be written, so every request is refused: see the store, and the log"))
    if status["identity"] and status["identity"]["trouble"]:
        lines.append(alarm(f"identity  its keys could not be fetched: {status['identity']['trouble']}"))
    for name, model in status["models"].items():
        state = model["state"] + (f" ({model['stage']})" if model.get("stage") else "")
        about = f"{model['card']}, {model['requests']} requests now" if "card" in model else ""
        lines.append(f"model     {name:<16} {state:<10} {about}")
        faults = (model.get("reason"), *model.get("seal_missing", ()))
        lines += [alarm(f"        ! {fault}") for fault in faults if fault]
    return lines


def egress_verify(options: argparse.Namespace) -> int:
    """Prove the seal of the running appliance."""
    from appliance import config, control, witness
    from appliance.console import Progress

    state = config.load(options.config).state
    show = Progress()
    show.say("looking at every process, and trying every way out")
    try:
        list(control.ask(state, "GET", "/status", patience=_PATIENCE))
        verification = witness.run(state)
    except NotAnswering as hung:
        raise VerificationFailed(f"{hung}; so nothing is proven") from hung
    except LedgerFailed as failure:
        if failure.unkept is not None:
            _print_unkept(options, failure.unkept, str(failure))
            return FAILED
        raise
    except ApplianceError:
        raise
    except Exception as bug:  # subprocess.TimeoutExpired of a host under load, and whatever nobody has thought of
        what = f"{type(bug).__name__}: {bug}"
        raise VerificationFailed(f"the verification did not come to an end, so nothing is proven: {what}") from bug
    show.done(f"report {verification.entry.number} is written")
    _print_report(options, verification.report, verification.entry.file)
    return OK if verification.holds else FAILED


def _print_unkept(options: argparse.Namespace, found: dict[str, Any], why: str) -> None:
    if options.json:
        _print_report(options, found | {"unkept": why})
        return
    write(f"✗ NOT KEPT, NOT SIGNED, and so no proof: {why}\n  This is what was seen:\n")
    _print_report(options, found)


def egress_report(options: argparse.Namespace) -> int:
    """Show a report that was written before."""
    from appliance import config
    from appliance.egress.ledger import Ledger

    _print_report(options, Ledger(config.load(options.config).state / "egress").read(options.number))
    return OK


def _print_report(options: argparse.Namespace, found: dict[str, Any], file: Path | None = None) -> None:
    from appliance.egress import page, report

    write(json.dumps(found) if options.json else report.text(found, colour=sys.stdout.isatty(), file=file).rstrip())
    if options.html:
        try:
            options.html.write_text(page.html(found))
        except OSError as cause:
            raise ApplianceError(f"the page can't be written: {options.html}: {cause.strerror}") from cause


def egress_check(options: argparse.Namespace) -> int:
    """Check one report, or all of them and their order."""
    from appliance import config
    from appliance.egress import ledger

    if options.file:
        wrong = ledger.check_file(options.file, options.fingerprint)
    else:
        wrong = ledger.Ledger(config.load(options.config).state / "egress").check(options.fingerprint)
    one = options.file is not None and not options.file.is_dir()
    entry = ledger.entry_of(options.file) if one and not wrong else None
    if options.json:
        about = {name: getattr(entry, name) for name in ("number", "time", "holds", "fingerprint")} if entry else {}
        write(json.dumps({"ok": not wrong, "wrong": wrong, "compared": bool(options.fingerprint), **about}))
    elif wrong:
        write("\n".join(f"✗ {line}" for line in wrong))
    else:
        write(f"✓ {_genuine(entry) if entry else 'every report is as it was signed, and none is missing'}")
        if not options.fingerprint:
            write("  whose key it is wasn't checked: none was named to compare (--fingerprint)")
    return FAILED if wrong else OK


def _genuine(entry: Entry) -> str:
    says = "that all holds" if entry.holds else "that NOT all holds"
    return f"report {entry.number} of {entry.time} says {says}, and is as the key {entry.fingerprint} signed it"


def models_list(options: argparse.Namespace) -> int:
    """List the cards."""
    from appliance import config
    from appliance.weights.card import load_card

    loaded = config.load(options.config)
    served: dict[str, list[str]] = {}
    for name, model in loaded.settings.models.items():
        if model.kind == "card":
            served.setdefault(model.card, []).append(name)
    rows: list[dict[str, Any]] = []
    for file in sorted(loaded.models_folder.glob("*/card.yaml")):
        card = load_card(file.parent)
        rows.append(
            {
                "name": file.parent.name,
                "title": card.title,
                "task": card.task,
                "quantization": card.quantization,
                "context_length": card.context_length,
                "devices": list(card.hardware.devices),
                "licence": card.licence,
                "prepared": (file.parent / "weights" / "manifest.json").exists(),
                "served_as": served.get(file.parent.name, []),
            }
        )
    if options.json:
        write(json.dumps(rows, indent=1))
        return OK
    for row in rows:
        state = "prepared" if row["prepared"] else "to prepare"
        names = f"served as {', '.join(row['served_as'])}" if row["served_as"] else ""
        write(
            f"{row['name']:<22} {row['task']:<10} {row['quantization']:<18} {row['context_length']:>7} tokens  "
            f"{'+'.join(row['devices']):<9} {state:<11} {names}"
        )
    return OK


def models_prepare(options: argparse.Namespace) -> int:
    """Bring weights to where engines find them."""
    from appliance import config
    from appliance.console import Progress
    from appliance.weights.prepare import prepare

    loaded = config.load(options.config)
    show = Progress()
    environment = loaded.path(loaded.settings.engines.preparation_environment)
    for name in options.names:
        show.say(name)
        folder = prepare(name, loaded.models_folder, environment, show.say)
        show.done(f"{name} is prepared")
        if options.json:
            write(json.dumps({"name": name, "weights": str(folder)}))
    return OK


def bundle(options: argparse.Namespace) -> int:
    """Collect what a machine without a network needs."""
    from appliance import config
    from appliance.bundle import collect
    from appliance.console import Progress

    loaded = config.load(options.config)
    order = collect.Order(options.device, tuple(options.models), tuple(options.without))
    show = Progress()
    made = collect.make(order, loaded, options.output, show.say)
    tar = collect.archive(made.folder, show.say) if options.tar else None
    show.done(f"{tar or made.folder}, {made.bytes / 1e9:.1f} GB, is whole")
    if options.json:
        write(json.dumps({**asdict(made), "folder": str(made.folder), "tar": str(tar) if tar else None}))
        return OK
    write("\n".join(f"  ! {note}" for note in made.notes) + ("\n" if made.notes else "") + (
        f"  SHA256SUMS of it has the checksum\n    {made.sha256}\n"
        "  Bring that on another way than the bundle; there, `sha256sum SHA256SUMS` has to say the same.\n"
        "  Then, in the unpacked folder: make install-offline"
    ))  # fmt: skip
    return OK
