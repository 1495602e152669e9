"""A person is erased: whoever has a copy of all that the appliance has on disk can't tell that there ever was one."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.__main__ import main
from appliance.audit.slots import FILE, SLOT
from appliance.audit.subject import Subject
from appliance.audit.subjects import Subjects, pseudonyms
from appliance.audit.verifier import verify
from tests.fakes.house import House, Running, until

Start = Callable[..., Running]
CHAT = "/v1/chat/completions"
NAME = "Wilhelmine Żółć-Kowalczyk"
SECRET = "Befund-XYZQ-4711"


@pytest.fixture
def house(house: House) -> House:
    house.card("tiny")
    house.serve("chat", "tiny")
    house.write(accounts={
        "use_cases": {"review": {"store_content": True}},
        "each_user": {"tokens_per_day": 1500, "requests_per_minute": 100},
        "each_team": {"tokens_per_month": 1_000_000},
        "prices": {"models": {"chat": {"prompt_euros_per_million": 1, "completion_euros_per_million": 2}}},
    })  # fmt: skip
    return house


def command(house: House, *arguments: str) -> tuple[int, Any]:
    """The exit status of a command, and what it prints as JSON."""
    with contextlib.redirect_stdout(io.StringIO()) as output:
        status = main([*arguments, "--json", "--config", str(house.config)])
    return status, json.loads(output.getvalue())


def erase(house: House, name: str = NAME) -> dict[str, Any]:
    status, told = command(house, "audit", "erase", "--subject", name)
    assert status == 0, told
    assert isinstance(told, dict)
    return told


def by_team(house: House) -> Any:
    """What each team used."""
    status, told = command(house, "usage", "--by", "team")
    assert status == 0
    return told["data"], told["total"]


def ask(running: Running, key: str, text: str = SECRET, **more: Any) -> httpx.Response:
    body = {"model": "chat", "max_tokens": 20, "messages": [{"role": "user", "content": text}], **more}
    headers = {"x-api-key": key, "x-use-case": "review"}
    return httpx.post(f"{running.base_url}{CHAT}", json=body, headers=headers, timeout=30)


def records(log: Path) -> list[dict[str, Any]]:
    """All that stands in a copy of the log."""
    lines = [
        line
        for file in sorted(log.glob("0*.jsonl*"))
        for line in (gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()).splitlines()
    ]
    return [json.loads(line) for line in lines]


def sealed_of(log: Path, pseudonym: str) -> list[str]:
    """Everything that is sealed under the key of a subject."""
    found: list[str] = []

    def look(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("subject") == pseudonym and "sealed" in value:
                found.append(value["sealed"])
            for each in value.values():
                look(each)

    for record in records(log):
        look(record["body"])
    return found


def files(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """Every file with its content; of what is compressed, what it holds, too."""
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.is_symlink():
            content = file.read_bytes()
            yield file.relative_to(folder), content
            if file.suffix == ".gz":
                yield file.relative_to(folder), gzip.decompress(content)


def needles(text: str) -> dict[str, bytes]:
    """The ways in which a text could stand in a file."""
    raw = text.encode()
    escaped = json.dumps(text)[1:-1].encode()
    ways = {
        "utf-8": raw,
        "utf-16": text.encode("utf-16-le"),
        "utf-16 be": text.encode("utf-16-be"),
        "latin": text.encode("latin-1", "replace"),
        "hex": raw.hex().encode(),
        "json": escaped,
    }
    for start in range(3):  # base64 depends on where in a text it begins; the ends may be parts of other letters
        inside = base64.b64encode(b"\0" * start + raw)[4 if start else 0 : -4]
        ways[f"base64 {start}"] = inside
    return ways


def holding(folder: Path, wanted: dict[str, bytes]) -> set[tuple[str, str]]:
    """Which of what is wanted stands in which files."""
    return {
        (str(file), what) for file, content in files(folder) for what, needle in wanted.items() if needle in content
    }


def copied(house: House, to: Path) -> Path:
    """All of the state folder, byte by byte, as it is now; without sockets, and what the fake engine notes itself."""
    shutil.copytree(
        house.state, to, ignore=lambda folder, names: [n for n in names if n == "heard.jsonl" or n.endswith(".sock")]
    )
    return to


def slot_of(house: House, name: str) -> bytes:
    """What the key store holds of somebody."""
    pseudonym = pseudonyms(house.state / "audit-keys")(name)
    content = (house.state / "audit-keys" / FILE).read_bytes()
    for at in range(SLOT, len(content), SLOT):
        slot = content[at : at + SLOT]
        if any(slot) and Subject(slot[32:64], slot[:32], b"").pseudonym == pseudonym:
            return slot
    raise AssertionError("nobody of that name is there")


def opens(sealed: str, key: bytes) -> bool:
    raw = base64.b64decode(sealed)
    try:
        AESGCM(key).decrypt(raw[:12], raw[12:], None)
    except InvalidTag:
        return False
    return True


def test_a_full_copy_of_the_disk_taken_after_an_erasure_recovers_nothing(
    house: House, start: Start, tmp_path: Path
) -> None:
    """The name, the key, what the store found it by, what was asked: none of it is in any file, in any form."""
    made = house.keys("create", "--user", NAME, "--team", "lab", "--name", f"laptop of {NAME}", "--use-case", "review")
    bens = house.keys("create", "--user", "ben", "--team", "lab", "--use-case", "review")["key"]
    running = start(house).ready()
    for key in (made["key"], bens):
        for stream in (False, True):
            assert ask(running, key, stream=stream).status_code == 200
    # a budget that is used up leaves events, balances and levels, which name users, too
    until(lambda: ask(running, made["key"], f"{SECRET} tokens=100", max_tokens=100).status_code == 429)
    assert ask(running, made["key"], model="none").status_code == 404
    before = copied(house, tmp_path / "before")
    slot = slot_of(house, NAME)
    pseudonym = Subject(slot[32:64], slot[:32], b"").pseudonym
    wanted = {**needles(NAME), "key": slot[32:64], "key, hex": slot[32:64].hex().encode(), "tag": slot[:32],
              "key, base64": base64.b64encode(slot[32:64]), "tag, hex": slot[:32].hex().encode(), "slot": slot[64:400],
              }  # fmt: skip
    found = {what for _, what in holding(before, wanted)}
    assert {"utf-8", "key", "tag"} <= found, "else this test would find nothing where there is something"
    sums = by_team(house)

    told = erase(house)

    assert told["pseudonym"] == pseudonym
    assert (told["keys"], told["left"]) == (1, [])
    assert told["rows"] > 5
    assert ask(running, made["key"]).status_code == 401
    assert ask(running, bens, stream=False).status_code == 200
    after = copied(house, tmp_path / "after")
    assert holding(after, wanted) == set()
    assert {what for _, what in holding(after, needles(SECRET))} == set()
    sealed = sealed_of(after / "audit", pseudonym)
    assert len(sealed) >= 8
    assert all(opens(each, slot[32:64]) for each in sealed), "the key opened every one of them"
    store = (after / "audit-keys" / FILE).read_bytes()
    for at in range(len(store) - 31):
        assert not any(opens(each, store[at : at + 32]) for each in sealed)
    books = (after / "accounts.db").read_bytes()
    assert not any(opens(sealed[0], books[at : at + 32]) for at in range(len(books) - 31))
    assert by_team(house)[0][0]["prompt_tokens"] > sums[0][0]["prompt_tokens"], "ben has asked since"
    listed = next(each for each in house.keys("list") if each["id"] == made["id"])
    assert (listed["user"], listed["name"], listed["state"]) == (None, "", "revoked")
    assert (listed["role"], listed["team"], listed["created"]) == (made["role"], "lab", made["created"])
    running.stop()
    stopped = copied(house, tmp_path / "stopped")
    assert holding(stopped, wanted) == set()
    assert verify(stopped / "audit").genuine
    acts = [each["body"] for each in records(stopped / "audit") if each["body"].get("act") == "erase"]
    assert [(each["phase"], each.get("subject")) for each in acts] == [("intent", pseudonym), ("done", None)]
    assert acts[0]["by"]["role"] == "host"
    assert (acts[1]["keys"], acts[1]["rows"]) == (1, told["rows"])


@pytest.fixture
def disk(house: House) -> Iterator[Path]:
    """A small disk of its own, with ext4, on which the state folder lies; all of its blocks can be read as a file."""
    image = house.folder / "disk.img"
    with image.open("wb") as blocks:
        blocks.truncate(64 << 20)
    house.state.mkdir(mode=0o700)
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, house.state], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a disk image can't be mounted here: {mounted.stderr.strip()}")
    house.state.chmod(0o700)
    try:
        yield image
    finally:
        subprocess.run(["umount", "--lazy", house.state], check=True)


@pytest.mark.skipif(shutil.which("mkfs.ext4") is None or os.geteuid() != 0, reason="only root can mount a disk image")
def test_no_block_of_the_disk_holds_the_person_even_where_files_were_removed(
    house: House, disk: Path, start: Start
) -> None:
    """Blocks that belonged to files once are searched, too, and the file system's journal."""

    def blocks() -> bytes:
        os.sync()
        return disk.read_bytes()

    def found(wanted: dict[str, bytes]) -> dict[str, int]:
        raw = blocks()
        return {what: raw.count(needle) for what, needle in wanted.items() if needle in raw}

    made = house.keys("create", "--user", NAME, "--team", "lab", "--use-case", "review")
    running = start(house).ready()
    for _ in range(20):
        assert ask(running, made["key"]).status_code == 200
    running.stop()
    running = start(house).ready()
    assert ask(running, made["key"]).status_code == 200
    slot = slot_of(house, NAME)
    wanted = {"name": NAME.encode(), "key": slot[32:64], "tag": slot[:32], "sealed name": slot[82:140]}
    assert set(found(wanted)) == set(wanted), "else this test would find nothing where there is something"
    erase(house)
    assert found(wanted) == {}
    running.stop()
    assert found(wanted) == {}
    assert verify(house.state / "audit").genuine


