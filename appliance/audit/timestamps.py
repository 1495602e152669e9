"""Time stamps (RFC 3161): an authority in the house signs when it saw the newest checkpoint.

So nobody who has the log's own key can make a past for it later. A stamp is over the SHA-256 of the checkpoint's
line, is verified before it is stored, and can be verified by anybody with OpenSSL.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import rfc3161_client as rfc3161
from cryptography import x509

from appliance import durable
from appliance.audit.checkpoint import Checkpoint
from appliance.audit.journal import Journal
from appliance.audit.record import Kind
from appliance.config import Timestamps
from appliance.engines.upstream import Upstream
from appliance.errors import ConfigInvalid, Problem, Refused

FOLDER = "timestamps"
"""In the folder of a log: a file for each checkpoint that has a stamp, named by its number."""
_SECONDS = 30.0
"""For one request to the authority, all in all."""
_LARGEST = 64 * 1024
_LONGEST_PAUSE = 60.0
_CERTIFICATES = 0xA0
"""DER's tag for the certificates in what is signed."""
_SHA256 = x509.ObjectIdentifier("2.16.840.1.101.3.4.2.1")

_log = logging.getLogger("appliance.audit")

Trusted = Sequence[x509.Certificate]


class Unfit(Exception):
    """Why what the authority answered is no stamp for this checkpoint; in words of ours."""


class Stamper:
    """Has the newest checkpoint stamped every so often. Nobody waits for it, and it never fails: `trouble` tells."""

    def __init__(
        self,
        journal: Journal,
        settings: Timestamps,
        trusted: Trusted,
        upstream: Upstream,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`upstream` leads to the authority; `trusted` is made by the function of that name."""
        self._journal = journal
        self._folder = journal.folder / FOLDER
        self._settings = settings
        self._trusted = trusted
        self._upstream = upstream
        self._sleep = sleep
        self._new = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stamped = 0
        self.trouble: str | None = None
        """Why the newest checkpoint has no stamp; None while all is well."""

    def start(self) -> None:
        """Begin; it goes on until `close`. Needs a running loop and doesn't wait."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._stamped = max((number for number, _ in _stored(self._folder)), default=0)
        self._journal.on_checkpoint.append(self._notice)
        if self._journal.checkpoint is not None:
            self._notice(self._journal.checkpoint)
        self._task = asyncio.create_task(self._keep())

    def describe(self) -> dict[str, float]:
        """For metrics: the number of the newest checkpoint with a stamp (0: none), and whether the next one fails."""
        return {"checkpoint": self._stamped, "failing": float(self.trouble is not None)}

    async def close(self) -> None:
        """Stop, and break off what is under way."""
        task, self._task = self._task, None
        if task is not None:
            self._journal.on_checkpoint.remove(self._notice)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._upstream.close()

    def _notice(self, checkpoint: Checkpoint) -> None:
        if checkpoint.number > self._stamped:
            self._new.set()

    async def _keep(self) -> None:
        pauses = _pauses()
        while True:
            await self._new.wait()
            checkpoint = self._journal.checkpoint
            assert checkpoint is not None  # noqa: S101 - one was told of
            trouble = await self._attempt(checkpoint)
            self._tell(trouble, checkpoint.number)
            if trouble is None:
                self._stamped = checkpoint.number
                self._new.clear()
                if self._journal.checkpoint is not None:
                    self._notice(self._journal.checkpoint)  # one that came meanwhile
                pauses = _pauses()
                await self._sleep(self._settings.every_seconds)
            else:
                await self._sleep(min(next(pauses), self._settings.every_seconds))

    async def _attempt(self, checkpoint: Checkpoint) -> str | None:
        """Why there is no stamp for `checkpoint`; None once it is stored."""
        query = rfc3161.TimestampRequestBuilder(checkpoint.line, rfc3161.HashAlgorithm.SHA256).build()
        try:
            async with asyncio.timeout(_SECONDS):
                answer = await self._ask(query.as_bytes())
            verify(answer, hashlib.sha256(checkpoint.line).digest(), self._trusted, nonce=query.nonce)
            file = self._folder / f"{checkpoint.number:012d}.tsr"
            await asyncio.to_thread(durable.replace, file, answer)
        except Unfit as why:
            return str(why)
        except Refused:
            return "it can't be reached, broke off, or answered too much"
        except TimeoutError:
            return f"it didn't answer within {_SECONDS:g} s"
        except OSError as why:
            return f"its answer could not be stored: {why.strerror}"
        return None

    async def _ask(self, query: bytes) -> bytes:
        response = await self._upstream.post("", query)
        try:
            if response.status != 200:
                also = "; the outlet's lines on standard error say why" if response.status == 502 else ""
                raise Unfit(f"it answered {response.status}{also}")
            return await response.whole(_LARGEST)
        finally:
            response.close()

    def _tell(self, trouble: str | None, number: int) -> None:
        was, self.trouble = self.trouble, trouble
        if trouble is not None and trouble != was:
            _log.warning(
                "the time stamping authority gave no stamp for checkpoint %d: %s; it is asked again. Check "
                "audit.timestamps and its server", number, trouble,
            )  # fmt: skip
        if trouble is not None and was is None:
            self._journal.note(Kind.INCIDENT, {"incident": "timestamps_failed", "why": trouble})
        elif trouble is None and was is not None:
            _log.info("the time stamping authority gave a stamp for checkpoint %d", number)
            self._journal.note(Kind.INCIDENT, {"checkpoint": number, "incident": "timestamps_again"})


def trusted(file: Path) -> Trusted:
    """The certificates in a PEM file. Raises `ConfigInvalid` unless the one at the top is among them."""
    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError) as cause:
        why = getattr(cause, "strerror", None) or "it holds no certificates in PEM"
        raise _invalid(file, why) from cause
    if not any(each.issuer == each.subject for each in found):
        raise _invalid(file, "it lacks the certificate at the top, which signed itself; add it")
    return found


