"""Time stamps by an authority in the house: OpenSSL's own, through a real outlet, and what isn't believed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import rfc3161_client as rfc3161
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.audit import timestamps
from appliance.audit.checkpoint import Checkpoint
from appliance.audit.journal import Journal
from appliance.audit.record import Kind
from appliance.audit.timestamps import Stamper, Unfit, check, trusted, verify
from appliance.config import Audit, Timestamps
from appliance.dispatch.endpoints import Endpoints
from appliance.errors import ConfigInvalid
from tests.audit.night import Night
from tests.fakes.time_authority import Root, TimeAuthority, time_authority
from tests.fakes.way_out import way_out

PATIENCE = 20
EVERY = 3600


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tsa-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def root(folder: Path) -> Root:
    return Root(folder)


@pytest.fixture(scope="module")
def served(folder: Path, root: Root) -> Iterator[tuple[TimeAuthority, Endpoints]]:
    with time_authority(folder, root.issue()) as authority:
        timestamps = {"url": authority.url, "certificate": str(root.file)}
        with way_out(folder, audit={"timestamps": timestamps}) as endpoints:
            yield authority, endpoints


@pytest.fixture
def authority(served: tuple[TimeAuthority, Endpoints]) -> TimeAuthority:
    authority = served[0]
    authority.forge = None
    authority.heard.clear()
    authority.asked = type(authority.asked)(0)
    authority.answering.set()
    return authority


class Stamped:
    """A log with a stamper."""

    def __init__(self, journal: Journal, stamper: Stamper, night: Night, certificate: Path) -> None:
        self.journal, self.stamper, self.night, self.certificate = journal, stamper, night, certificate

    async def checkpoint(self) -> Checkpoint:
        self.journal.note(Kind.ACT, {"act": "test"})
        made = await self.journal.checkpoint_now()
        assert made is not None
        return made

    def file(self, checkpoint: Checkpoint) -> Path:
        return self.journal.folder / "timestamps" / f"{checkpoint.number:012d}.tsr"

    @property
    def files(self) -> list[str]:
        return sorted(each.name for each in (self.journal.folder / "timestamps").iterdir())

    def problems(self) -> dict[str, str]:
        return check(self.journal.folder, self.certificate)

    async def incidents(self) -> list[dict[str, object]]:
        await self.journal.checkpoint_now()
        lines = [line for file in sorted(self.journal.folder.glob("*.jsonl")) for line in file.read_text().splitlines()]
        records = [json.loads(line) for line in lines]
        return [record["body"] for record in records if record.get("kind") == "incident"]


@pytest.fixture
async def stamped(
    tmp_path: Path, root: Root, authority: TimeAuthority, served: tuple[TimeAuthority, Endpoints]
) -> AsyncIterator[Stamped]:
    journal = await Journal.open(tmp_path / "audit", tmp_path / "keys", Audit(checkpoint_seconds=3600))
    settings = Timestamps.model_validate(
        {"url": authority.url, "certificate": str(root.file), "every_seconds": EVERY}, strict=False
    )
    night = Night()
    upstream = await served[1].timestamp_authority(settings)
    stamper = Stamper(journal, settings, trusted(root.file), upstream, sleep=night.sleep)
    stamper.start()
    yield Stamped(journal, stamper, night, root.file)
    await stamper.close()
    await journal.close(5)


def openssl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False)


async def test_the_newest_checkpoint_is_stamped_and_openssl_agrees(stamped: Stamped, authority: TimeAuthority) -> None:
    checkpoint = await stamped.checkpoint()
    assert await stamped.night.fallen() == EVERY
    assert stamped.files == [f"{checkpoint.number:012d}.tsr"]
    assert stamped.problems() == {}
    file = stamped.file(checkpoint)
    assert file.stat().st_mode & 0o777 == 0o600
    told = openssl("ts", "-verify", "-digest", checkpoint.sha256, "-in", file, "-CAfile", stamped.certificate)
    assert (told.returncode, told.stdout.strip()) == (0, "Verification: OK"), told.stderr
    other = openssl("ts", "-verify", "-digest", "00" * 32, "-in", file, "-CAfile", stamped.certificate)
    assert other.returncode != 0
    ((path, headers, _),) = authority.heard
    assert path == "/tsa"
    assert headers["content-type"] == "application/timestamp-query"
    assert stamped.stamper.describe() == {"checkpoint": checkpoint.number, "failing": 0.0}
    assert await stamped.incidents() == []


async def test_stamps_are_so_far_apart_and_only_of_what_is_new(stamped: Stamped, authority: TimeAuthority) -> None:
    first = await stamped.checkpoint()
    await stamped.night.fallen()
    await stamped.checkpoint()
    newest = await stamped.checkpoint()
    assert len(authority.heard) == 1  # two more came while it slept
    stamped.night.over()
    await stamped.night.fallen()
    assert stamped.files == [stamped.file(first).name, stamped.file(newest).name]
    stamped.night.over()
    await asyncio.sleep(0)
    assert len(stamped.night.pauses) == 2  # nothing is new, so nothing is asked
    last = await stamped.checkpoint()
    await stamped.night.fallen()
    assert stamped.file(last).exists()
    assert stamped.problems() == {}


def _other_digest(query: bytes, stamp: Callable[..., bytes]) -> tuple[int, bytes]:
    # its header is that of a SHA-256, with the hash behind it
    start = query.index(b"\x04\x20") + 2
    return 200, stamp(query[:start] + bytes(32) + query[start + 32 :])


def _other_nonce(query: bytes, stamp: Callable[..., bytes]) -> tuple[int, bytes]:
    start = query.index(b"\x04\x20") + 34
    length = query[start + 1]
    assert query[start] == 2
    return 200, stamp(query[: start + 2] + b"\x01" * length + query[start + 2 + length :])


FORGED: dict[str, Callable[[bytes, Callable[..., bytes]], tuple[int, bytes]]] = {
    "something else": _other_digest,
    "its nonce is wrong": _other_nonce,
    "it refused (status 2)": lambda query, stamp: (200, stamp(query, digests="sha512")),
    "no time stamp": lambda query, stamp: (200, b"<html>sign in first</html>"),
    "it answered 503": lambda query, stamp: (503, stamp(query)),
    "it answered 302": lambda query, stamp: (302, b""),
    "too much": lambda query, stamp: (200, stamp(query) + bytes(100_000)),
}


@pytest.mark.parametrize("why", FORGED)
async def test_what_is_no_right_stamp_is_not_stored_and_asked_for_again(
    stamped: Stamped, authority: TimeAuthority, why: str
) -> None:
    authority.forge = FORGED[why]
    await stamped.checkpoint()
    first = await stamped.night.fallen()
    stamped.night.over()
    assert await stamped.night.fallen() > first
    assert stamped.files == []
    assert why in (stamped.stamper.trouble or "")
    assert stamped.stamper.describe()["failing"] == 1.0
    (incident,) = await stamped.incidents()  # one, however often it fails
    assert incident == {"incident": "timestamps_failed", "why": stamped.stamper.trouble}
    authority.forge = None
    stamped.night.over()
    assert await stamped.night.fallen() == EVERY
    assert len(stamped.files) == 1
    assert stamped.problems() == {}
    assert stamped.stamper.trouble is None
    again = (await stamped.incidents())[-1]
    assert again == {"checkpoint": int(stamped.files[0][:12]), "incident": "timestamps_again"}


@pytest.mark.parametrize("whose", ["expired", "stranger"])
async def test_a_certificate_that_is_not_trusted_or_not_valid_is_not_believed(
    stamped: Stamped, authority: TimeAuthority, root: Root, tmp_path: Path, whose: str
) -> None:
    signer = root.issue("old", valid=False) if whose == "expired" else Root(tmp_path, "stranger").issue()
    authority.forge = lambda query, stamp: (200, stamp(query, signer))
    await stamped.checkpoint()
    await stamped.night.fallen()
    assert stamped.files == []
    assert "audit.timestamps.certificate" in (stamped.stamper.trouble or "")


async def test_an_authority_that_is_slow_holds_nothing_up(
    stamped: Stamped, authority: TimeAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timestamps, "_SECONDS", 0.05)
    authority.answering.clear()
    await stamped.checkpoint()
    for _ in range(100):
        await stamped.journal.write(Kind.ACT, {"act": "test"}).kept()
    await stamped.night.fallen()
    assert stamped.stamper.trouble == "it didn't answer within 0.05 s"
    assert stamped.files == []


async def test_an_authority_that_is_away_is_told_of(stamped: Stamped, authority: TimeAuthority) -> None:
    authority.forge = lambda query, stamp: (502, b"")
    await stamped.checkpoint()
    await stamped.night.fallen()
    assert "the outlet's lines on standard error say why" in (stamped.stamper.trouble or "")


async def test_a_disk_that_takes_no_stamp_is_told_of(stamped: Stamped) -> None:
    folder = stamped.journal.folder / "timestamps"
    folder.rmdir()
    await stamped.checkpoint()
    await stamped.night.fallen()
    assert "could not be stored" in (stamped.stamper.trouble or "")
    folder.mkdir()
    stamped.night.over()
    assert await stamped.night.fallen() == EVERY
    assert stamped.problems() == {}


async def test_after_a_restart_it_goes_on_behind_the_last_stamp(
    stamped: Stamped, authority: TimeAuthority, root: Root, served: tuple[TimeAuthority, Endpoints]
) -> None:
    await stamped.checkpoint()
    await stamped.night.fallen()
    await stamped.stamper.close()
    settings = Timestamps.model_validate({"url": authority.url, "certificate": str(root.file)}, strict=False)
    upstream = await served[1].timestamp_authority(settings)
    night = Night()
    again = Stamper(stamped.journal, settings, trusted(root.file), upstream, sleep=night.sleep)
    again.start()
    await asyncio.sleep(0)
    assert len(authority.heard) == 1  # that one has its stamp
    newest = await stamped.checkpoint()
    await night.fallen()
    assert stamped.file(newest).exists()
    await again.close()


async def test_a_check_finds_what_was_changed_swapped_or_cut_back(stamped: Stamped) -> None:
    first = await stamped.checkpoint()
    await stamped.night.fallen()
    second = await stamped.checkpoint()
    stamped.night.over()
    await stamped.night.fallen()
    assert stamped.problems() == {}
    one, two = stamped.file(first), stamped.file(second)
    good = one.read_bytes()
    one.write_bytes(two.read_bytes())
    assert stamped.problems() == {f"timestamps/{one.name}": "checkpoint 1: the stamp is for something else"}
    one.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert len(stamped.problems()) == 1
    one.write_bytes(good)
    checkpoints = stamped.journal.folder / "checkpoints.jsonl"
    lines = checkpoints.read_bytes().splitlines(keepends=True)
    checkpoints.write_bytes(b"".join(lines[: second.number - 1]))
    gone = f"checkpoint {second.number}: it was stamped, and isn't there any more"
    assert stamped.problems() == {f"timestamps/{two.name}": gone}
    checkpoints.write_bytes(b"".join([lines[0].replace(b'"last":', b'"last" :'), *lines[1:]]))
    assert len(stamped.problems()) == 1


def test_a_certificate_that_can_not_be_used_is_refused_by_name(tmp_path: Path, root: Root) -> None:
    empty, below = tmp_path / "empty.pem", root.issue("alone").certificate
    empty.write_text("nothing")
    for file, why in ((tmp_path / "none.pem", "No such file"), (empty, "no certificates"), (below, "at the top")):
        with pytest.raises(ConfigInvalid) as refused:
            trusted(file)
        assert "audit.timestamps.certificate" in str(refused.value)
        assert why in str(refused.value)


def test_a_certificate_for_other_purposes_stamps_nothing(authority: TimeAuthority, root: Root, folder: Path) -> None:
    # OpenSSL refuses to make such a stamp, so its authority is told that the certificate is another
    good, web = root.issue("good"), root.issue("web", purpose=False)
    query = rfc3161.TimestampRequestBuilder(b"line", rfc3161.HashAlgorithm.SHA256).build()
    answer = authority.stamp(query.as_bytes(), good)
    verify(answer, hashlib.sha256(b"line").digest(), trusted(root.file), nonce=query.nonce)
    with pytest.raises(subprocess.CalledProcessError):
        authority.stamp(query.as_bytes(), web)


@pytest.fixture(scope="module")
def answer(served: tuple[TimeAuthority, Endpoints]) -> bytes:
    query = rfc3161.TimestampRequestBuilder(b"line", rfc3161.HashAlgorithm.SHA256).build()
    return served[0].stamp(query.as_bytes())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_an_authority_answers_is_a_stamp_or_unfit(answer: bytes, root: Root, data: st.DataObject) -> None:
    spoilt = bytearray(answer)
    for _ in range(data.draw(st.integers(1, 4))):
        spoilt[data.draw(st.integers(0, len(answer) - 1))] = data.draw(st.integers(0, 255))
    del spoilt[data.draw(st.integers(1, len(answer))) :]
    if bytes(spoilt) == answer:
        return
    with pytest.raises(Unfit):
        verify(bytes(spoilt), hashlib.sha256(b"line").digest(), trusted(root.file))
