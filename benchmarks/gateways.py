"""The gateways that are compared: how each is started in front of the same upstream, and how it is asked.

Each runs as its makers run it by default but for what all have in common: one process where that is the default,
no database, no telemetry. The appliance has everything on that a request meets. Peers are installed by `peers.sh`.
"""

from __future__ import annotations

import contextlib
import getpass
import http.client
import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from appliance import control
from appliance.errors import NotRunning
from benchmarks import processes

MODEL = "chat"
START_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where the static upstream listens."""

    port: int
    socket: Path


@dataclass(frozen=True, slots=True)
class Door:
    """A gateway that is up: its port on 127.0.0.1, what to send along, and its process (none: no gateway)."""

    port: int
    headers: Mapping[str, str] = field(default_factory=dict)
    pid: int | None = None


class Gateway:
    """One gateway. Subclasses say how it is started; `folder` is theirs to write into."""

    name: ClassVar[str]
    about: ClassVar[str]

    def missing(self) -> str:
        """Why it can't be measured here; empty when it can."""
        return ""

    def version(self) -> str:
        """What exactly is measured, empty for what is made here."""
        return ""

    def command(self, upstream: Upstream, port: int, folder: Path) -> list[str]:
        """The command line that serves on `port` of 127.0.0.1."""
        raise NotImplementedError

    def headers(self, upstream: Upstream, folder: Path) -> dict[str, str]:
        """Headers that a request needs; asked for once the gateway is up."""
        return {}

    def environment(self) -> dict[str, str]:
        """Additions to its environment."""
        return {}

    @contextlib.contextmanager
    def open(self, upstream: Upstream, folder: Path) -> Iterator[Door]:
        """The gateway, from when it has answered a chat request until the block ends. Raises `processes.Broken`."""
        folder.mkdir(parents=True)
        port = processes.free_port()
        headers: dict[str, str] = {}

        def answers() -> bool:
            try:
                headers.update(self.headers(upstream, folder))
                return chats(Door(port, headers))
            except (OSError, http.client.HTTPException, NotRunning):
                return False

        command = self.command(upstream, port, folder)
        with processes.running(
            command, folder / "log", answers, seconds=START_SECONDS, environment=self.environment()
        ) as program:
            yield Door(port, headers, program.pid)


def chats(door: Door) -> bool:
    """Whether a chat request is answered well. Raises `OSError` or `HTTPException` when nothing is there."""
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=10)
    with contextlib.closing(connection):
        headers = {"content-type": "application/json", **door.headers}
        connection.request("POST", "/v1/chat/completions", json.dumps(request(stream=False)), headers)
        answer = connection.getresponse()
        return answer.status == 200 and b'"choices"' in answer.read()


def request(*, stream: bool, chunks: int = 64) -> dict[str, object]:
    """The chat request that all are asked: 500 bytes of German, one answer of `chunks` tokens."""
    question = (
        "Fasse den folgenden Vermerk in zwei Sätzen zusammen und nenne die Frist. Das Angebot vom 3. März liegt vor, "
        "die Lieferung ist für Mitte Mai zugesagt, der Rahmenvertrag gilt bis zum Jahresende und verlängert sich um "
        "zwölf Monate, wenn er nicht drei Monate vorher gekündigt wird."
    )
    return {
        "model": MODEL,
        "messages": [{"role": "system", "content": "You answer briefly."}, {"role": "user", "content": question}],
        "max_tokens": chunks,
        "temperature": 0.2,
        "stream": stream,
    }


class Direct(Gateway):
    """The upstream itself: what all latencies are compared with."""

    name = "direct"
    about = "no gateway"

    @contextlib.contextmanager
    def open(self, upstream: Upstream, folder: Path) -> Iterator[Door]:
        """The upstream's own port."""
        yield Door(upstream.port)


