"""An OpenAI-compatible server elsewhere in the house, which notes what it hears."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.fakes.certificates import Pair


class Endpoint(http.server.ThreadingHTTPServer):
    """Answers chats with the name of the model that it was asked for, as vLLM would."""

    daemon_threads = True

    def __init__(self, pair: Pair | None, address: tuple[str, int]) -> None:
        self.heard: list[dict[str, Any]] = []
        self.connections = 0
        super().__init__(address, _Handler)
        self.scheme = "https" if pair else "http"
        if pair:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pair.certificate, pair.key)
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def get_request(self) -> tuple[Any, Any]:
        self.connections += 1
        return super().get_request()

    def handle_error(self, *_: object) -> None:
        """A client that breaks off is what some tests are about."""

    @property
    def url(self) -> str:
        """Base URL, as an administrator would write it."""
        return f"{self.scheme}://127.0.0.1:{self.server_port}/v1"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Endpoint
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.heard.append({"path": self.path, "headers": dict(self.headers.items()), "body": body})
        base = {"id": "1", "created": 1, "model": body["model"]}
        text = f"answered by {body['model']}"
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        if body.get("stream"):
            delta = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
            end = {"index": 0, "delta": {}, "finish_reason": "stop"}
            chunk = base | {"object": "chat.completion.chunk"}
            events = [chunk | {"choices": [delta]}, chunk | {"choices": [end]}, chunk | {"choices": [], "usage": usage}]
            data = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
            self._send("text/event-stream", data.encode())
            return
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = base | {"object": "chat.completion", "choices": [choice], "usage": usage}
        self._send("application/json", json.dumps(answer).encode())

    def _send(self, kind: str, data: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Tests read `heard`."""


@contextmanager
def endpoint(pair: Pair | None = None, address: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[Endpoint]:
    """A running endpoint, over TLS where a certificate is given."""
    with Endpoint(pair, address) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
