"""What it costs to keep the audit log: records a second, processor time of a request's two records, its disk space,
and how fast the whole is verified.

    python -m benchmarks.audit
    python -m benchmarks.audit --records 400000 --rounds 9
    python -m benchmarks.audit --tasks 1024

Many tasks at once do nothing but write records, with no engine in between: the load is as high as it gets.

records    each task writes a record and waits until it is on disk; those that wait share a write.
requests   each task writes the intent of a request as the pipeline does, waits until it is on disk, and writes the
           outcome, for which nobody waits. Processor time is that of the whole process, of the event loop as of the
           threads that write and compress, so it includes what the tasks themselves cost.
one        the same with one task only: what a lone request waits for the disk.
verified   the log of all those requests, by the verifier that stands alone, its start included: as it comes, which is a
           process for each core if there is much to do, by one, and with --strict, which reads each record, too.
sealed     what it takes to encrypt a caller's names under their key, and to make a key for somebody new, on disk.

To reach: 20,000 records a second, 60 us of processor time for both records of a request, 1 KB on disk for both before
they are compressed, and 200,000 records verified a second. The log lies under the results folder while it is measured,
so that its disk is a real one.

Saves audit.json and audit.md under results/. Exit status: 0 all reached, 1 not, 2 wrong command line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import uvloop
from prometheus_client import Histogram

from appliance.audit import verifier
from appliance.audit.archive import Archive
from appliance.audit.holds import Holds
from appliance.audit.journal import Journal
from appliance.audit.record import Kind
from appliance.audit.segments import listed
from appliance.audit.subjects import Subjects
from appliance.config import Accounts
from appliance.config.audit import Audit
from appliance.core import Caller, Operation, Request, Task, Usage
from appliance.engines.served import Served
from appliance.observe import Record
from appliance.testimony import Testimony
from benchmarks import setting
from benchmarks.overhead import percentile
from benchmarks.pairs import MARKS
from benchmarks.results import keep
from benchmarks.terminal import command_line, say, show

RECORDS_PER_SECOND, REQUEST_US, REQUEST_BYTES, VERIFIED_PER_SECOND = 20_000, 60.0, 1024, 200_000
_PEOPLE = 200
_SEGMENT_MIB = 4
"""So that there are closed ones to verify."""
_SYNCS = 300
_CHAT = Operation("chat.completions", "/v1/chat/completions", Task.CHAT, "messages")


@dataclass(frozen=True, slots=True)
class Written:
    """One round of writing. Microseconds are processor time."""

    records_per_second: float
    request_us: float
    """For each request, or each record where there are no requests."""
    kept_p50_ms: float
    kept_p99_ms: float


class Log:
    """A log of its own, opened as the appliance opens it."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.testimony = Testimony(archive, Accounts(), "3f9c2a71")
        self._served = cast(
            Served, SimpleNamespace(base=None, engine=SimpleNamespace(spec=SimpleNamespace(fingerprint="9f" * 32)))
        )
        self._gaps = Histogram("gaps", "Unused.", registry=None)
        self._usage = Usage(512, 180)

    @classmethod
    async def open(cls, folder: Path) -> Log:
        """In `folder`, which is made."""
        journal = await Journal.open(folder / "audit", folder / "audit-keys", Audit(segment_mib=_SEGMENT_MIB))
        holds = Holds.open(folder / "audit-work", anew=not journal.head[0])
        return cls(Archive(journal, Subjects.open(folder / "audit-keys"), holds))

    async def record(self, number: int) -> float:
        """Write one record; the seconds until it was on disk."""
        ticket = self.archive.journal.write(Kind.INTENT, _BODY | {"request": f"req_{number:032x}"})
        asked = time.perf_counter()
        await ticket.kept()
        return time.perf_counter() - asked

    async def request(self, number: int) -> float:
        """Write what is on record of a request; the seconds until it might have run."""
        caller = Caller(f"key_{number % _PEOPLE:012x}", user=f"person {number % _PEOPLE}", team="sales")
        request = Request(
            f"req_{number:032x}", caller, _CHAT, "chat", b"", stream=True, use_case="letters",
            most_prompt_tokens=512, most_completion_tokens=1024,
        )  # fmt: skip
        record = Record(request, lambda _: self._gaps)
        intent = self.testimony.intent(request, self._served)
        asked = time.perf_counter()
        await intent.kept()
        waited = time.perf_counter() - asked
        record.turn("endpoint")
        record.token()
        record.status, record.outcome, record.finish = 200, "ok", "stop"
        record.end()
        intent.outcome(record, self._usage, 123_456_789)
        return waited


