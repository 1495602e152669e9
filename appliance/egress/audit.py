"""What is wrong with a chain of reports. Reads only, so that a copy can be audited anywhere."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from appliance.egress.signing import Entry, of_line, of_report
from appliance.signing import BEFORE_THE_FIRST, about_key

_LINE_BYTES = 512
_HEALS = "a power cut leaves this, and the next verification heals it"


@dataclass(slots=True)
class Audit:
    """What was looked at, and what stands against it, the oldest report first."""

    entries: dict[int, Entry] = field(default_factory=dict)
    """The sound lines by number, ascending."""
    faults: list[str] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    """What a power cut leaves."""

    @property
    def last(self) -> Entry | None:
        """The newest sound line."""
        return self.entries[max(self.entries)] if self.entries else None


def audit(folder: Path, kept_whole: int, newest: int | None = None) -> Audit:
    """Audit the chain in `folder`, of which the newest `kept_whole` reports have to be there as files.

    With `newest` only about as many of the newest ones are looked at. Raises OSError when something can't be read.
    """
    found = Audit()
    lines, first = _lines(folder / "ledger.jsonl", newest)
    torn = lines.pop()
    number = _follow(lines, found, first_expected=first)
    if torn:
        found.unfinished.append(f"the last line of ledger.jsonl is torn; {_HEALS}")
    _against_head(folder, found, number)
    _against_files(folder / "reports", found, number, kept_whole, whole=first)
    return found


def numbers(reports: Path) -> Iterator[int]:
    """Of each report in the folder `reports`, which may be missing."""
    return (int(file.stem) for file in reports.glob("*.json") if file.stem.isdecimal())


def report_file(reports: Path, number: int) -> Path:
    """Where report `number` lies."""
    return reports / f"{number:06}.json"


def _lines(file: Path, newest: int | None) -> tuple[list[bytes], bool]:
    """Whole lines, then what stands after the last of them; and whether it is all of the file."""
    try:
        with file.open("rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            start = 0 if newest is None else max(0, size - newest * _LINE_BYTES)
            opened.seek(start)
            lines = opened.read().split(b"\n")
    except FileNotFoundError:
        return [b""], True
    return (lines, True) if start == 0 else (lines[1:] or [b""], False)


def _follow(lines: Iterable[bytes], found: Audit, *, first_expected: bool) -> int:
    """Follow the chain line by line; the number of the last one."""
    number: int | None = 0 if first_expected else None
    expected: str | None = BEFORE_THE_FIRST if first_expected else None
    last: Entry | None = None
    for text in lines:
        try:
            entry = of_line(text, Path())
        except ValueError as error:
            number, expected = (number or 0) + 1, None
            found.faults.append(f"report {number}: its line in ledger.jsonl {error}")
            continue
        if number is not None and entry.number <= number:
            found.faults.append(f"report {entry.number} stands in the ledger again, or out of its place")
            continue
        if number is not None and entry.number > number + 1:
            found.faults.append(f"{_reports(number + 1, entry.number - 1)} missing from the ledger")
        elif expected is not None and entry.previous != expected:
            found.faults.append(f"report {entry.number} doesn't follow the report {number} that is here")
        if last and entry.key != last.key:
            found.faults.append(f"report {entry.number} and later ones are signed by another key, {entry.fingerprint}")
        found.faults += [f"report {entry.number} found: {what}" for what in entry.broken]
        number, expected, last = entry.number, entry.sha256, entry
        found.entries[number] = entry
    return number or 0


def _against_head(folder: Path, found: Audit, number: int) -> None:
    told, last = folder / "key.pub", found.last
    if last and (not told.exists() or told.read_text(errors="replace") != about_key(last.key)):
        found.faults.append("key.pub is not the key that signs the newest reports")
    try:
        head = of_line((folder / "head.json").read_bytes().removesuffix(b"\n"), Path())
    except FileNotFoundError:
        if number > 1:
            found.faults.append("head.json is missing: whether newer reports were taken away can't be told")
        elif number:
            found.unfinished.append(f"head.json is missing; {_HEALS}")
    except ValueError as error:
        found.faults.append(f"head.json {error}")
    else:
        if head.number > number:
            found.faults.append(f"{_reports(number + 1, head.number)} cut off the end of the ledger")
        elif head.number < number - 1:
            found.faults.append(f"head.json is that of report {head.number}")
        elif head.number < number:
            found.unfinished.append(f"head.json is older than the ledger; {_HEALS}")
        elif last and head != last:
            found.faults.append(f"head.json names another report {head.number} than the ledger")


def _against_files(reports: Path, found: Audit, last: int, kept_whole: int, *, whole: bool) -> None:
    there = set(numbers(reports))
    for number, entry in found.entries.items():
        file = report_file(reports, number)
        if number not in there:
            if entry.kept or number > last - kept_whole:
                found.faults.append(f"report {number}: {file.name} is missing")
            continue
        try:
            if of_report(file.read_bytes().removesuffix(b"\n"), file) != entry:
                found.faults.append(f"report {number}: {file.name} is not the report that the ledger names")
        except ValueError as error:
            found.faults.append(f"report {number}: {file.name} {error}")
    first = 1 if whole else min(found.entries, default=1)
    for number in sorted(there - found.entries.keys()):
        if number == last + 1 and _follows(report_file(reports, number), found.last):
            found.unfinished.append(f"report {number} is in no line of the ledger yet; {_HEALS}")
        elif number >= first:
            found.faults.append(f"report {number} is in no line of the ledger")


def _follows(file: Path, last: Entry | None) -> bool:
    try:
        entry = of_report(file.read_bytes().removesuffix(b"\n"), file)
    except ValueError:
        return False
    return entry.previous == (last.sha256 if last else BEFORE_THE_FIRST)


def _reports(first: int, last: int) -> str:
    return f"report {first} is" if first == last else f"reports {first} to {last} are"
