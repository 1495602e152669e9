"""`appliance compliance ...`: the report for whoever audits, and whether a report is one that the log knows."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.commands import FAILED, OK, store_of, write
from appliance.errors import ApplianceError, AuditFailed, BadRequest

if TYPE_CHECKING:
    from appliance.acts import Tell
    from appliance.compliance.report import Report


def report(options: argparse.Namespace) -> int:
    """Make the report of a month: a page, the same on paper, and their checksums."""
    from appliance import config
    from appliance.acts import on_record
    from appliance.compliance.collect import gather
    from appliance.compliance.month import Month
    from appliance.compliance.report import make, sha256
    from appliance.compliance.words import Language
    from appliance.console import Progress

    loaded = config.load(options.config)
    language = Language(options.language)
    zone = loaded.settings.accounts.zone
    made = datetime.now(UTC)
    month = Month.of(options.month or made.astimezone(zone).date().replace(day=1), zone, made)
    with store_of(loaded) as store:
        keys = store.keys()
    show = Progress()
    output = _writable(options.output)

    def work(tell: Tell | None = None) -> Report:
        facts = gather(loaded, keys, month, host=platform.node(), made=made, say=show.say)
        done = make(facts, language)
        if tell is not None:
            tell(html=sha256(done.html), month=f"{month.since:%Y-%m}", pdf=sha256(done.pdf))
        return done

    trouble = ""
    try:
        done = on_record(loaded, "report", work, month=f"{month.since:%Y-%m}", language=str(language))
    except AuditFailed as failure:  # whoever audits wants to see a damaged log, too
        trouble, done = str(failure), work()
    files = _written(done, output)
    show.done(f"{done.name} is made")
    if options.json:
        write(json.dumps({"files": [str(file) for file in files], "on_record": not trouble, "trouble": trouble}))
    else:
        write("\n".join(f"  {file}" for file in files))
    if trouble:
        sys.stderr.write(f"! the log doesn't know of this report: {trouble}\n")
    return FAILED if trouble else OK


def _writable(folder: Path) -> Path:
    """The folder, made, if files can be written there: it is better known before a report is on record."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as cause:
        raise _unwritten(folder, cause) from cause
    return folder


def _written(report: Report, folder: Path) -> list[Path]:
    # not while the act goes on: there, root has the rights of the appliance's user only
    try:
        return report.write(folder)
    except OSError as cause:
        raise _unwritten(folder, cause) from cause


def _unwritten(folder: Path, cause: OSError) -> ApplianceError:
    return ApplianceError(f"the report can't be written to {folder}: {cause.strerror}; name another with --output")


def check(options: argparse.Namespace) -> int:
    """Say whether a report is as it was made, and whether the log knows it."""
    from appliance import config
    from appliance.compliance.known import find
    from appliance.compliance.report import self_consistent, sha256

    file: Path = options.file
    try:
        content = file.read_bytes()
    except OSError as cause:
        raise BadRequest(f"{file} can't be read: {cause.strerror}", param="file") from cause
    page = not content.startswith(b"%PDF-")
    wrong = ""
    if page and not self_consistent(content):
        wrong = "it was changed after it was made, or is no report: its last line isn't the checksum of what is before"
    known = None if wrong else find(config.load(options.config).state / "audit", sha256(content))
    if not wrong and known is None:
        wrong = "the log knows no such report: it was changed, was made elsewhere, or could not be put on record"
    if options.json:
        write(json.dumps({"ok": not wrong, "wrong": wrong, "sha256": sha256(content), "record": known}))
    elif known is not None:
        write(
            f"✓ {file.name} is a report on {known['month']} that the log knows: record {known['seq']} of {known['at']}"
        )
    else:
        write(f"✗ {file.name}: {wrong}")
    return FAILED if wrong else OK
