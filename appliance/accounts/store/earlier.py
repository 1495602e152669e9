"""Keys of earlier versions, which kept them in a file."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from appliance import state
from appliance.accounts.keys import KeyRecord
from appliance.accounts.store import keys
from appliance.accounts.store.database import Database
from appliance.errors import Invalid, Problem


def take_over(database: Database, folder: Path) -> None:
    """Bring the keys of `keys.json` into the database, and rename the file to `keys.json.imported`.

    A crash between the two does no harm: keys that are there already stay as they are. Raises Invalid for a file
    that can't be read as a list of keys.
    """
    file = folder / "keys.json"
    if not os.path.lexists(file):
        return
    records = _read(file)
    with database.changing() as connection:
        for record in records:
            keys.add(connection, record)
    with contextlib.suppress(FileNotFoundError):  # another process was faster
        file.rename(file.with_name("keys.json.imported"))


def _read(file: Path) -> list[KeyRecord]:
    try:
        state.require_own(file, file.lstat(), file.parent.stat().st_uid)
        return [
            KeyRecord(
                id=str(kept["id"]),
                digest=bytes.fromhex(kept["digest"]),
                name="from keys.json",
                created=time.mktime(time.strptime(kept["created"], "%Y-%m-%d")),
                created_by="an earlier version",
            )
            for kept in json.loads(file.read_text())
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, LookupError, TypeError) as cause:
        what = f"can't be taken over as a list of keys ({cause}); restore it from a backup, or remove it: its keys are"
        raise Invalid(str(file), [Problem("", f"{what} gone then")]) from cause
