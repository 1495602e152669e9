"""What engines took on this host, kept for the next plan: state/measured.json."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from appliance import durable
from appliance.engines.command import Spec

_NAME = "measured.json"
_MOST = 200
"""Engines that are remembered; the ones measured longest ago are forgotten first."""
_WORTH = 1.01
"""Times what is known, from which on it is worth to write it down."""


class Measured:
    """The highest that each kind of engine has taken, in GiB. A file that can't be read or written costs a memory."""

    def __init__(self, state: Path) -> None:
        self._file = state / _NAME
        self._known: dict[str, float] = {}
        try:
            told = json.loads(self._file.read_bytes())
            self._known = {str(key): float(gib) for key, gib in told.items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, AttributeError, TypeError) as failure:
            logging.getLogger("appliance.engines").warning("%s: %s; engines are measured anew", self._file, failure)

    def of(self, spec: Spec) -> float | None:
        """GiB that an engine for `spec` took at its most; None if none has run here."""
        return self._known.get(_key(spec))

    def note(self, spec: Spec, gib: float) -> None:
        """An engine for `spec` has taken so much. Writes at most when that is more than was known."""
        key = _key(spec)
        if gib <= _WORTH * self._known.get(key, 0.0):
            return
        self._known.pop(key, None)
        self._known[key] = round(gib, 3)
        while len(self._known) > _MOST:
            del self._known[next(iter(self._known))]
        try:
            durable.replace(self._file, json.dumps(self._known, indent=1).encode())
        except OSError as failure:
            logging.getLogger("appliance.engines").warning("%s: %s", self._file, failure)


def _key(spec: Spec) -> str:
    """The weights and adapters, and what of the settings an engine has to be started anew for."""
    settings = spec.settings.of_engine.model_dump_json()
    adapters = sorted((name, adapter.fingerprint) for name, adapter in spec.adapters.items())
    about = json.dumps([spec.fingerprint, adapters, spec.device, settings])
    return f"{spec.settings.card}@{hashlib.sha256(about.encode()).hexdigest()[:16]}"
