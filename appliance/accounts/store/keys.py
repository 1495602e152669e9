"""Keys in their table. Every change counts up the version that gateways look at to see that keys have changed."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, func, insert, or_, select, update

from appliance.accounts.keys import KeyRecord, Rotated
from appliance.accounts.store.schema import keys, versions
from appliance.config import Allowance
from appliance.core import DataClass, Role, ServiceClass
from appliance.errors import BadRequest

_VERSION = versions.c.name == "keys"


def version(connection: Connection) -> int:
    """How often keys were changed."""
    return int(connection.execute(select(versions.c.version).where(_VERSION)).scalar_one())


def every(connection: Connection) -> list[KeyRecord]:
    """All, oldest first."""
    found = connection.execute(select(keys).order_by(keys.c.created, keys.c.id))
    return [_record(row) for row in found.mappings()]


def add(connection: Connection, record: KeyRecord) -> bool:
    """False where one with this id or this digest is there already."""
    alike = select(keys.c.id).where(or_(keys.c.id == record.id, keys.c.digest == record.digest))
    if connection.execute(alike).first() is not None:
        return False
    connection.execute(insert(keys).values(_row(record)))
    _changed(connection)
    return True


def rotate(connection: Connection, key_id: str, change: Rotated) -> bool:
    """False where nothing was to be rotated."""
    done = connection.execute(
        update(keys)
        .where(and_(keys.c.id == key_id, keys.c.revoked.is_(None)))
        .values({**asdict(change), "issuers": json.dumps(change.issuers), "previous": keys.c.digest})
    ).rowcount
    if done:
        _changed(connection)
    return bool(done)


def revoke(connection: Connection, key_id: str, at: float) -> bool:
    """False where there is no such key."""
    done = connection.execute(
        update(keys).where(keys.c.id == key_id).values(revoked=func.coalesce(keys.c.revoked, at))
    ).rowcount
    if done:
        _changed(connection)
    return bool(done)


def forget(connection: Connection, ids: Collection[str], at: float) -> int:
    """Let nothing say any more whose these keys were, nor what for; they end `at` the latest. How many there were."""
    done = connection.execute(
        update(keys).where(keys.c.id.in_(ids)).values(user=None, name="", revoked=func.coalesce(keys.c.revoked, at))
    ).rowcount
    if done:
        _changed(connection)
    return done


def require_text(record: KeyRecord) -> None:
    """Raise BadRequest for names that not every database keeps."""
    names = {field: getattr(record, field) for field in ("id", "name", "created_by", "user", "team")}
    for field, name in {**names, "use_cases": "".join(record.use_cases)}.items():
        if name is not None and ("\0" in name or any("\ud800" <= each <= "\udfff" for each in name)):
            raise BadRequest(f"{field} holds a character that is no text", param=field)


def _changed(connection: Connection) -> None:
    connection.execute(update(versions).where(_VERSION).values(version=versions.c.version + 1))


def _row(record: KeyRecord) -> dict[str, Any]:
    row = {column.name: getattr(record, column.name) for column in keys.columns}
    row["role"] = str(record.role)
    row["service_class"] = str(record.service_class)
    row["data_class"] = record.data_class and str(record.data_class)
    row["use_cases"] = json.dumps(sorted(record.use_cases))
    row["issuers"] = json.dumps(record.issuers)
    row["allowance"] = record.allowance and record.allowance.model_dump_json(exclude_defaults=True)
    return row


def _record(row: RowMapping) -> KeyRecord:
    kept = dict(row)
    kept["role"] = Role(row["role"])
    kept["service_class"] = ServiceClass(row["service_class"])
    kept["data_class"] = row["data_class"] and DataClass(row["data_class"])
    kept["use_cases"] = frozenset(json.loads(row["use_cases"]))
    kept["issuers"] = tuple(json.loads(row["issuers"]))
    kept["allowance"] = row["allowance"] and Allowance.model_validate_json(row["allowance"])
    return KeyRecord(**kept)
