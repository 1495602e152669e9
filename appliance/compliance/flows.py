"""Where what of a request goes, read off the config that is in effect: the record of processing activities. Pure.

Nothing here is a list of destinations that somebody has to remember: all sections of the settings are walked, and a
value that looks like a destination and belongs to no flow becomes a flow of its own, which the report shows as wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from appliance.config import (
    Audit,
    Config,
    Identity,
    Listen,
    LocalModel,
    Postgresql,
    Privacy,
    Provider,
    RemoteModel,
    Section,
    Settings,
    Shipping,
    Store,
    Timestamps,
)

_INWARD = {
    "certificate",
    "key",
    "ca",
    "models_folder",
    "environment",
    "evaluation_environment",
    "preparation_environment",
    "rampart",
}
"""Files and folders that are read, and never written with anything of a request."""
_NAMED_OUTWARD = re.compile(r"(.*_)?(url|uri|endpoint|host|address|server|socket|folder|path|file)")


class Where(StrEnum):
    """How far a flow goes."""

    HERE = "here"
    HOUSE = "house"
    OUTSIDE = "outside"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Flow:
    """Something of a request goes somewhere.

    `kind` names the words for its purpose, fields, retention and protection; `fills` are put into these. `settings`
    are the dotted names of the settings that it accounts for.
    """

    kind: str
    name: str
    place: str
    where: Where
    settings: tuple[str, ...]
    protection: tuple[str, ...] = ()
    fills: Mapping[str, str | int] = field(default_factory=dict)


def flows(config: Config) -> list[Flow]:
    """All flows of `config`, callers first; what no flow accounts for comes last."""
    settings = config.settings
    told = [
        flow
        for where, section in walk(settings)
        for kind, tell in _TELLING.items()
        if isinstance(section, kind)
        for flow in tell(where, section, config)
    ]
    told.sort(key=lambda flow: _ORDER.index(flow.kind))
    accounted = {name for flow in told for name in flow.settings}
    return told + [
        Flow("unknown", name, value, Where.UNKNOWN, (name,))
        for name, value in destinations(settings)
        if name not in accounted
    ]


def walk(section: Section, where: str = "") -> Iterator[tuple[str, Section]]:
    """A section and all below it, each with its dotted name."""
    yield where, section
    for name in type(section).model_fields:
        value = getattr(section, name)
        below = value if isinstance(value, Mapping) else dict(enumerate(value)) if isinstance(value, list) else {}
        for key, each in ({None: value} | dict(below)).items():
            if isinstance(each, Section):
                yield from walk(each, _dotted(where, name, key))


def destinations(settings: Section) -> Iterator[tuple[str, str]]:
    """Every setting that could name somewhere to write or connect to: its dotted name, and its value."""
    for where, section in walk(settings):
        for name in type(section).model_fields:
            value = getattr(section, name)
            below = value if isinstance(value, Mapping) else dict(enumerate(value)) if isinstance(value, list) else {}
            for key, each in ({None: value} | dict(below)).items():
                if name not in _INWARD and _outward(name, each):
                    yield _dotted(where, name, key), str(each)


def _outward(name: str, value: Any) -> bool:
    if isinstance(value, Path):
        return True
    return isinstance(value, str) and (
        "://" in value or value.startswith("unix:") or bool(_NAMED_OUTWARD.fullmatch(name))
    )


def _dotted(*parts: object) -> str:
    return ".".join(str(part) for part in parts if part not in (None, ""))


def _root(_: str, settings: Settings, config: Config) -> Iterator[Flow]:
    state = str(config.state)
    yield Flow("access_log", "", f"{state}/logs/requests.log", Where.HERE, ("state",), ("private",))
    yield Flow("appliance_log", "", f"{state}/logs/appliance.log", Where.HERE, ("state",), ("private",))
    yield Flow("proofs", "", f"{state}/egress", Where.HERE, ("state",), ("private", "signed"))


def _listen(where: str, listen: Listen, config: Config) -> Iterator[Flow]:
    if listen.socket is not None:
        place, protection = f"unix:{config.path(listen.socket)}", ("socket",)
        names: tuple[str, ...] = (f"{where}.socket", f"{where}.host")
    else:
        scheme = "https" if listen.tls else "http"
        host = f"[{listen.host}]" if ":" in listen.host else listen.host
        place, names = f"{scheme}://{host}:{listen.port}", (f"{where}.host",)
        loopback = listen.host == "::1" or listen.host.startswith("127.")
        protection = ("tls",) if listen.tls else ("loopback",) if loopback else ("proxy",)
    yield Flow("gateway", "", place, Where.HERE, names, (*protection, "sealed"))
    yield Flow("metrics", "", f"{place}/metrics", Where.HOUSE, names, protection)


def _engine(where: str, model: LocalModel, _: Config) -> Iterator[Flow]:
    name = where.removeprefix("models.")
    yield Flow("engine", name, f"state/run, {model.card}", Where.HERE, (), ("no_network", "no_identity"))


def _endpoint(where: str, model: RemoteModel, _: Config) -> Iterator[Flow]:
    unix = model.endpoint.startswith("unix:")
    transport = "socket" if unix else "tls" if model.endpoint.startswith("https:") else "clear"
    place = Where.HERE if unix else Where.HOUSE
    name = where.removeprefix("models.")
    yield Flow(
        "endpoint", name, model.endpoint, place, (f"{where}.endpoint",), (transport, "only_there", "no_identity")
    )


def _provider(where: str, provider: Provider, _: Config) -> Iterator[Flow]:
    name = where.rpartition(".")[2]
    yield Flow(
        "provider", name, provider.url, Where.OUTSIDE, (f"{where}.url",), ("tls", "cleared", "no_identity"),
        {"region": provider.region or "?", "agreement": provider.agreement or "?"},
    )  # fmt: skip


def _lists(where: str, _: Privacy, config: Config) -> Iterator[Flow]:
    yield Flow("lists", "", str(config.lists), Where.HERE, (f"{where}.lists",), ("private", "encrypted"))


def _store(_: str, store: Store, config: Config) -> Iterator[Flow]:
    if store.postgresql is None:
        yield Flow("store", "SQLite", f"{config.state}/accounts.db", Where.HERE, ("state",), ("private", "hashed"))


def _postgresql(where: str, server: Postgresql, _: Config) -> Iterator[Flow]:
    place = f"{server.folder}" if server.folder else f"{server.host}:{server.port}"
    transport = "socket" if server.folder else "tls" if server.tls else "clear"
    here = Where.HERE if server.folder else Where.HOUSE
    yield Flow(
        "store", "PostgreSQL", f"{place}/{server.database}", here, (f"{where}.host",),
        (transport, "only_there", "hashed"),
    )  # fmt: skip


def _identity(where: str, identity: Identity, _: Config) -> Iterator[Flow]:
    yield Flow(
        "identity", identity.issuer, identity.keys_url, Where.HOUSE, (f"{where}.issuer", f"{where}.keys_url"),
        ("tls", "only_there"),
    )  # fmt: skip


def _audit(_: str, audit: Audit, config: Config) -> Iterator[Flow]:
    state, kept = config.state, audit.retention
    days: dict[str, str | int] = {
        "requests": kept.requests_days, "refusals": kept.refusals_days, "acts": kept.acts_days,
        "incidents": kept.incidents_days,
    }  # fmt: skip
    yield Flow("log", "", f"{state}/audit", Where.HERE, ("state",), ("private", "chained", "pseudonyms"), days)
    yield Flow("subjects", "", f"{state}/audit-keys", Where.HERE, ("state",), ("private", "erasable"))
    storing = [name for name, use in config.settings.accounts.use_cases.items() if use.store_content]
    if storing:
        yield Flow(
            "content", ", ".join(storing), f"{state}/audit", Where.HERE, ("state",),
            ("private", "encrypted", "erasable"), {"content": kept.content_days},
        )  # fmt: skip


def _timestamps(where: str, timestamps: Timestamps, _: Config) -> Iterator[Flow]:
    transport = "tls" if timestamps.url.startswith("https:") else "clear"
    yield Flow("timestamps", "", timestamps.url, Where.HOUSE, (f"{where}.url",), (transport, "only_there"))


def _shipping(where: str, shipping: Shipping, _: Config) -> Iterator[Flow]:
    transport = "tls" if shipping.endpoint.startswith("https:") else "clear"
    yield Flow(
        "shipping", "", shipping.endpoint, Where.HOUSE, (f"{where}.endpoint",), (transport, "only_there", "pseudonyms")
    )


_TELLING: Mapping[type[Section], Callable[[str, Any, Config], Iterator[Flow]]] = {
    Settings: _root,
    Listen: _listen,
    LocalModel: _engine,
    RemoteModel: _endpoint,
    Provider: _provider,
    Privacy: _lists,
    Store: _store,
    Postgresql: _postgresql,
    Identity: _identity,
    Audit: _audit,
    Timestamps: _timestamps,
    Shipping: _shipping,
}
_ORDER = (
    "gateway", "engine", "endpoint", "provider", "lists", "store", "log", "content", "subjects", "access_log",
    "appliance_log", "metrics", "proofs", "identity", "timestamps", "shipping",
)  # fmt: skip
