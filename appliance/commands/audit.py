"""`appliance audit ...`: verify the log, read it, erase a person, hold what a court wants."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.commands import FAILED, OK, write
from appliance.console import waiting
from appliance.errors import ApplianceError, AuditFailed, BadRequest, NotFound, NotRunning

if TYPE_CHECKING:
    from appliance.acts import Tell

_ERASE_SECONDS = 120.0
"""The accounts write all of their pages anew, and what is being written there goes first."""


def noted(text: str) -> tuple[int, str]:
    """A checkpoint that somebody noted, as NUMBER:SHA256."""
    from appliance.audit import verifier

    return verifier.noted(text)


def verify(options: argparse.Namespace) -> int:
    """Say whether the log is as it was written, and if it isn't, which record is the first bad one."""
    from appliance import config
    from appliance.audit import timestamps, verifier

    loaded = None if options.folder else config.load(options.config)
    try:
        with waiting(lambda: "going through all records and signatures"):
            verdict = verifier.verify(
                loaded.state / "audit" if loaded else options.folder,
                keys=[verifier.read_key(file.resolve()) for file in options.key],
                fingerprints=options.fingerprint,
                known=options.known,
                against=options.against,
                strict=options.strict,
                processes=None,
            )
            if loaded and (chosen := loaded.settings.audit.timestamps):
                wrong = timestamps.check(loaded.state / "audit", loaded.path(chosen.certificate))
                verdict.blame(*(verifier.Fault(0, what, file) for file, what in wrong.items()))
    except verifier.Unusable as why:  # neither genuine nor not
        raise BadRequest(str(why)) from why
    except OSError as cause:
        raise BadRequest(f"{cause.filename}: there is nothing to verify: {cause.strerror}") from cause
    write(json.dumps(verdict.document()) if options.json else "\n".join(verdict.lines()))
    return OK if verdict.genuine else FAILED


def print_verifier(options: argparse.Namespace) -> int:
    """Hand out the program that verifies a log on a machine without the appliance."""
    from appliance.audit import verifier

    program = Path(verifier.__file__).read_bytes()
    if options.output is None:
        sys.stdout.buffer.write(program)
        return OK
    try:
        options.output.write_bytes(program)
    except OSError as cause:
        raise AuditFailed(f"{options.output} can't be written: {cause.strerror}") from cause
    write(f"{options.output} is written. On a machine with Python and the package cryptography:")
    write(f"  python {options.output.name} FOLDER")
    return OK


def erase(options: argparse.Namespace) -> int:
    """Have nobody be able to tell any more what somebody did."""
    from appliance import acts, config, control
    from appliance.accounts.erasing import AtRest
    from appliance.audit import erasure
    from appliance.audit.archive import Actor, Archive
    from appliance.commands import store_of
    from appliance.versions import Versions

    loaded, by = config.load(options.config), Actor.host()

    async def here(archive: Archive) -> dict[str, Any]:
        with store_of(loaded) as store:
            accounts, kept = AtRest(store), Versions(loaded.state / "configs")
            return asdict(await erasure.erase(archive, accounts, kept, loaded, by, options.subject, options.reason))

    with waiting(lambda: "erasing: all pages of the accounts are written anew"):
        try:
            asked = {"subject": options.subject, "reason": options.reason}
            (done,) = control.ask(loaded.state, "POST", "/audit/erase", asked, patience=_ERASE_SECONDS)
        except NotRunning:
            done = acts.alone(loaded, "erase", here)
    if "error" in done:
        raise (NotFound if done["code"] == "unknown_subject" else AuditFailed)(done["error"])
    left = erasure.left(loaded, options.subject) if options.subject != done["pseudonym"] else []
    with store_of(loaded) as store:
        known = store.keys()
        left += [
            f"the name of {each.id}; `appliance audit erase --subject key:{each.id}` ends that key and removes it"
            for each in known
            if erasure.names(each.name, options.subject)
        ]
    if options.json:
        write(json.dumps({**done, "left": left}))
        return OK
    lines = [f"✓ erased; keys and tokens refused: {done['keys']}, entries of the accounts cleared: {done['rows']}"]
    if done["pseudonym"]:
        lines.append(f"  the log goes on speaking of {done['pseudonym']}, and nobody can tell any more who that was")
    lines += [f"  also there: {each}: erase it, too, if it is the same person" for each in done["alike"]]
    lines += ["  the name still stands here, for you to remove:", *(f"    {each}" for each in left)] if left else []
    lines.append("  what no command reaches, such as backups made before: docs/audit.md, Erase a person")
    write("\n".join(lines))
    return OK


