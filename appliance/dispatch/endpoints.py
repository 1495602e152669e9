"""The servers in the house and the providers that a config names, and the ways to them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from appliance.config import (
    Config,
    FilePath,
    Identity,
    Postgresql,
    Provider,
    RemoteModel,
    Secret,
    Shipping,
    Timestamps,
)
from appliance.dispatch.dialler import Destination
from appliance.dispatch.pair import Pair
from appliance.dispatch.way import Route
from appliance.engines.upstream import Upstream
from appliance.errors import ConfigInvalid, OutletFailed, Problem
from appliance.seal.parts import Seal

# With spaces, which no model's name has.
_STORE, _IDENTITY = "PostgreSQL of keys and books", "keys of the identity provider"
_COLLECTOR, _TIMESTAMPS = "collector of audit records", "time stamping authority"
_IDENTITY_SECONDS = 5.0
"""For which the identity provider may be silent."""
_AUDIT_SECONDS = 20.0
"""For which the collector and the time stamping authority may be silent: nobody waits for them."""


class Endpoints:
    """Made before the gateway seals itself, from the config as it is then; `connect` works after."""

    def __init__(self, config: Config, clearance_key: bytes | None = None) -> None:
        """Read keys and authorities. Raises `ConfigInvalid` for those that can't be used.

        `clearance_key` is the public key of whoever clears requests to providers; without it none goes out.
        """
        egress, accounts = config.settings.egress, config.settings.accounts
        self.models: Mapping[str, RemoteModel] = {
            name: model for name, model in config.settings.models.items() if isinstance(model, RemoteModel)
        }
        self.folder = config.state / "run" / "outlet"
        """Holds the outlet's sockets, and is all of the state that the outlet sees."""
        self._headers = {
            name: _host(model.endpoint) | _authorization(model.key, config) for name, model in self.models.items()
        }
        in_house = {
            name: _in_house(name, model.endpoint, f"models.{name}.ca", model.ca, config)
            for name, model in self.models.items()
            if not model.endpoint.startswith("unix:")
        }
        outside = {name: _provider(name, provider, config) for name, provider in egress.providers.items()}
        self._sockets = {name: self.folder / f"e{number}.sock" for number, name in enumerate(in_house, 1)}
        self.providers: Mapping[str, Path] = {
            name: self.folder / f"p{number}.sock" for number, name in enumerate(outside, 1)
        }
        """The Unix socket for each provider, which takes cleared requests only."""
        self._postgresql = accounts.store.postgresql
        self._identity_socket = self.folder / "idp.sock"
        self._routes = {self._sockets[name]: route for name, route in in_house.items()}
        self._routes |= {self.providers[name]: route for name, route in outside.items()}
        if self._postgresql is not None and not self._postgresql.folder:
            self._routes[self.folder / "store.sock"] = _store(self._postgresql, config)
        if accounts.identity is not None:
            url, ca = accounts.identity.keys_url, accounts.identity.ca
            self._routes[self._identity_socket] = _in_house(_IDENTITY, url, "accounts.identity.ca", ca, config)
        shipping, timestamps = config.settings.audit.shipping, config.settings.audit.timestamps
        self._collector_headers: dict[str, str] = {}
        if shipping is not None:
            self._collector_headers = _host(shipping.endpoint) | _authorization(shipping.key, config)
            route = _in_house(_COLLECTOR, shipping.endpoint, "audit.shipping.ca", shipping.ca, config)
            self._routes[self.folder / "otlp.sock"] = route
        if timestamps is not None:
            route = _in_house(_TIMESTAMPS, timestamps.url, "audit.timestamps.ca", timestamps.ca, config)
            self._routes[self.folder / "tsa.sock"] = route
        self._clearance_key = clearance_key
        self._best_effort = egress.seal == "best-effort"
        self._pair: Pair | None = None

    @property
    def sockets(self) -> list[Path]:
        """Unix sockets of servers on this host that the config names."""
        urls = [model.endpoint for model in self.models.values()]
        models = [Path(url.removeprefix("unix:")) for url in urls if url.startswith("unix:")]
        return [*models, *([self.store_socket] if self.store_socket and self.store_socket not in self._routes else [])]

    @property
    def store_socket(self) -> Path | None:
        """The Unix socket at which the PostgreSQL of keys and books is reached; None where SQLite holds them.

        Bytes pass as they are: TLS is spoken with the server itself. Where the config names a folder of this host,
        it is the server's own socket.
        """
        if self._postgresql is None:
            return None
        folder = self._postgresql.folder
        return folder / f".s.PGSQL.{self._postgresql.port}" if folder else self.folder / "store.sock"

    @property
    def destinations(self) -> list[Destination]:
        """All that can be reached through the outlet."""
        return [route.destination for route in self._routes.values()]

    @property
    def pids(self) -> dict[int, str]:
        """What each process of the way out is: `outlet` or `dialler`. Empty where there is none."""
        return self._pair.pids if self._pair else {}

    @property
    def seals(self) -> dict[str, Seal]:
        """What holds around the `outlet` and the `dialler`. Empty where there is none."""
        return self._pair.seals if self._pair else {}

    def open(self) -> None:
        """Start the outlet and the dialler, if there is a destination on the network.

        Raises `SealUnavailable` when they can't be sealed as the config demands, and `OutletFailed`.
        """
        if self._routes:
            self.folder.mkdir(mode=0o700)
            self._pair = Pair(
                self._routes, self.folder, clearance_key=self._clearance_key, best_effort=self._best_effort
            )

    def close(self) -> None:
        """End them."""
        if self._pair is not None:
            self._pair.close()
            self._pair = None

    async def ended(self) -> None:
        """Return when the outlet or the dialler has ended, for whatever reason; never, where there is none.

        No endpoint can be reached from then on: the gateway, sealed by then, can't start another.
        One caller at a time; cancel it before `close`.
        """
        await (self._pair.ended() if self._pair else asyncio.Event().wait())

    async def probe(self, order: Mapping[str, Any]) -> dict[str, str]:
        """Carry out an order of `appliance.seal.probes` inside the outlet's seal: what became of each attempt.

        A path in the order has to lie in `folder`. Raises `OutletFailed`, also where there is none, and
        `TimeoutError` after some seconds without an answer.
        """
        if self._pair is None:
            raise OutletFailed("no outlet was started: the config names nothing on the network")
        return await self._pair.probe(order)

    async def connect(self, name: str, model: RemoteModel) -> Upstream:
        """The upstream of an endpoint."""
        path = self._sockets.get(name) or Path(model.endpoint.removeprefix("unix:"))
        return Upstream(path, prefix=_prefix(model), headers=self._headers[name], patience=model.stall_seconds)

    async def identity(self, identity: Identity) -> Upstream:
        """The upstream of the identity provider that the config named at the start."""
        return Upstream(self._identity_socket, headers=_host(identity.keys_url), patience=_IDENTITY_SECONDS)

    async def collector(self, shipping: Shipping) -> Upstream:
        """The upstream of the collector that the config named at the start."""
        return Upstream(
            self.folder / "otlp.sock", prefix=_path(shipping.endpoint), headers=self._collector_headers,
            patience=_AUDIT_SECONDS, hears_headers=True,
        )  # fmt: skip

    async def timestamp_authority(self, timestamps: Timestamps) -> Upstream:
        """The upstream of the time stamping authority that the config named at the start; it is asked at `""`."""
        return Upstream(
            self.folder / "tsa.sock", prefix=urlsplit(timestamps.url).path or "/", headers=_host(timestamps.url),
            patience=_AUDIT_SECONDS, content_type="application/timestamp-query",
        )  # fmt: skip


