"""No network but a folder with a socket in it, and a proxy that shares the folder: with and without a container."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from appliance.control import ask
from appliance.errors import NotRunning
from tests.fakes.certificates import Authority
from tests.fakes.house import ROOT, House, Running, until

CONTAINER = ROOT / "configs" / "container"
APART = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-current-user", "--net"]
ASK = {"model": "chat", "stream": True, "messages": [{"role": "user", "content": "tokens=3"}]}

# As in test_image.py: what a host needs beside.
PODMAN = shlex.split(os.environ.get("APPLIANCE_PODMAN", "podman"))
RUN = shlex.split(os.environ.get("APPLIANCE_RUN_ARGS", ""))


@contextmanager
def proxy(house: House, door: Path) -> Iterator[httpx.Client]:
    """The proxy of the sealed profile, by its own config but for paths and port; yields a client of it."""
    authority = Authority(house.folder)
    pair = authority.issue("house")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    text = (CONTAINER / "sealed" / "nginx.conf").read_text()
    for old, new in {
        "/tmp/": f"{house.folder}/nginx-",  # noqa: S108 - only replaced
        "/run/appliance/api.sock": str(door),
        "/etc/nginx/tls/fullchain.pem": str(pair.certificate),
        "/etc/nginx/tls/key.pem": str(pair.key),
        "listen 8443 ssl": f"listen 127.0.0.1:{port} ssl",
    }.items():
        assert old in text
        text = text.replace(old, new)
    (house.folder / "nginx.conf").write_text(text)
    user = "user root;" if os.geteuid() == 0 else ""  # else its workers become somebody whom the socket isn't for
    command = ["nginx", "-c", str(house.folder / "nginx.conf"), "-g", f"daemon off; {user}"]
    log = house.folder / "nginx.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    trusting = ssl.create_default_context(cafile=authority.file)
    try:
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trusting, timeout=30) as client:
            until(lambda: listens(port) or process.poll() is not None)
            assert process.poll() is None, log.read_text()
            yield client
    finally:
        process.terminate()
        process.wait()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers(client: httpx.Client, key: str) -> None:
    """One stream through it all, and one body that only the appliance refuses."""
    headers = {"authorization": f"Bearer {key}"}
    with client.stream("POST", "/v1/chat/completions", json=ASK, headers=headers) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert answer.status_code == 200
    assert lines[-1] == "data: [DONE]"
    assert client.post("/v1/chat/completions", json={}, headers=headers).json()["error"]["param"]


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx isn't installed")
def test_a_proxy_reaches_an_appliance_that_has_no_network(house: House, start: Callable[..., Running]) -> None:
    house.card("tiny")
    house.serve("chat", "tiny")
    house.write(listen={"socket": "api.sock"})
    running = start(house, under=APART).ready()
    with proxy(house, house.folder / "api.sock") as client:
        answers(client, running.key)


def test_the_health_check_asks_by_path(house: House, start: Callable[..., Running]) -> None:
    house.card("tiny", faults={"slow": 2})
    house.serve("chat", "tiny")
    house.write(listen={"socket": "api.sock"})

    def healthy() -> subprocess.CompletedProcess[str]:
        environment = {"APPLIANCE_HEALTH_URL": f"unix:{house.folder}/api.sock"}
        check = [sys.executable, "-I", str(CONTAINER / "healthcheck.py")]
        return subprocess.run(check, env=environment, capture_output=True, text=True, check=False)

    assert "No such file" in healthy().stderr
    running = start(house)
    assert healthy().returncode != 0, "it loads"
    running.ready()
    until(lambda: healthy().returncode == 0)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("podman") is None or os.geteuid() != 0, reason="podman isn't installed, or no root")
def test_a_container_without_a_network_serves_through_a_shared_folder(house: House) -> None:
    """The container's options as docs/deploy.md gives them; this host's own files take the place of the image."""
    house.card("tiny")
    house.serve("chat", "tiny")
    door = house.folder / "door"
    house.settings |= {"state": str(house.folder / "state"), "listen": {"socket": str(door / "api.sock")}}
    house.settings["egress"]["verify"]["every_seconds"] = 1
    house.write()
    for writable in (door, house.state):
        writable.mkdir(mode=0o750)
        os.chown(writable, 10001, 10001)
    house.folder.chmod(0o755)
    name = f"appliance-networkless-{os.getpid()}"
    options = shlex.split(
        f"--name {name} --rm --network none --read-only --read-only-tmpfs=false --tmpfs /tmp:notmpcopyup --cap-drop ALL"
        f" --security-opt no-new-privileges --security-opt seccomp={CONTAINER}/seccomp.json"
        f" --security-opt unmask=ALL --user 10001:10001 --volume {house.folder}:{house.folder} --workdir {ROOT}"
    )
    command = [sys.executable, "-m", "appliance", "serve", "--config", str(house.config)]
    output = house.folder / "output.txt"
    with output.open("wb") as log:
        running = subprocess.Popen(
            [*PODMAN, "run", *RUN, *options, *_interpreter(house), "--rootfs", "/:O", *command], stdout=log, stderr=log
        )
    try:

        def status() -> dict[str, Any]:
            assert running.poll() is None, output.read_text()
            try:
                return next(ask(house.state, "GET", "/status"))
            except NotRunning:
                return {}

        until(lambda: "chat" in (found := status().get("models", {})) and found["chat"]["state"] == "ready", 60)
        proof = until(lambda: status()["egress"]["verify"]["last"] or False)
        assert proof["failed"] == [], "the witness inside"
        assert (door / "api.sock").stat().st_mode & 0o777 == 0o660
        inspect = [*PODMAN, "inspect", "--format={{.State.Pid}}", name]
        pid = subprocess.run(inspect, capture_output=True, text=True, check=True).stdout.strip()
        container = psutil.Process(int(pid))
        for process in [container, *container.children(recursive=True)]:
            links = Path(f"/proc/{process.pid}/net/dev").read_text().splitlines()[2:]
            assert [line.split(":")[0].strip() for line in links] == ["lo"]
            assert Path(f"/proc/{process.pid}/ns/net").stat().st_ino != Path("/proc/self/ns/net").stat().st_ino
        (lent,) = ask(house.state, "POST", "/keys/lend", {"seconds": 600})
        with proxy(house, door / "api.sock") as client:
            answers(client, str(lent["key"]))
    finally:
        subprocess.run([*PODMAN, "stop", "--time=30", name], check=False, stdout=subprocess.DEVNULL)
        running.wait(60)
    assert running.returncode == 0, output.read_text()


def _interpreter(house: House) -> list[str]:
    """Options that let a user who isn't root reach this Python, also where it is root's own."""
    base, home = Path(sys.base_prefix), Path("/root")
    if not base.is_relative_to(home):
        return []
    stage = house.folder / "home"
    (stage / base.relative_to(home)).mkdir(parents=True)
    return [f"--volume={stage}:{home}:ro", f"--volume={base}:{base}:ro"]
