"""Only what a key signs that is known from elsewhere is believed of a log, and only up to where its chain leads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.audit.checkpoint import Checkpoint, of_line
from appliance.audit.closed import Unsound
from appliance.audit.segments import Segment
from appliance.audit.signed import Signed
from appliance.signing import new_key, public, written
from tests.fakes.log import Log


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "audit").fill(200, checkpoint=10, segment=50)


def signed(log: Log, *keys: str) -> Signed:
    return Signed(log.folder, keys or (log.public,))


def segment(log: Log, first: int) -> Segment:
    return Segment(first, log.file(first))


def forged(checkpoint: Checkpoint) -> bytes:
    """The same with another head, signed with a key of somebody else's."""
    mine, _ = new_key()
    told = json.loads(checkpoint.line) | {"head": "f" * 64, "key": public(mine)}
    del told["signature"]
    return written({**told, "signature": mine.sign(written(told)).hex()})


def change(log: Log, how: Callable[[list[bytes]], list[bytes]]) -> None:
    lines = how(log.checkpoints.read_bytes().splitlines())
    log.checkpoints.write_bytes(b"".join(line + b"\n" for line in lines))


def followed(found: Signed, log: Log) -> list[Checkpoint]:
    found.follow(log.checkpoint, unpaused)
    return list(found.over(segment(log, 101)))


def unpaused() -> None:
    """Nobody waits."""


def test_checkpoints_over_a_segment_are_found_in_order(log: Log) -> None:
    found = signed(log)
    found.follow(log.checkpoint, unpaused)
    assert [each.first for each in found.over(segment(log, 101))] == list(range(101, 200, 10))


def test_before_anything_was_followed_nothing_is_believed(log: Log) -> None:
    assert list(signed(log).over(segment(log, 1))) == []


def test_what_came_since_is_not_believed_yet(log: Log) -> None:
    found = signed(log)
    found.follow(log.checkpoint, unpaused)
    log.fill(20, checkpoint=10, segment=50)
    assert [each.first for each in found.over(segment(log, 151))] == [151, 161, 171, 181, 191]
    found.follow(log.checkpoint, unpaused)
    assert [each.first for each in found.over(segment(log, 201))] == [201, 211]


def test_what_was_followed_once_is_not_read_again(tmp_path: Path) -> None:
    log = Log(tmp_path / "audit").fill(300, checkpoint=1, segment=500)
    found, pauses = signed(log), []
    found.follow(log.checkpoint, lambda: pauses.append(1))
    assert len(pauses) == 3
    log.fill(1, checkpoint=1, segment=500)
    found.follow(log.checkpoint, lambda: pauses.append(2))
    assert pauses == [1, 1, 1]


def test_another_file_in_its_place_is_read_from_the_beginning(log: Log) -> None:
    found = signed(log)
    found.follow(log.checkpoint, unpaused)
    change(log, lambda lines: [*lines[:3], forged(of_line(lines[3])), *lines[4:-1], forged(of_line(lines[-1]))])
    with pytest.raises(Unsound, match="doesn't hold the newest"):
        found.follow(log.checkpoint, unpaused)


@pytest.mark.parametrize(
    "how",
    [
        lambda lines: lines[:-1],
        lambda lines: [*lines[:-1], forged(of_line(lines[-1]))],
        lambda lines: [*lines[:-2], lines[-1], lines[-1][:-1]][:-2],
        lambda lines: [b"x" * 10_000],
        lambda lines: [],
    ],
)
def test_without_the_newest_nothing_is_believed(log: Log, how: Callable[[list[bytes]], list[bytes]]) -> None:
    change(log, how)
    found = signed(log)
    with pytest.raises(Unsound, match="doesn't hold the newest"):
        found.follow(log.checkpoint, unpaused)
    assert list(found.over(segment(log, 1))) == []


@pytest.mark.parametrize("put_in", [b"nonsense", b"{}", b"[" * 4000, b"x" * 10_000, None])
def test_what_lies_before_something_that_does_not_belong_there_is_not_believed(log: Log, put_in: bytes | None) -> None:
    change(log, lambda lines: [*lines[:12], put_in or forged(of_line(lines[12])), *lines[13:]])
    found = signed(log)
    found.follow(log.checkpoint, unpaused)
    assert [each.first for each in found.over(segment(log, 151))] == list(range(151, 200, 10))
    with pytest.raises(Unsound, match="the chain of checkpoints is broken behind checkpoint 1"):
        next(found.over(segment(log, 1)))


@pytest.mark.parametrize("last", ["x", None, 0, 10**15])
def test_whatever_stands_in_its_place_is_told_of_in_words(log: Log, last: object) -> None:
    change(log, lambda lines: [*lines[:12], written({**json.loads(lines[12]), "last": last}), *lines[13:]])
    found = signed(log)
    with pytest.raises(Unsound):
        followed(found, log)


def test_what_the_appliance_went_on_from_after_damage_is_believed_on_both_sides(log: Log) -> None:
    change(log, lambda lines: [*lines[:5], *lines[10:]])
    found = signed(log)
    found.follow(log.checkpoint, unpaused)
    over = found.over(segment(log, 1))
    assert [next(over).first for _ in range(5)] == [1, 11, 21, 31, 41]
    assert [each.first for each in found.over(segment(log, 101))] == list(range(101, 200, 10))


def test_a_checkpoint_of_somebody_else_s_that_is_there_for_a_moment_is_not_believed(log: Log) -> None:
    found = signed(log)
    found.follow(log.checkpoint, unpaused)
    change(log, lambda lines: [forged(of_line(lines[0])), *lines[1:]])
    with pytest.raises(Unsound, match="checkpoint 1 is signed with a key that isn't known here"):
        list(found.over(segment(log, 1)))


def test_one_that_stands_in_another_place_for_a_moment_is_not_believed(log: Log) -> None:
    found = signed(log)
    found.follow(log.checkpoint, unpaused)
    change(log, lambda lines: [lines[0], lines[2], lines[1], *lines[3:]])
    with pytest.raises(Unsound, match="checkpoint 3 doesn't follow"):
        list(found.over(segment(log, 1)))


def test_former_keys_are_believed_and_others_are_not(log: Log) -> None:
    former, log.key = log.public, new_key()[0]
    log.fill(50, checkpoint=10, segment=50)
    found = signed(log, log.public, former)
    found.follow(log.checkpoint, unpaused)
    assert len(list(found.over(segment(log, 1)))) == 25
    found = signed(log, log.public)
    found.follow(log.checkpoint, unpaused)
    with pytest.raises(Unsound, match="checkpoint 1 is signed with a key"):
        list(found.over(segment(log, 1)))


def test_a_stub_is_believed_under_a_known_key_for_its_own_segment(log: Log) -> None:
    log.remove(1, [3])
    assert signed(log).stub_of(segment(log, 1))["kinds"] == {"intent": 1}
    with pytest.raises(Unsound, match="isn't known here"):
        signed(log, "00" * 32).stub_of(segment(log, 1))
    stub = segment(log, 1).stub
    segment(log, 51).stub.write_bytes(stub.read_bytes())
    with pytest.raises(Unsound, match="of another segment"):
        signed(log).stub_of(segment(log, 51))
    stub.write_bytes(stub.read_bytes().replace(b'"intent":1', b'"intent":2'))
    with pytest.raises(Unsound, match="not signed"):
        signed(log).stub_of(segment(log, 1))