def verify(answer: bytes, digest: bytes, trusted: Trusted, *, nonce: int | None = None) -> datetime:
    """When a stamp says that `digest` (SHA-256, 32 bytes) was there. Raises `Unfit` for what is no right stamp of it.

    Certificates have to have been valid at that moment. With `nonce`, it has to answer that very question.
    """
    try:
        stamp = rfc3161.decode_timestamp_response(_in_order(answer))
    except ValueError:
        raise Unfit("it answered something that is no time stamp") from None
    try:
        if stamp.status != rfc3161.PKIStatus.GRANTED:
            raise Unfit(f"it refused (status {stamp.status})")
        about = stamp.tst_info.message_imprint
        if about.hash_algorithm != _SHA256 or about.message != digest:
            raise Unfit("the stamp is for something else")
        if nonce is not None and stamp.tst_info.nonce != nonce:
            raise Unfit("the stamp answers another question: its nonce is wrong")
        rfc3161.VerifierBuilder(roots=list(trusted)).build().verify(stamp, digest)
        return stamp.tst_info.gen_time
    except (rfc3161.VerificationError, ValueError):
        raise Unfit("the stamp isn't signed by an authority of audit.timestamps.certificate") from None


def _in_order(answer: bytes) -> bytes:
    """The same with its certificates sorted: the library wants DER, and OpenSSL sends them as they come.

    They stand outside of what is signed. What can't be read stays as it is.
    """
    try:
        token = _parts(answer, 0)[1]
        signed = _parts(answer, _parts(answer, token.start)[1].start)[0]
        whole = next(part for part in _parts(answer, signed.start) if answer[part.start] == _CERTIFICATES)
        each = sorted(answer[part] for part in _parts(answer, whole.start))
    except (IndexError, StopIteration):
        return answer
    end = whole.stop
    return answer[: end - sum(map(len, each))] + b"".join(each) + answer[end:]


def _parts(data: bytes, at: int) -> list[slice]:
    """Where the parts of the DER element that begins at `at` lie. Raises IndexError for what isn't whole."""
    inside, end = _inside(data, at)
    parts = []
    while inside < end:
        parts.append(slice(inside, _inside(data, inside)[1]))
        inside = parts[-1].stop
    return parts


def _inside(data: bytes, at: int) -> tuple[int, int]:
    """Where the content of a DER element begins and ends."""
    short, start = data[at + 1], at + 2
    if short < 0x80:
        length = short
    else:
        start += short & 0x7F
        length = int.from_bytes(data[at + 2 : start])
    if start + length > len(data):
        raise IndexError("it ends before its end")
    return start, start + length


def check(folder: Path, certificate: Path) -> dict[str, str]:
    """What is wrong with the stamps in the folder of a log, by their files; empty where all are right.

    Raises `ConfigInvalid` for a certificate that can't be used, and OSError.
    """
    authorities = trusted(certificate)
    stored = dict(_stored(folder / FOLDER))
    digests = dict(_digests(folder / "checkpoints.jsonl", stored))
    problems = {}
    for number, file in sorted(stored.items()):
        try:
            if number not in digests:
                raise Unfit("it was stamped, and isn't there any more")
            verify(file.read_bytes(), digests[number], authorities)
        except Unfit as why:
            problems[f"{FOLDER}/{file.name}"] = f"checkpoint {number}: {why}"
    return problems


def _stored(folder: Path) -> Iterator[tuple[int, Path]]:
    for file in folder.glob("*.tsr"):
        if file.stem.isascii() and file.stem.isdigit():
            yield int(file.stem), file


def _digests(file: Path, wanted: Mapping[int, Path]) -> Iterator[tuple[int, bytes]]:
    """SHA-256 of the lines of those checkpoints."""
    if not wanted or not file.exists():
        return
    with file.open("rb") as lines:
        for line in lines:
            try:
                number = json.loads(line)["number"]
            except (ValueError, KeyError, TypeError):
                continue  # whoever verifies the chain tells of it
            if number in wanted:
                yield number, hashlib.sha256(line.rstrip(b"\n")).digest()


def _pauses() -> Iterator[float]:
    return itertools.chain((1.0, 2.0, 5.0, 10.0, 20.0), itertools.repeat(_LONGEST_PAUSE))


def _invalid(file: Path, why: str) -> ConfigInvalid:
    return ConfigInvalid("audit", [Problem("audit.timestamps.certificate", f"{file} can't be used: {why}")])
