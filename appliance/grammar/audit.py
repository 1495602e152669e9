"""`appliance audit ...` and `compliance ...`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from appliance.commands import audit, compliance, search, usage
from appliance.grammar.command import add, count, fingerprint

_AUDIT_ERASE = """\
Destroy the key under which the log holds a person's name, refuse the person's API keys, and take the name out of the
accounts. The log still verifies, and sums of teams stay right; who it was, nobody can tell any more. There is no way
back. Refused while records of the person are held, or while accounts.users in the config names them. What an
administrator or auditor did can't be put down to anybody then, so for those it takes --reason; who commands this host,
`host:...`, stays.

  appliance audit erase --subject anna
  appliance audit erase --subject p_4f0c2a91d3e74f0c2a91d3e7   whoever has this pseudonym
  appliance audit erase --subject key:key_4f0c2a91d3e7         a key without a user
  appliance audit erase --subject bert --reason "left in 2019, file 4711"
"""
_AUDIT_HOLD = """\
Keep what a court, an authority or an audit wants: the records of some days, those of a person, or both at once, that
person's of those days. They stay however old they are, and nobody whose records are held can be erased. Days are whole
ones; the first and the last are among them. The reason stands in the log, so give a file number rather than a name.

  appliance audit hold --since 2026-11-01 --until 2026-11-30 --reason "file 12 O 345/26"
  appliance audit hold --subject anna --reason "works agreement, case 7"
"""
_AUDIT_RETENTION = """\
Remove the records that were kept for as long as audit.retention in the config says, as the appliance does by itself
every day at about 3 o'clock; or tell what that would be. In the place of what is removed a signed stub stays, so the
rest still verifies.

  appliance audit retention --dry-run
  appliance audit retention --now
"""
_AUDIT_VERIFY = """\
Go through all records and signatures of the audit log, and tell the first record that was changed, removed, put in or
moved. Only reads; works while the appliance runs, when it doesn't, and on a copy. The same program stands alone, for
an auditor's own machine: `appliance audit verifier`.

  appliance audit verify
  appliance audit verify --fingerprint "9f86 d081 884c 7d65 9a2f eaa0 c55a d015"
  appliance audit verify /media/copy --key key.pub --against /media/last-month

Exit status 0 only when nothing is wrong. Note the last line that it prints, and name it with --known the next time.
"""
_AUDIT_LIST = """\
Show records of the audit log, the newest first. Works while the appliance runs, and when it doesn't; that you looked is
put on record. Persons stand there by pseudonym, and what is sealed stays sealed.

  appliance audit list --kind incident --from 2026-11-01
  appliance audit list --request req_4f0c2a91d3e7b65512345678
  appliance audit list --subject p_4f0c2a91d3e74f0c2a91d3e7 --from 2026-11-22 --to 2026-11-22
  appliance audit list --intent 4711 --json
  appliance audit list --user anna --from 2026-11-01
"""
_AUDIT_EXPORT = """\
Write records to a file, oldest first: as the very lines of the log, or as a table for a spreadsheet. That you did is
put on record, with the file's SHA-256.

  appliance audit export --from 2026-11-01 --to 2026-11-30 --output november.jsonl
  appliance audit export --format csv --kind act --output acts.csv
