#!/usr/bin/env python3
"""Is this audit log genuine? Tells the first record that was changed, removed, put in or moved.

    python verifier.py FOLDER
    python verifier.py FOLDER --fingerprint "9f86 d081 884c 7d65 9a2f eaa0 c55a d015"
    python verifier.py FOLDER --key key.pub --known 1204:5feceb66ffc86f38d952786c6d696c79...
    python verifier.py FOLDER --key old.pub --key key.pub
    python verifier.py FOLDER --against COPY_OF_LAST_MONTH

FOLDER is the appliance's `state/audit`, or a copy of it, also while the appliance writes to it. Nothing is written.
This one file needs Python 3.10 or newer and the package `cryptography`, 40 or newer, and nothing of the appliance.

what is in the folder:
  000000000001.jsonl.gz   records, one to a line. Each holds its number and the SHA-256 of the line before, so none
                          can be changed, removed or put in without all later ones changing, too.
  checkpoints.jsonl       signatures, every few seconds, over the records up to then. Whoever rewrites the records
                          can't sign them again without the appliance's key.
  000000000001.stub.json  signed: which records were removed because their time was over. What is left still verifies.
  timestamps/000012.tsr   when checkpoint 12 existed at the latest, signed by a timestamp authority.
  key.pub                 the public key. Whoever gave you the log gave you this, too; so compare its fingerprint with
                          the one that was printed when the appliance was set up, or name the key that you trust.
                          Name both where the key was lost and another one made, which the log tells of.

what no look at this folder alone can tell: that everything was put back to an earlier state, or that the newest
records, behind the last checkpoint, were cut off. Note the last line that this prints (NUMBER:SHA256) elsewhere and
hold the log against it the next time with --known, or keep a copy and use --against. That a single segment was put
back to what it was before a removal is found with --strict, as long as there is a record of that removal.

exit status:  0 genuine    1 not genuine    2 wrong command line, or no log there
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import re
import stat
import sys
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

try:
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
except ImportError:
    if __name__ != "__main__":
        raise
    sys.stderr.write("verifier.py: the package cryptography isn't there: pip install cryptography\n")
    sys.exit(2)

GENUINE, NOT_GENUINE, WRONG_INPUT = 0, 1, 2
SHOWN = 20
"""So many faults are told at most; the others are counted."""

_ZEROS = "0" * 64
_BLOCK = 1 << 20
_LONGEST_LINE = 32 << 20
_LONGEST_CHECKPOINT = 4096
_LONGEST_SMALL_FILE = 1 << 16
_AHEAD = 2000
"""So many lines behind a bad one are looked at to tell what happened."""
_MANY = 128 << 20
"""From so many bytes on, compressed ones, segments are verified by several processes; below, they start too slowly."""
_LARGEST = 1 << 30
"""No segment unpacks to much more, whatever the settings."""

_NOT_YET = "a removal that its stub tells of isn't done yet"

_SEGMENT = re.compile(r"([0-9]{12})\.(?:jsonl|jsonl\.gz|stub\.json)")
_SIGNATURE = re.compile("[0-9a-f]{128}")  # bytes.fromhex takes other ways to write it, too
_OTHERS = ("checkpoints.jsonl", "key.pub", "lock", "timestamps")
_TOKEN = re.compile(r"([0-9]{1,12})\.tsr")
_TAIL = re.compile(rb'"prev":"([0-9a-f]{64})","seq":([1-9][0-9]{0,15})\}\Z')
_REMOVED = re.compile(rb'\{"kind":"([a-z_]{1,40})","seq":([1-9][0-9]{0,15}),"sha256":"([0-9a-f]{64})"\}')

_CHECKPOINT = {
    "at": str, "first": int, "head": str, "key": str, "last": int, "number": int, "previous": str, "root": str,
    "signature": str,
}  # fmt: skip
_STUB = {
    "at": str, "first": int, "head": str, "key": str, "kinds": dict, "last": int, "previous": str, "reason": str,
    "sha256": (str, type(None)), "signature": str,
}  # fmt: skip
_RECORD = {"at": str, "body": dict, "kind": str, "prev": str, "seq": int}


class Unusable(Exception):
    """There is nothing to verify, or nothing to verify it with."""


class _Bad(Exception):
    """Something that isn't what it has to be; the text says what."""


class _OtherKey(_Bad):
    """Something that is signed with a key that isn't trusted."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that a genuine log doesn't have: what is wrong with a record, and where below the folder it stands.

    `record` is the first that is bad, or that can't be vouched for; 0 is the log as a whole. No signature vouches for
    the records from `since` to `until`, so whatever is in them may be false; None where that isn't known.
    """

    record: int
    what: str
    file: str
    line: int | None = None
    since: int | None = None
    until: int | None = None

    def __str__(self) -> str:
        line = f", line {self.line:,}" if self.line else ""
        name = f"record {self.record:,}" if self.record else "the log"
        told = f"{name} ({self.file}{line}): {self.what}."
        if self.since is None or self.until is None or self.since >= self.until:
            return told
        return f"{told} No signature vouches for the records {self.since:,} to {self.until:,} any more."


@dataclass(slots=True)
class Found:
    """What was found in a segment, or in the whole log."""

    records: int = 0
    """Well chained records; those under a checkpoint also match it."""
    removed: int = 0
    """So many more were removed by retention, as signed stubs say."""
    unsigned: int = 0
    """So many of `records` stand behind the last checkpoint."""
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is no fault, but worth knowing."""
    removals: dict[int, int] = field(default_factory=dict)
    """How many records went from which segments, by records of retention's that were read; only with `strict`."""

    def removal(self, first: int, count: int) -> None:
        """Take down that so many were removed from the segment `first`, by and by."""
        self.removals[first] = max(count, self.removals.get(first, 0))


