"""The in-house servers that a config names as endpoints, and the ways to them."""

from __future__ import annotations

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
        self._headers = {name: _authorization(model, config) for name, model in self.models.items()}
        self._orders = {
            name: outlet.Order.of(model, config.state / "run" / f"o{number}.sock", _authority(name, model, config))
            for number, (name, model) in enumerate(self.models.items(), 1)
            if not model.endpoint.startswith("unix:")
        }
        self._outlet: subprocess.Popen[bytes] | None = None

    def open(self) -> None:
        """Start the outlet, if there is an endpoint on the network."""
        if self._orders:
            self._outlet = outlet.start(list(self._orders.values()))

    def close(self) -> None:
        """End the outlet."""
        if self._outlet is not None and self._outlet.stdin is not None:
            self._outlet.stdin.close()

    async def connect(self, name: str, model: RemoteModel) -> Upstream:
        """The upstream of an endpoint."""
        order = self._orders.get(name)
        path = Path(order.socket) if order else Path(model.endpoint.removeprefix("unix:"))
        return Upstream(path, prefix=_prefix(model), headers=self._headers[name], patience=model.stall_seconds)


def _authorization(model: RemoteModel, config: Config) -> dict[str, str]:
    return {"authorization": f"Bearer {model.key.read(config.file.parent)}"} if model.key else {}


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
