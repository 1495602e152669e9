"""A model hub on this machine: its API, redirects to where large files lie, byte ranges, and its faults."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

COMMIT = "c0ffee" + "0" * 34
LARGE = (".safetensors", ".model", ".bin")


@dataclass
class Repository:
    """What one repository holds, at one commit. `listed` replaces what the API says of its files."""

    files: dict[str, bytes]
    licence: str | None = "apache-2.0"
    gated: bool = False
    listed: list[dict[str, Any]] | None = None

    def siblings(self) -> list[dict[str, Any]]:
        """The files, as the API lists them."""
        if self.listed is not None:
            return self.listed
        return [listed(name, body) for name, body in self.files.items()]


def listed(name: str, body: bytes) -> dict[str, Any]:
    """How the API lists a file: large ones by SHA-256, others by git's checksum."""
    git = hashlib.sha1(f"blob {len(body)}\0".encode() + body, usedforsecurity=False).hexdigest()
    entry: dict[str, Any] = {"rfilename": name, "size": len(body), "blobId": git}
    if name.endswith(LARGE):
        entry["lfs"] = {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 134}
    return entry


@dataclass
class Hub:
    """A running hub. `cut`: the next bodies of large files end after so many bytes; `deaf`: so many after them fail.

    With `held`, a body that is cut doesn't end before that is set. `commit` is what it answers with; large files lie
    `elsewhere`, or here.
    """

    url: str = ""
    commit: str = COMMIT
    elsewhere: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    deaf: int = 0
    held: threading.Event | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)


@contextmanager
def running() -> Iterator[Hub]:
    """A hub, as long as it is needed."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.01))
        thread.start()
        yield hub
        server.shutdown()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.hub.asked.append((self.path, self.headers.get("Range")))
        self.hub.tokens.add(self.headers.get("Authorization"))
        parts = self.path.split("?")[0].strip("/").split("/")
        match parts:
            case ["api", "models", owner, name, "revision", revision]:
                self._info(f"{owner}/{name}", revision)
            case [owner, name, "resolve", _, *file]:
                self._resolve(f"{owner}/{name}", "/".join(file))
            case ["cdn", owner, name, *file]:
                self._body(self.hub.repositories[f"{owner}/{name}"].files["/".join(file)])
            case _:
                self.send_error(404)

    def _info(self, repo: str, revision: str) -> None:
        held = self.hub.repositories.get(repo)
        if held is None:
            self._refuse(401, "RepoNotFound")
        elif held.gated and self.headers.get("Authorization") != "Bearer hf_right":
            self._refuse(403, "GatedRepo")
        elif revision not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound")
        else:
            about = {"license": held.licence, "language": ["en", "de"]} if held.licence else {}
            answer = {"id": repo, "sha": self.hub.commit, "siblings": held.siblings(), "cardData": about, "tags": []}
            self._body(json.dumps(answer).encode(), small=True)

    def _resolve(self, repo: str, file: str) -> None:
        body = self.hub.repositories[repo].files.get(file)
        if body is None:
            self._refuse(404, "EntryNotFound")
        elif file.endswith(LARGE):
            self.send_response(302)
            self.send_header("Location", f"{self.hub.elsewhere or self.hub.url}/cdn/{repo}/{file}")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self._body(body, small=True)

    def _body(self, body: bytes, *, small: bool = False) -> None:
        if not small and self.hub.deaf and not self.hub.cut:
            self.hub.deaf -= 1
            self.send_error(503)
            return
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if self.command != "HEAD":
            left = body[start:]
            whole = small or not self.hub.cut
            self.wfile.write(left if whole else left[: self.hub.cut.pop(0)])
            if not whole and self.hub.held is not None:
                self.hub.held.wait(30)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass
