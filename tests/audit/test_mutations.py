"""Whatever is done to a log up to its last checkpoint is found, and found where it was done."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.audit.checkpoint import sign
from appliance.audit.verifier import verify
from tests.fakes.log import Log

RECORDS, CHECKPOINT, SEGMENT = 138, 6, 30
"""Four closed segments of five checkpoints each, and an open one with three."""
SHORTENED, REMOVED = 31, (31, 32, 33, 40, 50)
"""What retention removed, and of which segment."""

Lines = list[bytes]


class Altered:
    """A log as lines, to be altered; of a segment that is gone nothing is there."""

    def __init__(self, segments: dict[int, Lines], checkpoints: Lines) -> None:
        self.segments = {first: [*lines] for first, lines in segments.items()}
        self.checkpoints = [*checkpoints]
        self.end = b"\n"
        """What stands behind the last line of `cut`."""
        self.cut: int | None = None
        """A segment whose last line lost its end; 0 for the checkpoints."""

    def content(self, first: int) -> bytes:
        """Of a segment, or with 0 the checkpoints."""
        whole = b"".join(line + b"\n" for line in (self.segments[first] if first else self.checkpoints))
        return whole.removesuffix(b"\n") if self.cut == first else whole


def flipped(line: bytes, dice: random.Random) -> bytes:
    place, bit = dice.randrange(len(line)), 1 << dice.randrange(8)
    return line[:place] + bytes([line[place] ^ bit]) + line[place + 1 :]


def some(log: Altered, dice: random.Random) -> tuple[Lines, int]:
    """The lines of a segment, and a place among them."""
    lines = dice.choice([lines for lines in log.segments.values() if lines])
    return lines, dice.randrange(len(lines))


def flip(log: Altered, dice: random.Random) -> None:
    lines, place = some(log, dice)
    lines[place : place + 1] = flipped(lines[place], dice).split(b"\n")


def join(log: Altered, dice: random.Random) -> None:
    lines, place = some(log, dice)
    lines[place : place + 2] = [b"".join(lines[place : place + 2])]


def drop(log: Altered, dice: random.Random) -> None:
    lines, place = some(log, dice)
    del lines[place : place + dice.choice((1, 1, 1, 5, 30))]


def swap(log: Altered, dice: random.Random) -> None:
    lines, one = some(log, dice)
    other = dice.choice((one - 1, dice.randrange(len(lines))))
    lines[one], lines[other] = lines[other], lines[one]


def duplicate(log: Altered, dice: random.Random) -> None:
    lines, place = some(log, dice)
    lines.insert(dice.choice((place, place + 1, dice.randrange(len(lines)))), lines[place])


def insert(log: Altered, dice: random.Random) -> None:
    """A record of one's own, with a number and a hash that fit."""
    lines, place = some(log, dice)
    lines.insert(place, lines[place].replace(b'"chat"', b'"chit"'))


def truncate(log: Altered, dice: random.Random) -> None:
    first = dice.choice([*log.segments])
    content = log.content(first)[: -dice.randrange(1, 2000)]
    log.segments[first] = content.removesuffix(b"\n").split(b"\n")
    log.cut = None if content.endswith(b"\n") else first


def move(log: Altered, dice: random.Random) -> None:
    (lines, place), (others, target) = some(log, dice), some(log, dice)
    others.insert(target, lines.pop(place))


def exchange(log: Altered, dice: random.Random) -> None:
    one, other = dice.choices([*log.segments], k=2)
    log.segments[one], log.segments[other] = log.segments[other], log.segments[one]


def remove(log: Altered, dice: random.Random) -> None:
    del log.segments[dice.choice([*log.segments])]


def rename(log: Altered, dice: random.Random) -> None:
    lines = log.segments.pop(dice.choice([*log.segments]))
    log.segments.setdefault(dice.randrange(1, 200), lines)


def invent(log: Altered, dice: random.Random) -> None:
    """A segment in the midst of others, of lines that are genuine."""
    lines, place = some(log, dice)
    number = int(re.findall(rb'"seq":(\d+)', lines[place])[0])
    log.segments.setdefault(number, lines[place:])