class Passthrough(Gateway):
    """FastAPI and aiohttp, no feature at all."""

    name = "passthrough"
    about = "bare FastAPI + aiohttp"

    def missing(self) -> str:
        """The appliance itself has no use for aiohttp."""
        return "" if importlib.util.find_spec("aiohttp") else "aiohttp is not installed; `make dev` installs it"

    def command(self, upstream: Upstream, port: int, folder: Path) -> list[str]:
        """passthrough.py beside this file."""
        return [sys.executable, "-m", "benchmarks.passthrough", "--port", str(port), "--socket", str(upstream.socket)]


class Appliance(Gateway):
    """This appliance: authentication, checks, limits, seal, metrics and access log, all on."""

    name = "appliance"
    about = "everything on"

    def command(self, upstream: Upstream, port: int, folder: Path) -> list[str]:
        """The appliance with the upstream attached as an endpoint."""
        config = write_config(folder, port, upstream.socket)
        return [sys.executable, "-m", "appliance", "serve", "--config", str(config)]

    def headers(self, upstream: Upstream, folder: Path) -> dict[str, str]:
        """A key lent by the control socket for as long as a comparison may take."""
        (answer,) = control.ask(folder / "state", "POST", "/keys/lend", {"seconds": 6 * 3600})
        return {"authorization": f"Bearer {answer['key']}"}


class Unsealed(Appliance):
    """The same without its seal, to see what that costs."""

    name = "unsealed"
    about = "the appliance without its seal"

    def command(self, upstream: Upstream, port: int, folder: Path) -> list[str]:
        """The appliance as unsealed.py starts it."""
        config = write_config(folder, port, upstream.socket)
        return [sys.executable, "-m", "benchmarks.unsealed", "serve", "--config", str(config)]


def write_config(folder: Path, port: int, upstream: Path, **sections: object) -> Path:
    """A config in `folder`, its state beside it, whose one model is what listens on the Unix socket `upstream`.

    `sections` replace those of the same name.
    """
    config = folder / "appliance.yaml"
    settings = {
        "listen": {"host": "127.0.0.1", "port": port},
        # a verification in the middle of a phase would count as if the requests had cost it; benchmarks.seal times it
        "egress": {"mode": "deny", "verify": {"every_seconds": 0}},
        "state": "state",
        "models": {MODEL: {"endpoint": f"unix:{upstream}", "context_length": 4096}},
        **sections,
    }
    config.write_text(json.dumps(settings, indent=1))  # which is YAML too
    return config


class Installed(Gateway):
    """A peer in a folder of its own under `peers`, where `peers.sh` put it."""

    program: ClassVar[str]

    def __init__(self, peers: Path) -> None:
        """`peers`: the folder that holds `peers-<name>`."""
        self.folder = peers / f"peers-{self.name}"

    def missing(self) -> str:
        """Whether its program is there."""
        return "" if (self.folder / self.program).exists() else "not installed; `benchmarks/peers.sh` installs it"


class VllmRouter(Installed):
    """vLLM's own router, in Rust."""

    name = "vllm-router"
    about = "Rust, no authentication"
    program = "bin/vllm-router"

    def version(self) -> str:
        """From the installed distribution."""
        return _distribution(self.folder, "vllm_router")

    def command(self, upstream: Upstream, port: int, folder: Path) -> list[str]:
        """One worker, any policy."""
        return [
            str(self.folder / self.program),
            "--host", "127.0.0.1", "--port", str(port),
            "--worker-urls", f"http://127.0.0.1:{upstream.port}",
            "--policy", "round_robin",
            "--prometheus-port", str(processes.free_port()),
        ]  # fmt: skip


