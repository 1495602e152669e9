"""The chain of reports: whatever is done to it shows, and a power cut at any moment does not break it."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from appliance.egress.ledger import Ledger, check_file
from appliance.errors import LedgerFailed
from appliance.signing import canonical, fingerprint


def report(minute: int = 0, *, holds: bool = True, day: int = 22) -> dict[str, Any]:
    return {"time": f"2026-11-{day:02}T10:{minute:02}:00Z", "holds": holds, "host": "büro", "findings": {"b": [1]}}


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A folder with ten reports."""
    folder = tmp_path / "egress"
    folder.mkdir(mode=0o700)
    book = Ledger(folder)
    for minute in range(10):
        book.append(report(minute, holds=minute != 4))
    return folder


def lines(folder: Path) -> list[bytes]:
    return (folder / "ledger.jsonl").read_bytes().splitlines(keepends=True)


def file(folder: Path, number: int) -> Path:
    return folder / "reports" / f"{number:06}.json"


def test_reports_are_numbered_chained_signed_and_private(chain: Path) -> None:
    assert Ledger(chain).check() == []
    before = "0" * 64
    for number in range(1, 11):
        stored = json.loads(file(chain, number).read_bytes())
        assert (stored["number"], stored["previous"], stored["holds"]) == (number, before, number != 5)
        assert stored["host"] == "büro"
        assert stored["broken"] == stored["healed"] == []
        assert check_file(file(chain, number)) == []
        before = stored["sha256"]
    for path in chain.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_what_append_tells_is_what_is_stored(tmp_path: Path) -> None:
    made = report()
    entry = Ledger(tmp_path).append(made)
    stored = Ledger(tmp_path).read()
    assert made == report(), "the caller's own stays as it was"
    assert entry.file == file(tmp_path, 1)
    assert (entry.number, entry.sha256, entry.previous) == (1, stored["sha256"], stored["previous"])
    assert (entry.holds, entry.time, entry.key) == (True, made["time"], stored["key"])
    assert Ledger(tmp_path).read(1) == stored
    with pytest.raises(LedgerFailed, match="no report 2"):
        Ledger(tmp_path).read(2)


def test_the_fingerprint_beside_the_key_is_the_one_that_is_checked(chain: Path) -> None:
    text = (chain / "key.pub").read_text()
    told = text.splitlines()[0].removeprefix("fingerprint ")
    assert fingerprint(json.loads(lines(chain)[0])["key"]) == told
    load_pem_public_key(text.split("\n", 1)[1].encode())
    for written in (told, told.upper(), told.replace(" ", ""), told.replace(" ", ":")):
        assert Ledger(chain).check(written) == check_file(file(chain, 3), written) == check_file(chain, written) == []
    other = told.replace(told[0], "f" if told[0] != "f" else "0")
    assert "not by the key that you named" in Ledger(chain).check(other)[0]
    assert "not by the key that you named" in check_file(file(chain, 3), other)[0]


def test_any_changed_byte_of_a_report_a_line_or_the_head_is_named(chain: Path) -> None:
    seed = secrets.randbelow(2**32)
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    for path, name in ((file(chain, 7), "report 7"), (chain / "ledger.jsonl", "report"), (chain / "head.json", "head")):
        original = path.read_bytes()
        for _ in range(60):
            place = chance.randrange(len(original))
            new = chance.choice([byte for byte in range(256) if byte != original[place]])
            path.write_bytes(original[:place] + bytes([new]) + original[place + 1 :])
            faults = Ledger(chain).check()
            assert faults, (seed, path, place, new)
            assert name in " ".join(faults), (seed, path, place, new)
            if name == "report 7":
                assert check_file(path), (seed, place, new)
        path.write_bytes(original)
    assert Ledger(chain).check() == []


def resigned(document: dict[str, Any], **changed: Any) -> bytes:
    """The stored report with changes and a hash that fits, under the old signature."""
    changed = {name: value for name, value in (document | changed).items() if name not in ("sha256", "signature")}
    changed["sha256"] = hashlib.sha256(canonical(changed)).hexdigest()
    return canonical(changed | {"signature": document["signature"]}) + b"\n"


def test_a_verdict_turned_round_with_a_hash_that_fits_is_named(chain: Path) -> None:
    path = file(chain, 5)
    path.write_bytes(resigned(json.loads(path.read_bytes()), holds=True))
    assert check_file(path) == ["000005.json was changed since it was signed"]
    assert Ledger(chain).check() == ["report 5: 000005.json was changed since it was signed"]


