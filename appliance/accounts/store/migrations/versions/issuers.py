"""When what opens was made, and by whose keys."""

import json
import time

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_HOST = "host"
_UNKNOWN = "unknown"
"""Stands for no key at all, so for nobody who could be told apart from others."""


def upgrade() -> None:
    """Add both. Who rotated a key, and when, wasn't kept: it could be anybody, and up to now."""
    op.add_column("keys", sa.Column("issued", sa.Double, nullable=False, server_default="0"))
    op.add_column("keys", sa.Column("issuers", sa.Text, nullable=False, server_default=json.dumps([_UNKNOWN])))
    keys = sa.table("keys", *map(sa.column, ("id", "created", "created_by", "previous", "issued", "issuers")))
    connection = op.get_bind()
    made = {key.id: key for key in connection.execute(sa.select(keys))}
    for key in made.values():
        issuers, maker = [_UNKNOWN] if key.previous is not None else [], key.created_by
        while maker != _HOST and maker not in issuers:
            issuers.append(maker)
            maker = made[maker].created_by if maker in made else _HOST
        rotated = any(made[each].previous is not None for each in issuers if each in made)
        if rotated and _UNKNOWN not in issuers:
            issuers.append(_UNKNOWN)
        issued = key.created if key.previous is None else time.time()
        connection.execute(
            sa.update(keys).where(keys.c.id == key.id).values(issued=issued, issuers=json.dumps(issuers))
        )