def hold(options: argparse.Namespace) -> int:
    """Keep records that would be removed, and somebody who would be erased."""
    names = ("reason", "since", "until", "subject")
    held = _carry_out(options, "hold", {name: getattr(options, name) for name in names})["hold"]
    write(json.dumps(held) if options.json else f"✓ {_told(held)}\n  `appliance audit release {held['id']}` ends it")
    return OK


def release(options: argparse.Namespace) -> int:
    """Hold something no longer."""
    held = _carry_out(options, "release", {"id": options.id})["hold"]
    write(json.dumps(held) if options.json else
          f"✓ {held['id']} is ended; what is old enough goes when retention runs the next time")  # fmt: skip
    return OK


def holds(options: argparse.Namespace) -> int:
    """Show what is held; or make that list anew from the log."""
    from appliance import config
    from appliance.acts import on_record
    from appliance.audit.holds import Holds

    if options.repair:
        found = _carry_out(options, "repair", {})["holds"]
    else:
        loaded = config.load(options.config)

        def work(tell: Tell) -> list[dict[str, Any]]:
            held = Holds.open(loaded.state / "audit-work", anew=False).active
            tell(records=len(held))
            return [asdict(each) for each in held]

        found = on_record(loaded, "read", work, what="holds") if (loaded.state / "audit").exists() else []
    write(json.dumps(found) if options.json else "\n".join(map(_told, found)) or "nothing is held")
    return OK


def retention(options: argparse.Namespace) -> int:
    """Remove what was kept for long enough, or tell what that would be."""
    done = _carry_out(options, "retention", {"dry_run": options.dry_run})
    if options.json:
        write(json.dumps(done))
        return FAILED if done["failed"] else OK
    removed = done["removed"]
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(removed.items()))
    past, none = ("would be removed", "would be") if options.dry_run else ("removed", "was")
    lines = [
        f"{sum(removed.values()):,} records {past} ({kinds}), from {done['oldest'][:10]} to {done['newest'][:10]}, "
        f"in {done['segments']:,} segments" if removed else f"no record {none} removed"
    ]  # fmt: skip
    if done["held"]:
        lines.append(f"{done['held']:,} older records are held: appliance audit holds")
    lines += [f"segment {each['segment']:012d} stays as it is: {each['why']}" for each in done["failed"]]
    write("\n".join(lines))
    return FAILED if done["failed"] else OK


def _carry_out(options: argparse.Namespace, order: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What comes of an order: by the appliance that runs, else by this command. Raises as `audit.orders` does."""
    from appliance import acts, config, control
    from appliance.audit.archive import Actor, Archive
    from appliance.audit.orders import Orders, refused

    loaded, by = config.load(options.config), Actor.host()

    async def here(archive: Archive) -> dict[str, Any]:
        orders = Orders(archive, loaded.state)
        try:
            return await orders.carry_out(order, asked, by, loaded.settings.audit.retention)
        except ApplianceError as refusal:
            return refused(refusal)

    with waiting(lambda: "looking through the log; if retention is just running, it comes first"):
        try:
            (done,) = control.ask(loaded.state, "POST", f"/audit/{order}", asked)
        except NotRunning:
            done = acts.alone(loaded, order, here)
    if "error" in done:
        raise (BadRequest if done["wrong"] else AuditFailed)(done["error"])
    return done


def _told(held: dict[str, Any]) -> str:
    whom = held["subject"] or "everybody"
    days = f"{held['since'] or 'the beginning'} to {held['until'] or 'today and after'}"
    return f"{held['id']}  {whom}, {days}: {held['reason']}"