class LiteLlm(Installed):
    """LiteLLM's proxy with a master key."""

    name = "litellm"
    about = "Python, master key, no database"
    program = "bin/litellm"

    def version(self) -> str:
        """From the installed distribution."""
        return _distribution(self.folder, "litellm")

    def command(self, upstream: Upstream, port: int, folder: Path) -> list[str]:
        """One worker process, as by default."""
        model = {"model": f"openai/{MODEL}", "api_base": f"http://127.0.0.1:{upstream.port}/v1", "api_key": "none"}
        config = folder / "config.yaml"
        config.write_text(json.dumps({"model_list": [{"model_name": MODEL, "litellm_params": model}]}))
        return [str(self.folder / self.program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]

    def environment(self) -> dict[str, str]:
        """The key, and nothing fetched from elsewhere."""
        return {
            "LITELLM_MASTER_KEY": "sk-benchmark",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_TELEMETRY": "False",
            "NO_DOCS": "True",
        }

    def headers(self, upstream: Upstream, folder: Path) -> dict[str, str]:
        """The master key."""
        return {"authorization": "Bearer sk-benchmark"}


class Portkey(Installed):
    """Portkey's gateway on Node."""

    name = "portkey"
    about = "Node, no authentication"
    program = "node_modules/@portkey-ai/gateway/build/start-server.js"

    def missing(self) -> str:
        """Needs Node too."""
        return super().missing() or ("" if shutil.which("node") else "Node is not installed")

    def version(self) -> str:
        """From the installed package."""
        package = json.loads((self.folder / self.program).parents[1].joinpath("package.json").read_text())
        return str(package["version"])

    def command(self, upstream: Upstream, port: int, folder: Path) -> list[str]:
        """Without its web console."""
        return ["node", str(self.folder / self.program), f"--port={port}", "--headless"]

    def environment(self) -> dict[str, str]:
        """As its image sets it."""
        return {"NODE_ENV": "production"}

    def headers(self, upstream: Upstream, folder: Path) -> dict[str, str]:
        """Where the upstream is; Portkey is told with each request."""
        host = f"http://127.0.0.1:{upstream.port}/v1"
        return {"x-portkey-provider": "openai", "x-portkey-custom-host": host, "authorization": "Bearer none"}


class Nginx(Gateway):
    """nginx as a reverse proxy: what passing bytes on costs at the least."""

    name = "nginx"
    about = "C, passes bytes on"

    def missing(self) -> str:
        """Whether the system has it."""
        return "" if shutil.which("nginx") else "not installed; `benchmarks/peers.sh nginx` installs it"

    def version(self) -> str:
        """As it says itself."""
        said = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False).stderr  # noqa: S607
        return said.strip().rpartition("/")[2]

    def command(self, upstream: Upstream, port: int, folder: Path) -> list[str]:
        """One worker, kept-alive connections to the upstream, nothing buffered, an access log."""
        (folder / "nginx.conf").write_text(f"""
            user {getpass.getuser()};
            worker_processes 1;
            daemon off;
            pid {folder}/pid;
            events {{ worker_connections 1024; }}
            http {{
                access_log {folder}/access.log;
                client_body_temp_path {folder}/body;
                proxy_temp_path {folder}/proxy;
                fastcgi_temp_path {folder}/fastcgi;
                uwsgi_temp_path {folder}/uwsgi;
                scgi_temp_path {folder}/scgi;
                upstream static {{ server unix:{upstream.socket}; keepalive 64; }}
                server {{
                    listen 127.0.0.1:{port};
                    keepalive_requests 1000000;
                    location / {{
                        proxy_pass http://static;
                        proxy_http_version 1.1;
                        proxy_set_header Connection "";
                        proxy_buffering off;
                    }}
                }}
            }}""")
        return ["nginx", "-e", str(folder / "error.log"), "-p", str(folder), "-c", str(folder / "nginx.conf")]


def all_gateways(peers: Path) -> list[Gateway]:
    """Every gateway, in the order of the table. `peers`: where `peers.sh` installs."""
    return [
        Direct(), Nginx(), VllmRouter(peers), Passthrough(), Appliance(), Unsealed(), Portkey(peers), LiteLlm(peers),
    ]  # fmt: skip


def _distribution(folder: Path, name: str) -> str:
    found = sorted(folder.glob(f"lib/python*/site-packages/{name}-*.dist-info"))
    return found[0].name.removesuffix(".dist-info").rpartition("-")[2] if found else ""