def rewrite(log: Altered, dice: random.Random) -> None:
    """A record is changed, and all after it are chained anew; only the signatures can't be made."""
    at, before = dice.randrange(1, RECORDS + 1), b""
    for first, lines in log.segments.items():
        for place, line in enumerate(lines):
            number = first + place
            if number == at:
                line = line.replace(b'"chat"', b'"chit"')  # noqa: PLW2901
            elif number > at:
                line = re.sub(rb'"prev":"[0-9a-f]{64}"', b'"prev":"' + before + b'"', line)  # noqa: PLW2901
            lines[place] = line
            gone = re.search(rb'"sha256":"(\w+)"', line)
            before = gone[1] if gone else hashlib.sha256(line).hexdigest().encode()


def sign_anew(log: Altered, dice: random.Random) -> None:
    """The same, with checkpoints by another key from there on."""
    rewrite(log, dice)
    key, before = Ed25519PrivateKey.generate(), None
    records = [line for lines in log.segments.values() for line in lines]
    for place, line in enumerate(log.checkpoints):
        told = json.loads(line)
        leaves = [hashlib.sha256(record).digest() for record in records[told["first"] - 1 : told["last"]]]
        before = sign(leaves, last=told["last"], at=told["at"], before=before, key=key)
        if hashlib.sha256(records[told["last"] - 1]).hexdigest() != told["head"]:
            log.checkpoints[place] = before.line


def checkpoint_flip(log: Altered, dice: random.Random) -> None:
    place = dice.randrange(len(log.checkpoints))
    log.checkpoints[place : place + 1] = flipped(log.checkpoints[place], dice).split(b"\n")


def checkpoint_drop(log: Altered, dice: random.Random) -> None:
    del log.checkpoints[dice.randrange(len(log.checkpoints))]


def checkpoint_swap(log: Altered, dice: random.Random) -> None:
    one, other = dice.sample(range(len(log.checkpoints)), 2)
    log.checkpoints[one], log.checkpoints[other] = log.checkpoints[other], log.checkpoints[one]


def checkpoint_duplicate(log: Altered, dice: random.Random) -> None:
    place, target = (dice.randrange(len(log.checkpoints)) for _ in range(2))
    log.checkpoints.insert(target, log.checkpoints[place])


def checkpoint_truncate(log: Altered, dice: random.Random) -> None:
    content = log.content(0)[: -dice.randrange(1, 5000)]
    log.checkpoints = content.removesuffix(b"\n").split(b"\n")
    log.cut = None if content.endswith(b"\n") else 0


def checkpoint_cover(log: Altered, dice: random.Random) -> None:
    """Two become one, which vouches for less; its signature stays as it was."""
    place = dice.randrange(len(log.checkpoints))
    told = json.loads(log.checkpoints[place])
    told[dice.choice(("first", "last", "number"))] += dice.choice((-1, 1))
    log.checkpoints[place] = json.dumps(told, sort_keys=True, separators=(",", ":")).encode()


COMBINED = (flip, join, drop, swap, duplicate, insert, move, checkpoint_flip)
"""What can be done before or after each other."""
ALTER: tuple[Callable[[Altered, random.Random], None], ...] = (
    flip, flip, flip, join, drop, swap, duplicate, insert, truncate, move, exchange, remove, rename, invent, rewrite,
    sign_anew, checkpoint_flip, checkpoint_flip, checkpoint_drop, checkpoint_swap, checkpoint_duplicate,
    checkpoint_truncate, checkpoint_cover,
)  # fmt: skip