@dataclass(slots=True)
class Verdict(Found):
    """What was found in the whole log."""

    bad: int = 0
    """How many faults there are; `faults` holds the first."""
    key: str = ""
    """The public key that signed the newest genuine checkpoint, 64 hexadecimal digits."""
    trusted: bool = False
    """Whether keys were named by whoever asked; otherwise the one that came with the log was taken."""
    segments: int = 0
    checkpoints: int = 0
    timestamps: int = 0
    last: int = 0
    """The last record under a checkpoint."""
    at: str | None = None
    """When the newest checkpoint was signed, by the appliance's clock."""
    newest: str | None = None
    """NUMBER:SHA256 of the newest checkpoint, to be noted."""

    @property
    def genuine(self) -> bool:
        """Whether there is no fault."""
        return not self.bad

    def blame(self, *faults: Fault) -> None:
        """Count faults, and keep those that come first."""
        self.bad += len(faults)
        order = sorted([*self.faults, *faults], key=lambda fault: (fault.record, fault.file != "checkpoints.jsonl"))
        self.faults = order[:SHOWN]

    def document(self) -> dict[str, Any]:
        """All of it, for programs."""
        told = {name: value for name, value in asdict(self).items() if name != "removals"}
        return {"genuine": self.genuine, **told, "fingerprint": fingerprint(self.key)}

    def lines(self) -> list[str]:
        """All of it, for people."""
        if self.genuine:
            lines = [f"GENUINE up to record {self.last:,}, signed {self.at}."]
        else:
            lines = [f"NOT GENUINE. {self.faults[0]}"]
            lines += [f"  also: {fault}" for fault in self.faults[1:]]
            lines += [f"  and {self.bad - len(self.faults):,} faults more"] if self.bad > len(self.faults) else []
        own = "" if self.trusted else "  (it came with the log: compare it with the one you noted)"
        lines += [
            f"  key          {fingerprint(self.key)}{own}",
            f"  records      {self.records:,} in {self.segments:,} segment{'s' * (self.segments != 1)}"
            + (f"; {self.removed:,} more removed when their time was over" if self.removed else ""),
            f"  checkpoints  {self.checkpoints:,}",
        ]
        if self.unsigned:
            lines.append(f"  not yet under a signature: {self.unsigned:,} records, well chained")
        lines += [f"  note: {note}" for note in self.notes]
        if self.genuine and self.newest:
            lines.append(f"To hold the log against later, note: {self.newest}")
        return lines


@dataclass(frozen=True, slots=True)
class Stretch:
    """The records `first` to `last`, which lie in one segment, and what a genuine checkpoint says of them."""

    first: int
    last: int
    before: str | None
    """SHA-256 of the record before `first`; None if no genuine checkpoint says."""
    head: str | None = None
    """SHA-256 of `last`; None where no genuine checkpoint covers the stretch, as with `root`."""
    root: str | None = None
    number: int = 0
    """The checkpoint's."""


@dataclass(frozen=True, slots=True)
class Segment:
    """What is to be looked at in one go, on its own: a segment, named by its first record, and what is signed of it."""

    folder: Path
    trusted: AbstractSet[str]
    """Fingerprints of the keys that may have signed its stub."""
    first: int
    before: str | None
    stretches: tuple[Stretch, ...]
    open: bool
    """Whether it is the last, to which records may be appended behind the last checkpoint."""
    strict: bool

    @property
    def end(self) -> int:
        """The last record that a checkpoint says is in it."""
        return self.stretches[-1].last if self.stretches else self.first - 1


def verify(
    folder: Path,
    *,
    keys: Sequence[str] = (),
    fingerprints: Sequence[str] = (),
    known: Sequence[tuple[int, str]] = (),
    against: Path | None = None,
    strict: bool = False,
    processes: int | None = 1,
) -> Verdict:
    """Verify the log in `folder`. Reads only, also while the appliance writes.

    keys          public keys that are trusted, 64 hexadecimal digits each.
    fingerprints  of more keys that are trusted, as somebody noted them before. Where neither is named, the one key
                  that lies in the folder is taken.
    known         numbers and SHA-256s of checkpoints, as noted before.
    against       another copy of the log.
    strict        read each record, too: has it all fields, is it written in the one way, and is what it tells of
                  removals still so?
    processes     how many share the work; None: as many as there are cores if there is much to do.

    Raises `Unusable` if there is no log or no key, or nothing in the other copy, and OSError.
    """
    seen = _Seen.of(folder)
    if not (seen.segments or seen.size):
        raise Unusable(f"{folder}: there is no audit log here; name the folder that holds checkpoints.jsonl")
    others = _others(against) if against else None
    verdict = Verdict()
    trusted = _settle_keys(verdict, folder, seen, keys, fingerprints)
    checkpoints = _Checkpoints(folder, seen, verdict, trusted, known)
    like = Segment(folder, trusted, 0, None, (), open=False, strict=strict)
    parts = _segments(like, seen.segments, checkpoints, verdict.blame)
    if processes is None:
        processes = os.cpu_count() or 1 if seen.bytes >= _MANY else 1
    for found in _look(parts, processes):
        verdict.segments += 1
        verdict.records += found.records
        verdict.removed += found.removed
        verdict.unsigned += found.unsigned
        verdict.blame(*found.faults)
        verdict.notes += found.notes
        for first, count in found.removals.items():
            verdict.removal(first, count)
    verdict.blame(*_put_back(folder, trusted, verdict.removals))
    checkpoints.finish()
    if others:
        _compare(verdict, _checkpoint_lines(folder, seen), others, trusted)
    return verdict


def fingerprint(key: str) -> str:
    """Eight groups of four digits for a public key, to be noted and compared by people."""
    return _grouped(hashlib.sha256(bytes.fromhex(key)).hexdigest()[:32])


def _grouped(digits: str) -> str:
    return " ".join(digits[start : start + 4] for start in range(0, 32, 4))