"""


def _add_filters(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("which records (all of it has to hold; docs/api.md says what each means)")
    for name, about in search.FILTERS.items():
        metavar = "DAY" if name in ("from", "to") else name.upper()
        group.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar=metavar, help=about)
    group.add_argument("--user", metavar="NAME", help="a person's, by name: for who asks what is kept of them")


def add_to(top: Any) -> None:
    """Add the commands."""
    log = top.add_parser("audit", help="look after the audit log", description="Look after the audit log.")
    group = log.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command = add(group, "verify", audit.verify, "say whether the audit log is genuine", _AUDIT_VERIFY)
    command.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="a copy (default: the appliance's own)")
    command.add_argument("--key", type=Path, action="append", default=[], metavar="FILE",
        help="the public key that you trust, such as key.pub; again for more")  # fmt: skip
    command.add_argument("--fingerprint", type=fingerprint, action="append", default=[], metavar="WORDS",
        help="of the key that you trust, as you noted it before; again for more")  # fmt: skip
    command.add_argument("--known", type=audit.noted, action="append", default=[], metavar="NUMBER:SHA256",
        help="a checkpoint, as you noted it before; again for more")  # fmt: skip
    command.add_argument("--against", type=Path, metavar="FOLDER", help="another copy of the log, such as an older one")
    command.add_argument("--strict", action="store_true",
        help="read each record, too: is it written in the one way (RFC 8785)? slower")  # fmt: skip
    command = add(group, "list", search.list_, "show records of the audit log", _AUDIT_LIST)
    _add_filters(command)
    command.add_argument("--order", choices=("newest", "oldest"), default="newest", help="first (default: %(default)s)")
    command.add_argument("--limit", type=count, default=100, metavar="NUMBER", help="at most (default: %(default)s)")
    command = add(group, "export", search.export, "write records to a file", _AUDIT_EXPORT, script=False)
    _add_filters(command)
    command.add_argument("--format", choices=("jsonl", "csv"), default="jsonl", help="default: %(default)s")
    command.add_argument("--output", type=Path, metavar="FILE", help="where to (default: standard output)")
    command = add(group, "erase", audit.erase, "erase a person", _AUDIT_ERASE)
    command.add_argument("--subject", required=True, metavar="NAME", help="the user, as keys and tokens name them")
    command.add_argument("--reason", metavar="TEXT",
        help="why, for somebody who was an administrator or an auditor; goes on record, so name nobody")  # fmt: skip
    command = add(group, "hold", audit.hold, "keep what a court wants, however old it is", _AUDIT_HOLD)
    command.add_argument("--reason", required=True, metavar="TEXT", help="what for, such as a file number")
    command.add_argument("--since", metavar="DAY", help="the first day, such as 2026-11-01 (default: the beginning)")
    command.add_argument("--until", metavar="DAY", help="the last day (default: without end)")
    command.add_argument("--subject", metavar="NAME", help="only this person's: a user, or a pseudonym")
    command = add(group, "release", audit.release, "end a hold", (
        "End a hold. What is old enough then goes when retention runs the next time.\n\n"
        "  appliance audit release hold_4f0c2a91d3e7"
    ))  # fmt: skip
    command.add_argument("id", metavar="ID", help="as appliance audit holds shows it")
    command = add(group, "holds", audit.holds, "show what is held", (
        "Show what is held, for what reason. Persons stand there by pseudonym."
    ))  # fmt: skip
    command.add_argument("--repair", action="store_true",
        help="make the list anew from the log, when holds.json is lost or damaged")  # fmt: skip
    command = add(group, "retention", audit.retention, "remove what was kept for long enough", _AUDIT_RETENTION)
    form = command.add_mutually_exclusive_group(required=True)
    form.add_argument("--dry-run", action="store_true", help="only tell what would be removed")
    form.add_argument("--now", action="store_true", help="remove it now")
    command = add(group, "verifier", audit.print_verifier, "hand out the program that verifies a log", (
        "Print the program that says whether an audit log is genuine, for a machine without the appliance: one file\n"
        "that needs Python 3.10 or newer and the package cryptography. Its --help explains the rest.\n\n"
        "  appliance audit verifier --output verifier.py\n  python verifier.py FOLDER"
    ), script=False)  # fmt: skip
    command.add_argument("--output", type=Path, metavar="FILE", help="where to (default: standard output)")
    reports = top.add_parser("compliance", help="report to auditors", description="Report to auditors.")
    group = reports.add_subparsers(title="commands", metavar="COMMAND", required=True)
    command = add(group, "report", compliance.report, "make the compliance report of a month", (
        "Write what an auditor, a data protection officer and a works council want to see of a month: a page (HTML),\n"
        "the same on paper (PDF), and SHA256SUMS of both. Works while the appliance runs, and when not. That it was\n"
        "made is put on record. Exit status 1 if it was made, but could not be put on record.\n\n"
        "  appliance compliance report --month 2026-11\n"
        "  appliance compliance report --month 2026-11 --language en --output /media/auditor"
    ))  # fmt: skip
    command.add_argument("--month", type=usage.month, metavar="MONTH", help="such as 2026-11 (default: this)")
    command.add_argument("--language", choices=("de", "en"), default="de", help="default: %(default)s")
    command.add_argument("--output", type=Path, default=Path(), metavar="FOLDER", help="where to (default: here)")
    command = add(group, "check", compliance.check, "say whether a report is one that the log knows", (
        "Say whether a report, as HTML or PDF, is as it was made, and whether the audit log knows that it was."
    ))  # fmt: skip
    command.add_argument("file", type=Path, metavar="FILE", help="the report")
