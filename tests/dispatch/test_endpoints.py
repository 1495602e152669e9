"""The servers in the house that a config names: what each may be reached as, and what goes with each request."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance import config
from appliance.dispatch.endpoints import Endpoints
from appliance.errors import ConfigInvalid
from tests.fakes.certificates import Authority
from tests.fakes.collector import collector
from tests.fakes.time_authority import Root, time_authority


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ends-") as name:
        (Path(name) / "run").mkdir()
        yield Path(name)


def endpoints(folder: Path, **audit: Any) -> tuple[Endpoints, config.Audit]:
    written = {"models": {"chat": {"card": "tiny"}}, "state": str(folder), "audit": audit}
    (folder / "appliance.yaml").write_text(json.dumps(written))
    loaded = config.load(folder / "appliance.yaml")
    return Endpoints(loaded), loaded.settings.audit


def test_whoever_hears_of_the_log_is_a_destination_in_the_house(folder: Path) -> None:
    authority = Authority(folder)
    ends, _ = endpoints(
        folder,
        shipping={"endpoint": "https://collector.intern", "ca": str(authority.file)},
        timestamps={"url": "http://tsa.intern:3161/", "certificate": "tsa.pem"},
    )
    told = [(to.name, to.host, to.port, to.kind, to.tls) for to in ends.destinations]
    assert told == [
        ("collector of audit records", "collector.intern", 443, "in-house", True),
        ("time stamping authority", "tsa.intern", 3161, "in-house", False),
    ]
    assert endpoints(folder)[0].destinations == []  # off unless it is there


@pytest.mark.parametrize("what", ["shipping", "timestamps"])
def test_an_authority_or_a_key_that_is_not_there_is_named(folder: Path, what: str) -> None:
    known = {
        "shipping": {"endpoint": "https://a.intern"},
        "timestamps": {"url": "https://a.intern", "certificate": "c"},
    }
    with pytest.raises(ConfigInvalid, match=f"audit.{what}.ca"):
        endpoints(folder, **{what: {**known[what], "ca": str(folder / "none.pem")}})
    if what == "shipping":
        with pytest.raises(ConfigInvalid, match=r"env\.NOBODY_SET_THIS"):
            endpoints(folder, shipping={**known[what], "key": "env.NOBODY_SET_THIS"})


async def test_the_collector_is_asked_below_its_url_with_its_key(folder: Path) -> None:
    (folder / "key").write_text("s3cret")
    with collector() as server:
        url = f"{server.endpoint}/otlp/"
        ends, audit = endpoints(folder, shipping={"endpoint": url, "key": f"file:{folder / 'key'}"})
        ends.open()
        try:
            assert audit.shipping
            upstream = await ends.collector(audit.shipping)
            response = await upstream.post("/v1/logs", b"{}")
            assert response.status == 404  # it isn't at /otlp
            response.close()
            upstream.close()
        finally:
            ends.close()
        (headers,) = server.headers
        assert headers["host"] == f"127.0.0.1:{server.server_port}"
        assert headers["authorization"] == "Bearer s3cret"
        assert headers["content-type"] == "application/json"


async def test_the_time_stamping_authority_is_asked_at_its_very_url(folder: Path) -> None:
    with time_authority(folder, Root(folder).issue()) as authority:
        authority.forge = lambda query, stamp: (200, b"stamp")
        ends, audit = endpoints(folder, timestamps={"url": f"{authority.url}/", "certificate": "tsa.pem"})
        ends.open()
        try:
            assert audit.timestamps
            upstream = await ends.timestamp_authority(audit.timestamps)
            response = await upstream.post("", b"query")
            assert await response.whole(5) == b"stamp"
            response.close()
            upstream.close()
        finally:
            ends.close()
        ((path, headers, body),) = authority.heard
        assert (path, headers["content-type"], body) == ("/tsa/", "application/timestamp-query", b"query")
