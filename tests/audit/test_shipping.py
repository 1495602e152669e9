"""Shipping to a collector that does what a test says, through a real outlet: at least once, in order, nothing lost."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance import __version__
from appliance.audit import segments, shipping
from appliance.audit.journal import Journal
from appliance.audit.record import Kind
from appliance.audit.retention import in_place_of
from appliance.audit.retention import read as read_line
from appliance.audit.shipping import Shipper
from appliance.config import Audit, Shipping
from appliance.dispatch.endpoints import Endpoints
from tests.audit.night import PATIENCE, Night
from tests.fakes.collector import Collector, collector
from tests.fakes.way_out import way_out

KEY = "s3cret-collector-key"
BATCH = 10


async def until(what: Callable[[], bool]) -> None:
    """Return once `what()` is true."""
    async with asyncio.timeout(PATIENCE):
        while not what():  # noqa: ASYNC110 - files and other threads tell nobody
            await asyncio.sleep(0.005)


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Collector, Endpoints]]:
    with tempfile.TemporaryDirectory(prefix="otlp-") as name, collector() as server:
        folder = Path(name)
        (folder / "key").write_text(KEY)
        shipped = {"endpoint": f"{server.endpoint}/", "key": f"file:{folder / 'key'}"}
        with way_out(folder, audit={"shipping": shipped}) as endpoints:
            yield server, endpoints


@pytest.fixture
def server(served: tuple[Collector, Endpoints]) -> Collector:
    server = served[0]
    for held in (server.plan, server.poison, server.taken, server.headers):
        held.clear()
    server.partial, server.retry_after = False, ""
    server.answering.set()
    return server


class Shipped:
    """A log with a shipper, or several one after another."""

    def __init__(self, folder: Path, server: Collector, endpoints: Endpoints) -> None:
        self.folder, self.server, self._endpoints = folder, server, endpoints
        self.clock = Clock()
        self.journal: Journal
        self.shipper: Shipper
        self.night: Night

    async def open(self) -> None:
        self.journal = await Journal.open(self.folder / "audit", self.folder / "keys", Audit(checkpoint_seconds=3600))
        await self.start()

    async def start(self) -> None:
        self.night = Night()
        chosen = Shipping.model_validate({"endpoint": self.server.endpoint, "batch_records": BATCH})
        upstream = await self._endpoints.collector(chosen)
        self.shipper = Shipper(
            self.journal, self.folder / "work", chosen, upstream,
            host="gpu1", clock=self.clock, sleep=self.night.sleep,
        )  # fmt: skip
        self.shipper.start()

    async def close(self) -> None:
        await self.shipper.close()
        await self.journal.close(5)

    async def write(self, number: int, **body: Any) -> None:
        for _ in range(number):
            self.journal.note(Kind.ACT, {"act": "test", **body})
        await self.journal.checkpoint_now()

    async def arrived(self, seq: int | None = None) -> None:
        """Return once the collector has been noted to have taken all up to `seq`."""
        seq = self.journal.head[0] if seq is None else seq
        await until(lambda: self.noted["seq"] >= seq)

    @property
    def noted(self) -> dict[str, Any]:
        try:
            noted: dict[str, Any] = json.loads((self.folder / "work" / "shipped.json").read_bytes())
        except FileNotFoundError:
            return {"seq": 0}
        return noted

    def lines(self) -> list[str]:
        there = segments.listed(self.folder / "audit")
        return [line.decode() for segment in there for line in segments.lines(segment)]

    async def incidents(self) -> list[dict[str, Any]]:
        await self.journal.checkpoint_now()
        return [json.loads(line)["body"] for line in self.lines() if '"kind":"incident"' in line]


@pytest.fixture
async def shipped(tmp_path: Path, server: Collector, served: tuple[Collector, Endpoints]) -> AsyncIterator[Shipped]:
    shipped = Shipped(tmp_path, server, served[1])
    await shipped.open()
    yield shipped
    await shipped.close()


async def test_every_record_arrives_in_order_as_it_was_written(shipped: Shipped, server: Collector) -> None:
    await shipped.write(3 * BATCH + 1, text='quotation " and \\ and \x00 and \u2028 and 😀')
    await shipped.arrived()
    records = [record for delivery in server.taken for record in delivery]
    assert [record["line"] for record in records] == shipped.lines()
    assert max(len(delivery) for delivery in server.taken) == BATCH
    before = "0" * 64
    for record in records:  # whoever has the shipped lines can verify the chain by them
        assert json.loads(record["line"])["prev"] == before
        before = hashlib.sha256(record["line"].encode()).hexdigest()
    assert records[0]["resource"] == {
        "service.name": "inference-appliance", "service.version": __version__, "host.name": "gpu1",
        "audit.fingerprint": shipped.journal.fingerprint,
    }  # fmt: skip
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert shipped.shipper.describe() == {"behind": 0.0, "failing_seconds": 0.0, "refused": 0.0, "missed": 0.0}
    assert KEY not in repr(vars(shipped.shipper))


async def test_only_what_is_under_a_checkpoint_goes(shipped: Shipped, server: Collector) -> None:
    await shipped.write(1)
    await shipped.journal.write(Kind.ACT, {"act": "unsigned"}).kept()
    await shipped.arrived(1)
    assert server.numbers == [1]
    assert shipped.shipper.describe()["behind"] == 1.0
    await shipped.journal.checkpoint_now()
    await shipped.arrived(2)
    assert server.numbers == [1, 2]


@pytest.mark.parametrize("word", ["away", "html", 401, 404, 408, 429, 500, 502, 503, 504])
async def test_what_was_not_taken_is_sent_again(shipped: Shipped, server: Collector, word: str | int) -> None:
    server.plan += [word, word]
    await shipped.write(BATCH + 1)
    first = await shipped.night.fallen()
    assert shipped.noted["seq"] == 0
    assert shipped.shipper.describe()["behind"] == BATCH + 1
    assert shipped.shipper.trouble
    shipped.night.over()
    assert await shipped.night.fallen() > first
    shipped.night.over()
    await shipped.arrived()
    assert server.numbers == list(range(1, BATCH + 2))
    await until(lambda: shipped.shipper.trouble is None)
    assert await shipped.incidents() == []  # it was over soon


async def test_a_delivery_whose_answer_is_lost_comes_twice(shipped: Shipped, server: Collector) -> None:
    server.plan += ["twice"]
    await shipped.write(BATCH)
    await shipped.night.fallen()
    shipped.night.over()
    await shipped.arrived()
    assert server.numbers == [*range(1, BATCH + 1)] * 2


async def test_a_collector_that_asks_for_time_gets_it(shipped: Shipped, server: Collector) -> None:
    server.plan += [429]
    server.retry_after = "77"
    await shipped.write(1)
    assert await shipped.night.fallen() == 77
    shipped.night.over()
    await shipped.arrived()


async def test_a_silent_collector_is_given_up(
    shipped: Shipped, server: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "_SECONDS", 0.05)
    server.answering.clear()
    await shipped.write(1)
    for _ in range(100):  # and holds nobody up
        await shipped.journal.write(Kind.ACT, {"act": "test"}).kept()
    await shipped.night.fallen()
    assert shipped.shipper.trouble == "it didn't answer within 0.05 s"
    assert shipped.noted["seq"] == 0
    server.answering.set()
    await until(lambda: bool(server.taken))  # not in the midst of the next test


async def test_failing_for_long_is_an_incident_and_so_is_its_end(shipped: Shipped, server: Collector) -> None:
    server.plan += [503, 503, 503]
    await shipped.write(1)
    await shipped.night.fallen()
    shipped.clock.now += 59
    shipped.night.over()
    await shipped.night.fallen()
    assert await shipped.incidents() == []
    shipped.clock.now += 2
    shipped.night.over()
    await shipped.night.fallen()
    assert shipped.shipper.describe()["failing_seconds"] == 61
    assert await shipped.incidents() == [{"incident": "shipping_failed", "why": "it answered 503"}]
    shipped.night.over()
    await until(lambda: shipped.shipper.trouble is None)
    assert (await shipped.incidents())[-1] == {"incident": "shipping_again", "seconds": 61}
    await shipped.arrived()
    assert sorted(set(server.numbers)) == [1, 2, 3]


@pytest.mark.parametrize("partial", [False, True])
async def test_a_record_that_is_refused_by_itself_is_told_of_and_all_others_arrive(
    shipped: Shipped, server: Collector, partial: bool
) -> None:
    server.poison, server.partial = {4, 5}, partial
    await shipped.write(BATCH)
    await shipped.arrived(BATCH)
    assert set(server.numbers) == set(range(1, BATCH + 1)) - {4, 5}
    assert shipped.shipper.describe()["refused"] == 2
    assert await shipped.incidents() == [{"incident": "shipping_refused", "records": 2, "seq": [4, 5]}]
    await shipped.arrived()
    assert server.numbers[-1] == BATCH + 1  # the collector gets to know of it


@pytest.mark.parametrize("partial", [False, True])
async def test_a_collector_that_refuses_all_loses_nothing(shipped: Shipped, server: Collector, partial: bool) -> None:
    server.poison, server.partial = set(range(1, 1000)), partial
    await shipped.write(2 * BATCH)
    await shipped.night.fallen()
    assert shipped.shipper.trouble == "it refuses whatever it gets"
    assert shipped.noted["seq"] == 0
    server.poison = set()
    shipped.night.over()
    await shipped.arrived()
    assert set(server.numbers) == set(range(1, 2 * BATCH + 1))
    assert shipped.shipper.describe()["refused"] == 0


async def test_a_refused_record_that_stands_alone_waits_until_another_is_taken(
    shipped: Shipped, server: Collector
) -> None:
    server.poison = {1}
    await shipped.write(1)
    await shipped.night.fallen()
    assert shipped.noted["seq"] == 0
    shipped.clock.now += 61
    shipped.night.over()
    await shipped.night.fallen()  # the incident that it is by now is that other record
    await shipped.journal.checkpoint_now()
    shipped.night.over()
    await shipped.arrived(2)
    assert shipped.shipper.describe()["refused"] == 1


async def test_so_many_refusals_in_a_row_mean_the_whole(
    shipped: Shipped, server: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "_MOST_REFUSED", 3)
    server.poison = set(range(1, 100))
    await shipped.write(BATCH)
    await shipped.night.fallen()
    assert len(server.headers) == 3


async def test_after_a_restart_it_goes_on_where_it_was(shipped: Shipped, server: Collector) -> None:
    await shipped.write(3)
    await shipped.arrived()
    await shipped.close()
    await shipped.open()
    await shipped.write(2)
    await shipped.arrived()
    assert server.numbers == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("lost", ["garbage", "other hash", "beyond the end"])
async def test_a_place_that_does_not_fit_the_log_means_from_the_beginning(
    shipped: Shipped, server: Collector, lost: str
) -> None:
    await shipped.write(3)
    await shipped.arrived()
    await shipped.close()
    told = {
        "garbage": "{",
        "other hash": json.dumps({"missed": 0, "seq": 3, "sha256": "0" * 64}),
        "beyond the end": json.dumps({"missed": 0, "seq": 99, "sha256": "0" * 64}),
    }[lost]
    (shipped.folder / "work" / "shipped.json").write_text(told)
    await shipped.open()
    await until(lambda: server.numbers == [1, 2, 3, 1, 2, 3])
    assert {"incident": "shipping_anew"} in await shipped.incidents()


async def test_a_place_that_can_not_be_noted_means_again_and_not_lost(
    shipped: Shipped, server: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    await shipped.write(1)
    await shipped.arrived()
    file = shipped.folder / "work" / "shipped.json"
    before = file.read_bytes()
    file.unlink()
    file.mkdir()
    await shipped.write(2)
    await until(lambda: server.numbers == [1, 2, 3] and "can't be noted" in caplog.text)
    await shipped.close()
    file.rmdir()
    file.write_bytes(before)
    await shipped.open()
    await shipped.arrived()
    assert server.numbers == [1, 2, 3, 2, 3]


async def test_what_retention_removed_before_is_counted_in_an_incident(shipped: Shipped, server: Collector) -> None:
    await shipped.shipper.close()
    await shipped.write(5)
    await shipped.journal.close(5)
    (segment,) = segments.listed(shipped.folder / "audit")
    lines = [line + b"\n" for line in segments.lines(segment)]
    for index in (1, 2):
        sha256 = hashlib.sha256(lines[index][:-1]).hexdigest().encode()
        lines[index] = in_place_of(read_line(lines[index]), sha256)
    # as if it had been closed and thinned out: nothing before the open segment is read again at a start
    segment.file.write_bytes(b"".join(lines[:4]))
    (shipped.folder / "audit" / "000000000005.jsonl").write_bytes(lines[4])
    await shipped.open()
    await shipped.arrived(5)
    assert server.numbers[:3] == [1, 4, 5]
    await until(lambda: shipped.shipper.describe()["missed"] == 2)
    assert {"incident": "shipping_missed", "records": 2} in await shipped.incidents()
    await shipped.arrived()
    assert shipped.noted["missed"] == 0


async def test_a_large_record_goes_by_itself(
    shipped: Shipped, server: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipping, "_SIZE", 1000)
    for text in ("a", "b" * 5000, "c"):
        shipped.journal.note(Kind.ACT, {"act": text})
    await shipped.journal.checkpoint_now()
    await shipped.arrived()
    assert [[each["seq"] for each in delivery] for delivery in server.taken] == [[1], [2], [3]]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_whatever_a_collector_does_every_record_arrives(
    served: tuple[Collector, Endpoints], data: st.DataObject
) -> None:
    server = served[0]
    for held in (server.plan, server.poison, server.taken, server.headers):
        held.clear()
    server.partial = False
    plan = data.draw(st.lists(st.sampled_from(["away", "twice", "html", "later", 400, 413, 429, 500]), max_size=12))
    server.plan += plan
    with tempfile.TemporaryDirectory() as folder:
        shipped = Shipped(Path(folder), server, served[1])
        await shipped.open()
        ticking = asyncio.create_task(_no_night(shipped))
        for number in data.draw(st.lists(st.integers(1, 2 * BATCH), max_size=4)):
            await shipped.write(number)
            if data.draw(st.booleans()):
                await shipped.close()
                await shipped.open()
        await shipped.arrived()
        ticking.cancel()
        # a record that the plan let be refused by itself is told of; every other one has arrived
        refused = {seq for body in await shipped.incidents() for seq in body.get("seq", [])}
        assert set(server.numbers) | refused >= set(range(1, shipped.noted["seq"] + 1))
        for delivery in server.taken:
            numbers = [record["seq"] for record in delivery]
            assert numbers == sorted(numbers)
        if not {400, 413}.intersection(plan):  # one that is refused by itself comes after those behind it, if ever
            first_seen = list(dict.fromkeys(server.numbers))
            assert first_seen == sorted(first_seen)
        await shipped.close()


async def _no_night(shipped: Shipped) -> None:
    while True:
        shipped.night.over()
        await asyncio.sleep(0.001)
