"""What each closed segment holds, noted down: so that a daily run opens only those that something is due in.

No evidence, and nothing is removed on its word: of a segment it can only say that there is nothing to do.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance import durable
from appliance.audit.retention import Contents
from appliance.audit.segments import Segment
from appliance.signing import written


class Inventory:
    """Notes in `file`, by segment; of one that was replaced since, they don't count."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def over(self, segments: list[Segment], look: Callable[[Segment], Contents | None]) -> dict[Segment, Contents]:
        """What `segments` hold: as noted, else as `look` finds; without those that it finds nothing of."""
        notes, known = self._read(), {}
        for segment in segments:
            found = _noted(notes.get(segment.file.name), segment) or look(segment)
            if found is not None:
                known[segment] = found
        self._write({each.file.name: {"kinds": has.kinds, "state": _state(each)} for each, has in known.items()})
        return known

    def _read(self) -> dict[str, Any]:
        try:
            notes = json.loads(self._file.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return notes if isinstance(notes, dict) else {}

    def _write(self, notes: dict[str, Any]) -> None:
        try:
            durable.replace(self._file, written(notes))
        except OSError as cause:
            logging.getLogger("appliance.audit").warning("%s can't be written: %s", self._file, cause.strerror)


def _noted(note: Any, segment: Segment) -> Contents | None:
    match note:
        case {"state": state, "kinds": dict(kinds)} if state == _state(segment):
            return Contents({kind: (int(count), str(old), str(new)) for kind, (count, old, new) in kinds.items()})
    return None


def _state(segment: Segment) -> list[int]:
    """Changes when the file is replaced. Raises OSError."""
    about = segment.file.stat()
    return [about.st_size, about.st_mtime_ns, about.st_ino]
