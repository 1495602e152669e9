"""A whole house in a temporary folder: cards, weights, a fake engine environment, and the real appliance on them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx
import psutil
import yaml

from appliance import control
from appliance.__main__ import main
from appliance.errors import NotRunning
from appliance.weights import adapters, manifest
from appliance.weights.card import load_card

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0

T = TypeVar("T")


def until(what: Callable[[], T | Literal[False]], patience: float = PATIENCE, every: float = 0.02) -> T:
    """Wait until `what()` is true and return it. Fails when `patience` seconds are over."""
    deadline = time.monotonic() + patience
    while not (result := what()):
        assert time.monotonic() < deadline, f"not within {patience:g} s"
        time.sleep(every)
    return result


def over(process: psutil.Process) -> bool:
    """Whether it has ended. An orphan may stay a zombie for good: not every machine's first process reaps."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def safetensors(data: bytes) -> bytes:
    """A right file of one tensor, which holds `data`."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}).encode()
    return len(header).to_bytes(8, "little") + header + data


class House:
    """The files that an appliance stands on. Its folder is short: Unix sockets lie below it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.config = folder / "appliance.yaml"
        self.settings: dict[str, Any] = {
            "listen": {"port": 0, "shutdown_seconds": 2},
            "state": "state",
            "egress": {"mode": "deny", "verify": {"every_seconds": 0}},
            "models_folder": "models",
            "engines": {"environment": "engine", "device": "cpu", "restart_backoff_seconds": 0.1, "reserve_gib": 0},
            "models": {},
        }
        _environment(folder / "engine")

    def card(self, name: str, *, faults: dict[str, Any] | None = None, **changed: Any) -> str:
        """Write a card with prepared weights, which may hold faults of the engine that loads them."""
        folder = self.folder / "models" / name
        weights = folder / "weights"
        weights.mkdir(parents=True)
        card = {
            "title": f"The {name} model",
            "description": "A test's model.",
            "task": "chat",
            "source": {"folder": "incoming"},
            "licence": "Apache-2.0",
            "quantization": "none",
            "context_length": 512,
            "languages": ["en"],
            "hardware": {"devices": ["cpu", "cuda"], "memory_gib": 1},
            "intended_use": "Tests.",
            **changed,
        }
        (folder / "card.yaml").write_text(yaml.safe_dump(card))
        (weights / "config.json").write_text("{}")
        (weights / "tokenizer.json").write_text("{}")
        (weights / "fault.json").write_text(json.dumps(faults or {}))
        (weights / "model.safetensors").write_bytes(safetensors(name.encode()))
        manifest.write(weights, load_card(folder), {})
        return name

    def adapter(self, card: str, name: str, *, rank: int = 4) -> str:
        """Put a LoRA adapter beside the weights of a card."""
        folder = self.folder / "models" / card / adapters.FOLDER / name
        folder.mkdir(parents=True)
        (folder / adapters.CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": rank}))
        (folder / adapters.TENSORS).write_bytes(safetensors(f"{card}+{name}".encode()))
        manifest.record(folder, {"adapter_of": card}, "lora", {})
        return name

    def serve(self, name: str, card: str, **settings: Any) -> None:
        """Have the config serve `card` under `name`."""
        taken = {"startup_seconds": 20, "stall_seconds": 30, "memory_gib": 0.05}
        self.settings["models"][name] = {"card": card} | taken | settings

    def write(self, **changed: Any) -> Path:
        """Write the config, with some sections changed for good."""
        self.settings |= changed
        self.config.write_text(yaml.safe_dump(self.settings, sort_keys=False))
        return self.config

    def keys(self, *arguments: str) -> Any:
        """What `appliance keys ... --json` prints."""
        with contextlib.redirect_stdout(io.StringIO()) as output:
            status = main(["keys", *arguments, "--json", "--config", str(self.config)])
        assert status == 0, output.getvalue()
        return json.loads(output.getvalue())

    def break_engines(self, **faults: Any) -> None:
        """Give all engines a fault from now on; none heals them."""
        (self.state / "cache").mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.state / "cache" / "faults.new"
        draft.write_text(json.dumps(faults))
        draft.replace(self.state / "cache" / "faults.json")

    def heard(self, event: str = "request") -> list[dict[str, Any]]:
        """What engines have noted so far."""
        file = self.state / "cache" / "heard.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [note for note in map(json.loads, lines) if note["event"] == event]


def _environment(folder: Path) -> None:
    """An environment whose vLLM is the fake: started by the real command, under the real seal."""
    base = Path(sys.executable).resolve()
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    package = folder / "lib" / version / "site-packages" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("engine.py"), package / "api_server.py")
    (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\n")
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(base)


class Running:
    """`appliance serve` as a process of its own."""

    def __init__(
        self,
        house: House,
        *,
        environment: dict[str, str] | None = None,
        under: Sequence[str] = (),
        instead: Sequence[str] = (),
        passed: Sequence[int] = (),
    ) -> None:
        """`under` is a command that runs the appliance, `instead` one to run in its place.

        `passed` are descriptors that it inherits.
        """
        self.house = house
        self.output = house.folder / "output.txt"
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [*under, *(instead or [sys.executable, "-m", "appliance", "serve", "--config", str(house.config)])],
                cwd=ROOT,
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
            )
        self.base_url = until(self._address)
        self._key: str | None = None

    def _address(self) -> str:
        assert self.process.poll() is None, f"the appliance ended:\n{self.output.read_text()}"
        try:
            return str(self.status()["address"])
        except NotRunning:
            return ""

    def status(self) -> dict[str, Any]:
        """What `appliance status` would say."""
        (status,) = control.ask(self.house.state, "GET", "/status")
        return status

    def model(self, name: str = "chat") -> dict[str, Any]:
        """The status of one model."""
        shown: dict[str, Any] = self.status()["models"][name]
        return shown

    def ready(self, name: str = "chat", patience: float = PATIENCE) -> Running:
        """Wait until the model can answer."""
        until(lambda: self.model(name)["state"] == "ready", patience)
        return self

    def printed(self, text: str) -> str:
        """All that it has printed, once `text` is among it."""
        return until(lambda: self.output.read_text() if text in self.output.read_text() else "")

    def apply(self) -> dict[str, Any]:
        """Have the config read again: the last line of the answer."""
        return list(control.ask(self.house.state, "POST", "/apply"))[-1]

    @property
    def key(self) -> str:
        """A key that opens this appliance for an hour."""
        if self._key is None:
            (lent,) = control.ask(self.house.state, "POST", "/keys/lend", {"seconds": 3600})
            self._key = str(lent["key"])
        return self._key

    def client(self, **options: Any) -> httpx.Client:
        """A client with the key."""
        headers = {"authorization": f"Bearer {self.key}"}
        base_url = self.base_url
        if base_url.startswith("unix:"):
            options["transport"] = httpx.HTTPTransport(uds=base_url.removeprefix("unix:"))
            base_url = "http://localhost"
        return httpx.Client(base_url=base_url, headers=headers, timeout=PATIENCE, **options)

    def async_client(self, **options: Any) -> httpx.AsyncClient:
        """The same for many requests at once."""
        headers = {"authorization": f"Bearer {self.key}"}
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(base_url=self.base_url, headers=headers, timeout=PATIENCE, limits=limits, **options)

    def family(self) -> list[psutil.Process]:
        """The appliance's process and all below it."""
        me = psutil.Process(self.process.pid)
        return [me, *me.children(recursive=True)]

    def commands(self) -> dict[psutil.Process, list[str]]:
        """The command of each of them. Those that end meanwhile, as a verification's do, are left out."""
        found = {}
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                found[process] = process.cmdline()
        return found

    def engine_pids(self) -> list[int]:
        """Processes that run the fake engine or something that it started."""
        mark = str(self.house.folder / "engine" / "bin" / "python")
        running = psutil.process_iter(["cmdline"])
        return [process.pid for process in running if (process.info["cmdline"] or [""])[0] == mark]

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.process.kill()


def house() -> Iterator[House]:
    """A house in a folder of its own, which is removed in the end."""
    with tempfile.TemporaryDirectory(prefix="house-", ignore_cleanup_errors=True) as folder:
        yield House(Path(folder).resolve())
