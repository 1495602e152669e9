"""Reached by a Unix socket, or by one that systemd holds: with all that holds on a TCP port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from appliance.api.wire import listen_tcp, listen_unix
from tests.fakes.certificates import Authority
from tests.fakes.house import ROOT, House, Running, until

Start = Callable[..., Running]
USER: Any = {"role": "user", "content": "tokens=3"}
CHAT = "/v1/chat/completions"
ID = "req_0123456789abcdef01234567"


@pytest.fixture
def by_path(house: House) -> House:
    """A house that listens on a Unix socket."""
    house.card("tiny")
    house.serve("chat", "tiny")
    house.write(listen={"socket": "api.sock", "shutdown_seconds": 5})
    return house


def speak(running: Running) -> None:
    """Answers, streams, refusals, pages and the line to paste: all as ever."""
    with running.client() as client:
        assert client.get("/health/live").status_code == client.get("/health/ready").status_code == 200
        assert client.get("/docs").status_code == 200
        assert client.get("/v1/models", headers={"authorization": "Bearer wrong"}).status_code == 401
        assert client.post(CHAT, content=b"x" * (5 * 2**20)).status_code == 413
    path = running.base_url.removeprefix("unix:") if running.base_url.startswith("unix:") else None
    http_client = httpx.Client(transport=httpx.HTTPTransport(uds=path))
    url = "http://localhost/v1" if path else f"{running.base_url}/v1"
    headers = {"x-request-id": ID}
    with openai.OpenAI(base_url=url, api_key=running.key, http_client=http_client, default_headers=headers) as sdk:
        answer = sdk.chat.completions.create(model="chat", messages=[USER])
        assert answer.choices[0].message.content == "tiny tiny tiny"
        chunks = list(sdk.chat.completions.create(model="chat", messages=[USER], stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "tiny tiny tiny"
        with pytest.raises(openai.NotFoundError):
            sdk.chat.completions.create(model="nope", messages=[USER])
    log = running.house.state / "logs" / "requests.log"
    until(lambda: ID in log.read_text())
    paste(running)


def paste(running: Running) -> None:
    printed = running.printed("curl ")
    line = printed[printed.index("curl ") :].split("\n\n")[0]
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert '"role":"assistant"' in done.stdout.replace(" ", ""), line + done.stdout + done.stderr


def refusal(house: House, **options: Any) -> str:
    """What the appliance says when it ends at once because of its config."""
    command = [sys.executable, "-m", "appliance", "serve", "--config", str(house.write())]
    command = [*options.pop("under", ()), *command]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60, **options)
    assert done.returncode == 2, done.stderr
    return done.stderr


def test_everything_works_over_a_unix_socket(by_path: House, start: Start) -> None:
    running = start(by_path).ready()
    path = by_path.folder / "api.sock"
    assert running.base_url == f"unix:{path}"
    assert path.stat().st_mode & 0o777 == 0o660
    speak(running)
    listening = psutil.Process(running.process.pid).net_connections("inet")
    assert not listening, "a TCP port is open all the same"


def test_a_stop_lets_a_stream_over_a_unix_socket_finish(by_path: House, start: Start) -> None:
    running = start(by_path).ready()
    body = {"model": "chat", "stream": True, "messages": [{"role": "user", "content": "tokens=8 gap=0.1"}]}
    with running.client() as client, client.stream("POST", CHAT, json=body) as answer:
        pieces = answer.iter_text()
        text = next(pieces)
        running.process.send_signal(signal.SIGTERM)
        text += "".join(pieces)
    assert text.rstrip().endswith("[DONE]")
    assert running.stop() == 0


def test_a_unix_socket_that_a_killed_appliance_left_is_taken_and_a_living_one_is_not(
    by_path: House, start: Start, house: House, tmp_path_factory: pytest.TempPathFactory
) -> None:
    killed = start(by_path)
    killed.process.kill()
    killed.process.wait()
    assert (by_path.folder / "api.sock").is_socket()
    running = start(by_path).ready()
    other = House(tmp_path_factory.mktemp("other"))
    other.card("tiny")
    other.serve("chat", "tiny")
    other.write(listen={"socket": str(by_path.folder / "api.sock")})
    assert "listen: another program listens on" in refusal(other)
    speak(running)


def test_a_path_that_holds_something_else_is_refused(by_path: House) -> None:
    (by_path.folder / "api.sock").write_text("precious")
    assert "listen: " in (said := refusal(by_path))
    assert "isn't a socket" in said
    assert (by_path.folder / "api.sock").read_text() == "precious"


# --- Passed by systemd --------------------------------------------------------------------------------------------

APART = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-current-user", "--net"]
"""Runs a command in a network namespace without any interface but a loopback that is down: PrivateNetwork=yes."""


def handed(sock: socket.socket) -> dict[str, Any]:
    """Options of a start that has `sock` passed as systemd does: as descriptor 3, by pid."""
    number = sock.fileno()
    script = f'exec 3<&{number}; {f"exec {number}<&-; " if number != 3 else ""}LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"'
    return {"under": [*APART, "bash", "-c", script, "bash"], "passed": [number]}


def network(pid: int) -> int:
    return Path(f"/proc/{pid}/ns/net").stat().st_ino


@pytest.fixture
def small(house: House) -> House:
    house.card("tiny")
    house.serve("chat", "tiny")
    house.settings["listen"] = {"port": 1, "shutdown_seconds": 5}  # which no user may bind where it counts
    return house


def test_a_passed_port_is_served_out_of_a_network_without_a_way_out(small: House, start: Start) -> None:
    with listen_tcp("127.0.0.1", 0) as sock:
        running = start(small, **handed(sock)).ready()
        assert running.base_url == f"http://127.0.0.1:{sock.getsockname()[1]}"
    for process in running.family():  # the gateway's own seal would move only the gateway and engines
        assert network(process.pid) != network(os.getpid()), process.cmdline()
        links = Path(f"/proc/{process.pid}/net/dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in links] == ["lo"]
    speak(running)
    for child in running.family()[1:]:
        assert not [name for name in child.environ() if name.startswith("LISTEN_")]
    assert running.stop() == 0


def test_a_passed_unix_socket_is_served_out_of_a_network_without_a_way_out(small: House, start: Start) -> None:
    with listen_unix(small.folder / "held.sock") as sock:
        running = start(small, **handed(sock)).ready()
    assert running.base_url == f"unix:{small.folder}/held.sock"
    speak(running)


def test_while_the_socket_is_held_a_restart_refuses_nobody(small: House, start: Start) -> None:
    """Whoever asks meanwhile waits in the queue, and gets an answer from the next appliance."""
    with listen_tcp("127.0.0.1", 0) as sock:
        first = start(small, **handed(sock)).ready()
        key, url = first.key, f"{first.base_url}{CHAT}"
        assert first.stop() == 0
        waiting = socket.create_connection(sock.getsockname())
        second = start(small, **handed(sock)).ready()
    with waiting:
        waiting.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert waiting.recv(64).startswith(b"HTTP/1.1 200")
    assert second.base_url == first.base_url
    assert httpx.post(url, headers={"authorization": f"Bearer {key}"}, json={}).status_code == 401, "a loan ended"


@pytest.mark.skipif(shutil.which("systemd-socket-activate") is None, reason="systemd isn't installed")
def test_systemds_own_activation_starts_it_and_the_first_caller_is_answered(small: House, start: Start) -> None:
    with listen_tcp("127.0.0.1", 0) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    asking = ["curl", "--silent", "--fail", "--retry", "30", "--retry-connrefused", "--retry-delay", "1"]
    with subprocess.Popen([*asking, f"http://{address}/health/live"], stdout=subprocess.DEVNULL) as first:
        running = start(small, under=["systemd-socket-activate", f"--listen={address}", *APART]).ready()
        assert running.base_url == f"http://{address}"
        assert first.wait(30) == 0
    speak(running)


@pytest.mark.parametrize(
    ("host", "listen", "expected"),
    [
        ("0.0.0.0", {}, "host 0.0.0.0 is reachable from the network"),  # noqa: S104 - it is refused
        ("::", {}, "host :: is reachable from the network"),
        ("path", {"tls": True}, "a Unix socket takes no `tls`"),
    ],
)
def test_a_passed_socket_keeps_the_rules_of_the_config(
    small: House, host: str, listen: dict[str, Any], expected: str
) -> None:
    if listen:
        pair = Authority(small.folder).issue("house")
        small.settings["listen"]["tls"] = {"certificate": str(pair.certificate), "key": str(pair.key)}
    with listen_unix(small.folder / "held.sock") if host == "path" else listen_tcp(host, 0) as sock:
        options = handed(sock)
        said = refusal(small, under=options["under"], pass_fds=options["passed"])
    assert f"listen: the socket that systemd passed: {expected}" in said


def test_a_passed_socket_on_the_network_is_taken_where_a_proxy_is_said_to_be_in_front(
    small: House, start: Start
) -> None:
    small.settings["listen"]["behind_proxy"] = True
    with listen_tcp("0.0.0.0", 0) as sock:  # noqa: S104 - for a moment
        running = start(small, **handed(sock))
        assert running.base_url == f"http://127.0.0.1:{sock.getsockname()[1]}"
    assert until(lambda: httpx.get(f"{running.base_url}/health/live").status_code == 200)