def test_what_was_used_stays_right_for_the_team_and_is_nobodys(house: House, start: Start) -> None:
    key = house.keys("create", "--user", NAME, "--team", "lab", "--use-case", "review")["key"]
    running = start(house).ready()
    for _ in range(3):
        assert ask(running, key).status_code == 200
    running.stop()
    sums = by_team(house)
    assert sums[1]["requests"] == 3
    running = start(house).ready()
    erase(house)
    assert by_team(house) == sums
    running.stop()
    assert by_team(house) == sums
    told = command(house, "usage", "--by", "user,key")[1]
    assert [(row["user"], row["key"], row["requests"]) for row in told["data"]] == [("", "", 3)]


def test_what_is_in_flight_ends_as_it_would_and_brings_nobody_back(house: House, start: Start, tmp_path: Path) -> None:
    key = house.keys("create", "--user", NAME, "--team", "lab", "--use-case", "review")["key"]
    running = start(house).ready()
    ended: list[httpx.Response] = []
    text = f"{SECRET} tokens=20 gap=0.1"
    asking = threading.Thread(target=lambda: ended.append(ask(running, key, text, stream=True)))
    asking.start()
    until(house.heard)
    slot = slot_of(house, NAME)
    erase(house)
    assert not ended, "it is still being answered"
    asking.join(30)
    assert ended[0].status_code == 200
    assert ended[0].text.rstrip().endswith("data: [DONE]")
    until(lambda: by_team(house)[1]["requests"] == 1)
    running.stop()
    after = copied(house, tmp_path / "after")
    assert holding(after, {**needles(NAME), "key": slot[32:64], "tag": slot[:32]}) == set()
    stored = [each["body"] for each in records(after / "audit") if each["kind"] == "content"]
    assert [each["part"] for each in stored] == ["asked", "answered"], "on record, though nobody can read it"
    left = (after / "audit-keys" / FILE).read_bytes()
    for body in stored:
        assert not any(opens(body["sealed"], left[at : at + 32]) for at in range(len(left) - 31))
    assert by_team(house)[0][0]["team"] == "lab"
    assert verify(after / "audit").genuine


