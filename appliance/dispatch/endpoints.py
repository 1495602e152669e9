"""The in-house servers that a config names as endpoints, and the ways to them."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from appliance.config import Config, RemoteModel
from appliance.dispatch import outlet
from appliance.engines.upstream import Upstream
from appliance.errors import ConfigInvalid, Problem


class Endpoints:
    """Made before the gateway seals itself, from the config as it is then; `connect` works after."""

    def __init__(self, config: Config) -> None:
        """Read keys and authorities. Raises `ConfigInvalid` for those that can't be used."""
        self.models: Mapping[str, RemoteModel] = {
            name: model for name, model in config.settings.models.items() if isinstance(model, RemoteModel)
        }
        self._headers = {name: _host(model) | _authorization(model, config) for name, model in self.models.items()}
        self._orders = {
            name: outlet.Order.of(model, config.state / "run" / f"o{number}.sock", _authority(name, model, config))
            for number, (name, model) in enumerate(self.models.items(), 1)
            if not model.endpoint.startswith("unix:")
        }
        self._outlet: subprocess.Popen[bytes] | None = None
        self._life: int | None = None

    def open(self) -> None:
        """Start the outlet, if there is an endpoint on the network."""
        if self._orders:
            self._outlet = outlet.start(list(self._orders.values()))
            self._life = os.pidfd_open(self._outlet.pid)

    def close(self) -> None:
        """End the outlet."""
        if self._outlet is not None and self._outlet.stdin is not None:
            self._outlet.stdin.close()
        if self._life is not None:
            os.close(self._life)
            self._life = None

    async def ended(self) -> None:
        """Return when the outlet has ended, for whatever reason; never, where there is none.

        No endpoint can be reached from then on: the gateway, sealed by then, can't start another outlet.
        One caller at a time; cancel it before `close`.
        """
        gone = asyncio.Event()
        if self._life is None:
            await gone.wait()
            return
        loop, life = asyncio.get_running_loop(), self._life
        loop.add_reader(life, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(life)

    async def connect(self, name: str, model: RemoteModel) -> Upstream:
        """The upstream of an endpoint."""
        order = self._orders.get(name)
        path = Path(order.socket) if order else Path(model.endpoint.removeprefix("unix:"))
        return Upstream(path, prefix=_prefix(model), headers=self._headers[name], patience=model.stall_seconds)


def _authorization(model: RemoteModel, config: Config) -> dict[str, str]:
    return {"authorization": f"Bearer {model.key.read(config.file.parent)}"} if model.key else {}


def _host(model: RemoteModel) -> dict[str, str]:
    # by it, a proxy in front of several servers tells which one is meant
    if model.endpoint.startswith("unix:"):
        return {}
    parts = urlsplit(model.endpoint)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    usual = 443 if parts.scheme == "https" else 80
    return {"host": f"{host}:{parts.port}" if parts.port not in (None, usual) else f"{host}"}


def _authority(name: str, model: RemoteModel, config: Config) -> Path | None:
    if model.ca is None:
        return None
    path = config.path(model.ca)
    try:
        ssl.create_default_context(cafile=path)
    except OSError as cause:
        problem = Problem(f"models.{name}.ca", f"{path} can't be used: {cause.strerror or cause}")
        raise ConfigInvalid(str(config.file), [problem]) from cause
    return path


def _prefix(model: RemoteModel) -> str:
    """What goes before our own paths, which begin with /v1 as an endpoint's URL usually ends."""
    if model.endpoint.startswith("unix:"):
        return ""
    return urlsplit(model.endpoint).path.rstrip("/").removesuffix("/v1")