def test_a_word_added_to_a_line_is_named(chain: Path) -> None:
    added = [
        canonical(json.loads(text) | {"note": "x"}) + b"\n" if n == 4 else text for n, text in enumerate(lines(chain))
    ]
    (chain / "ledger.jsonl").write_bytes(b"".join(added))
    assert Ledger(chain).check()[0] == "report 5: its line in ledger.jsonl holds more than was signed"


@pytest.mark.parametrize("spelt", [str.upper, " {}".format])
def test_a_signature_spelt_in_another_way_is_named(chain: Path, spelt: Callable[[str], str]) -> None:
    stored = json.loads(file(chain, 5).read_bytes())
    file(chain, 5).write_bytes(canonical(stored | {"signature": spelt(stored["signature"])}) + b"\n")
    assert check_file(file(chain, 5)) == ["000005.json was changed since it was signed"]


def test_a_line_in_a_reports_place_is_no_report(chain: Path) -> None:
    file(chain, 5).write_bytes(lines(chain)[4])
    assert check_file(file(chain, 5)) == ["000005.json was changed since its hash was taken"]


def cut_out(folder: Path) -> None:
    kept = lines(folder)
    (folder / "ledger.jsonl").write_bytes(b"".join(kept[:4] + kept[6:]))
    for number in (5, 6):
        file(folder, number).unlink()


def swapped(folder: Path) -> None:
    kept = lines(folder)
    kept[4], kept[5] = kept[5], kept[4]
    (folder / "ledger.jsonl").write_bytes(b"".join(kept))


def cut_off(folder: Path) -> None:
    (folder / "ledger.jsonl").write_bytes(b"".join(lines(folder)[:7]))
    for number in (8, 9, 10):
        file(folder, number).unlink()


def forked(folder: Path) -> None:
    """Two reports 8, both signed by the true key: the second made in a copy of the folder as it was after 7."""
    copy = folder.parent / "copy"
    shutil.copytree(folder, copy)
    cut_off(copy)
    (copy / "head.json").write_bytes(lines(copy)[-1])
    for minute in (30, 31, 32):
        Ledger(copy).append(report(minute))
    (folder / "ledger.jsonl").write_bytes(b"".join(lines(folder)[:8] + lines(copy)[8:]))
    (folder / "head.json").write_bytes((copy / "head.json").read_bytes())
    for number in (9, 10):
        shutil.copy(file(copy, number), file(folder, number))


def twice(folder: Path) -> None:
    kept = lines(folder)
    (folder / "ledger.jsonl").write_bytes(b"".join([*kept[:8], kept[7], *kept[8:]]))


def a_file_less(folder: Path) -> None:
    file(folder, 5).unlink()


def a_file_more(folder: Path) -> None:
    shutil.copy(file(folder, 10), file(folder, 11))


def another_file(folder: Path) -> None:
    shutil.copy(file(folder, 6), file(folder, 5))


def no_head(folder: Path) -> None:
    (folder / "head.json").unlink()


def another_key(folder: Path) -> None:
    (folder / "key.pem").unlink()
    Ledger(folder).append(report(30))


def another_public_key(folder: Path) -> None:
    pub = folder / "key.pub"
    pub.write_text(pub.read_text().replace("fingerprint ", "fingerprint 0"))


@pytest.mark.parametrize(
    ("tamper", "first"),
    [
        (cut_out, "reports 5 to 6 are missing from the ledger"),
        (swapped, "report 5 is missing from the ledger"),
        (cut_off, "reports 8 to 10 are cut off the end of the ledger"),
        (forked, "report 9 doesn't follow the report 8 that is here"),
        (twice, "report 8 stands in the ledger again, or out of its place"),
        (a_file_less, "report 5: 000005.json is missing"),
        (a_file_more, "report 11 is in no line of the ledger"),
        (another_file, "report 5: 000005.json is not the report that the ledger names"),
        (no_head, "head.json is missing: whether newer reports were taken away can't be told"),
        (another_key, "report 11 and later ones are signed by another key"),
        (another_public_key, "key.pub is not the key that signs the newest reports"),
    ],
)
def test_what_was_done_to_the_chain_is_named(chain: Path, tamper: Callable[[Path], None], first: str) -> None:
    tamper(chain)
    faults = Ledger(chain).check()
    assert faults[0].startswith(first)
    standing = Ledger(chain).standing()
    assert not standing.holds
    assert [line.split(";")[0] for line in standing.violations] == faults