def test_somebody_is_erased_while_no_appliance_runs(house: House, start: Start, tmp_path: Path) -> None:
    key = house.keys("create", "--user", NAME, "--team", "lab", "--use-case", "review")["key"]
    running = start(house).ready()
    assert ask(running, key).status_code == 200
    running.stop()
    slot = slot_of(house, NAME)
    told = erase(house)
    assert told["pseudonym"] is not None
    after = copied(house, tmp_path / "after")
    assert holding(after, {**needles(NAME), "key": slot[32:64], "tag": slot[:32]}) == set()
    assert verify(after / "audit").genuine
    running = start(house).ready()
    assert ask(running, key).status_code == 401


def test_an_appliance_that_was_killed_at_once_comes_back_without_the_person(
    house: House, start: Start, tmp_path: Path
) -> None:
    """What was in flight is booked in full at the next start: for the team, and for nobody."""
    key = house.keys("create", "--user", NAME, "--team", "lab", "--use-case", "review")["key"]
    running = start(house).ready()
    asking = threading.Thread(target=lambda: _cut_off(lambda: ask(running, key, "tokens=20 gap=0.2", stream=True)))
    asking.start()
    until(house.heard)
    erase(house)
    running.process.send_signal(signal.SIGKILL)
    running.process.wait()
    asking.join(30)
    running = start(house).ready()
    data, total = by_team(house)
    assert (data[0]["team"], total["requests"], total["unsettled"]) == ("lab", 1, 1)
    running.stop()
    after = copied(house, tmp_path / "after")
    assert holding(after, needles(NAME)) == set()


