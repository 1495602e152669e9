"""The chain of reports: numbered, each holding the hash of the one before, all signed.

    key.pem, key.pub       what signs, made with the first report; the second is for people and their auditors
    ledger.jsonl           a signed line for every report there ever was
    head.json              a copy of the last line: what is cut off the end of the ledger is missed by it
    reports/000123.json    the reports; old ones that held are thinned out, their lines stay
    lock                   held while a report is entered: the timer and a person may verify at the same time

A report is written first, then its line, then the head, each on disk before the next begins. So whatever a power
cut leaves, the next report completes; anything else that is wrong was done by somebody, and that next report says
so in its signed line, which every later check repeats.

What no check of this folder alone can see: that all of it was put back to an earlier state, or made anew with
another key. Who has noted a number with its hash, or the key's fingerprint, elsewhere can see that too; while the
appliance runs, that is whoever calls `standing` with what he last knew.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance import durable
from appliance.egress.audit import Audit, audit, numbers, report_file
from appliance.egress.findings import Check
from appliance.egress.owner import as_owner
from appliance.egress.signing import Entry, line, of_line, of_report, sign
from appliance.errors import LedgerFailed
from appliance.signing import BEFORE_THE_FIRST, Document, about_key, canonical, load_key, new_key, public

NEWEST = 2000
"""How many of the newest reports are kept whole: a week of one every five minutes. A line is about 500 bytes."""
_TAIL = 1 << 16
_BEGIN_ANEW = (
    "find out who did it; then stop the appliance, give a copy of this folder to whoever audits, move ledger.jsonl, "
    "head.json and reports out of it, and start again: the next report begins a new chain"
)
_BEGINS_HERE = (
    "a chain begins here with a key that was there before: the reports before this one were moved away, or the very "
    "first was never finished"
)


class Ledger:
    """The chain in one private folder, which has to exist before the first report is entered."""

    def __init__(self, folder: Path, newest: int = NEWEST) -> None:
        self._folder = folder
        self._reports = folder / "reports"
        self._lines = folder / "ledger.jsonl"
        self._head = folder / "head.json"
        self._newest = newest

    def append(self, report: Document) -> Entry:
        """Number, sign and store `report`, which has at least `time` (str) and `holds` (bool).

        Adds to the stored one: `number`, `previous`, `kept`, `key`, `broken` and `healed` (what was wrong with the
        chain; what a power cut had left, or that the chain begins anew), `sha256`, `signature`. One that finds the
        chain broken doesn't hold. Raises LedgerFailed, with the report, when it can't be stored.
        """
        try:
            with as_owner(self._folder), self._locked():
                return self._append(report)
        except OSError as cause:
            what = f"{cause.filename or self._folder}: {cause.strerror}"
            raise LedgerFailed(
                f"the report can't be kept: {what}; the user that runs the appliance has to own this folder, "
                "and its disk needs space",
                unkept=report,
            ) from cause
        except ValueError as cause:
            raise LedgerFailed(f"the report can't be kept: {cause}", unkept=report) from cause

    def _append(self, report: Document) -> Entry:
        broken: list[str] = []
        healed: list[str] = []
        self._reports.mkdir(mode=0o700, exist_ok=True)
        last = self._recover(broken, healed)
        if last is None and (self._folder / "key.pem").exists():
            healed.append(_BEGINS_HERE)
        private = self._key(last, broken)
        number, previous = _next(last)
        document = report | {
            "holds": report["holds"] and not broken,
            "number": number,
            "previous": previous,
            "kept": bool(broken or healed or not report["holds"] or not last or report["time"][:10] != last.time[:10]),
            "broken": broken,
            "healed": healed,
        }
        document = sign(document, private)
        file = self._file(number)
        durable.replace(file, canonical(document) + b"\n")
        entry = self._enter(document, file)
        self._prune(number - self._newest)
        return entry

    def _enter(self, document: Document, file: Path) -> Entry:
        text = line(document)
        descriptor = os.open(self._lines, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "ab") as lines:
            lines.write(text + b"\n")
            lines.flush()
            os.fsync(lines.fileno())
        durable.replace(self._head, text + b"\n")
        return of_line(text, file)

    def _recover(self, broken: list[str], healed: list[str]) -> Entry | None:
        """The entry to go on from, which is the newest that anything here testifies to."""
        entered, torn = self._last_line(broken)
        if torn:
            os.truncate(self._lines, self._lines.stat().st_size - torn)
            healed.append("the last line of ledger.jsonl was torn, and has been taken off")
        head = self._testimony(self._head, of_line, broken)
        newest = self._testimony(self._file(max(self._numbers(), default=0)), of_report, broken)
        if newest and (newest.number, newest.previous) == _next(entered):
            entered = head = self._enter(json.loads(newest.file.read_bytes()), newest.file)
            healed.append(f"report {entered.number} was written but not entered, and has been entered now")
        last = max((entry for entry in (entered, head, newest) if entry), key=lambda entry: entry.number, default=None)
        if last is None:
            return None
        if entered is None or entered.number < last.number:
            end = entered.number if entered else 0
            broken.append(f"the ledger ended at report {end}, though report {last.number} had been signed")
        elif head and head.number == last.number and head.sha256 != last.sha256:
            broken.append(f"head.json named another report {head.number} than the ledger")
        if last.number > 1 and not self._head.exists():
            broken.append("head.json was missing")
        return last

    def _last_line(self, broken: list[str]) -> tuple[Entry | None, int]:
        """The last whole line, and how many bytes stand after it."""
        try:
            with self._lines.open("rb") as lines:
                size = lines.seek(0, os.SEEK_END)
                lines.seek(max(0, size - _TAIL))
                whole, _, torn = lines.read().rpartition(b"\n")
        except FileNotFoundError:
            return None, 0
        last = whole.rpartition(b"\n")[2]
        if not last:
            return None, len(torn)
        try:
            return self._placed(of_line(last, self._lines)), len(torn)
        except ValueError as error:
            broken.append(f"the last line of ledger.jsonl {error}")
            return None, len(torn)

    def _testimony(self, file: Path, read_as: Callable[[bytes, Path], Entry], broken: list[str]) -> Entry | None:
        try:
            return self._placed(read_as(file.read_bytes().removesuffix(b"\n"), file))
        except FileNotFoundError:
            return None
        except ValueError as error:
            broken.append(f"{file.name} {error}")
            return None

    def _placed(self, entry: Entry) -> Entry:
        return replace(entry, file=self._file(entry.number))

    def _key(self, last: Entry | None, broken: list[str]) -> Ed25519PrivateKey:
        """The key in key.pem. A verification has to go on without it too: a new key signs, and every check says so."""
        file = self._folder / "key.pem"
        private = load_key(file.read_bytes()) if file.exists() else None
        if private is None:
            if file.exists():
                file.replace(file.with_suffix(".unreadable"))
            private, pem = new_key()
            durable.replace(file, pem)
        key = public(private)
        if last and last.key != key:
            broken.append(f"key.pem was not the key {last.fingerprint} that had signed until report {last.number}")
        told, pub = about_key(key), self._folder / "key.pub"
        if not pub.exists() or pub.read_text(errors="replace") != told:
            durable.replace(pub, told.encode())
        return private

    def _prune(self, number: int) -> None:
        file = self._file(number)
        with contextlib.suppress(FileNotFoundError, ValueError):  # what can't be read is left for people to look at
            if not of_report(file.read_bytes().removesuffix(b"\n"), file).kept:
                file.unlink()

    def read(self, number: int | None = None) -> Document:
        """A stored report, unchecked; the newest without `number`. Raises LedgerFailed where there is none."""
        wanted = max(self._numbers(), default=1) if number is None else number
        try:
            document: Document = json.loads(self._file(wanted).read_bytes())
        except FileNotFoundError:
            raise LedgerFailed(
                f"there is no report {wanted} in {self._reports}: it was never made, or it held and was thinned out"
            ) from None
        except (OSError, ValueError) as cause:
            raise LedgerFailed(f"{self._file(wanted)} can't be read: {cause}") from cause
        return document

    def check(self, fingerprint: str | None = None) -> list[str]:
        """Everything that is wrong with the chain, the oldest report first; nothing when all of it is whole.

        `fingerprint` is the key's, as noted elsewhere. Writes nothing, so that a copy can be checked anywhere.
        """
        try:
            found = self.audit()
        except OSError as error:
            return [f"{error.filename or self._folder}: {error.strerror}"]
        faults = [*found.faults, *found.unfinished]
        if fingerprint and found.last and not found.last.signed_by(fingerprint):
            faults.append(f"the newest reports are signed by {found.last.fingerprint}, not by the key that you named")
        return faults or ([] if found.entries else [f"there is no report in {self._folder}"])

    def audit(self) -> Audit:
        """Every line there is, checked, and what stands against the chain. Raises OSError."""
        with self._shared():
            return audit(self._folder, self._newest)

    def standing(self, newest: int = 50, known: tuple[int, str] | None = None) -> Check:
        """Whether about the `newest` reports are whole and in order, as one of a verification's own checks.

        `known` is the number and SHA-256 of a report that whoever calls has seen entered: it has to be there still.
        Takes a moment however long the chain is. What a power cut leaves is nothing wrong. Raises LedgerFailed.
        """
        try:
            with self._shared():
                found = audit(self._folder, self._newest, newest)
                if known and found.entries and known[0] < min(found.entries):
                    found = audit(self._folder, self._newest)
                faults = [*found.faults, *self._against_key(found.last), *_against_known(found, known)]
        except OSError as cause:
            raise LedgerFailed(f"{cause.filename or self._folder} can't be read: {cause.strerror}") from cause
        last = found.last
        seen = f"reports {min(found.entries)} to {last.number}, signed by {last.fingerprint}" if last else "none yet"
        wrong = [f"{fault}; {_BEGIN_ANEW}" for fault in faults]
        return Check("ledger", "The reports before this one are whole and in order", not wrong, seen, wrong)

    def _against_key(self, last: Entry | None) -> Iterator[str]:
        file = self._folder / "key.pem"
        if last is None:
            return
        private = load_key(file.read_bytes()) if file.exists() else None
        if private is None or public(private) != last.key:
            what = "is not there, or can't be read" if private is None else "is another"
            yield f"the key {last.fingerprint} in key.pem, that signed until report {last.number}, {what}"

    def _numbers(self) -> Iterator[int]:
        return numbers(self._reports)

    def _file(self, number: int) -> Path:
        return report_file(self._reports, number)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _shared(self) -> Iterator[None]:
        with contextlib.ExitStack() as held:
            with contextlib.suppress(FileNotFoundError):  # a copy needs none
                fcntl.flock(held.enter_context((self._folder / "lock").open()), fcntl.LOCK_SH)
            yield


def check_file(report_file: Path, fingerprint: str | None = None) -> list[str]:
    """Everything that is wrong with one report by itself, or with the chain when given a copy of its folder.

    `fingerprint` is the key's, as noted elsewhere; without it anybody's signature will do.
    """
    if report_file.is_dir():
        if not (report_file / "ledger.jsonl").exists():
            return [
                f"{report_file} is a folder without a ledger.jsonl: name a report, or a copy of the folder `egress`"
            ]
        return Ledger(report_file).check(fingerprint)
    try:
        entry = entry_of(report_file)
    except LedgerFailed as error:
        return [str(error)]
    if fingerprint and not entry.signed_by(fingerprint):
        return [f"{report_file.name} is signed by {entry.fingerprint}, not by the key that you named"]
    return []


def entry_of(report_file: Path) -> Entry:
    """The entry in one genuine report. Raises LedgerFailed for any other file."""
    try:
        return of_report(report_file.read_bytes().removesuffix(b"\n"), report_file)
    except OSError as cause:
        raise LedgerFailed(f"{report_file} can't be read: {cause.strerror}") from cause
    except ValueError as cause:
        raise LedgerFailed(f"{report_file.name} {cause}") from cause


def _against_known(found: Audit, known: tuple[int, str] | None) -> Iterator[str]:
    if known is None:
        return
    number, sha256 = known
    there = found.entries.get(number)
    if there is None or there.sha256 != sha256:
        end = found.last.number if found.last else 0
        how = f"the ledger, which ends at report {end}, doesn't hold it" if there is None else "another is in its place"
        yield f"report {number} was entered since the appliance started, and now {how}"


def _next(last: Entry | None) -> tuple[int, str]:
    """The number and the previous hash of the report after `last`."""
    return (last.number + 1, last.sha256) if last else (1, BEFORE_THE_FIRST)
