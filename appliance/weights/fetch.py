"""Asks a model hub what a repository holds, and fetches files of it, going on where an earlier try ended.

A program of its own, run by the Python of the preparation environment: of the appliance it imports only which
addresses are of the house, and the appliance imports nothing of it. The hub is the one that HF_ENDPOINT names, a token
is taken from HF_TOKEN. With STAY_IN_THE_HOUSE set, no host outside is asked, wherever the hub leads.

    python fetch.py list REPO REVISION
    python fetch.py get REPO COMMIT INTO < FILES

FILES holds one JSON object per line, `{"name": ..., "bytes": ..., "sha256": ...}` or, for small files, of which a hub
knows only git's checksum, `"git": ...` in place of `sha256`. Standard output holds one JSON object per line:
`{"progress": "what is being done"}`; as the last one of `list` `{"commit": ..., "licence": ..., "languages": ...,
"files": [...]}`; of `get` `{"fetched": {name: sha256}}`. What goes wrong is `{"refused": "in plain words"}` with exit
status 1.
"""

# mypy: disable-error-code="import-not-found"
# (what it imports is only in the preparation environment)

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, BinaryIO

PR_SET_PDEATHSIG = 1
TELL_EVERY_BYTES = 1 << 28
CHUNK = 1 << 20


def tell(line: dict[str, Any]) -> None:
    """Write one line of the protocol."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def listing(repo: str, revision: str) -> None:
    """Tell what the repository holds at `revision`, a branch, a tag or a commit."""
    from huggingface_hub import HfApi

    info = HfApi(token=token()).model_info(repo, revision=revision, files_metadata=True)
    files = [
        {
            "name": file.rfilename,
            "bytes": file.size,
            **({"sha256": file.lfs.sha256} if file.lfs else {"git": file.blob_id}),
        }
        for file in info.siblings or ()
    ]
    about: dict[str, Any] = info.card_data.to_dict() if info.card_data else {}  # type: ignore[no-untyped-call]
    licence = about.get("license_name") or about.get("license")
    tell({"commit": info.sha, "licence": licence, "languages": about.get("language"), "files": files})


def get(repo: str, commit: str, into: Path, files: list[dict[str, Any]]) -> None:
    """Fetch `files` into the folder `into`; what is there and right isn't fetched again."""
    fetched = {}
    for file in files:
        target = into / file["name"]
        if not (target.is_file() and right(target, file)):
            target.parent.mkdir(parents=True, exist_ok=True)
            one(repo, commit, file, target)
        fetched[file["name"]] = digest(target, hashlib.sha256())
    tell({"fetched": fetched})


def one(repo: str, commit: str, file: dict[str, Any], target: Path) -> None:
    """Fetch one file by way of `target`.part, which stays when the connection ends."""
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    part = target.with_name(target.name + ".part")
    size, name = file["bytes"], file["name"]
    # of what has arrived, a part below this is thrown away: by default 10 MB, which some lines never bring in one go
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK
    # the library's own download throws away what arrived before its process ended
    had = part.stat().st_size if part.is_file() else 0
    had = had if had <= size else 0
    for begin in (had, 0):
        said = f" from {begin / 1e9:.2f} GB on" if begin else ""
        tell({"progress": f"downloading {name}, {size / 1e9:.2f} GB{said}"})
        with part.open("r+b" if begin else "wb") as raw:
            raw.seek(begin)
            http_get(
                hf_hub_url(repo, name, revision=commit),
                Told(raw, name, size),  # type: ignore[arg-type]
                resume_size=begin,
                headers=build_hf_headers(token=token()),
                expected_size=size,
            )
        if right(part, file):
            part.rename(target)
            return
        part.unlink()
        if not begin:
            break  # else the beginning was of another version
    raise Wrong(
        f"{name} isn't the file that the hub lists: its checksum differs. It was removed. Run this again; if it "
        "stays so, the file was changed on the hub or on the way, so take another revision or another source."
    )


class Wrong(Exception):
    """A file isn't what it has to be; the message is for people."""