def read_key(file: Path) -> str:
    """The public key in `file`: PEM, or 64 hexadecimal digits. Raises `Unusable`."""
    try:
        content = _small(file)
        if re.fullmatch(rb"\s*[0-9a-f]{64}\s*", content):
            return content.decode().strip()
        start = content.index(b"-----BEGIN")
        loaded = load_pem_public_key(content[start:])
    except (OSError, ValueError, UnsupportedAlgorithm, _Bad) as cause:
        raise Unusable(f"{file}: there is no public key in it ({getattr(cause, 'strerror', None) or cause})") from None
    if not isinstance(loaded, Ed25519PublicKey):
        raise Unusable(f"{file}: the key isn't one of Ed25519")
    return loaded.public_bytes_raw().hex()


def _settle_keys(
    verdict: Verdict, folder: Path, seen: _Seen, keys: Sequence[str], noted: Sequence[str]
) -> AbstractSet[str]:
    """The fingerprints of all keys that are trusted; a fault where the log's own key isn't among them, or is a lie."""
    named = {fingerprint(key) for key in keys}
    for text in noted:
        digits = re.sub(r"^\s*fingerprint|[\s:]", "", text).lower()
        if not re.fullmatch("[0-9a-f]{32}", digits):
            raise Unusable(f"{text!r} is no fingerprint, which is eight groups of four digits (0-9, a-f)")
        named.add(_grouped(digits))
    file, own = folder / "key.pub", None
    if os.path.lexists(file):
        try:
            own = read_key(file)
            about = _about(own).split()
            if _small(file).split()[: len(about)] != about:  # behind it stand former keys, for people
                what = f"says something else than the key in it, whose fingerprint is {fingerprint(own)}"
                verdict.blame(Fault(0, what, "key.pub"))
        except (Unusable, OSError, _Bad) as why:
            verdict.blame(Fault(0, str(why), "key.pub"))
    verdict.key = next(iter(keys), None) or own or _first_key(folder, seen)
    verdict.trusted = bool(named)
    if named and own and fingerprint(own) not in named:
        verdict.blame(Fault(0, f"the log's own key is another one than those named: {fingerprint(own)}", "key.pub"))
    return named or {fingerprint(verdict.key)}


def _about(key: str) -> bytes:
    """What key.pub holds of a key."""
    loaded = Ed25519PublicKey.from_public_bytes(bytes.fromhex(key))
    pem = loaded.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return b"fingerprint %s\n%s" % (fingerprint(key).encode(), pem)


def _first_key(folder: Path, seen: _Seen) -> str:
    try:
        for line in _checkpoint_lines(folder, seen):
            return str(_signed(line, _CHECKPOINT, None)["key"])
    except (OSError, _Bad):
        pass
    raise Unusable(f"{folder}: there is no key.pub in it; name the key with --key")


# --- What there is ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Seen:
    """What lies in the folder at one moment."""

    segments: tuple[int, ...]
    """The numbers by which segments, or the stubs of removed ones, are named; in order."""
    bytes: int
    size: int
    """Of checkpoints.jsonl, which may grow."""
    whole: bool
    """Whether that ends with a whole line."""
    tokens: Mapping[int, str]
    """The files of timestamps, by the numbers of their checkpoints."""
    strange: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path) -> _Seen:
        """Looks until it sees no new segment beside the checkpoints, and those end with a line."""
        seen = cls._once(folder)
        for _ in range(20):
            before, seen = seen, cls._once(folder)
            if before.whole and before.segments == seen.segments:
                return before
            time.sleep(0.005)
        return seen

    @classmethod
    def _once(cls, folder: Path) -> _Seen:
        segments, total, strange, tokens, size, whole = set(), 0, [], {}, 0, True
        with os.scandir(folder) as entries:
            for entry in entries:
                if named := _SEGMENT.fullmatch(entry.name):
                    segments.add(int(named[1]))
                    with contextlib.suppress(FileNotFoundError):
                        total += entry.stat(follow_symlinks=False).st_size
                elif entry.name not in _OTHERS and not entry.name.endswith((".new", ".new.gz")):
                    strange.append(ascii(entry.name))
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            names = [file.name for file in (folder / "timestamps").iterdir()]
            tokens = {int(named[1]): name for name in names if (named := _TOKEN.fullmatch(name))}
        with contextlib.suppress(OSError, _Bad), _opened(folder / "checkpoints.jsonl") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            whole = file.read(1) in (b"", b"\n")
        return cls(tuple(sorted(segments)), total, size, whole, tokens, tuple(sorted(strange)))


