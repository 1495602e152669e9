"""What is known of a log apart from it: the keys that sign and signed it, and its newest checkpoint.

Whoever can write to the log can put an earlier state in its place, or one that they signed themselves. What lies here,
beside the key that signs, tells at the next start, and before anything is removed.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from appliance import durable
from appliance.audit.checkpoint import Checkpoint, of_line

KEYS, NEWEST = "public-keys", "newest-checkpoint"
"""Two files: public keys in hex, one to a line, the one that signs first; and the line of a checkpoint."""
_KEY = re.compile("[0-9a-f]{64}")
_LENGTH = 1024
"""Bytes of that line with the blanks behind it, so that each is written where the one before it was."""

_log = logging.getLogger("appliance.audit")


class Anchor:
    """What the folder `keys` knows of a log. For one thread at a time."""

    def __init__(self, keys: Path, public: str) -> None:
        """`public` is the key that signs from now on. Raises OSError."""
        file = keys / KEYS
        known = _KEY.findall(file.read_text(errors="replace")) if file.exists() else []
        self.keys = tuple(dict.fromkeys([public, *known]))
        """All that are to be trusted, in hex: the one that signs, then those before it, the last of them first."""
        if list(self.keys) != known:
            durable.replace(file, "".join(f"{key}\n" for key in self.keys).encode())
        self._file = keys / NEWEST
        self._failing = False
        self.lost, self.newest = self._read()
        """Whether nothing is noted; and the newest checkpoint that is, None for a log without one.

        After a power cut it may be older than the log's, but never newer.
        """

    def note(self, checkpoint: Checkpoint | None) -> None:
        """Keep `checkpoint`, which is on disk in the log, for the newest; None: there is none yet.

        Never fails: then an older one is known. It is written in place without a sync, which costs no group anything.
        """
        try:
            content = (checkpoint.line if checkpoint else b"").ljust(_LENGTH - 1) + b"\n"
            try:
                descriptor = os.open(self._file, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                durable.replace(self._file, content)
            else:
                try:
                    os.pwrite(descriptor, content, 0)
                finally:
                    os.close(descriptor)
            self._failing = False
        except OSError as cause:
            if not self._failing:
                _log.warning("%s can't be written, so a log that is cut back may not be noticed: %s", self._file, cause)
            self._failing = True

    def _read(self) -> tuple[bool, Checkpoint | None]:
        try:
            line = self._file.read_bytes().rstrip()
            return False, of_line(line) if line else None
        except (FileNotFoundError, ValueError):
            return True, None