def _cut_off(call: Callable[[], object]) -> None:
    with contextlib.suppress(httpx.HTTPError):
        call()


def test_whom_the_config_names_is_refused_by_the_line(house: House, start: Start) -> None:
    accounts = house.settings["accounts"] | {"users": {NAME: {"tokens_per_day": 5000}}}
    house.write(accounts=accounts)
    key = house.keys("create", "--user", NAME, "--team", "lab", "--use-case", "review")["key"]
    running = start(house).ready()
    status, told = command(house, "audit", "erase", "--subject", NAME)
    lines = house.config.read_text().splitlines()
    (line,) = [number for number, text in enumerate(lines, 1) if text.strip().strip(":\"'").startswith("Wilhelmine")]
    assert status == 1
    assert f"line {line} of {house.config}" in told["error"]
    assert ask(running, key, max_tokens=5).status_code == 200, "nothing was done"
    del accounts["users"]
    house.write(accounts=accounts)
    status, told = command(house, "audit", "erase", "--subject", NAME)
    assert status == 1
    assert "appliance apply" in told["error"], "the running one still has it"
    assert "error" not in running.apply()
    assert erase(house)["pseudonym"] is not None


def test_nobody_of_that_name_is_an_error_and_on_record(house: House, start: Start) -> None:
    running = start(house).ready()
    status, told = command(house, "audit", "erase", "--subject", "nobody")
    assert status == 2
    assert "appliance keys list" in told["error"]
    running.stop()
    acts = [each["body"] for each in records(house.state / "audit") if each["body"].get("act") == "erase"]
    assert [(each["phase"], each.get("error")) for each in acts] == [("intent", None), ("failed", "NotFound")]


def test_a_key_that_is_nobodys_can_be_erased_with_what_it_is_called(house: House, start: Start, tmp_path: Path) -> None:
    made = house.keys("create", "--name", f"script of {NAME}", "--team", "lab", "--use-case", "review")
    running = start(house).ready()
    assert ask(running, made["key"]).status_code == 200
    told = command(house, "audit", "erase", "--subject", NAME)[1]
    assert "nobody of this name" in told["error"]
    assert erase(house, f"key:{made['id']}")["keys"] == 1
    assert ask(running, made["key"]).status_code == 401
    running.stop()
    assert holding(copied(house, tmp_path / "after"), needles(NAME)) == set()


def test_the_key_store_is_open_in_one_process_alone(house: House, start: Start) -> None:
    start(house).ready()
    with pytest.raises(Exception, match="another process"):
        Subjects.open(house.state / "audit-keys")


def test_who_reads_alike_is_told_to_whoever_erases(house: House) -> None:
    for name in ("Anna", "anna", "ann"):
        house.keys("create", "--user", name)
    assert erase(house, "Anna")["alike"] == ["anna"]
    house.keys("create", "--user", "ANNA")
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert main(["audit", "erase", "--subject", "anna", "--config", str(house.config)]) == 0
    assert "also there: ANNA: erase it, too, if it is the same person" in output.getvalue()
