"""Models elsewhere in the house: through the outlet, to the configured address and to no other."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest
from pydantic import TypeAdapter, ValidationError

from appliance import config
from appliance.config import ModelName, RemoteModel
from appliance.dispatch.endpoints import Endpoints
from appliance.errors import ConfigInvalid
from appliance.seal.evidence import evidence
from tests.fakes.certificates import Authority
from tests.fakes.endpoint import endpoint
from tests.fakes.house import House, Running, over, until

Start = Callable[..., Running]
ASK = {"model": "far", "messages": [{"role": "user", "content": "hello"}]}
PATH = "/v1/chat/completions"
OUTSIDE = [
    "8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "169.254.169.254", "::ffff:169.254.169.254", "fe80::1",
    "0.0.0.0", "::", "240.0.0.1", "255.255.255.255", "198.18.0.1", "224.0.0.1", "ff02::1", "100.128.0.1",  # noqa: S104 - not listened on
]  # fmt: skip


def serve(house: House, url: str, **settings: object) -> None:
    house.settings["models"]["far"] = {"endpoint": url, **settings}


def test_a_model_on_an_endpoint_answers_under_its_public_name_and_with_its_key(house: House, start: Start) -> None:
    with endpoint() as far:
        serve(house, far.url, key="env.FAR_KEY", upstream_model="org/far-model")
        running = start(house, environment={"FAR_KEY": "sk-far"})
        with running.client() as client:
            answer = client.post(PATH, json=ASK).json()
            assert answer["choices"][0]["message"]["content"] == "answered by org/far-model"
            assert answer["model"] == "far"
            stream = client.post(PATH, json=ASK | {"stream": True}).text
            assert stream.count('"model": "far"') == stream.count("data: {") == 2
            assert '"usage"' not in stream
            assert stream.endswith("data: [DONE]\n\n")
            assert client.get("/health/ready").json()["models"] == {"far": "endpoint"}
        headers = {name.lower(): value for name, value in far.heard[0]["headers"].items()}
        assert headers["authorization"] == "Bearer sk-far"
        assert headers["host"] == f"127.0.0.1:{far.server_port}"
        assert running.key not in str(far.heard)
        assert {note["path"] for note in far.heard} == {"/v1/chat/completions"}
        assert far.heard[0]["body"] == ASK | {"model": "org/far-model"}
        everything = running.output.read_text() + "".join(
            file.read_text(errors="replace") for file in (house.state / "logs").iterdir()
        )
        assert "sk-far" not in everything
        assert all("sk-far" not in " ".join(line) for line in running.commands().values())


def test_an_endpoint_behind_tls_is_believed_only_with_the_right_authority(
    house: House, start: Start, tmp_path: Path
) -> None:
    right, wrong = Authority(tmp_path, "right"), Authority(tmp_path, "wrong")
    with endpoint(right.issue("far")) as far:
        serve(house, far.url, ca=str(right.file))
        house.settings["models"]["doubtful"] = {"endpoint": far.url, "ca": str(wrong.file)}
        running = start(house)
        with running.client() as client:
            assert client.post(PATH, json=ASK).json()["choices"][0]["message"]["content"] == "answered by far"
            assert client.post(PATH, json=ASK | {"model": "doubtful"}).status_code == 502
        assert len(far.heard) == 1


def test_an_endpoint_that_is_down_is_an_error_and_heals(house: House, start: Start) -> None:
    with endpoint() as far:
        url = far.url
    serve(house, url)
    house.card("tiny")
    house.serve("chat", "tiny")
    running = start(house).ready()
    with running.client() as client:
        answer = client.post(PATH, json=ASK)
        assert answer.status_code == 502
        assert answer.json()["error"]["code"] == "engine_failed"
        assert client.post(PATH, json=ASK | {"model": "chat"}).status_code == 200


@pytest.mark.parametrize("address", OUTSIDE)
def test_a_public_address_in_the_config_is_refused_at_once(house: House, address: str) -> None:
    serve(house, f"https://[{address}]/v1" if ":" in address else f"https://{address}/v1")
    with pytest.raises(ConfigInvalid, match="private address"):
        config.load(house.write())


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "172.31.0.1", "192.168.1.1", "100.64.0.1", "127.0.0.1", "[::1]", "[fd00::1]", "[::ffff:10.0.0.1]"],
)
def test_a_private_address_in_the_config_is_taken(house: House, address: str) -> None:
    serve(house, f"https://{address}/v1")
    config.load(house.write())


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://gpu.internal/v1", "gpu.internal"),
        ("https://gpu.internal:443/v1", "gpu.internal"),
        ("http://gpu.internal:443/v1", "gpu.internal:443"),
        ("http://gpu.internal:8000", "gpu.internal:8000"),
        ("http://[fd00::1]:80/v1", "[fd00::1]"),
        ("https://[fd00::1]:8443/v1", "[fd00::1]:8443"),
        ("unix:/run/engine.sock", "engine"),
    ],
)
async def test_an_endpoint_is_asked_by_its_own_name(house: House, url: str, host: str) -> None:
    serve(house, url)
    endpoints = Endpoints(config.load(house.write()))
    model = endpoints.models["far"]
    assert isinstance(model, RemoteModel)
    upstream = await endpoints.connect("far", model)
    assert f"host: {host}\r\n" in upstream._head
    upstream.close()


POSTGRESQL = {"host": "db.house.test", "database": "books", "user": "appliance"}
IDENTITY = {"issuer": "x", "audience": "y", "keys_url": "https://login.house.test/keys"}


def with_accounts(house: House, postgresql: dict[str, object] | None, identity: dict[str, object] | None) -> Endpoints:
    """The endpoints of a config that names such servers, beside a model on a socket."""
    serve(house, "unix:/run/engine/engine.sock")
    store = {"postgresql": postgresql, "pepper": "env.PEPPER"} if postgresql else {}
    house.settings["accounts"] = {"store": store, **({"identity": identity} if identity else {})}
    return Endpoints(config.load(house.write()))


def test_a_store_and_an_identity_provider_are_destinations_whose_names_no_model_has(house: House) -> None:
    endpoints = with_accounts(house, POSTGRESQL | {"port": 5433}, IDENTITY)
    told = {(to.host, to.port, to.kind, to.tls): to.name for to in endpoints.destinations}
    assert told.keys() == {
        ("db.house.test", 5433, "in-house", True),
        ("login.house.test", 443, "in-house", True),
    }
    assert told["db.house.test", 5433, "in-house", True] == "PostgreSQL of keys and books"
    assert told["login.house.test", 443, "in-house", True] == "keys of the identity provider"
    for name in told.values():
        with pytest.raises(ValidationError):
            TypeAdapter(ModelName).validate_python(name)
    assert endpoints.store_socket == house.state / "run" / "outlet" / "store.sock"
    assert endpoints.sockets == [Path("/run/engine/engine.sock")]
    # a state folder that was short enough for engines is short enough for these
    longest = len(str(house.state / "run" / "e9999" / "engine.sock"))
    assert all(len(str(path)) <= longest for path in endpoints._routes)


def test_a_store_on_this_host_is_reached_by_its_own_socket_and_needs_no_outlet(house: House) -> None:
    endpoints = with_accounts(house, POSTGRESQL | {"host": "/run/postgresql", "port": 5433}, None)
    assert endpoints.destinations == []
    assert endpoints.store_socket == Path("/run/postgresql/.s.PGSQL.5433")
    assert endpoints.sockets == [Path("/run/engine/engine.sock"), endpoints.store_socket]


def test_without_either_there_is_no_way(house: House) -> None:
    endpoints = with_accounts(house, None, None)
    assert (endpoints.destinations, endpoints.store_socket) == ([], None)


async def test_an_identity_provider_is_asked_by_its_own_name(house: House) -> None:
    endpoints = with_accounts(house, None, IDENTITY | {"keys_url": "https://login.house.test:8443/a/keys"})
    identity = config.load(house.config).settings.accounts.identity
    assert identity
    upstream = await endpoints.identity(identity)
    assert "host: login.house.test:8443\r\n" in upstream._head
    upstream.close()


@pytest.mark.parametrize("section", ["store.postgresql", "identity"])
def test_an_authority_that_cannot_be_read_is_told_by_its_field(house: House, section: str) -> None:
    missing = {"ca": str(house.folder / "missing.pem")}
    postgresql = POSTGRESQL | (missing if section != "identity" else {})
    with pytest.raises(ConfigInvalid, match=rf"accounts\.{section}\.ca: .*missing.pem can't be used"):
        with_accounts(house, postgresql, IDENTITY | (missing if section == "identity" else {}))


@pytest.mark.parametrize("name", ["outlet", "dialler"])
async def test_whoever_waits_for_the_end_of_the_way_out_is_told(house: House, name: str) -> None:
    serve(house, "http://127.0.0.1:9")
    (house.state / "run").mkdir(parents=True)
    endpoints = Endpoints(config.load(house.write()))
    endpoints.open()
    ended = asyncio.create_task(endpoints.ended())
    done, _ = await asyncio.wait([ended], timeout=0.05)
    assert not done
    (pid,) = [pid for pid, what in endpoints.pids.items() if what == name]
    os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(30):
        await ended
    endpoints.close()
    assert endpoints.pids == {}


async def test_an_outlet_that_never_was_does_not_end(house: House) -> None:
    serve(house, "unix:/run/engine.sock")
    endpoints = Endpoints(config.load(house.write()))
    endpoints.open()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(endpoints.ended(), 0.05)
    endpoints.close()


def way_out(running: Running) -> list[psutil.Process]:
    """The outlet and the dialler."""
    return [each for each, line in running.commands().items() if any("appliance.dispatch." in part for part in line)]


def test_there_is_no_way_out_where_no_endpoint_is(shared: Running) -> None:
    assert not way_out(shared)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_the_way_out_ends_with_the_appliance_and_takes_no_secret_from_its_environment(
    house: House, start: Start, end: signal.Signals
) -> None:
    with endpoint() as far:
        serve(house, far.url, key="env.FAR_KEY")
        running = start(house, environment={"FAR_KEY": "sk-far"})
        both = way_out(running)
        assert len(both) == 2
        assert all("FAR_KEY" not in process.environ() for process in both)
        with running.client() as client:
            assert client.post(PATH, json=ASK).status_code == 200
        running.process.send_signal(end)
        until(lambda: all(map(over, both)), patience=5)


def test_a_missing_secret_stops_the_start_by_name(house: House, start: Start) -> None:
    assert "MISSING_KEY" not in os.environ
    serve(house, "http://127.0.0.1:9", key="env.MISSING_KEY")
    with pytest.raises(AssertionError, match=r"env\.MISSING_KEY: nothing is there"):
        start(house)


def test_an_endpoint_on_a_unix_socket_needs_no_outlet(house: House, start: Start, shared: Running) -> None:
    sockets = sorted((shared.house.state / "run").glob("e*/engine.sock"))
    serve(house, f"unix:{sockets[0]}", upstream_model="chat")
    running = start(house)
    with running.client() as client:
        answer = client.post(PATH, json=ASK)
    assert answer.status_code == 200
    assert answer.json()["model"] == "far"
    assert not way_out(running)


def test_an_endpoint_that_was_there_may_stay_in_an_applied_config(house: House, start: Start) -> None:
    with endpoint() as far:
        house.card("tiny")
        house.card("other")
        serve(house, far.url)
        house.serve("chat", "tiny")
        running = start(house).ready()
        house.serve("chat", "other")
        house.write()
        assert running.apply() == {"changes": ["chat: now answered by other"]}
        with httpx.Client(timeout=10) as client:
            answer = client.post(running.base_url + PATH, json=ASK, headers={"x-api-key": running.key})
        assert answer.status_code == 200
    until(lambda: len(running.engine_pids()) == 1)


@pytest.mark.parametrize("helper", ["nursery", "outlet", "dialler"])
def test_an_appliance_that_lost_what_it_cannot_start_again_ends(
    house: House, start: Callable[..., Running], helper: str
) -> None:
    house.card("tiny")
    house.serve("chat", "tiny")
    house.settings["models"]["far"] = {"endpoint": "http://127.0.0.1:9/v1"}
    running = start(house).ready()
    lost = [each for each, line in running.commands().items() if helper in " ".join(line)]
    lost[0].kill()
    assert running.process.wait(30) == 1
    assert "has to be started again" in running.output.read_text()


def confinement(running: Running) -> dict[str, list[tuple[int, int, int, int, bool]]]:
    """Of each kind of process, what the kernel says of the confinement of each of its threads."""
    host = Path("/proc/self/ns/net").stat().st_ino
    found: dict[str, list[tuple[int, int, int, int, bool]]] = {}
    for process in running.family():
        line = " ".join(process.cmdline())
        kinds = ("dispatch.outlet", "dispatch.dialler", "nursery", "witness", "api_server", "appliance")
        threads = {
            (t.seccomp, t.filters, t.no_new_privileges, t.capabilities, t.network == host)
            for t in evidence(process.pid)
        }
        found.setdefault(next(kind for kind in kinds if kind in line), []).extend(threads)
    return {kind: sorted(threads) for kind, threads in found.items()}


def test_all_but_the_way_out_is_sealed_in_mode_anonymized_as_in_mode_deny(house: House, start: Start) -> None:
    house.card("tiny")
    house.serve("chat", "tiny")
    quiet = {"verify": {"every_seconds": 0}}  # no verification comes and goes while it is looked at
    house.settings["egress"] = quiet
    running = start(house).ready()
    denied, told = confinement(running), running.status()["egress"]
    assert running.stop() == 0
    providers = {"cloud": {"url": "https://cloud.test/v1"}}
    house.settings["egress"] = quiet | {"mode": "anonymized", "providers": providers}
    running = start(house).ready()
    assert (running.status()["egress"]["holds"], running.status()["egress"]["missing"]) == (told["holds"], [])
    anonymized = confinement(running)
    assert anonymized.pop("dispatch.outlet") == [(2, 2, 1, 0, False)]
    assert anonymized.pop("dispatch.dialler") == [(2, 1, 1, 0, True)]
    assert anonymized == denied
    # and nothing clears requests yet, so none leaves
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(house.state / "run/outlet/p1.sock"))) as client:
        refused = client.post("http://cloud/v1/chat/completions", json=ASK)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "outlet")
    with running.client() as client:
        assert client.post(PATH, json=ASK | {"model": "chat"}).status_code == 200
        assert client.get("/health/ready").json()["models"] == {"chat": "ready"}