class Bench:
    """A log that is altered, verified and put back, over and over."""

    def __init__(self, folder: Path) -> None:
        self.log = Log(folder).fill(RECORDS, checkpoint=CHECKPOINT, segment=SEGMENT)
        self.log.remove(SHORTENED, REMOVED)
        firsts = range(1, RECORDS, SEGMENT)
        self.open = firsts[-1]
        self.genuine = Altered(
            {first: self.log.lines(first) for first in firsts}, self.log.checkpoints.read_bytes().splitlines()
        )
        self._there = {file.name: file.read_bytes() for file in folder.iterdir() if file.match("*.jsonl*")}
        self.ends = [json.loads(line)["last"] for line in self.genuine.checkpoints]

    def try_once(self, seed: int) -> None:
        """Alter the log in a way that follows from `seed`, and see whether that is found."""
        dice = random.Random(seed)  # noqa: S311 - nothing secret is drawn
        altered = Altered(self.genuine.segments, self.genuine.checkpoints)
        several = dice.random() < 0.2
        names = dice.choices(COMBINED, k=dice.randrange(2, 5)) if several else [dice.choice(ALTER)]
        for alter in names:
            alter(altered, dice)
        self._put(altered)
        verdict = verify(self.log.folder, keys=[self.log.public])
        about = f"seed {seed}: {', '.join(name.__name__ for name in names)}: {verdict.lines()}"
        place = self._first_difference(altered)
        if place is None:
            assert verdict.genuine, about
            return
        assert not verdict.genuine, about
        if len(names) == 1:
            named = verdict.faults[0].record
            stretch = max([0, *(end for end in self.ends if end < place)]) + 1
            exact = place - 1 <= named <= place
            # of what stands in the place of a removed record, only the whole is signed
            whole = SHORTENED <= place <= SHORTENED + SEGMENT and named in (SHORTENED, stretch)
            assert exact or whole or (names[0] in (rewrite, sign_anew) and named == stretch), f"{place} {about}"

    def _put(self, log: Altered) -> None:
        """Have the files of `log` in the folder."""
        files = {"checkpoints.jsonl": log.content(0)}
        for first in log.segments:
            name, content = f"{first:012}.jsonl", log.content(first)
            files |= {name: content} if first == self.open else {f"{name}.gz": gzip.compress(content, 1, mtime=0)}
        for name in self._there.keys() - files.keys():
            (self.log.folder / name).unlink()
        for name, content in files.items():
            if self._there.get(name) != content:
                (self.log.folder / name).write_bytes(content)
        self._there = files

    def _first_difference(self, altered: Altered) -> int | None:
        """The record that has to be named; None if nothing can be found, as nothing that is signed was altered."""
        places = []
        signed = self.genuine.checkpoints
        for place, (line, was) in enumerate(zip(altered.checkpoints, signed, strict=False)):
            if line != was:
                places.append(1 if not place else self.ends[place - 1] + 1)
                break
        else:
            kept = min(len(altered.checkpoints), len(signed)) - (altered.cut == 0)
            covers_closed = kept and self.ends[kept - 1] >= self.open - 1
            if len(altered.checkpoints) > kept or altered.cut == 0 or not covers_closed:
                places.append(self.ends[kept - 1] + 1 if kept else 1)
        for first, was in self.genuine.segments.items():
            lines = altered.segments.get(first, [])
            same = next((i for i, (a, b) in enumerate(zip(lines, was, strict=False)) if a != b), None)
            if same is not None:
                places.append(first + same)
            elif len(lines) != len(was):
                places.append(first + min(len(lines), len(was)))
            elif altered.cut == first:
                places.append(first + len(lines) - 1)
        places += [first for first in altered.segments if first not in self.genuine.segments]
        return min(places, default=None)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "audit")


def test_each_of_500_alterations_is_found_where_it_was_made(bench: Bench) -> None:
    for seed in range(500):
        bench.try_once(seed)


@pytest.mark.long
def test_each_of_10000_alterations_is_found_where_it_was_made(bench: Bench) -> None:
    for seed in range(500, 10_500):
        bench.try_once(seed)


def test_a_flipped_bit_in_a_compressed_file_is_found_or_changes_nothing(bench: Bench) -> None:
    file = bench.log.file(1)
    packed, content = file.read_bytes(), bench.log.read(1)
    dice = random.Random(0)  # noqa: S311 - nothing secret is drawn
    for _ in range(300):
        file.write_bytes(other := flipped(packed, dice))
        try:
            same = zlib.decompress(other, 31) == content
        except zlib.error:
            same = False
        assert same or not verify(bench.log.folder).genuine
