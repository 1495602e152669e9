"""The CPU image, built and started for real. Needs podman, root, a base: docs/deploy.md, "How this was checked"."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
BASE = "docker.io/library/debian:bookworm-slim"
IMAGE = "localhost/inference-appliance:test"
NAME = "appliance-image-test"

# What a host needs beside: e.g. "podman --runtime runc" under cgroup v1, limits where CAP_SYS_RESOURCE is missing.
PODMAN = shlex.split(os.environ.get("APPLIANCE_PODMAN", "podman"))
BUILD = shlex.split(os.environ.get("APPLIANCE_BUILD_ARGS", ""))
RUN = shlex.split(os.environ.get("APPLIANCE_RUN_ARGS", ""))

pytestmark = [pytest.mark.long, pytest.mark.engine]


def podman(*arguments: str, check: bool = True) -> str:
    result = subprocess.run([*PODMAN, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0 or not check, result.stderr[-2000:]
    return result.stdout.strip()


@pytest.fixture(scope="module")
def image() -> str:
    if shutil.which("podman") is None or os.geteuid() != 0:
        pytest.skip("podman isn't installed, or this isn't root")
    if subprocess.run([*PODMAN, "image", "exists", BASE], check=False).returncode != 0:
        pytest.skip(f"{BASE} isn't there")
    podman("build", "--format=docker", "--pull=never", "--target=cpu", f"--tag={IMAGE}", *BUILD, str(ROOT))
    return IMAGE


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[str]:
    """The image running as docs/deploy.md says; yields the address once it is ready."""
    options = shlex.split(
        f"--name {NAME} --replace --no-healthcheck --read-only --tmpfs /tmp --cap-drop ALL "
        f"--security-opt no-new-privileges --security-opt seccomp={ROOT}/configs/container/seccomp.json "
        f"--security-opt unmask=ALL --volume {ROOT}/models:/opt/appliance/models:ro "
        "--publish 127.0.0.1::8000"
    )
    podman("run", "--detach", *RUN, *options, image)
    try:
        address = "http://" + podman("port", NAME, "8000/tcp").splitlines()[0]
        deadline = time.monotonic() + 600
        while True:
            try:
                if httpx.get(f"{address}/health/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, podman("logs", NAME)[-2000:]
            time.sleep(1)
        yield address
    finally:
        podman("rm", "--force", "--volumes", NAME)


def test_it_holds_no_build_tools_and_is_not_root(image: str) -> None:
    script = "id -u; for tool in gcc cc c++ make cmake ninja pip pip3 uv git; do command -v $tool; done; ls .venvs"
    output = podman("run", "--rm", "--no-healthcheck", *RUN, "--entrypoint=sh", image, "-c", script)
    assert output.split() == ["10001", "engine", "gateway"]


def test_it_answers_sealed_heals_its_zombies_and_drains(container: str) -> None:
    """One life of a container: ready, healthy, an answer from outside, an orphan reaped, a gentle stop."""
    status = json.loads(podman("exec", NAME, "appliance", "status", "--json"))
    assert status["egress"]["missing"] == []
    podman("exec", NAME, "python3", "-I", "/opt/appliance/healthcheck.py")

    key = next(word for word in podman("logs", NAME).split() if word.startswith("sk-appliance-"))
    body = {"model": "chat", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx.post(f"{container}/v1/chat/completions", json=body, headers=headers, timeout=60)
    assert "Paris" in answer.json()["choices"][0]["message"]["content"]

    podman("exec", NAME, "sh", "-c", "(sleep 0.2 &)")
    time.sleep(1)
    assert "Z" not in podman("exec", NAME, "sh", "-c", "sed -n 's/^State:.//p' /proc/[0-9]*/status")

    podman("stop", "--time=60", NAME)
    assert podman("inspect", "--format={{.State.ExitCode}}", NAME) == "0"
