"""`appliance egress ...`: the proof that nothing leaves."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.commands import FAILED, OK, write
from appliance.errors import ApplianceError, LedgerFailed, NotAnswering, VerificationFailed

if TYPE_CHECKING:
    from appliance.egress.signing import Entry

_PATIENCE = 15.0
"""Seconds that a person waits for an appliance that doesn't answer."""


def verify(options: argparse.Namespace) -> int:
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


def report(options: argparse.Namespace) -> int:
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


def check(options: argparse.Namespace) -> int:
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
