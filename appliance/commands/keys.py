"""`appliance keys ...`: straight into the store, so it works whether the appliance runs or not; on record either way.

Whoever may read the state folder, or has the password of the PostgreSQL, is the administrator.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from appliance.commands import OK, store_of, write
from appliance.errors import NotAnswering, NotFound, NotRunning

if TYPE_CHECKING:
    from appliance.accounts.keys import KeyRecord
    from appliance.accounts.registry import Registry
    from appliance.config import Config

LIMITS: tuple[tuple[str, type[int] | type[float]], ...] = (
    ("requests_per_minute", int),
    ("tokens_per_minute", int),
    ("euros_per_minute", float),
    ("parallel_requests", int),
    ("tokens_per_day", int),
    ("euros_per_day", float),
    ("tokens_per_month", int),
    ("euros_per_month", float),
)
"""The limits of an allowance, each an option of `keys create`."""
_SECONDS = {"m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_PATIENCE = 5.0


def duration(text: str) -> float:
    """Seconds in `30m`, `24h`, `90d` or `12w`."""
    found = re.fullmatch(r"([0-9]{1,6})([mhdw])", text)
    if found is None:
        raise argparse.ArgumentTypeError("give a number and m, h, d or w, such as 90d")
    return float(int(found[1]) * _SECONDS[found[2]])


def create(options: argparse.Namespace) -> int:
    """Make a key and show it, once."""
    from appliance import config
    from appliance.accounts.registry import check
    from appliance.acts import Tell, on_record
    from appliance.api.bodies.base import parse
    from appliance.api.bodies.keys import NewKey, terms

    loaded = config.load(options.config)
    names = [*(name for name, _ in LIMITS), "at_limit", "step_down_to"]
    allowance = {name: value for name in names if (value := getattr(options, name)) is not None}
    wanted: dict[str, Any] = {
        "name": options.name, "user": options.user, "team": options.team, "role": options.role,
        "use_cases": options.use_case, "service_class": options.service_class, "data_class": options.data_class,
        "allowance": allowance or None, "expires_in_days": _days(options.expires),
    }  # fmt: skip
    order = parse(NewKey, json.dumps(wanted).encode()).order(time.time())
    check(order, loaded.settings.accounts, loaded.settings.names)

    def work(tell: Tell) -> tuple[KeyRecord, str]:
        record, key = registry.create(order)
        tell(target=record.user, key=record.id)
        return record, key

    with _registry(loaded) as registry:
        record, key = on_record(loaded, "keys.create", work, target=order.user, **terms(order))
    _show(options, loaded, record, key)
    return OK


def list_(options: argparse.Namespace) -> int:
    """Show the keys, never what opens."""
    from appliance import config
    from appliance.api.bodies.keys import described

    with _registry(config.load(options.config)) as registry:
        rows = [described(record) for record in registry.select(user=options.user, team=options.team)]
    if options.json:
        write(json.dumps(rows, indent=1))
        return OK
    columns = ("id", "state", "role", "user", "team", "service_class", "data_class", "expires", "name")
    table = [[column.replace("_", " ") for column in columns]]
    table += [[str(row[column] or "-") for column in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    write("\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip()
                    for line in table) if rows else "no key so far; appliance keys create makes one")  # fmt: skip
    return OK


def rotate(options: argparse.Namespace) -> int:
    """Put a new key in the place of an old one, and show it once."""
    from appliance import config
    from appliance.acts import Tell, on_record
    from appliance.api.bodies.base import parse
    from appliance.api.bodies.keys import Rotation, terms

    loaded = config.load(options.config)
    wanted = {"overlap_hours": options.overlap / 3600, "expires_in_days": _days(options.expires)}
    rotation = parse(Rotation, json.dumps(wanted).encode())
    overlap = options.overlap

    def work(tell: Tell) -> tuple[KeyRecord, str]:
        record, key = registry.rotate(old.id, overlap, expires=expires)
        tell(**terms(record))
        return record, key

    with _registry(loaded) as registry, _teaching():
        old, expires = registry.find(options.id), rotation.ends(time.time())
        about = {"overlap_seconds": round(overlap), **terms(old)}
        record, key = on_record(loaded, "keys.rotate", work, target=old.user, key=old.id, **about)
    _show(options, loaded, record, key)
    return OK


def revoke(options: argparse.Namespace) -> int:
    """Let a key open nothing any more."""
    from appliance import config
    from appliance.acts import Tell, on_record
    from appliance.api.bodies.keys import described, terms

    def work(_: Tell) -> KeyRecord:
        return registry.revoke(old.id)

    loaded = config.load(options.config)
    with _registry(loaded) as registry, _teaching():
        old = registry.find(options.id)
        record = on_record(loaded, "keys.revoke", work, target=old.user, key=old.id, **terms(old))
    write(json.dumps(described(record)) if options.json else
          f"✓ {record.id} ({_whose(record)}) is revoked; every appliance refuses it within a second")  # fmt: skip
    return OK


@contextlib.contextmanager
def _registry(config: Config) -> Iterator[Registry]:
    from appliance.accounts.opening import open_registry

    with store_of(config) as store:
        yield open_registry(config, store)[0]


@contextlib.contextmanager
def _teaching() -> Iterator[None]:
    try:
        yield
    except NotFound as refusal:
        raise NotFound(f"{refusal}; appliance keys list shows them", code=refusal.code) from None


def _days(seconds: float | None) -> float | None:
    return seconds / _SECONDS["d"] if seconds is not None else None


def _show(options: argparse.Namespace, config: Config, record: KeyRecord, key: str) -> None:
    from appliance.accounts.roles import PERMISSIONS, Permission
    from appliance.api.bodies.keys import described

    address = _address(config)
    if options.json:
        write(json.dumps({**described(record), "key": key, "base_url": address}))
        return
    shown = described(record)
    until = f"until {shown['expires']}" if shown["expires"] else "until it is revoked"
    lines = [
        f"Key        {key}      shown this once, stored only as a hash",
        f"Id         {record.id}      for appliance keys rotate and revoke",
        f"For        {_whose(record)}, role {record.role}, {until}",
    ]
    if shown["previous_until"]:
        lines.append(f"Old key    opens until {shown['previous_until']}")
    url, option = address or "http://ADDRESS", ""
    if url.startswith("unix:"):
        url, option = "http://localhost", f"--unix-socket {url.removeprefix('unix:')} "
    may = PERMISSIONS[record.role]
    if Permission.ASK in may and not option:
        lines += [
            "",
            f'OpenAI     OpenAI(base_url="{url}/v1", api_key="{key}")',
            f'Anthropic  Anthropic(base_url="{url}", api_key="{key}")',
        ]
    elif Permission.SEE_MODELS in may:
        path = "/v1/models" if Permission.ASK in may else "/admin/keys"
        lines += ["", f"curl {option}{url}{path} -H 'Authorization: Bearer {key}'"]
    if address is None:
        lines.append("           ADDRESS is what appliance status shows once the appliance runs")
    write("\n".join(f"  {line}".rstrip() for line in ["", *lines, ""]))


def _address(config: Config) -> str | None:
    """Where the appliance is reached, if it runs here."""
    from appliance import control

    try:
        (status,) = control.ask(config.state, "GET", "/status", patience=_PATIENCE)
    except (NotRunning, NotAnswering):
        return None
    return str(status["address"])


def _whose(record: KeyRecord) -> str:
    team = f"team {record.team}" if record.team else ""
    return ", ".join(filter(None, (record.user, team, record.name))) or "nobody in particular"
