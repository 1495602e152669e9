"""A server of the standard library beside a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer


@contextmanager
def serving(server: HTTPServer, answering: threading.Event) -> Iterator[None]:
    """Let `server` answer until this ends; what waits for `answering` goes out then."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            answering.set()
            server.shutdown()
            thread.join()
