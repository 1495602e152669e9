"""What reaches a provider: cleared requests, and of them nothing that nobody cleared.

python -m tests.dispatch.test_cleared     be the provider and the gateway in a house of its own; prints what came of it
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.clearance import Cleared, digest, sign
from appliance.dispatch.dialler import Destination
from appliance.dispatch.pair import Pair
from appliance.dispatch.way import Route
from tests.fakes.certificates import Authority
from tests.fakes.endpoint import Endpoint, endpoint
from tests.fakes.network import Outside

NAME, ADDRESS = "at-9-9-9-9.test", "9.9.9.9"
BODY = b'{"model": "m", "messages": []}'
STREAM = b'{"model": "m", "messages": [], "stream": true}'
PATH = "/v1/chat/completions"
KEY, STRANGER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()


def cleared(body: bytes = BODY, **changed: Any) -> Cleared:
    made = Cleared("cloud", "POST", PATH, digest(body), int(time.time()) + 20, secrets.token_hex(16))
    return replace(made, **changed)


def request(*clearances: str, body: bytes = BODY, method: str = "POST", path: str = PATH, head: str = "") -> bytes:
    lines = "".join(f"X-Clearance: {each}\r\n" for each in clearances)
    length = "" if "chunked" in head else f"content-length: {len(body)}\r\n"
    top = f"{method} {path} HTTP/1.1\r\nhost: elsewhere\r\nauthorization: Bearer sk-caller\r\n{lines}{head}{length}\r\n"
    return top.encode() + body


def ask(path: Path, data: bytes, *, whole: bool = True) -> tuple[int, bytes]:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(20)
        caller.connect(str(path))
        with contextlib.suppress(BrokenPipeError):  # it doesn't listen to the end of what is too large
            caller.sendall(data)
        if not whole:
            caller.shutdown(socket.SHUT_WR)
        answer = http.client.HTTPResponse(caller)
        answer.begin()
        return answer.status, answer.read()


def refused() -> dict[str, bytes]:
    """What may not leave, each one wrong in one way."""
    right = sign(KEY, cleared())
    return {
        "no clearance": request(),
        "two clearances": request(right, sign(KEY, cleared())),
        "another body": request(right, body=BODY.replace(b"[]", b"[1]")),
        "another path": request(right, path="/v1/files"),
        "another method": request(right, method="PUT"),
        "another provider": request(sign(KEY, cleared(provider="other"))),
        "expired": request(sign(KEY, cleared(expires=int(time.time()) - 1))),
        "for too long": request(sign(KEY, cleared(expires=int(time.time()) + 3600))),
        "signed by a stranger": request(sign(STRANGER, cleared())),
        "two requests in one": request(right) + request(sign(KEY, cleared())),
        "no request": b"\x16\x03\x01 hello\r\n\r\n",
        "an absolute target": request(sign(KEY, cleared(path="https://elsewhere/")), path="https://elsewhere/"),
        "a tunnel": b"CONNECT elsewhere:443 HTTP/1.1\r\nhost: elsewhere\r\n\r\n",
        "endless headers": b"POST / HTTP/1.1\r\n" + b"a: b\r\n" * 40_000,
        "too large": request(sign(KEY, cleared(b" " * (17 * 2**20))), body=b" " * (17 * 2**20)),
    }


@contextlib.contextmanager
def pair(folder: Path, authority: Authority, key: bytes | None, host: str = NAME) -> Any:
    folder.mkdir()
    route = Route(Destination("cloud", host, 443, "provider", tls=True), str(authority.file), "sk-cloud")
    made = Pair({folder / "p.sock": route}, folder, clearance_key=key, best_effort=False)
    try:
        yield folder / "p.sock"
    finally:
        made.close()


def provide(far: Endpoint, folder: Path, authority: Authority) -> dict[str, Any]:
    told: dict[str, Any] = {}
    with pair(folder / "1", authority, KEY.public_key().public_bytes_raw()) as path:
        once = request(sign(KEY, cleared()), head="x-leak: a secret\r\ncookie: a secret\r\n")
        told["cleared"] = ask(path, once)[0]
        connections = far.connections
        told["replayed"] = ask(path, once)[0]
        told["refused"] = {}
        for name, data in refused().items():
            told["refused"][name] = ask(path, data)[0]
        told["half a request"] = ask(path, request(sign(KEY, cleared()))[:-1], whole=False)[0]
        told["dialled for what was refused"] = far.connections - connections
        chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
        told["chunked"] = ask(
            path, request(sign(KEY, cleared()), body=chunked, head="transfer-encoding: chunked\r\n")
        )[0]  # fmt: skip
        status, answer = ask(path, request(sign(KEY, cleared(STREAM)), body=STREAM))
        told["stream"] = [status, answer.decode()]
    with pair(folder / "2", authority, None) as path:
        told["without a gate"] = ask(path, request(sign(KEY, cleared())))[0]
    with pair(folder / "3", Authority(folder, "wrong"), KEY.public_key().public_bytes_raw()) as path:
        told["a provider with a wrong certificate"] = ask(path, request(sign(KEY, cleared())))[0]
    with pair(folder / "4", authority, KEY.public_key().public_bytes_raw(), "name.in.the.street.test") as path:
        told["a name that leads into the house"] = ask(path, request(sign(KEY, cleared())))[0]
    return told | {"heard": far.heard}


def main() -> None:
    from pyroute2 import IPRoute

    with IPRoute() as link:
        link.addr("add", index=1, address=ADDRESS, prefixlen=32)
    with tempfile.TemporaryDirectory(prefix="cloud-") as name:
        folder = Path(name)
        authority = Authority(folder)
        with endpoint(authority.issue(NAME), (ADDRESS, 443)) as far:
            print(json.dumps(provide(far, folder, authority)))  # noqa: T201 - the answer to whoever started it


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with Outside(tmp_path_factory.mktemp("street")) as outside:
        command = [sys.executable, "-m", "tests.dispatch.test_cleared"]
        run = outside.run(command, stdout=subprocess.PIPE, timeout=100, check=True)
        told: dict[str, Any] = json.loads(run.stdout)
        return told | {"sent": [str(packet) for packet in outside.sent() if packet.kind != "udp"]}


def test_a_cleared_request_is_answered_once(told: dict[str, Any]) -> None:
    assert (told["cleared"], told["replayed"]) == (200, 403)


def test_nothing_leaves_of_it_but_what_was_cleared(told: dict[str, Any]) -> None:
    heard = told["heard"][0]
    assert (heard["path"], heard["body"]) == (PATH, json.loads(BODY))
    assert {name.lower(): value for name, value in heard["headers"].items()} == {
        "host": NAME,
        "authorization": "Bearer sk-cloud",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "connection": "close",
        "content-length": str(len(BODY)),
    }


def test_whatever_else_comes_is_refused_and_nothing_is_dialled(told: dict[str, Any]) -> None:
    assert told["refused"] == dict.fromkeys(refused(), 403)
    assert told["half a request"] == 403
    assert told["dialled for what was refused"] == 0


def test_a_body_in_chunks_is_one_body(told: dict[str, Any]) -> None:
    assert told["chunked"] == 200
    assert told["heard"][1]["body"] == json.loads(BODY)


def test_the_answer_is_streamed_back(told: dict[str, Any]) -> None:
    status, text = told["stream"]
    assert status == 200
    assert text.endswith("data: [DONE]\n\n")


def test_without_a_gate_nothing_can_be_cleared(told: dict[str, Any]) -> None:
    assert told["without a gate"] == 403


def test_a_provider_that_is_not_itself_hears_nothing(told: dict[str, Any]) -> None:
    assert told["a provider with a wrong certificate"] == 502
    assert told["a name that leads into the house"] == 502
    assert len(told["heard"]) == 3
    assert told["sent"] == []


if __name__ == "__main__":
    main()
