"""The configs that docs/audit.md offers, in a real Fluent Bit: what of a record gets to Elasticsearch and to Splunk."""

from __future__ import annotations

import http.server
import json
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from appliance.audit import otlp
from appliance.audit.record import Chain, Kind
from appliance.audit.tail import Record
from tests.fakes.fluent_bit import FLUENT_BIT, MISSING, fluent_bit
from tests.fakes.house import ROOT, until

CONFIGS = ROOT / "configs" / "fluent-bit"
RESOURCE = {"service.name": "inference-appliance", "host.name": "gpu1", "audit.fingerprint": "ab cd"}
Heard = queue.Queue[tuple[str, dict[str, str], bytes]]


@contextmanager
def index() -> Iterator[tuple[int, Heard]]:
    """A port where everything is taken as Elasticsearch and Splunk would answer, and what came there."""
    heard: Heard = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.put((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            answer = b'{"errors":false,"items":[]}' if "_bulk" in self.path else b'{"text":"Success","code":0}'
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Tests read `heard`."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port, heard
        finally:
            server.shutdown()
            thread.join()


def delivered(name: str, folder: Path, records: list[Record]) -> tuple[str, dict[str, str], bytes]:
    """What the output of a config sends on for a delivery of these records."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    (taking,), (output,) = config["pipeline"]["inputs"], config["pipeline"]["outputs"]
    with index() as (there, heard):
        taking["port"], output["port"], output["tls"] = port, there, "off"
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        environment = {"FLUENT_BIT_LISTEN": "127.0.0.1", "FLUENT_BIT_STORAGE": str(folder / "storage")}
        environment |= {"ELASTIC_HOST": "127.0.0.1", "ELASTIC_KEY": "a-key"}
        environment |= {"SPLUNK_HOST": "127.0.0.1", "SPLUNK_TOKEN": "a-token"}
        with fluent_bit(folder / "config.yaml", folder / "log.txt", **environment) as process:

            def listening() -> bool:
                assert process.poll() is None, (folder / "log.txt").read_text()
                with socket.socket() as tried:
                    return tried.connect_ex(("127.0.0.1", port)) == 0

            until(listening)
            answer = httpx.post(
                f"http://127.0.0.1:{port}{otlp.PATH}", content=otlp.encode(records, RESOURCE),
                headers={"content-type": "application/json"},
            )  # fmt: skip
            assert answer.status_code == 200
            return heard.get(timeout=30)


@pytest.fixture
def records() -> list[Record]:
    chain, made = Chain(), []
    for text in ("plain", 'ü 😀 \x00 ","kind":"act","prev":"'):
        line = chain.append(Kind.INTENT, {"text": text}, 1_795_362_611.0)
        made.append(Record(chain.seq, "intent", "2026-11-22T15:50:11.000Z", line, chain.head))
    return made


@pytest.mark.skipif(not FLUENT_BIT, reason=MISSING)
def test_elasticsearch_gets_each_record_as_a_document_with_a_name_of_its_own(
    tmp_path: Path, records: list[Record]
) -> None:
    path, headers, body = delivered("elastic", tmp_path, [*records, records[0]])
    assert path.startswith("/_bulk")
    assert headers["authorization"] == "ApiKey a-key"
    lines = [json.loads(line) for line in body.splitlines()]
    assert {action["create"]["_index"] for action in lines[::2]} == {"appliance-audit"}
    names = [action["create"]["_id"] for action in lines[::2]]
    assert names[0] == names[2] != names[1]  # so that one that comes twice is there once
    for record, document in zip([*records, records[0]], lines[1::2], strict=True):
        assert document["log"] == record.line.decode()
        assert (document["kind"], document["seq"], document["at"]) == ("intent", str(record.seq), record.at)


@pytest.mark.skipif(not FLUENT_BIT, reason=MISSING)
def test_splunk_gets_each_record_as_an_event(tmp_path: Path, records: list[Record]) -> None:
    path, headers, body = delivered("splunk", tmp_path, records)
    assert path == "/services/collector/event"
    assert headers["authorization"] == "Splunk a-token"
    decoder, text, events = json.JSONDecoder(), body.decode().strip(), []
    while text:
        event, end = decoder.raw_decode(text)
        events.append(event)
        text = text[end:].lstrip()
    assert [event["event"] for event in events] == [record.line.decode() for record in records]
    assert {event["sourcetype"] for event in events} == {"appliance:audit"}