@pytest.mark.parametrize("tamper", [cut_out, swapped, cut_off, forked, twice, a_file_less, no_head, another_key])
def test_what_was_done_shows_in_every_later_check_and_verification_goes_on(
    chain: Path, tamper: Callable[[Path], None]
) -> None:
    tamper(chain)
    numbers = [Ledger(chain).append(report(40 + minute)).number for minute in range(3)]
    assert numbers == list(range(numbers[0], numbers[0] + 3))
    assert numbers[0] == (12 if tamper is another_key else 11), "no number is given twice"
    assert Ledger(chain).check() != []


def test_a_line_forged_with_a_key_of_ones_own_is_named(chain: Path, tmp_path: Path) -> None:
    """Whoever can write the folder, but has no key."""
    other = tmp_path / "other"
    other.mkdir()
    for minute in range(10):
        Ledger(other).append(report(minute))
    (chain / "ledger.jsonl").write_bytes(b"".join(lines(chain)[:9] + lines(other)[9:]))
    (chain / "head.json").write_bytes((other / "head.json").read_bytes())
    (chain / "key.pub").write_bytes((other / "key.pub").read_bytes())
    shutil.copy(file(other, 10), file(chain, 10))
    faults = Ledger(chain).check()
    assert faults[0] == "report 10 doesn't follow the report 9 that is here"
    assert faults[1].startswith("report 10 and later ones are signed by another key")


@pytest.mark.parametrize("content", [None, b"", b"no key at all"])
def test_without_its_key_it_goes_on_with_a_new_one_and_says_so_for_ever(chain: Path, content: bytes | None) -> None:
    old = Ledger(chain).append(report(20)).fingerprint
    (chain / "key.pem").unlink() if content is None else (chain / "key.pem").write_bytes(content)
    (violation,) = Ledger(chain).standing().violations
    assert violation.startswith(f"the key {old} in key.pem, that signed until report 11, is not there")
    entry = Ledger(chain).append(report(21))
    assert not entry.holds, "this very report, and not the next one only"
    assert Ledger(chain).read()["holds"] is False
    assert entry.fingerprint != old
    assert entry.broken == [f"key.pem was not the key {old} that had signed until report 11"]
    assert entry.kept
    for minute in range(22, 25):
        assert Ledger(chain).append(report(minute)).broken == []
    faults = Ledger(chain).check()
    assert f"report 12 found: {entry.broken[0]}" in faults
    assert "not by the key that you named" in Ledger(chain).check(old)[-1]


class PowerCut(BaseException):
    pass


STEPS = ("open", "replace", "fsync")


@pytest.mark.parametrize("already", [0, 1, 5])
def test_a_power_cut_at_any_step_heals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, already: int) -> None:
    """Cut before each step that touches the disk in turn: the next report finds its place, and the chain is whole."""
    cuts = 0
    while True:
        folder = tmp_path / str(cuts)
        folder.mkdir()
        for minute in range(already):
            Ledger(folder).append(report(minute))
        steps = 0

        def step(name: str, original: Callable[..., Any], at: int = cuts) -> Callable[..., Any]:
            def stepping(*arguments: Any, **options: Any) -> Any:
                nonlocal steps
                steps += 1
                if steps > at:
                    raise PowerCut(name)
                return original(*arguments, **options)

            return stepping

        with monkeypatch.context() as patch:
            for name in STEPS:
                patch.setattr(os, name, step(name, getattr(os, name)))
            try:
                Ledger(folder).append(report(30))
                survived = True
            except PowerCut:
                survived = False
        assert Ledger(folder).standing().violations == [], cuts
        entry = Ledger(folder).append(report(31))
        assert entry.broken == [], cuts
        assert entry.number in (already + 1, already + 2)
        assert Ledger(folder).check() == [], cuts
        if survived:
            break
        cuts += 1
    assert cuts > 8


