"""A collector of OTLP logs over HTTP, no product: it takes nothing that isn't right by OpenTelemetry's own definitions.

python -m tests.fakes.collector PORT FOLDER     in a process of its own, which can be killed; notes what it takes in
                                                FOLDER/taken.jsonl, and is told by FOLDER/plan.json how to behave
"""

from __future__ import annotations

import hashlib
import http.server
import json
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from tests.fakes.serving import serving

Answer = tuple[int, dict[str, str], bytes]


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))


def read(body: bytes) -> list[dict[str, Any]]:
    """The records of a delivery, each with what belongs to it. Raises `json_format.ParseError` or AssertionError."""
    request = json_format.Parse(body, ExportLogsServiceRequest())
    records = []
    for about in request.resource_logs:
        resource = {each.key: _value(each.value) for each in about.resource.attributes}
        for scope in about.scope_logs:
            for record in scope.log_records:
                attributes = {each.key: _value(each.value) for each in record.attributes}
                line = record.body.string_value
                assert hashlib.sha256(line.encode()).hexdigest() == attributes["audit.sha256"]
                assert json.loads(line)["seq"] == attributes["audit.seq"]
                records.append({
                    "seq": attributes["audit.seq"], "kind": attributes["audit.kind"], "line": line,
                    "event": record.event_name, "nanoseconds": record.time_unix_nano,
                    "severity": record.severity_number, "resource": resource,
                })  # fmt: skip
    return records


class Collector(http.server.ThreadingHTTPServer):
    """Takes deliveries, and for each does what the next word of `plan` says first.

    "twice" takes it and hangs up without an answer, "away" hangs up before, "hold" waits until `answering` is set;
    a number is answered as a status (with `retry_after`), "later" as 503, "html" as a page that was never asked for.
    Records whose number is in `poison` are refused: as a whole delivery with 400, or by `partial` one by one.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int = 0, folder: Path | None = None) -> None:
        self.plan: deque[str | int] = deque()
        self.poison: set[int] = set()
        self.partial = False
        self.retry_after = ""
        self.taken: list[list[dict[str, Any]]] = []
        self.headers: list[dict[str, str]] = []
        self.answering = threading.Event()
        self.answering.set()
        self.asked = threading.Semaphore(0)
        self._folder = folder
        self._taking = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, *_: object) -> None:
        """A client that breaks off is what some tests are about."""

    @property
    def endpoint(self) -> str:
        """As an administrator would write it."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def numbers(self) -> list[int]:
        """Of all records taken, in the order in which they came."""
        return [record["seq"] for delivery in self.taken for record in delivery]

    def answer(self, body: bytes) -> Answer | None:
        """What to answer to a delivery; None: hang up."""
        with self._taking:
            word = self._next()
            if word == "away":
                return None
            if word == "html":
                return 200, {"content-type": "text/html"}, b"<html>sign in first</html>"
            if word == "later" or isinstance(word, int):
                return 503 if word == "later" else word, {"retry-after": self.retry_after}, b""
            try:
                records = read(body)
            except (json_format.ParseError, AssertionError, KeyError, ValueError) as why:
                return 400, {}, str(why).encode()
            return self._take(records, word)

    def _take(self, records: list[dict[str, Any]], word: str | int | None) -> Answer | None:
        bad = [record for record in records if record["seq"] in self.poison]
        if bad and not self.partial:
            return 400, {}, b"I don't like one of these"
        good = [record for record in records if record not in bad]
        self.taken.append(good)
        if self._folder is not None:
            with (self._folder / "taken.jsonl").open("a") as taken:
                taken.write(json.dumps([{"seq": each["seq"], "line": each["line"]} for each in good]) + "\n")
        if word == "twice":
            return None
        rejected = ExportLogsPartialSuccess(rejected_log_records=len(bad), error_message="no") if bad else None
        told = json_format.MessageToJson(ExportLogsServiceResponse(partial_success=rejected))
        return 200, {"content-type": "application/json"}, told.encode()

    def _next(self) -> str | int | None:
        if self._folder is None:
            return self.plan.popleft() if self.plan else None
        file = self._folder / "plan.json"
        plan = json.loads(file.read_text()) if file.exists() else []
        if plan:
            draft = file.with_suffix(".new")
            draft.write_text(json.dumps(plan[1:]))
            draft.replace(file)
        return plan[0] if plan else None


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Collector
    protocol_version = "HTTP/1.1"
    wbufsize = 65536  # head and body in one, or the second waits for the network

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.headers.append(dict(self.headers.items()))
        self.server.asked.release()
        self.server.answering.wait(60)
        right = self.path == "/v1/logs" and self.headers["content-type"] == "application/json"
        answer = self.server.answer(body) if right else (404, {}, b"")
        if answer is None:
            self.close_connection = True
            return
        status, headers, told = answer
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(told))}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_: Any) -> None:
        """Tests read `headers` and `taken`."""


@contextmanager
def collector() -> Iterator[Collector]:
    """A running one."""
    server = Collector()
    with serving(server, server.answering):
        yield server


if __name__ == "__main__":
    Collector(int(sys.argv[1]), Path(sys.argv[2])).serve_forever()
