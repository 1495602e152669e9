"""From the cloud through the real outlet and dialler to providers, over TLS: what each of them hears.

python -m tests.dispatch.cloud.test_outward     be the gateway and the providers in a house of its own
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance import config
from appliance.clearance import Cleared, digest, sign
from appliance.dispatch.cloud.cloud import Cloud
from appliance.dispatch.endpoints import Endpoints
from appliance.errors import Refused
from tests.dispatch.cloud.parts import CLOUD_MODEL, Clock, Far, chat
from tests.fakes.certificates import Authority
from tests.fakes.dialects import Play
from tests.fakes.network import Outside
from tests.fakes.providers import provider

PROVIDERS = {
    "openai": ("9.9.9.9", {"url": "https://at-9-9-9-9.test/some/v1", "api": "openai"}),
    "azure": ("8.8.8.8", {"url": "https://at-8-8-8-8.test", "api": "azure", "api_version": "2024-10-21"}),
    "anthropic": ("1.1.1.1", {"url": "https://at-1-1-1-1.test/v1", "api": "anthropic"}),
}


def settings(folder: Path, authority: Authority) -> dict[str, Any]:
    more = {"models": {"public": CLOUD_MODEL}, "ca": str(authority.file), "region": "eu"}
    providers = {
        name: told | more | {"key": f"env.KEY_OF_{name.upper()}"} for name, (_, told) in PROVIDERS.items()
    }  # fmt: skip
    return {
        "models": {"public": {"card": "tiny"}},
        "state": str(folder),
        "egress": {"mode": "anonymized", "providers": providers},
    }


async def ask_all(house: Far, key: Ed25519PrivateKey) -> dict[str, Any]:
    told: dict[str, Any] = {}

    async def clear(name: str, method: str, path: str, body: bytes) -> str:
        expires = int(time.time()) + 20
        return sign(key, Cleared(name, method, path, digest(body), expires, secrets.token_hex(16)))

    async def wrong(name: str, method: str, path: str, body: bytes) -> str:
        return await clear(name, method, path, body + b" ")

    for name, double in house.doubles.items():
        await house.ask(chat("Guten Tag, Klient_001"), names=[name], clear=clear)
        whole = house.reply.answer["choices"][0]["message"]["content"]
        await house.ask(chat("Guten Tag, Klient_001", stream=True), names=[name], clear=clear)
        told[name] = {"whole": whole, "streamed": house.reply.text, "connections": double.connections}
        try:
            await house.ask(chat(), names=[name, "openai"], clear=wrong)
        except Refused as refusal:
            told[name]["not cleared"] = refusal.code
        double.say(Play(status=401))
        try:
            await house.ask(chat(), names=[name], clear=clear)
        except Refused as refusal:
            told[name]["refused"] = refusal.code
        told[name]["heard"] = [{"path": heard.path, "headers": heard.headers} for heard in double.heard]
    return told


def main() -> None:
    from pyroute2 import IPRoute

    with tempfile.TemporaryDirectory(prefix="out-") as name, ExitStack() as stack:
        folder = Path(name)
        authority, key = Authority(folder), Ed25519PrivateKey.generate()
        doubles = {}
        for provider_name, (address, told) in PROVIDERS.items():
            with IPRoute() as link:
                link.addr("add", index=1, address=address, prefixlen=32)
            host = told["url"].split("/")[2]
            secret = os.environ[f"KEY_OF_{provider_name.upper()}"] = f"sk-{provider_name}"
            double = provider(authority.issue(host), (address, 443), secret)
            doubles[provider_name] = stack.enter_context(double)
        (folder / "appliance.yaml").write_text(json.dumps(settings(folder, authority)))
        (folder / "run").mkdir()
        loaded = config.load(folder / "appliance.yaml")
        endpoints = Endpoints(loaded, key.public_key().public_bytes_raw())
        endpoints.open()
        stack.callback(endpoints.close)
        clock = Clock()
        cloud = Cloud(loaded.settings.egress.providers, endpoints.providers, clock)
        house = Far(cloud, clock, doubles, dict(endpoints.providers))
        print(json.dumps(asyncio.run(ask_all(house, key))))  # noqa: T201 - the answer to whoever started it


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with Outside(tmp_path_factory.mktemp("street")) as outside:
        command = [sys.executable, "-m", "tests.dispatch.cloud.test_outward"]
        run = outside.run(command, stdout=subprocess.PIPE, timeout=100, check=True)
        told: dict[str, Any] = json.loads(run.stdout)
        return told


OWN = {
    "openai": ("/some/v1/chat/completions", {"authorization": "Bearer sk-openai"}),
    "azure": (
        "/openai/deployments/far-model/chat/completions?api-version=2024-10-21",
        {"api-key": "sk-azure"},
    ),
    "anthropic": ("/v1/messages", {"x-api-key": "sk-anthropic", "anthropic-version": "2023-06-01"}),
}


@pytest.mark.parametrize("name", PROVIDERS)
def test_each_hears_its_own_key_at_its_own_path_and_no_other_header(name: str, told: dict[str, Any]) -> None:
    path, headers = OWN[name]
    for heard in told[name]["heard"]:
        assert heard["path"] == path
        del heard["headers"]["content-length"]
        assert heard["headers"] == {
            "host": PROVIDERS[name][1]["url"].split("/")[2],
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "connection": "close",
            **headers,
        }
    assert len(told[name]["heard"]) == 3


@pytest.mark.parametrize("name", PROVIDERS)
def test_its_answer_comes_back_with_the_originals(name: str, told: dict[str, Any]) -> None:
    assert told[name]["whole"] == told[name]["streamed"] == 'Guten Tag, Jürgen "Jogi" Müller'
    assert told[name]["connections"] == 2


@pytest.mark.parametrize("name", PROVIDERS)
def test_other_bytes_than_the_cleared_ones_leave_for_nobody(name: str, told: dict[str, Any]) -> None:
    assert told[name]["not cleared"] == "not_cleared"


@pytest.mark.parametrize("name", PROVIDERS)
def test_what_a_provider_refuses_is_told_from_what_the_outlet_does(name: str, told: dict[str, Any]) -> None:
    assert told[name]["refused"] == "providers_failed"


if __name__ == "__main__":
    main()