@pytest.mark.parametrize("left", [1, 200, -1])
def test_a_torn_last_line_heals_with_a_note(chain: Path, left: int) -> None:
    *whole, last = lines(chain)
    (chain / "ledger.jsonl").write_bytes(b"".join(whole) + last[:left])
    (chain / "head.json").write_bytes(whole[-1])
    assert all("the next verification heals it" in line for line in Ledger(chain).check())
    assert Ledger(chain).check() != []
    assert Ledger(chain).standing().holds
    entry = Ledger(chain).append(report(20))
    assert (entry.number, entry.broken) == (11, [])
    assert Ledger(chain).read(11)["healed"] == [
        "the last line of ledger.jsonl was torn, and has been taken off",
        "report 10 was written but not entered, and has been entered now",
    ]
    assert Ledger(chain).check() == []


def test_old_reports_that_held_are_thinned_out_and_the_chain_stays_whole(tmp_path: Path) -> None:
    book = Ledger(tmp_path, newest=5)
    for day in (20, 21, 22):
        for minute in range(6):
            book.append(report(minute, day=day, holds=(day, minute) != (21, 3)))
    kept = sorted(int(path.stem) for path in (tmp_path / "reports").iterdir())
    assert kept == [1, 7, 10, 13, *range(14, 19)], "each day's first, the one that failed, and the newest"
    assert len(lines(tmp_path)) == 18
    assert book.check() == []
    file(tmp_path, 10).unlink()
    assert book.check() == ["report 10: 000010.json is missing"]


def test_a_verification_looks_at_the_newest_reports_only(tmp_path: Path) -> None:
    book = Ledger(tmp_path)
    assert book.standing().holds
    for minute in range(40):
        book.append(report(minute))
    standing = book.standing(10)
    assert standing.holds
    assert int(standing.seen.split()[1]) in range(20, 35)
    assert "to 40, signed by" in standing.seen
    file(tmp_path, 2).write_bytes(b"x")
    assert book.standing(10).holds
    file(tmp_path, 39).write_bytes(b"x")
    (violation,) = book.standing(10).violations
    assert violation.startswith("report 39: 000039.json can't be read")
    assert "the next report begins a new chain" in violation


def test_after_a_change_of_key_it_holds_again_when_fifty_reports_have_followed(tmp_path: Path) -> None:
    Ledger(tmp_path).append(report())
    (tmp_path / "key.pem").unlink()
    for minute in range(100):
        entry = Ledger(tmp_path).append(report(minute % 60))
        if Ledger(tmp_path).standing().holds:
            break
    assert 45 <= entry.number <= 70
    assert Ledger(tmp_path).check() != [], "a check of all of it tells for ever"