def _in_house(name: str, url: str, field: str, ca: FilePath | None, config: Config) -> Route:
    """The way to a server in the house at `url`; `field` is where the config names its `ca`."""
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    destination = Destination(name, parts.hostname or "", parts.port or (443 if tls else 80), "in-house", tls)
    return Route(destination, _authority(field, ca, config))


def _store(postgresql: Postgresql, config: Config) -> Route:
    destination = Destination(_STORE, postgresql.host, postgresql.port, "in-house", postgresql.tls)
    return Route(destination, _authority("accounts.store.postgresql.ca", postgresql.ca, config), end_to_end=True)


def _provider(name: str, provider: Provider, config: Config) -> Route:
    parts = urlsplit(provider.url)
    destination = Destination(name, parts.hostname or "", parts.port or 443, "provider", tls=True)
    key = provider.key.read(config.file.parent) if provider.key else None
    return Route(destination, _authority(f"egress.providers.{name}.ca", provider.ca, config), key, provider.api)


def _authorization(key: Secret | None, config: Config) -> dict[str, str]:
    return {"authorization": f"Bearer {key.read(config.file.parent)}"} if key else {}


def _host(url: str) -> dict[str, str]:
    # by it, a proxy in front of several servers tells which one is meant
    if url.startswith("unix:"):
        return {}
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    usual = 443 if parts.scheme == "https" else 80
    return {"host": f"{host}:{parts.port}" if parts.port not in (None, usual) else f"{host}"}


def _authority(field: str, ca: FilePath | None, config: Config) -> str | None:
    if ca is None:
        return None
    path = config.path(ca)
    try:
        ssl.create_default_context(cafile=path)
    except OSError as cause:
        problem = Problem(field, f"{path} can't be used: {cause.strerror or cause}")
        raise ConfigInvalid(str(config.file), [problem]) from cause
    return str(path)


def _path(url: str) -> str:
    return urlsplit(url).path.rstrip("/")


def _prefix(model: RemoteModel) -> str:
    """What goes before our own paths, which begin with /v1 as an endpoint's URL usually ends."""
    if model.endpoint.startswith("unix:"):
        return ""
    return _path(model.endpoint).removesuffix("/v1")