_BODY = {
    "class": "internal", "found": {}, "model": "chat", "most_tokens": 1536, "operation": "chat.completions",
    "policy": "3f9c2a71", "role": "user", "route": "local", "sealed": "x" * 120, "stream": True,
    "subject": "p_" + "4" * 24,
}  # fmt: skip


async def written(folder: Path, what: str, amount: int, tasks: int) -> Written:
    """A round: `amount` of records or requests, by so many tasks at once."""
    log = await Log.open(folder)
    do = log.record if what == "records" else log.request
    for number in range(_PEOPLE):
        await log.request(number)  # their keys are made once, not in each request
    await log.archive.journal.checkpoint_now()
    left = iter(range(amount))
    kept: list[float] = []

    async def task() -> None:
        for number in left:
            kept.append(await do(number))  # noqa: PERF401 - it waits

    first, processor, began = log.archive.journal.head[0], time.process_time(), time.perf_counter()
    await asyncio.gather(*(task() for _ in range(tasks)))
    await log.archive.journal.checkpoint_now()
    processor, seconds = time.process_time() - processor, time.perf_counter() - began
    records = log.archive.journal.head[0] - first
    await log.archive.close(60)
    return Written(
        records / seconds, processor / amount * 1e6, percentile(kept, 0.5) * 1e3, percentile(kept, 0.99) * 1e3
    )