class Told:
    """A file that tells how much has been written to it."""

    def __init__(self, file: BinaryIO, name: str, size: int) -> None:
        self._file, self._name, self._size = file, name, size
        self._next = file.tell() + TELL_EVERY_BYTES

    def write(self, chunk: bytes) -> int:
        """As of any file; raises `Wrong` for more than the hub has announced."""
        written = self._file.write(chunk)
        if self._file.tell() > self._size:
            raise Wrong(f"{self._name} is longer than the hub says. What has arrived of it was left as it is.")
        if self._file.tell() >= self._next:
            tell({"progress": f"{self._name}: {100 * self._file.tell() // self._size} %"})
            self._next += TELL_EVERY_BYTES
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def right(path: Path, file: dict[str, Any]) -> bool:
    """Whether the file at `path` has the length and the checksum that the hub lists."""
    if path.stat().st_size != file["bytes"]:
        return False
    if "sha256" in file:
        return digest(path, hashlib.sha256()) == str(file["sha256"])
    # git's, of which the hub keeps no other for small files
    return digest(path, hashlib.sha1(f"blob {file['bytes']}\0".encode(), usedforsecurity=False)) == str(file["git"])


def digest(path: Path, hashing: Any) -> str:
    """The checksum of a file, in lower-case hex."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            hashing.update(chunk)
    found: str = hashing.hexdigest()
    return found


def stay_in_the_house() -> None:
    """Refuse each request, also one that the hub redirects, to a host outside."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory

    sys.path.append(str(Path(__file__).resolve().parents[2]))
    from appliance.addresses import is_private

    def require(request: Any) -> None:
        host = request.url.host
        found = socket.getaddrinfo(host, request.url.port, type=socket.SOCK_STREAM)
        if not all(is_private(str(info[4][0])) for info in found):
            raise Wrong(
                f"The hub leads to {host}, which is outside the house, and isn't asked. Have the hub serve its files "
                "itself, or fetch the model on a machine that may, from where that lies."
            )

    def client() -> Any:
        made = default_client_factory()
        made.event_hooks["request"].append(require)
        return made

    set_client_factory(client)


def token() -> str | bool:
    """What we show the hub; nothing that lies on this machine is looked for."""
    return os.environ.get("HF_TOKEN") or False


def words(failure: Exception, repo: str) -> str:
    """What went wrong and what to do, for an administrator."""
    from httpx import HTTPError
    from huggingface_hub import errors

    shown = "The token in HF_TOKEN doesn't open it." if token() else "Set HF_TOKEN to a token that may read it."
    status = getattr(getattr(failure, "response", None), "status_code", None)
    if isinstance(failure, Wrong):
        return str(failure)
    if isinstance(failure, errors.GatedRepoError):
        return f"{repo} is only for those who accepted its terms on its page at the hub. {shown}"
    if isinstance(failure, errors.RevisionNotFoundError):
        return f"{repo} has no such revision. Look at its page for branches and commits."
    if isinstance(failure, errors.RepositoryNotFoundError):
        return f"There is no {repo} on this hub, or it is private. Look for the spelling on its page. {shown}"
    if status in (401, 403):
        return f"The hub refuses {repo} ({status}). {shown}"
    if status is not None:
        return f"The hub answered {status} for {repo}. Try again later, or take another source."
    if isinstance(failure, OSError) and failure.errno is not None:
        return f"{failure.filename or 'the disk'}: {failure.strerror}. What has arrived is kept; mend that, then go on."
    if isinstance(failure, HTTPError | OSError):
        return f"The hub can't be reached, or hung up ({failure}). What has arrived is kept; run this again."
    return f"{type(failure).__name__}: {failure}"


def main(action: str, repo: str, revision: str, *into: str) -> int:
    """Do what the command line says."""
    try:
        if "STAY_IN_THE_HOUSE" in os.environ:
            stay_in_the_house()
        if action == "list":
            listing(repo, revision)
        else:
            get(repo, revision, Path(into[0]), [json.loads(line) for line in sys.stdin])
    except Exception as failure:
        tell({"refused": " ".join(words(failure, repo).split())[:600]})
        return 1
    return 0


if __name__ == "__main__":
    # a killed command must not leave this one writing into a folder that the next one works on
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    raise SystemExit(main(*sys.argv[1:]))