def _opened(file: Path) -> BinaryIO:
    """`file`, if it is a plain one. Raises _Bad, OSError."""
    if file.is_symlink():
        raise _Bad("is a link to another file")
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(file, flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _Bad("isn't a plain file")
    return os.fdopen(descriptor, "rb")


def _small(file: Path) -> bytes:
    with _opened(file) as opened:
        content = opened.read(_LONGEST_SMALL_FILE + 1)
    if len(content) > _LONGEST_SMALL_FILE:
        raise _Bad("is much too long")
    return content


def _content(file: Path, size: int | None = None) -> Iterator[bytes]:
    """The content of `file`, unpacked, in blocks; at most `size` bytes of it. Raises _Bad, OSError."""
    with _opened(file) as opened:
        if file.suffix == ".gz":
            yield from _unpacked(opened)
            return
        left = sys.maxsize if size is None else size
        while left and (block := opened.read(min(_BLOCK, left))):
            left -= len(block)
            yield block


def _unpacked(packed: BinaryIO) -> Iterator[bytes]:
    """However little is packed into however much, only a block at a time."""
    unpack = zlib.decompressobj(31)
    try:
        while not unpack.eof:
            waiting = block = packed.read(_BLOCK // 4)
            while content := unpack.decompress(waiting, _BLOCK):
                yield content
                waiting = unpack.unconsumed_tail
            if not block and not unpack.eof:
                raise _Bad("ends too early: its end was cut off")
    except zlib.error:
        raise _Bad("can't be unpacked from here on: it was damaged or changed") from None
    if unpack.unused_data or packed.read(1):
        raise _Bad("has something behind its end")


class _Lines:
    """Whole lines, without their ends."""

    def __init__(self, content: Iterable[bytes], longest: int, digest: Any = None) -> None:
        self._content = content
        self._longest = longest
        self._digest = digest
        self._pieces: list[bytes] = []

    @property
    def rest(self) -> bytes:
        """What stands behind the last line."""
        return b"".join(self._pieces)

    def __iter__(self) -> Iterator[bytes]:
        return chain.from_iterable(self._batches())

    def _batches(self) -> Iterator[list[bytes]]:
        for block in self._content:
            if self._digest:
                self._digest.update(block)
            self._pieces.append(block)
            lines = []
            if b"\n" in block:
                lines = self.rest.split(b"\n")
                self._pieces = [lines.pop()]
            if sum(map(len, self._pieces)) > self._longest:
                raise _Bad("holds a line that is much too long")
            yield lines


def _checkpoint_lines(folder: Path, seen: _Seen) -> _Lines:
    return _Lines(_content(folder / "checkpoints.jsonl", seen.size), _LONGEST_CHECKPOINT)


# --- What is signed --------------------------------------------------------------------------------------------


def _written(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _read(line: bytes, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in a line of canonical JSON with just those fields. Raises _Bad."""

    def refuse(number: str) -> None:
        raise ValueError(f"{number} isn't a whole number")

    try:
        told = json.loads(line, parse_float=refuse, parse_constant=refuse)
        canonical = isinstance(told, dict) and _written(told) == line
    except (ValueError, RecursionError):
        raise _Bad("can't be read: it was changed") from None
    if not canonical or told.keys() != fields.keys():
        raise _Bad("isn't written as the appliance writes: it was changed")
    for name, kind in fields.items():
        if not isinstance(told[name], kind) or isinstance(told[name], bool):
            raise _Bad(f"has a wrong `{name}`: it was changed")
    return told  # type: ignore[no-any-return]


def _signed(line: bytes, fields: Mapping[str, Any], trusted: AbstractSet[str] | None) -> dict[str, Any]:
    """What stands in a signed line, if it is signed with a key that is trusted; None: whoever signed. Raises _Bad."""
    told = _read(line, fields)
    hashes = [told[name] for name in ("head", "key", "previous", "root") if name in told]
    if not all(re.fullmatch("[0-9a-f]{64}", each) for each in hashes) or not _SIGNATURE.fullmatch(told["signature"]):
        raise _Bad("holds something that isn't a hash: it was changed")
    if not 0 < told["first"] <= told["last"] <= 2**53:
        raise _Bad("covers no records")
    if trusted is None:
        return told
    if (its := fingerprint(told["key"])) not in trusted:
        raise _OtherKey(f"is signed with another key, whose fingerprint is {its}")
    key, signature = (bytes.fromhex(told[name]) for name in ("key", "signature"))
    unsigned = _written({name: value for name, value in told.items() if name != "signature"})
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, unsigned)
    except (InvalidSignature, ValueError):
        raise _Bad("isn't what was signed: it was changed") from None
    return told


class _Newest(NamedTuple):
    number: int = 0
    last: int = 0
    head: str = _ZEROS
    sha256: str = _ZEROS


class _Checkpoints:
    """Goes through the signed checkpoints, and tells the stretches of records that they vouch for."""

    def __init__(
        self, folder: Path, seen: _Seen, verdict: Verdict, trusted: AbstractSet[str], known: Iterable[tuple[int, str]]
    ) -> None:
        self._folder = folder
        self._seen = seen
        self._verdict = verdict
        self._trusted = trusted
        self._known: dict[int, set[str]] = {}
        for number, sha256 in known:
            self._known.setdefault(number, set()).add(sha256.lower())
        self._before = _Newest()
        self._other_key = False
        self._excused = False
        """Whether a fault has been told that explains why the next one doesn't follow."""

    def __iter__(self) -> Iterator[Stretch]:
        lines = _checkpoint_lines(self._folder, self._seen)
        number = 0
        try:
            for number, line in enumerate(lines, 1):
                yield from self._take(number, line)
        except FileNotFoundError:
            pass
        except _Bad as why:
            self._blame(number + 1, str(why))
        if lines.rest:
            self._blame(number + 1, "the last line is unfinished: cut off, changed, or torn by a power cut")

    def finish(self) -> None:
        """Tell what is missing at the end."""
        newest, verdict = self._before, self._verdict
        if not newest.number:
            self._blame(None, "there is no genuine checkpoint, so nothing here is under a signature (yet)")
        for number in sorted(self._known):
            what = f"checkpoint {number}, which was noted, isn't here: the log was cut off, or put back to an older one"
            self._blame(None, what)
        later = sorted(number for number in self._seen.tokens if number > newest.number)
        if later:
            self._blame(None, f"there is a timestamp of checkpoint {later[0]}, which isn't here: the log was cut off")
        if verdict.timestamps:
            verdict.notes.append(f"{verdict.timestamps:,} timestamps; to verify who signed them see the handbook")
        if self._other_key:
            verdict.notes.append(
                "another key signed, too. If the appliance's log has an incident audit_key_changed, and you noted both "
                "fingerprints, name both: --fingerprint OLD --fingerprint NEW"
            )
        if self._seen.strange:
            verdict.notes.append(f"not of the log, and not looked at: {', '.join(self._seen.strange[:SHOWN])}")

    def _take(self, number: int, line: bytes) -> Iterator[Stretch]:
        before = self._before
        try:
            told = _signed(line, _CHECKPOINT, self._trusted)
        except _Bad as why:
            self._other_key |= isinstance(why, _OtherKey)
            self._blame(number, f"the checkpoint {why}")
            self._excused = True
            return
        sha256, mine, first = hashlib.sha256(line).hexdigest(), told["number"], told["first"]
        follows = (mine, told["previous"], first) == (before.number + 1, before.sha256, before.last + 1)
        goes_on = mine > before.number and first > before.last
        if not (follows or (goes_on and self._excused)):
            self._blame(number, self._disorder(told, sha256))
        if not goes_on:
            return
        if first > before.last + 1:
            yield Stretch(before.last + 1, first - 1, before.head)
        yield Stretch(first, told["last"], before.head if follows else None, told["head"], told["root"], mine)
        self._before = _Newest(mine, told["last"], told["head"], sha256)
        self._excused = False
        self._accept(number, told, sha256)

    def _disorder(self, told: Mapping[str, Any], sha256: str) -> str:
        """Why a genuine checkpoint stands in a wrong place."""
        before, mine = self._before, told["number"]
        if sha256 == before.sha256:
            return f"checkpoint {mine} is there twice"
        if mine == before.number:
            return f"there are two genuine checkpoints {mine}: the history forks before it"
        if mine < before.number:
            return f"checkpoint {mine} stands behind checkpoint {before.number}: they were reordered"
        if told["first"] <= before.last:
            return f"checkpoint {mine} covers records of checkpoint {before.number}: the history forks"
        if mine > before.number + 1:
            return f"checkpoints are missing: {mine} follows {before.number}"
        if told["previous"] == before.sha256:
            return f"checkpoint {mine} leaves out records: the appliance found its log damaged then"
        return f"checkpoint {mine} doesn't follow from the one before: the history forks"

    def _accept(self, number: int, told: Mapping[str, Any], sha256: str) -> None:
        mine, first, verdict = told["number"], told["first"], self._verdict
        if verdict.checkpoints and told["key"] != verdict.key and len(verdict.notes) < SHOWN:
            keys = f"{fingerprint(told['key'])}, where {fingerprint(verdict.key)} did before"
            verdict.notes.append(f"from checkpoint {mine} on, record {first:,}, another key signs: {keys}")
        verdict.key, verdict.checkpoints = told["key"], verdict.checkpoints + 1
        verdict.last, verdict.at, verdict.newest = told["last"], told["at"], f"{mine}:{sha256}"
        if self._known.pop(mine, {sha256}) != {sha256}:
            what = f"checkpoint {mine} isn't the one that was noted: the history forks at or before it"
            verdict.blame(Fault(first, what, "checkpoints.jsonl", number))
        if mine in self._seen.tokens:
            verdict.timestamps += 1
            name = f"timestamps/{self._seen.tokens[mine]}"
            stamped = False
            with contextlib.suppress(OSError, _Bad):
                stamped = bytes.fromhex(sha256) in _small(self._folder / name)
            if not stamped:
                verdict.blame(Fault(first, f"the timestamp isn't one of checkpoint {mine}", name))

    def _blame(self, line: int | None, what: str) -> None:
        self._verdict.blame(Fault(self._before.last + 1, what, "checkpoints.jsonl", line))


# --- What is in the segments -----------------------------------------------------------------------------------


def _segments(
    like: Segment, names: Sequence[int], stretches: Iterable[Stretch], blame: Callable[[Fault], None]
) -> Iterator[Segment]:
    """The segments, each with the stretches that lie in it."""
    waiting = iter(stretches)
    stretch = next(waiting, None)
    expected, before = 1, _ZEROS if stretch is None else stretch.before
    names = names if names and names[0] == 1 else [1, *names]
    for first, following in zip_longest(names, names[1:]):
        mine = []
        while stretch and (following is None or stretch.first < following):
            if stretch.root is None and following is not None and stretch.last >= following:
                mine.append(replace(stretch, last=following - 1))
                stretch = replace(stretch, first=following, before=None)
                break
            mine.append(stretch)
            stretch = next(waiting, None)
        if first == expected:
            start = mine[0].before if mine else before
            yield replace(like, first=first, before=start, stretches=tuple(mine), open=following is None)
        elif first < expected:
            what = "the segment begins with a record of the segment before: it was put in, or the history forks here"
            blame(Fault(first, what, f"{first:012}.jsonl"))
        else:
            what = "no checkpoint covers the records before this segment: they are missing, or checkpoints are"
            blame(Fault(expected, what, f"{first:012}.jsonl"))
        if mine:
            expected, before = mine[-1].last + 1, mine[-1].head


def _look(parts: Iterator[Segment], processes: int) -> Iterator[Found]:
    """What is found in each, in order."""
    if processes == 1:
        yield from map(look, parts)
        return
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        running: deque[Any] = deque()
        for part in parts:
            running.append(pool.submit(look, part))
            if len(running) > 2 * processes:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def look(segment: Segment) -> Found:
    """Look at one segment, and once more before it is called bad: it may be replaced while it is read."""
    found = _look_once(segment)
    return _look_once(segment) if found.faults else found


def _stub(folder: Path, first: int, trusted: AbstractSet[str]) -> dict[str, Any]:
    """The stub of the segment `first`. Raises _Bad, OSError."""
    stub = _signed(_small(folder / f"{first:012}.stub.json").removesuffix(b"\n"), _STUB, trusted)
    if not all(type(count) is int and count > 0 for count in stub["kinds"].values()):
        raise _Bad("holds a wrong count")
    return stub


def _put_back(folder: Path, trusted: AbstractSet[str], removals: Mapping[int, int]) -> Iterator[Fault]:
    """Segments as they were before a removal that is on record. Stubs are read after the records, so none is older."""
    for first, count in removals.items():
        signed = 0
        try:
            signed = sum(_stub(folder, first, trusted)["kinds"].values())
        except FileNotFoundError:
            pass
        except (OSError, _Bad):
            continue  # it is told already
        if signed < count:
            what = f"or a later one of its segment was put back: {count:,} were removed, its stub tells of {signed:,}"
            yield Fault(first, what, f"{first:012}.stub.json")


def _look_once(segment: Segment) -> Found:
    stub, name = None, f"{segment.first:012}.stub.json"
    try:
        stub = _stub(segment.folder, segment.first, segment.trusted)
        ends = [stretch.last for stretch in segment.stretches]
        if stub["last"] in ends[:-1]:
            return _without_the_next(segment, ends.index(stub["last"]) + 1)
        _match(stub, segment)
    except FileNotFoundError:
        pass
    except (OSError, _Bad) as why:
        return Found(faults=[Fault(segment.first, f"the stub {why}", name, None, segment.first, segment.end)])
    files = [segment.folder / f"{segment.first:012}{ending}" for ending in (".jsonl", ".jsonl.gz")]
    if files := [file for file in files if os.path.lexists(file)]:
        # For a moment there are two, one of them compressed; both have to be right.
        looks = [_Look(segment, file, stub) for file in files]
        bad = next((each for each in looks if each.found.faults), None)
        return looks[0].found if bad is None else _before_a_removal(segment, bad, stub)
    if stub is not None and stub["sha256"] is None:
        return Found(removed=segment.end - segment.first + 1)
    return Found(faults=[] if segment.first > segment.end else [_gone(segment, segment.first)])


def _before_a_removal(segment: Segment, bad: _Look, stub: Mapping[str, Any] | None) -> Found:
    """What was found; no fault if a power cut came between a stub and what it signs taking the file's place.

    Then that lies beside the file as a draft, and the file is as checkpoints and an earlier stub signed it: nothing is
    taken out of it that isn't taken out of the draft.
    """
    draft = segment.folder / f"{segment.first:012}.new.gz"
    if bad.fits_but_for_its_stub and os.path.lexists(draft):
        waiting = _Look(segment, draft, stub).found
        with contextlib.suppress(OSError, _Bad):  # it went away meanwhile
            if not waiting.faults and _taken_out(bad.file) <= _taken_out(draft):
                waiting.notes.append(f"{bad.file.name}: {_NOT_YET}")
                return waiting
    return bad.found


def _taken_out(file: Path) -> set[bytes]:
    return {line for line in _Lines(_content(file), _LONGEST_LINE) if _REMOVED.fullmatch(line)}


def _gone(segment: Segment, first: int) -> Fault:
    what = f"is missing, with all up to {segment.end:,}: the segment is gone, and no signed stub says why"
    return Fault(first, what, f"{first:012}.jsonl", None, first, segment.end)


def _without_the_next(segment: Segment, count: int) -> Found:
    """Look at a segment that ends with the first `count` stretches, where those behind have no segment at all."""
    found = _look_once(replace(segment, stretches=segment.stretches[:count], open=False))
    found.faults.append(_gone(segment, segment.stretches[count].first))
    return found


def _match(stub: Mapping[str, Any], segment: Segment) -> None:
    """Hold a stub against the checkpoints over its segment. Raises _Bad."""
    last = segment.stretches[-1] if segment.stretches else None
    told = (stub["first"], stub["last"], stub["previous"], stub["head"])
    before, head = segment.before or stub["previous"], (last and last.head) or stub["head"]
    if told != (segment.first, segment.end, before, head):
        raise _Bad("doesn't fit the checkpoints over its segment")
    if stub["sha256"] is None and sum(stub["kinds"].values()) != segment.end - segment.first + 1:
        raise _Bad("doesn't account for all records")


class _Look:
    """One look through one file of a segment."""

    def __init__(self, segment: Segment, file: Path, stub: Mapping[str, Any] | None) -> None:
        self.found = Found()
        self.file = file
        self.fits_but_for_its_stub = False
        """Whether all is as the checkpoints signed it, and only its stub signs that other records are left."""
        self._segment = segment
        self._stub = stub
        self._kinds: Counter[str] = Counter()
        self._digest = hashlib.sha256() if stub else None
        self._lines = _Lines(_content(file), _LONGEST_LINE, self._digest)
        self._left = iter(self._lines)
        self._passed = 0
        """Lines that were read."""
        self._why = ""
        """What is wrong with the last of them, other than where it stands."""
        self._seq, self._head = segment.first, segment.before
        """The record that is next, and the SHA-256 of the one before."""
        try:
            self._go()
        except OSError as why:
            self._blame(self._seq, f"the file can't be read from here on: {why.strerror}")
        except _Bad as why:
            self._blame(self._seq, f"the file {why}")
        self.found.removed = sum(self._kinds.values())
        self.found.records -= self.found.removed

    def _go(self) -> None:
        stretches = self._segment.stretches
        place = 0
        while place < len(stretches):
            if self._vouched(stretches[place]):
                place += 1
                continue
            until = self._resume(stretches[place + 1 :])
            last = until.first - 1 if until else self._segment.end
            self.found.faults[-1] = replace(self.found.faults[-1], since=stretches[place].first, until=last)
            if until is None:
                return
            place = stretches.index(until)
        if self._segment.open:
            self._unsigned()
        elif next(self._left, None) is not None or self._lines.rest:
            what = "stands under no checkpoint, though another segment follows: a checkpoint is missing, or the "
            self._blame(self._seq, f"{what}history forks here")
        if self._stub is not None and not self.found.faults:
            self._held_against(self._stub)

    def _vouched(self, stretch: Stretch) -> bool:
        """Whether the next records are those of `stretch`; else a fault has been told."""
        leaves: list[bytes] = []
        first = self._seq = stretch.first
        bad = self._chained(leaves, stretch.last - first + 1)
        if bad is not None:
            self._diagnose(bad, stretch)
            return False
        if self._seq <= stretch.last:
            most = f", with all up to {self._segment.end:,}" if self._segment.end > self._seq else ""
            self._blame(self._seq, f"is missing{most}: {self._how_it_ends()}")
            return False
        if stretch.root is not None:
            signed = bytes.fromhex(stretch.head or "")
            if leaves[-1] != signed and _root([*leaves[:-1], signed]).hex() == stretch.root:
                self._blame(stretch.last, f"was changed: checkpoint {stretch.number} signs another")
                return False
            if leaves[-1] != signed or _root(leaves).hex() != stretch.root:
                what = "or one of those up to the next checkpoint was changed, put in or removed, and those after it "
                self._blame(first, f"{what}rewritten to fit: checkpoint {stretch.number} signs others", self._passed)
                return False
        self.found.records += len(leaves)
        return True

    def _how_it_ends(self) -> str:
        if self._lines.rest:
            return "the file ends within it"
        if not self._passed:
            return "the file is empty"
        begins = any(stretch.first == self._seq for stretch in self._segment.stretches)
        return "the file ends before it" + (", and no segment begins with it" if begins else "")

    def _chained(self, leaves: list[bytes], most: int | None) -> bytes | None:
        """Pass well chained lines, at most so many, and collect their hashes. Returns one that isn't."""
        seq, head = self._seq, None if self._head is None else self._head.encode()
        strict, sha256 = self._segment.strict, hashlib.sha256
        try:
            for line in islice(self._left, most):
                if head is None and (tail := _TAIL.search(line[-160:])):
                    head = tail[1]  # no checkpoint says what it has to be
                if line.endswith(b'"prev":"%s","seq":%d}' % (head or b"", seq)) and not (strict and self._amiss(line)):
                    digest = sha256(line)
                    leaves.append(digest.digest())
                    head = digest.hexdigest().encode()
                elif self._stub and (gone := _REMOVED.fullmatch(line)) and int(gone[2]) == seq:
                    self._kinds[gone[1].decode()] += 1
                    head = gone[3]
                    leaves.append(bytes.fromhex(head.decode()))
                else:
                    self._passed += 1
                    return line
                seq += 1
        finally:
            self._passed += seq - self._seq
            self._seq, self._head = seq, None if head is None else head.decode()
        return None

    def _amiss(self, line: bytes) -> bool:
        """Whether it is a record that the appliance doesn't write; takes down what it tells of removals."""
        try:
            told = _read(line, _RECORD)
        except _Bad as why:
            self._why = str(why)
            return True
        if told["kind"] == "act" and told["body"].get("act") == "retention":
            stubs = told["body"].get("stubs")
            for stub in stubs if isinstance(stubs, list) else ():
                match stub:
                    case {"first": int(first), "kinds": dict(kinds)}:
                        self.found.removal(first, sum(count for count in kinds.values() if type(count) is int))
        return False

    def _unsigned(self) -> None:
        """Pass what stands behind the last checkpoint."""
        while True:
            leaves: list[bytes] = []
            bad = self._chained(leaves, _AHEAD)
            self.found.records += len(leaves)
            self.found.unsigned += len(leaves)
            if bad is not None:
                self._diagnose(bad, None)
                return
            if not leaves:
                break
        if self._lines.rest:
            self.found.notes.append(f"{self.file.name} ends with an unfinished line, which counts for nothing")

    def _diagnose(self, bad: bytes, stretch: Stretch | None) -> None:
        """Tell what is wrong with a line that stands where `_seq` has to."""
        seq, line = self._seq, self._passed
        after = [*self._further(_AHEAD, _BLOCK)]
        self._left, self._passed = chain([bad], after, self._left), line - 1
        first = stretch.first if stretch else self._segment.end + 1
        tail = _TAIL.search(bad[-160:])
        if self._why:
            what, self._why = self._why, ""
        elif (gone := _REMOVED.fullmatch(bad)) and int(gone[2]) == seq:
            what = "was taken out, and no signed stub says so"
        elif tail is None:
            what = "isn't a record any more: the line was changed, cut or put in"
        elif (number := int(tail[2])) > seq:
            if any((found := _TAIL.search(each[-160:])) and int(found[2]) == seq for each in after):
                what = f"record {number:,} stands in its place: records were swapped, or that one was put in"
            else:
                most = f", with all up to {number - 1:,}" if number - 1 > seq else ""
                what = f"is missing{most}, or lost its line's end: record {number:,} stands here"
        elif number < seq:
            if number < seq - 1:
                what = f"record {number:,} stands in its place: it was copied or moved here"
            elif hashlib.sha256(bad).hexdigest() == self._head:
                seq, what = number, "is there twice"
            else:
                seq, what = number, "is there twice, and not the same: one of the two was put in"
        elif seq > first and (fits := self._fits(bad, after, stretch)) is not False:
            either = "" if fits else ", or the one after it was"
            seq, line, what = seq - 1, line - 1, f"was changed{either}: record {seq:,} holds the hash of another"
        else:
            what = "was changed: it doesn't hold the hash of the record before"
        self._blame(seq, what, line)

    def _further(self, lines: int, size: int) -> Iterator[bytes]:
        """The next lines, about as many at most, as far as they can be read."""
        with contextlib.suppress(OSError, _Bad):  # it is told when that place is come to
            for line in islice(self._left, max(0, lines)):
                yield line
                size -= len(line)
                if size < 0:
                    return

    def _fits(self, line: bytes, after: Sequence[bytes], stretch: Stretch | None) -> bool | None:
        """Whether a checkpoint, or the record that follows, holds the hash of `line`; None if there is none to tell."""
        mine = hashlib.sha256(line).hexdigest()
        if stretch and stretch.last == self._seq and stretch.head:
            return stretch.head == mine
        follower = _TAIL.search(after[0][-160:]) if after else None
        return None if follower is None else follower[1].decode() == mine

    def _resume(self, later: Sequence[Stretch]) -> Stretch | None:
        """Go on to where one of `later` begins; None if none does, as far as a segment can reach."""
        starts = {stretch.first: stretch for stretch in later if stretch.before}
        lines = self._segment.end - self._segment.first + _AHEAD - self._passed
        for line in self._further(lines, _LARGEST) if starts else ():
            self._passed += 1
            tail = _TAIL.search(line[-160:])
            gone = _REMOVED.fullmatch(line) if self._stub else None
            stretch = starts.get(int(tail[2]) if tail else int(gone[2]) if gone else 0)
            if stretch and (gone or (tail and tail[1].decode() == stretch.before)):
                self._left, self._passed = chain([line], self._left), self._passed - 1
                self._head = stretch.before
                return stretch
        return None

    def _held_against(self, stub: Mapping[str, Any]) -> None:
        """What is left after a removal is just what the stub says."""
        content = self._digest.hexdigest() if self._digest else ""
        if content == stub["sha256"]:
            if dict(self._kinds) != stub["kinds"]:
                self._blame(self._segment.first, "its stub counts other records than were taken out")
        elif not self._kinds or stub["sha256"] is None:
            self.found.notes.append(f"{self.file.name}: {_NOT_YET}")
        else:
            self.fits_but_for_its_stub = True
            self._blame(self._segment.first, "or a later one of its segment was taken out, and no signed stub says so")

    def _blame(self, record: int, what: str, line: int | None = None) -> None:
        stretches = self._segment.stretches
        since = next((stretch.first for stretch in stretches if stretch.first <= record <= stretch.last), None)
        self.found.faults.append(Fault(record, what, self.file.name, line, since, self._segment.end))


def _root(leaves: Sequence[bytes]) -> bytes:
    """The Merkle root of SHA-256 hashes, as RFC 6962 has it."""
    sha256 = hashlib.sha256
    level = [sha256(b"\0" + leaf).digest() for leaf in leaves]
    while len(level) > 1:
        odd = [level[-1]] if len(level) % 2 else []
        level = [sha256(b"\1" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)] + odd
    return level[0]


# --- Another copy ----------------------------------------------------------------------------------------------


def _others(folder: Path) -> Iterable[bytes]:
    """The checkpoints of another copy. Raises `Unusable` where there are none, or they are torn."""
    try:
        seen = _Seen.of(folder)
    except OSError as why:
        raise Unusable(f"{folder} can't be read: {why.strerror}") from None
    if not seen.size:
        raise Unusable(f"{folder}: there is no checkpoint to hold this log against; name a folder that has some")
    if not seen.whole:
        raise Unusable(f"{folder}: its checkpoints.jsonl ends within a line: copy it again, or remove that end")
    return _checkpoint_lines(folder, seen)


def _compare(verdict: Verdict, mine: Iterable[bytes], others: Iterable[bytes], trusted: AbstractSet[str]) -> None:
    """Hold the checkpoints against those of another copy; both may go on beyond the other's end."""
    last = number = 0
    try:
        for number, (own, its) in enumerate(zip_longest(mine, others), 1):
            if its is None:
                break
            if own != its:
                what = f"the other copy has a checkpoint {number}: this one is older, or was cut off"
                if own is not None:
                    told = (f"{whose} {'is' if _genuine(line, trusted) else 'is not'} genuine" for whose, line in
                            (("this one", own), ("the other copy's", its)))  # fmt: skip
                    what = f"checkpoint {number} isn't that of the other copy: the history forks at or before it; "
                    what += ", ".join(told)
                verdict.blame(Fault(last + 1, what, "checkpoints.jsonl", number if own else None))
                return
            last = _signed(own, _CHECKPOINT, None)["last"]
    except (OSError, _Bad) as why:
        verdict.blame(Fault(last + 1, f"can't be held against the other copy: {why}", "checkpoints.jsonl", number + 1))
    else:
        verdict.notes.append(f"the other copy has the same history, up to record {last:,}")


def _genuine(line: bytes, trusted: AbstractSet[str]) -> bool:
    try:
        return bool(_signed(line, _CHECKPOINT, trusted))
    except _Bad:
        return False


# --- The command line ------------------------------------------------------------------------------------------


def noted(text: str) -> tuple[int, str]:
    """A checkpoint's number and SHA-256, as NUMBER:SHA256."""
    if not (found := re.fullmatch(r"([1-9][0-9]{0,14}):([0-9a-fA-F]{64})", text.strip())):
        raise argparse.ArgumentTypeError("has to be NUMBER:SHA256, as a verification printed it")
    return int(found[1]), found[2].lower()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    about, _, more = (__doc__ or "").partition("\n\n")
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="verifier.py", description=about, epilog=more, formatter_class=form)
    add, again = parser.add_argument, partial(parser.add_argument, action="append", default=[])
    add("folder", type=Path, metavar="FOLDER", help="the log, or a copy of it")
    again("--key", type=Path, metavar="FILE", help="a public key that you trust, such as key.pub; again for more")
    again("--fingerprint", metavar="WORDS", help="of a key that you trust, as you noted it; again for more")
    again("--known", type=noted, metavar="NUMBER:SHA256", help="a checkpoint, as you noted it; again for more")
    add("--against", type=Path, metavar="FOLDER", help="another copy of the log, such as an older one")
    add("--strict", action="store_true", help="read each record, too: is it as the appliance writes (RFC 8785)? slower")
    add("--processes", type=int, choices=range(1, 65), metavar="NUMBER", help="to share the work (default: all cores)")
    add("--json", action="store_true", help="print JSON, for scripts")
    options = parser.parse_args(arguments)
    try:
        verdict = verify(
            options.folder, keys=[read_key(file.resolve()) for file in options.key], fingerprints=options.fingerprint,
            known=options.known, against=options.against, strict=options.strict, processes=options.processes,
        )  # fmt: skip
    except (Unusable, OSError) as why:
        sys.stderr.write(f"verifier.py: {why}\n")
        return WRONG_INPUT
    text = json.dumps(verdict.document(), indent=1) if options.json else "\n".join(verdict.lines())
    sys.stdout.write(f"{text}\n")
    return GENUINE if verdict.genuine else NOT_GENUINE


if __name__ == "__main__":
    sys.exit(main())