def sync_ms(folder: Path) -> tuple[float, float]:
    """What the disk alone takes for a record: p50 and p99 of appending 450 bytes and `fdatasync`."""
    took = []
    descriptor = os.open(folder / "sync", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for _ in range(_SYNCS):
        began = time.perf_counter()
        os.write(descriptor, b"x" * 450)
        os.fdatasync(descriptor)
        took.append((time.perf_counter() - began) * 1e3)
    os.close(descriptor)
    return percentile(took, 0.5), percentile(took, 0.99)


def size(folder: Path) -> tuple[float, float]:
    """Bytes of a request's two records, checkpoints included: before and after they are compressed."""
    segments = listed(folder / "audit")
    packed = [each for each in segments if each.compressed]
    if not packed or len(packed) == len(segments):
        raise SystemExit("audit: too few records to fill a segment and begin another; ask for more with --records")
    plain = sum(int.from_bytes(each.file.read_bytes()[-4:], "little") for each in packed)  # as gzip notes it
    requests = (segments[len(packed)].first - 1) / 2
    checkpoints = folder / "audit" / "checkpoints.jsonl"
    newest = json.loads(checkpoints.read_bytes().splitlines()[-1])
    signed = checkpoints.stat().st_size / (newest["last"] / 2)
    return plain / requests + signed, sum(each.file.stat().st_size for each in packed) / requests + signed


def verified(folder: Path, *words: str) -> tuple[float, float]:
    """By the program that stands alone, its start included: records a second, and processor time for each, in us."""
    processor, began = _children(), time.perf_counter()
    command = [sys.executable, verifier.__file__, str(folder / "audit"), "--json", *words]
    told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return told["records"] / (time.perf_counter() - began), (_children() - processor) / told["records"] * 1e6


def _children() -> float:
    """Seconds of processor time that children took which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sealed(folder: Path) -> dict[str, float]:
    """Microseconds to seal a caller's names, and milliseconds to make a key for somebody new."""
    subjects = Subjects.open(folder / "sealed")
    subject, names, count = subjects.of("person 1"), b'{"key":"key_0123456789ab","user":"person 1"}', 20_000
    processor = time.process_time()
    for _ in range(count):
        subject.seal(names)
    seal_us = (time.process_time() - processor) / count * 1e6
    took = []
    for number in range(100):
        began = time.perf_counter()
        subjects.of(f"new {number}")
        took.append((time.perf_counter() - began) * 1e3)
    subjects.close()
    return {"seal_us": seal_us, "new_p50_ms": percentile(took, 0.5), "new_p99_ms": percentile(took, 0.99)}


def medians(rows: list[Written]) -> Written:
    """The median of each figure."""
    return Written(**{name: statistics.median(asdict(each)[name] for each in rows) for name in asdict(rows[0])})


def table(rows: dict[str, Written], figures: dict[str, float]) -> str:
    """The figures as Markdown."""
    lines = ["| load | records/s | us of processor time | kept p50 / p99 |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {row.records_per_second:,.0f} | {row.request_us:.1f} "
        f"| {row.kept_p50_ms:.2f} / {row.kept_p99_ms:.2f} ms |"
        for name, row in rows.items()
    ]
    sync, new = (f"{figures[f'{each}_p50_ms']:.2f} / {figures[f'{each}_p99_ms']:.2f} ms" for each in ("sync", "new"))
    lines += [
        "",
        "| | |",
        "|---|---|",
        f"| the disk alone, a record and `fdatasync`, p50 / p99 | {sync} |",
        f"| a request's two records and their share of signatures | {figures['request_bytes']:.0f} bytes |",
        f"| the same, compressed | {figures['packed_bytes']:.0f} bytes |",
        *(
            f"| {what} | {figures[name]:,.0f} records/s, {figures[f'{name}_us']:.1f} us each |"
            for what, name in (
                ("verified", "verified"),
                ("verified with --processes 1", "verified_by_one"),
                ("verified with --strict", "verified_strictly"),
            )
        ),
        f"| a caller's names sealed, which is done once for each key | {figures['seal_us']:.1f} us |",
        f"| a key made for somebody new, p50 / p99 | {new} |",
    ]
    return "\n".join(lines)


def verdicts(rows: dict[str, Written], figures: dict[str, float]) -> list[tuple[bool, str]]:
    """What was to be reached, and whether it is, by medians of all rounds."""
    written_, request = rows["records"].records_per_second, rows["requests"].request_us
    size_, verified_ = figures["request_bytes"], figures["verified"]
    return [
        (written_ >= RECORDS_PER_SECOND, f"{written_:,.0f} records/s; at least {RECORDS_PER_SECOND:,}"),
        (request <= REQUEST_US, f"{request:.1f} us of processor time per request; at most {REQUEST_US:.0f}"),
        (size_ <= REQUEST_BYTES, f"{size_:.0f} bytes per request; at most {REQUEST_BYTES:,}"),
        (verified_ >= VERIFIED_PER_SECOND, f"{verified_:,.0f} records/s verified; at least {VERIFIED_PER_SECOND:,}"),
    ]


def _options() -> argparse.ArgumentParser:
    parser = command_line("audit", __doc__)
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--records", type=int, default=60_000, help="per load and round (default: %(default)s)")
    parser.add_argument("--tasks", type=int, default=256, help="at once (default: %(default)s)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _options().parse_args(arguments)
    options.results.mkdir(parents=True, exist_ok=True)
    loads = {
        "records": ("records", options.records, options.tasks),
        "requests": ("requests", options.records // 2, options.tasks),
        "one": ("requests", min(300, options.records), 1),
    }
    samples: dict[str, list[Written]] = {name: [] for name in loads}
    with tempfile.TemporaryDirectory(dir=options.results, prefix="audit-") as temporary:
        folder = Path(temporary)
        for number in range(options.rounds + 1):
            for name, (what, amount, tasks) in loads.items():
                sample = uvloop.run(written(folder / name, what, amount, tasks))
                if number:  # the first warms up
                    samples[name].append(sample)
                    say(f"  round {number}/{options.rounds}  {name:<9} {sample.records_per_second:8,.0f} records/s")
        figures = dict(zip(("sync_p50_ms", "sync_p99_ms"), sync_ms(folder), strict=True))
        figures |= dict(zip(("request_bytes", "packed_bytes"), size(folder / "requests"), strict=True))
        ways = {"verified": (), "verified_by_one": ("--processes", "1"), "verified_strictly": ("--strict",)}
        for name, words in ways.items():
            looks = [verified(folder / "requests", *words) for _ in range(options.rounds)]
            figures[name], figures[f"{name}_us"] = (statistics.median(each) for each in zip(*looks, strict=True))
        figures |= sealed(folder)

    rows = {name: medians(each) for name, each in samples.items()}
    judged = verdicts(rows, figures)
    text = table(rows, figures)
    saved = {
        "setting": setting.describe("cryptography", "uvloop"),
        "amount": {"rounds": options.rounds, "records": options.records, "tasks": options.tasks},
        "medians": {name: asdict(row) for name, row in rows.items()} | figures,
        "rounds": {name: [asdict(each) for each in found] for name, found in samples.items()},
        "reached": [{"reached": reached, "what": what} for reached, what in judged],
    }
    keep(options.results, "audit", saved, text)
    show(text)
    for reached, what in judged:
        show(f"{MARKS[reached]} {what}")
    say(f"saved under {options.results}/: audit.json, audit.md")
    return 0 if all(reached for reached, _ in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