def test_another_key_in_place_is_named_at_once(chain: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    Ledger(tmp_path / "other").append(report())
    shutil.copy(tmp_path / "other" / "key.pem", chain / "key.pem")
    (violation,) = Ledger(chain).standing().violations
    assert "that signed until report 10, is another" in violation
    assert not Ledger(chain).append(report()).holds


def emptied(folder: Path) -> None:
    for path in [*folder.glob("*.*"), *folder.glob("reports/*")]:
        path.unlink()


def rolled_back(folder: Path) -> None:
    cut_off(folder)
    (folder / "head.json").write_bytes(lines(folder)[-1])


def rolled_back_and_on(folder: Path) -> None:
    rolled_back(folder)
    for minute in range(30, 40):
        Ledger(folder).append(report(minute))


@pytest.mark.parametrize("tamper", [emptied, rolled_back, rolled_back_and_on])
def test_a_chain_put_back_is_seen_by_who_knows_its_end(chain: Path, tamper: Callable[[Path], None]) -> None:
    last = json.loads(lines(chain)[-1])
    known = last["number"], last["sha256"]
    assert Ledger(chain).standing(known=known).holds
    tamper(chain)
    assert Ledger(chain).standing().holds, "the folder alone can't show it"
    (violation,) = Ledger(chain).standing(known=known).violations
    assert violation.startswith("report 10 was entered since the appliance started, and now ")


def test_what_is_known_may_be_older_than_what_is_looked_at(tmp_path: Path) -> None:
    book = Ledger(tmp_path)
    first = book.append(report())
    for minute in range(1, 40):
        book.append(report(minute))
    assert book.standing(5, known=(1, first.sha256)).holds
    assert not book.standing(5, known=(1, "0" * 64)).holds


def test_moved_away_as_told_the_chain_begins_anew_with_the_same_key(chain: Path) -> None:
    cut_out(chain)
    assert not Ledger(chain).standing().holds
    away = chain.parent / "away"
    away.mkdir()
    for name in ("ledger.jsonl", "head.json", "reports"):
        (chain / name).rename(away / name)
    key = (chain / "key.pub").read_bytes()
    entry = Ledger(chain).append(report())
    assert (entry.number, entry.broken, (chain / "key.pub").read_bytes()) == (1, [], key)
    (note,) = Ledger(chain).read(1)["healed"]
    assert note.startswith("a chain begins here with a key that was there before")
    assert Ledger(chain).standing().holds


def _append(folder: Path, count: int) -> None:
    for minute in range(count):
        Ledger(folder).append(report(minute))


def test_several_processes_may_append_at_once(tmp_path: Path) -> None:
    together = multiprocessing.get_context("spawn")
    writers = [together.Process(target=_append, args=(tmp_path, 10)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert len(lines(tmp_path)) == 30
    assert Ledger(tmp_path).check() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")
def test_what_root_enters_stays_the_appliances_own() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        folder = Path(made)
        os.chown(folder, 1000, 1000)
        Ledger(folder).append(report())
        assert {(path.stat().st_uid, path.stat().st_gid) for path in folder.rglob("*")} == {(1000, 1000)}
        (folder / "root's").write_bytes(b"")
        assert (folder / "root's").stat().st_uid == 0, "and root is root again"


def test_a_folder_that_cannot_be_written_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(LedgerFailed, match=r"nowhere: No such file.*has to own this folder"):
        Ledger(tmp_path / "nowhere").append(report())
    assert Ledger(tmp_path / "nowhere").check() == [f"there is no report in {tmp_path / 'nowhere'}"]
    assert Ledger(tmp_path).check() == [f"there is no report in {tmp_path}"]


@pytest.mark.parametrize("odd", [0.5, float("nan"), 2**53 + 1, "\udcff", b"x", {1: 2}, {"\U0001f600": 1}])
def test_what_two_programs_might_write_in_two_ways_is_refused(tmp_path: Path, odd: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any of its kinds
        canonical([odd])
    with pytest.raises(LedgerFailed):
        Ledger(tmp_path).append(report() | {"odd": odd})
    assert Ledger(tmp_path).append(report()).number == 1


def test_canonical_bytes_are_those_of_rfc_8785() -> None:
    value = {
        "€": "Euro Sign", "\r": "Carriage Return", "1": "One", "\u0080": "Control", "ö": "O",
        "numbers": [0, -1, 2**53], "literals": [None, True, False], "string": "€$\u000f\nA'B\"\\\\\"/\x7f",
    }  # fmt: skip
    assert canonical(value).decode() == (
        '{"\\r":"Carriage Return","1":"One","literals":[null,true,false],"numbers":[0,-1,9007199254740992],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/\x7f","\u0080":"Control","ö":"O","€":"Euro Sign"}'
    )


@pytest.mark.parametrize("hostile", [b"[" * 100_000, b"\xff", b"{}", b"[]", b"1" * 5000, b'{"a":1,"a":1}', b""])
def test_a_file_that_is_no_report_is_named(tmp_path: Path, hostile: bytes) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(hostile)
    assert check_file(path)[0].startswith("report.json ")
    assert "No such file" in check_file(tmp_path / "nothing")[0]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl isn't installed")
def test_the_docs_way_to_check_a_report_without_the_appliance(chain: Path, tmp_path: Path) -> None:
    """Hash and signature of a report, by Python's standard library and openssl: what docs/egress.md tells auditors."""
    page = (Path(__file__).parents[2] / "docs" / "egress.md").read_text()
    script = page.split("```bash\n")[1].split("```")[0]
    for name, source in (("report.json", file(chain, 7)), ("key.pub", chain / "key.pub")):
        shutil.copy(source, tmp_path / name)
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run() -> subprocess.CompletedProcess[str]:
        command = ["bash", "-euo", "pipefail", "-c", script.replace("python3", sys.executable)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Signature Verified Successfully" in done.stdout
    assert "sha256 True" in done.stdout
    stored = json.loads(file(chain, 7).read_bytes())
    (tmp_path / "report.json").write_bytes(canonical(stored | {"time": "2026-11-22T11:11:11Z"}))
    done = run()
    assert done.returncode != 0
    assert "sha256 False" in done.stdout
