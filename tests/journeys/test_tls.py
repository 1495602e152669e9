"""On the network only over TLS, and with a certificate that is renewed while people work."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from tests.fakes.certificates import Authority
from tests.fakes.house import House, Running, until

USER: Any = {"role": "user", "content": "tokens=3"}


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def running(house: House, start: Callable[..., Running], authority: Authority) -> Running:
    """An appliance on all addresses, which TLS allows."""
    pair = authority.issue("house")
    house.card("tiny")
    house.serve("chat", "tiny")
    tls = {"certificate": str(pair.certificate), "key": str(pair.key)}
    house.write(listen={"host": "0.0.0.0", "port": 0, "tls": tls})  # noqa: S104 - TLS is on
    running = start(house).ready()
    assert running.base_url.startswith("https://127.0.0.1:")
    return running


def serial(running: Running, authority: Authority) -> str:
    """Of the certificate that is shown now."""
    parts = urlsplit(running.base_url)
    context = ssl.create_default_context(cafile=authority.file)
    plain = socket.create_connection((parts.hostname, parts.port))
    with plain, context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
        return str((secure.getpeercert() or {})["serialNumber"])


def test_the_sdk_works_through_tls(running: Running, authority: Authority) -> None:
    trusting = openai.DefaultHttpxClient(verify=ssl.create_default_context(cafile=authority.file))
    with openai.OpenAI(base_url=f"{running.base_url}/v1", api_key=running.key, http_client=trusting) as sdk:
        answer = sdk.chat.completions.create(model="chat", messages=[USER])
        assert answer.choices[0].message.content == "tiny tiny tiny"
        chunks = list(sdk.chat.completions.create(model="chat", messages=[USER], stream=True))
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "tiny tiny tiny"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{running.base_url}/health/live")
    with pytest.raises(httpx.HTTPError):
        httpx.get(running.base_url.replace("https", "http") + "/health/live")


def test_a_renewed_certificate_is_taken_up_and_half_a_pair_is_not(running: Running, authority: Authority) -> None:
    before = serial(running, authority)
    listen = running.house.settings["listen"]["tls"]
    renewed = authority.issue("renewed")
    Path(listen["certificate"]).write_bytes(renewed.certificate.read_bytes())
    log = running.house.state / "logs" / "appliance.log"
    until(lambda: "not renewed" in log.read_text())
    assert serial(running, authority) == before
    Path(listen["key"]).write_bytes(renewed.key.read_bytes())
    until(lambda: serial(running, authority) != before)
