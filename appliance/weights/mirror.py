"""Downloads a checkpoint from a static file server of the site, resuming what was interrupted."""

from __future__ import annotations

import errno
import hashlib
import http.client
import re
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit

from appliance.errors import PreparationFailed
from appliance.weights.admission import admits
from appliance.weights.card import Mirror
from appliance.weights.manifest import sha256
from appliance.weights.outside import is_private

SUMS = "SHA256SUMS"
TIMEOUT_SECONDS = 60.0
CHUNK_BYTES = 1 << 20
TELL_EVERY_BYTES = 1 << 28
MAX_SUMS_BYTES = 1_000_000
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a server has: its files that belong to the model with their SHA-256, and that of SHA256SUMS itself."""

    sums: Mapping[str, str]
    sha256sums: str


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could lead from an allowed address to any other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def download(
    mirror: Mirror,
    into: Path,
    progress: Callable[[str], None],
    *,
    wanted: Callable[[str], bool] = lambda _: True,
) -> Fetched:
    """Fetch what SHA256SUMS names into `into`, each file checked; what is there already isn't fetched again.

    Only files with a name that is `wanted` are fetched; what the server doesn't name is removed.
    Raises `PreparationFailed`; parts that have arrived stay in `into` for the next try.
    """
    base = mirror.url.rstrip("/") + "/"
    opener = _opener(base)
    into.mkdir(exist_ok=True)
    sums, pinned = _sums(opener, base, mirror.sha256sums)
    keep_only(into, sums)
    for name, digest in sums.items():
        if not wanted(name):
            continue
        target = into / name
        if target.is_file() and sha256(target) == digest:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        _fetch(opener, base + quote(name), part, digest, progress)
        part.rename(target)
    return Fetched(sums, pinned)


def keep_only(folder: Path, names: Iterable[str]) -> None:
    """Remove what an earlier download of another version left: it would be taken for a part of this one."""
    kept = {folder / name for name in names}
    for path in folder.rglob("*"):
        if path.is_file() and path not in kept and path.with_suffix("") not in kept:
            path.unlink()


def _opener(base: str) -> urllib.request.OpenerDirector:
    parts = urlsplit(base)
    if parts.scheme == "https":
        return urllib.request.build_opener(_NoRedirect)
    if not is_private(base):
        raise PreparationFailed(f"{parts.hostname} isn't on a private network: use `https:` for it.")
    return urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))


def _sums(opener: urllib.request.OpenerDirector, base: str, pinned: str | None) -> tuple[dict[str, str], str]:
    """The admitted files of SHA256SUMS and their checksums, and the checksum of SHA256SUMS."""
    try:
        with opener.open(base + SUMS, timeout=TIMEOUT_SECONDS) as response:
            raw: bytes = response.read(MAX_SUMS_BYTES + 1)
    except (OSError, http.client.HTTPException) as cause:
        raise PreparationFailed(_unreachable(base + SUMS, cause)) from cause
    if len(raw) > MAX_SUMS_BYTES:
        raise PreparationFailed(f"{base}{SUMS} is over {MAX_SUMS_BYTES} bytes; that is no model's.")
    if pinned is not None and hashlib.sha256(raw).hexdigest() != pinned:
        raise PreparationFailed(
            f"{base}{SUMS} isn't the one that the card expects. If the mirror was renewed on purpose, put its new "
            "checksum into the card's `mirror.sha256sums`; otherwise somebody changed it."
        )
    sums: dict[str, str] = {}
    for line in raw.decode(errors="replace").splitlines():
        match = re.fullmatch(r"([0-9a-f]{64}) [ *](?:\./)?(\S.*)", line)
        if match is None or match[2].startswith("/") or ".." in Path(match[2]).parts:
            raise PreparationFailed(f"{base}{SUMS} has a line that `sha256sum` didn't write: {line[:100]!r}")
        if admits(match[2]):
            sums[match[2]] = match[1]
    return sums, hashlib.sha256(raw).hexdigest()


def _fetch(
    opener: urllib.request.OpenerDirector, url: str, part: Path, digest: str, progress: Callable[[str], None]
) -> None:
    while True:
        had = _size(part)
        try:
            _receive(opener, url, part, progress)
        except HTTPError as cause:
            if cause.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise PreparationFailed(_unreachable(url, cause)) from cause
        except (OSError, http.client.HTTPException) as cause:
            if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
                raise PreparationFailed(
                    f"{part}: {cause.strerror}. Make room, then run this again. What has arrived is kept."
                ) from cause
            # as long as each try brings something, go on
            if _size(part) <= had:
                raise PreparationFailed(f"{_unreachable(url, cause)} What has arrived is kept.") from cause
            progress(f"interrupted at {_gb(_size(part))}, resuming")
            continue
        if part.is_file() and sha256(part) == digest:
            return
        part.unlink(missing_ok=True)
        if not had:
            raise PreparationFailed(
                f"{url} isn't the file that {SUMS} describes. Copy it to the mirror again, or run "
                "`sha256sum` there anew."
            )
        # the beginning was of another version


def _receive(opener: urllib.request.OpenerDirector, url: str, part: Path, progress: Callable[[str], None]) -> None:
    had = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={had}-"} if had else {})  # noqa: S310 -- the card admits http and https only
    with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
        resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
        total = int(response.headers.get("Content-Length") or 0) + (had if resumed else 0)
        progress(f"downloading {url.rsplit('/', 1)[-1]}, {_gb(total)}" + (f" from {_gb(had)} on" if resumed else ""))
        with part.open("ab" if resumed else "wb") as file:
            tell_at = file.tell() + TELL_EVERY_BYTES
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                if file.tell() >= tell_at:
                    progress(f"{_gb(file.tell())} of {_gb(total)}")
                    tell_at += TELL_EVERY_BYTES
    if _size(part) < total:  # http.client doesn't tell a body that ended early
        raise ConnectionError("the connection ended early")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB"


def _unreachable(url: str, cause: Exception) -> str:
    if isinstance(cause, HTTPError) and cause.code in range(300, 400):
        return f"{url} redirects; name the final address in the card's `mirror.url`."
    return f"{url} can't be fetched ({cause}). Check the card's `mirror.url` and the server, then run this again."
