"""The real appliance, on the real engine with real models, as a process of its own."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import psutil
import yaml

from appliance import control
from appliance.errors import NotRunning
from tests.fakes.house import until

ROOT = Path(__file__).resolve().parents[2]
GATEWAY = ROOT / ".venvs" / "gateway" / "bin" / "python"
START = 300.0
"""Seconds in which an engine starts; a fifth of it on a quiet machine."""
ANSWER = 120.0
"""Seconds in which a request is answered; a hundredth of it on a quiet machine."""


def card(name: str) -> dict[str, Any]:
    """A model of the config, with a KV cache small enough for several engines beside each other."""
    return {"card": name, "kv_cache": {"space_gib": 0.5}}


class Appliance:
    """`appliance serve` in the gateway's own environment."""

    def __init__(self, folder: Path, models: dict[str, Any], models_folder: Path = ROOT / "models") -> None:
        """`folder` has to be short: the path of a Unix socket below it holds at most 107 bytes."""
        self.models_folder = models_folder
        self.config = folder / "appliance.yaml"
        self.state = folder / "state"
        self.models = models
        self.write()
        self._output = folder / "output.txt"
        self.start()

    def write(self, **changed: Any) -> None:
        """Write the config, with some sections changed this once."""
        settings = {
            "listen": {"port": 0},
            "state": str(self.state),
            "egress": {"mode": "deny", "verify": {"every_seconds": 0}},
            "models_folder": str(self.models_folder),
            "models": self.models,
            "engines": {
                "environment": str(ROOT / ".venvs" / "engine"),
                "evaluation_environment": str(ROOT / ".venvs" / "evaluate"),
            },
        }
        self.config.write_text(yaml.safe_dump(settings | changed))

    def start(self) -> None:
        """Start it and wait until it listens; its engines may still be loading."""
        with self._output.open("ab") as output:
            self.process = subprocess.Popen(
                self._command("serve"), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self.address = until(self._listening, START)
        (lent,) = control.ask(self.state, "POST", "/keys/lend", {"seconds": 4 * 3600})
        self.key = str(lent["key"])

    def _listening(self) -> str:
        assert self.process.poll() is None, f"the appliance ended:\n{self._output.read_text()}"
        try:
            return str(self.status()["address"])
        except NotRunning:
            return ""

    def _command(self, *arguments: str) -> list[str]:
        return [str(GATEWAY), "-m", "appliance", *arguments, "--config", str(self.config)]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command of the appliance's."""
        return subprocess.run(
            self._command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=START, check=False
        )

    def status(self) -> dict[str, Any]:
        """What `appliance status` shows."""
        (status,) = control.ask(self.state, "GET", "/status")
        return status

    def ready(self) -> Appliance:
        """Wait until every model can answer."""
        until(self._all_ready, START, every=0.1)
        return self

    def _all_ready(self) -> bool:
        try:
            models = self.status()["models"].values()
        except NotRunning:
            raise AssertionError(f"the appliance ended:\n{self._output.read_text()}") from None
        return all(model["state"] in ("ready", "endpoint") for model in models)

    def stop(self) -> None:
        """End it, with all its engines."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()

    def engine(self, model: str) -> dict[str, psutil.Process]:
        """The processes of a model's engine: `server`, `core` and `worker`, and what helps them."""
        keeper = psutil.Process(self.status()["models"][model]["pid"])
        return {_role(process): process for process in keeper.children(recursive=True)}

    def socket(self, model: str) -> str:
        """The Unix socket of a model's engine."""
        command = self.engine(model)["server"].cmdline()
        return command[command.index("--uds") + 1]

    def running(self, model: str) -> int:
        """How many requests the engine itself says it is working on."""
        with httpx.Client(transport=httpx.HTTPTransport(uds=self.socket(model)), timeout=ANSWER) as engine:
            lines = engine.get("http://engine/metrics").text.splitlines()
        (value,) = (line.rsplit(" ", 1)[1] for line in lines if line.startswith("vllm:num_requests_running{"))
        return int(float(value))

    def http(self) -> httpx.Client:
        """A plain client with the key."""
        return httpx.Client(
            base_url=self.address, headers={"authorization": f"Bearer {self.key}"}, timeout=ANSWER, trust_env=False
        )

    def openai(self) -> openai.OpenAI:
        """OpenAI's own client."""
        return openai.OpenAI(base_url=f"{self.address}/v1", api_key=self.key, max_retries=0, timeout=ANSWER)

    def async_openai(self) -> openai.AsyncOpenAI:
        """The same for many requests at once."""
        return openai.AsyncOpenAI(base_url=f"{self.address}/v1", api_key=self.key, max_retries=0, timeout=ANSWER)

    def anthropic(self) -> anthropic.Anthropic:
        """Anthropic's own client."""
        return anthropic.Anthropic(base_url=self.address, api_key=self.key, max_retries=0, timeout=ANSWER)

    def async_anthropic(self) -> anthropic.AsyncAnthropic:
        """The same for many requests at once."""
        return anthropic.AsyncAnthropic(base_url=self.address, api_key=self.key, max_retries=0, timeout=ANSWER)


def _role(process: psutil.Process) -> str:
    command = process.cmdline()
    if "vllm.entrypoints.openai.api_server" in command:
        return "server"
    return {"VLLM::EngineCore": "core", "VLLM::Worker": "worker"}.get(command[0], f"helper {process.pid}")


def network_of(pid: int) -> int:
    """The network namespace of a process."""
    return Path(f"/proc/{pid}/ns/net").stat().st_ino
