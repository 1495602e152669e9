"""The key store: a slot for each person, written and destroyed where it lies."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.audit.slots import FILE, SLOT
from appliance.audit.subject import Subject
from appliance.audit.subjects import Subjects, pseudonyms
from appliance.errors import AuditFailed, AuditUnavailable

NAMES = [
    "anna",
    "Zoë Müller",
    "a\tb\nc\x00\x01\x7f\x1b[31m",
    "\ud800 half \udfff",
    '{"user":"x"}',
    "名前 🙂",
    "x" * 1_000_000,
    "é" * 151,
    "🙂" * 76,
    "key:key_1",
    "",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit-keys"


@pytest.fixture
def opened(folder: Path) -> Iterator[Callable[[], Subjects]]:
    """Opens the store; the one that was open before is closed."""
    open_now: list[Subjects] = []

    def again() -> Subjects:
        while open_now:
            open_now.pop().close()
        open_now.append(Subjects.open(folder))
        return open_now[0]

    yield again
    while open_now:
        open_now.pop().close()


def slots(folder: Path) -> list[bytes]:
    """What is in the slots, without the header."""
    content = (folder / FILE).read_bytes()
    return [content[at : at + SLOT] for at in range(SLOT, len(content), SLOT)]


# ---- who is who


def test_the_length_of_a_name_cant_be_told_from_its_slot(opened: Callable[[], Subjects], folder: Path) -> None:
    store, sizes = opened(), set[bytes]()
    for name in NAMES:
        store.of(name)
    for slot in filter(any, slots(folder)):
        length = int.from_bytes(slot[72:74], "big")
        assert not any(slot[74 + length : SLOT - 32])
        sizes.add(slot[72:74])
    assert len(sizes) == 1


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:12]))
def test_any_text_is_a_name_and_the_same_person_after_a_restart(opened: Callable[[], Subjects], name: str) -> None:
    made = opened().of(name)
    sealed = made.seal(b"who it is")
    store = opened()
    again = store.known(name)
    assert again is not None
    assert again is store.of(name)
    assert again is store.find(made.pseudonym)
    assert again.pseudonym == made.pseudonym
    assert again.open(sealed) == b"who it is"
    whole = name.encode("utf-8", "surrogatepass")
    kept = again.name.encode("utf-8", "surrogatepass")
    assert whole.startswith(kept)
    assert len(kept) == len(whole) or 296 < len(kept) <= 300, "as much of it as a slot holds"


def test_names_that_begin_alike_for_a_megabyte_are_told_apart(opened: Callable[[], Subjects]) -> None:
    store = opened()
    assert store.of("x" * 1_000_000 + "a").pseudonym != store.of("x" * 1_000_000 + "b").pseudonym
    assert len(store) == 2


def test_whoever_was_never_seen_is_unknown_and_isnt_put_there_by_the_question(opened: Callable[[], Subjects]) -> None:
    store = opened()
    store.of("anna")
    assert store.known("ben") is None
    assert store.find("p_" + "0" * 24) is None
    assert store.erase("ben") is None
    assert len(opened()) == 1


def test_a_pseudonym_tells_nothing_without_the_key(tmp_path: Path) -> None:
    seen = set()
    for number in range(20):
        store = Subjects.open(tmp_path / str(number))
        seen.add(store.of("anna").pseudonym)
        store.close()
    assert len(seen) == 20, "the same name has another pseudonym in every store"
    assert all(len(each) == 26 and each.startswith("p_") for each in seen)


def test_no_two_sealed_texts_are_alike_and_none_opens_under_another_key(opened: Callable[[], Subjects]) -> None:
    store = opened()
    persons = [store.of(f"person {number}") for number in range(50)]
    sealed = {(person.pseudonym, person.seal(b"the same")) for person in persons for _ in range(50)}
    nonces = {text[:16] for _, text in sealed}
    assert len(sealed) == len(nonces) == 2500
    with pytest.raises(ValueError, match="wasn't sealed"):
        persons[0].open(persons[1].seal(b"the same"))


@pytest.mark.parametrize("sealed", ["", "AAAA", "no base64!", "A" * 64])
def test_what_isnt_sealed_is_a_value_error(opened: Callable[[], Subjects], sealed: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any is as good
        opened().of("anna").open(sealed)


def test_nothing_shows_a_name_or_a_key(opened: Callable[[], Subjects], folder: Path) -> None:
    store = opened()
    subject = store.of("anna")
    (slot,) = filter(any, slots(folder))
    key = slot[32:64]
    assert Subject(key, slot[:32], b"").pseudonym == subject.pseudonym
    for shown in (repr(subject), str(subject), repr(store)):
        assert "anna" not in shown
        assert repr(key)[2:-1] not in shown
    assert b"anna" not in (folder / FILE).read_bytes(), "the name is under its key in the store, too"


# ---- on disk


def test_files_are_the_owners_alone(opened: Callable[[], Subjects], folder: Path) -> None:
    before = os.umask(0)
    try:
        opened().of("anna")
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600
    assert [each.name for each in folder.iterdir()] == [FILE]


def test_a_store_of_many_grows_and_slots_are_used_again(opened: Callable[[], Subjects], folder: Path) -> None:
    store = opened()
    known = {name: store.of(name).pseudonym for name in (f"person {number}" for number in range(100))}
    size = (folder / FILE).stat().st_size
    assert size == 101 * SLOT
    for number in range(0, 100, 2):
        store.erase(f"person {number}")
    for number in range(100, 150):
        known[f"person {number}"] = store.of(f"person {number}").pseudonym
    assert (folder / FILE).stat().st_size == size
    store = opened()
    left = {
        name: pseudonym for name, pseudonym in known.items() if int(name.split()[1]) % 2 or int(name.split()[1]) >= 100
    }
    assert {subject.name: subject.pseudonym for subject in map(store.find, left.values()) if subject} == left
    assert len(store) == 100


def test_a_person_is_on_disk_before_anything_is_sealed(opened: Callable[[], Subjects], folder: Path) -> None:
    """Whoever looks at the file at that moment finds the person: no close, no flush comes in between."""
    store = opened()
    pseudonym = store.of("anna").pseudonym
    assert pseudonyms(folder)("anna") == pseudonym


def test_new_slots_are_synced_before_they_are_used(
    opened: Callable[[], Subjects], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    done: list[str] = []
    pwrite, fdatasync = os.pwrite, os.fdatasync
    monkeypatch.setattr(os, "pwrite", lambda *told: (done.append("write"), pwrite(*told))[1])
    monkeypatch.setattr(os, "fdatasync", lambda fd: (done.append("sync"), fdatasync(fd))[1])
    store.of("anna")
    assert done == ["write", "sync"]
    store.of("anna")
    assert done == ["write", "sync"], "whoever is known costs no disk"
    store.erase("anna")
    assert done[2:] == ["write", "sync", "write", "sync"], "random, then zeros"


# ---- gone


def test_an_erased_slot_is_overwritten_in_place(opened: Callable[[], Subjects], folder: Path) -> None:
    store = opened()
    kept = store.of("ben")
    pseudonym = store.of("anna").pseudonym
    before = (folder / FILE).read_bytes()
    inode = (folder / FILE).stat().st_ino
    assert store.erase("anna") == pseudonym
    after = (folder / FILE).read_bytes()
    assert (folder / FILE).stat().st_ino == inode
    changed = [at for at in range(0, len(after), SLOT) if after[at : at + SLOT] != before[at : at + SLOT]]
    assert len(changed) == 1
    assert after[changed[0] : changed[0] + SLOT] == bytes(SLOT)
    assert (store.known("anna"), store.find(pseudonym)) == (None, None)
    store = opened()
    assert (store.known("anna"), store.find(pseudonym)) == (None, None)
    assert store.find(kept.pseudonym) is not None
    assert store.erase("anna") is None


def test_what_was_on_its_way_brings_nobody_back(folder: Path) -> None:
    now = 1000.0
    store = Subjects.open(folder, clock=lambda: now)
    before = store.of("anna")
    store.erase("anna")
    empty = (folder / FILE).read_bytes()
    late = store.of("anna")
    assert late is store.of("anna")
    assert late.pseudonym != before.pseudonym
    assert late.open(late.seal(b"an answer")) == b"an answer"
    assert store.known("anna") is None
    assert store.find(late.pseudonym) is None
    assert (folder / FILE).read_bytes() == empty, "no key of theirs is on disk any more"
    now += 3601
    back = store.of("anna")
    assert back.pseudonym not in (before.pseudonym, late.pseudonym)
    assert store.known("anna") is back
    store.close()


def test_a_sealed_text_cant_be_opened_with_anything_that_is_left(opened: Callable[[], Subjects], folder: Path) -> None:
    store = opened()
    sealed = store.of("anna").seal(b"a secret")
    store.of("ben")
    store.erase("anna")
    left = (folder / FILE).read_bytes()
    for start in range(len(left) - 32):
        subject = Subject(left[start : start + 32], b"", b"")
        with pytest.raises(ValueError, match="wasn't sealed"):
            subject.open(sealed)


# ---- what can be wrong


def test_a_new_store_says_that_it_is_new(opened: Callable[[], Subjects]) -> None:
    assert opened().anew
    assert not opened().anew


@pytest.mark.parametrize("content", [b"", bytes(SLOT), bytes(8 * SLOT)])
def test_a_file_of_nothing_is_a_new_store(opened: Callable[[], Subjects], folder: Path, content: bytes) -> None:
    """The power went while it was made: nothing was sealed yet."""
    folder.mkdir(mode=0o700)
    (folder / FILE).write_bytes(content)
    assert opened().anew
    opened().of("anna")
    assert not opened().anew
    assert opened().known("anna") is not None


@pytest.mark.parametrize("at", [0, 30, 100, SLOT - 1])
def test_a_damaged_header_says_what_to_do(opened: Callable[[], Subjects], folder: Path, at: int) -> None:
    opened().of("anna")
    file = folder / FILE
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    for look in (opened, lambda: pseudonyms(folder)):
        with pytest.raises(AuditFailed, match="Restore it from a backup") as failure:
            look()
        assert str(file) in str(failure.value)
    assert file.read_bytes() == content, "nothing was changed by looking"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cut=st.integers(1, SLOT - 1), after=st.booleans())
def test_a_slot_that_was_torn_is_cleared_and_free(
    tmp_path_factory: pytest.TempPathFactory, cut: int, *, after: bool
) -> None:
    folder = tmp_path_factory.mktemp("keys")
    store = Subjects.open(folder)
    ben = store.of("ben").pseudonym
    before = (folder / FILE).read_bytes()
    store.of("anna")
    store.close()
    whole = (folder / FILE).read_bytes()
    (slot,) = [at for at in range(0, len(whole), SLOT) if whole[at : at + SLOT] != before[at : at + SLOT]]
    part = whole[slot : slot + SLOT]
    torn = bytes(cut) + part[cut:] if after else part[:cut] + bytes(SLOT - cut)
    (folder / FILE).write_bytes(whole[:slot] + torn + whole[slot + SLOT :])
    store = Subjects.open(folder)
    kept = (folder / FILE).read_bytes()[slot : slot + SLOT]
    if torn == part:  # it ended in zeros there anyway
        assert (store.known("anna") is not None, store.torn) == (True, 0)
    else:
        assert (store.known("anna"), store.torn, kept) == (None, int(any(torn)), bytes(SLOT))
    assert store.find(ben) is not None
    store.of("carl")
    assert (folder / FILE).stat().st_size == len(whole)
    store.close()


@pytest.mark.parametrize("short", [1, 100, SLOT - 1])
def test_a_file_that_ends_within_a_slot_goes_on_there(opened: Callable[[], Subjects], folder: Path, short: int) -> None:
    store = opened()
    for number in range(10):
        store.of(f"person {number}")
    store.close()
    os.truncate(folder / FILE, 11 * SLOT - short)
    store = opened()
    assert len(store) == 9
    store.of("anna")
    assert (folder / FILE).stat().st_size == 11 * SLOT
    assert len(opened()) == 10


def test_a_second_process_is_refused(opened: Callable[[], Subjects], folder: Path) -> None:
    opened()
    with pytest.raises(AuditFailed, match="another process"):
        Subjects.open(folder)


def test_links_and_second_names_are_refused(opened: Callable[[], Subjects], folder: Path, tmp_path: Path) -> None:
    opened().close()
    file = folder / FILE
    os.link(file, tmp_path / "second")
    with pytest.raises(AuditFailed, match="hard link"):
        Subjects.open(folder)
    file.unlink()
    file.symlink_to(tmp_path / "second")
    with pytest.raises(AuditFailed, match="can't be opened"):
        Subjects.open(folder)


def _fails(number: int) -> Callable[..., int]:
    def fail(*told: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize(
    ("call", "number"), [("pwrite", errno.ENOSPC), ("pwrite", errno.EIO), ("fdatasync", errno.EIO)]
)
def test_who_cant_be_brought_to_disk_is_refused_and_nobody_is_half_there(
    opened: Callable[[], Subjects], monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    store = opened()
    known = store.of("ben")
    with monkeypatch.context() as broken:
        broken.setattr(os, call, _fails(number))
        with pytest.raises(AuditUnavailable) as refused:
            store.of("anna")
        assert refused.value.code == "audit_unavailable"
        assert os.strerror(number) in (refused.value.reason or "")
        assert store.known("anna") is None
        assert store.of("ben") is known, "whoever is known goes on"
        with pytest.raises(AuditUnavailable):
            store.erase("ben")
    assert store.of("anna").pseudonym == opened().of("anna").pseudonym, "it goes on by itself"


def test_a_short_write_is_a_failure(opened: Callable[[], Subjects], monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened()
    monkeypatch.setattr(os, "pwrite", lambda *told: 100)
    with pytest.raises(AuditUnavailable):
        store.of("anna")


def test_an_erasure_that_failed_half_way_is_completed_by_the_next(
    opened: Callable[[], Subjects], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    pseudonym = store.of("anna").pseudonym
    fdatasync, left = os.fdatasync, [1]

    def once(descriptor: int) -> None:
        if not left:
            raise OSError(errno.EIO, "broken")
        left.pop()
        fdatasync(descriptor)

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", once)
        with pytest.raises(AuditUnavailable):
            store.erase("anna")
    assert store.erase("anna") == pseudonym
    assert not any(any(each) for each in slots(folder))


@pytest.mark.parametrize("removed", [True, False])
def test_a_file_that_lost_its_name_is_not_written_to(
    opened: Callable[[], Subjects], folder: Path, *, removed: bool
) -> None:
    """Somebody put a backup in its place: what is written to the old one would be gone with the next start."""
    store = opened()
    store.of("anna")
    content = (folder / FILE).read_bytes()
    (folder / FILE).unlink()
    if not removed:
        (folder / FILE).write_bytes(content)
    with pytest.raises(AuditUnavailable):
        store.of("ben")
    with pytest.raises(AuditUnavailable):
        store.erase("anna")


# ---- beside a running appliance


def test_pseudonyms_are_told_while_the_store_is_open_elsewhere(opened: Callable[[], Subjects], folder: Path) -> None:
    assert pseudonyms(folder)("anna") is None
    store = opened()
    of = {name: store.of(name).pseudonym for name in NAMES}
    told = pseudonyms(folder)
    assert {name: told(name) for name in NAMES} == of
    assert told("ben") is None
    store.erase("anna")
    assert pseudonyms(folder)("anna") is None


def test_pseudonyms_can_be_told_without_the_right_to_write(opened: Callable[[], Subjects], folder: Path) -> None:
    pseudonym = opened().of("anna").pseudonym
    before = (folder / FILE).stat()
    assert pseudonyms(folder)("anna") == pseudonym
    after = (folder / FILE).stat()
    assert (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size)


def test_a_kill_in_the_middle_of_anything_leaves_a_store_that_opens(folder: Path) -> None:
    """A process makes and erases people as fast as it can, and is killed; whoever it has told of is there, or gone."""
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from appliance.audit.subjects import Subjects
        store = Subjects.open(Path(sys.argv[1]))
        run = sys.argv[2]
        for number in range(100_000):
            print("made", store.of(f"{run} {number}").pseudonym, flush=True)
            if number % 3 == 0:
                print("gone", store.erase(f"{run} {number}"), flush=True)
    """)
    made: set[str] = set()
    gone: set[str] = set()
    for run in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(folder), str(run)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(5 + 37 * run):
            what, pseudonym = process.stdout.readline().split()
            (made if what == "made" else gone).add(pseudonym)
        process.kill()
        for line in process.stdout.read().splitlines(keepends=True):
            if line.endswith("\n"):
                what, pseudonym = line.split()
                (made if what == "made" else gone).add(pseudonym)
        process.wait()
        store = Subjects.open(folder)
        lost = [each for each in made - gone if store.find(each) is None]
        assert len(lost) <= 1, "one whose erasure was under way"
        gone |= set(lost)
        assert not any(store.find(each) for each in gone)
        assert store.torn <= 1
        store.close()
