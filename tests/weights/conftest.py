"""Tiny real checkpoints, real cards, and a real file server."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.house import safetensors

ROOT = Path(__file__).resolve().parents[2]
PREPARE = ROOT / ".venvs" / "prepare"


def card(**changed: Any) -> dict[str, Any]:
    """A right card as plain data, with some keys changed."""
    return {
        "title": "Tiny",
        "description": "A test's model.",
        "task": "chat",
        "source": {"folder": "incoming"},
        "licence": "Apache-2.0",
        "quantization": "none",
        "context_length": 64,
        "languages": ["en"],
        "hardware": {"devices": ["cpu"], "memory_gib": 1},
        "intended_use": "Tests.",
        **changed,
    }


def write_card(folder: Path, **changed: Any) -> Path:
    """Write card.yaml into `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.yaml").write_text(yaml.safe_dump(card(**changed)))
    return folder


def write_checkpoint(
    folder: Path, *, quantization: dict[str, Any] | None = None, size: int = 1000, **config: Any
) -> Path:
    """A checkpoint whose one safetensors file holds `size` bytes of a tensor; `config` goes into its config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "llama"} | config | ({"quantization_config": quantization} if quantization else {})
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors(bytes(index % 251 for index in range(size))))
    return folder


class FileServer(http.server.ThreadingHTTPServer):
    """Serves a folder with byte ranges, as nginx does; `cut` ends the next bodies after so many bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cut: list[int] = []
        self.asked: list[tuple[str, str | None]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_port}/models/tiny"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        name = self.path.removeprefix("/models/tiny/")
        wanted = self.headers.get("Range")
        self.server.asked.append((name, wanted))
        if name == "moved.json":
            self.send_response(302)
            self.send_header("Location", "http://example.com/")
            self.end_headers()
            return
        path = self.server.folder / name
        if not path.is_file():
            self.send_error(404)
            return
        body = path.read_bytes()
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if wanted and start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        large = name.endswith(".safetensors") and self.server.cut
        self.wfile.write(body[start:][: self.server.cut.pop(0)] if large else body[start:])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """An empty models folder."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    """A running file server with an empty folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    with FileServer(folder) as running:
        thread = threading.Thread(target=functools.partial(running.serve_forever, poll_interval=0.01))
        thread.start()
        yield running
        running.shutdown()
        thread.join()
