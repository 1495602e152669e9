"""What was found out about weights when they first passed, kept for every later time.

One file for each pair of weights and engine settings. It holds answers to the gate's own questions, and nothing of
anybody's.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from appliance import durable
from appliance.acceptance.golden import Marks
from appliance.acceptance.sense import Kept
from appliance.acceptance.speed import Speed
from appliance.engines.command import Spec

_BESIDE_THE_ANSWERS = {"card", "startup_seconds", "stall_seconds", "adapters"}


@dataclass(frozen=True, slots=True)
class Record:
    """Of one set of weights, run with one set of settings."""

    card: str
    weights: str
    """SHA-256, as in the audit log."""
    engine: str
    """What the engine called itself when it passed last."""
    first_passed: str
    last_passed: str
    """ISO 8601, UTC."""
    asked: str
    """Which questions `answers` and `vectors` are of."""
    bar: str
    """A digest of what the card and the golden sets asked for."""
    speed: Speed
    nats: dict[str, float] = field(default_factory=dict)
    """Mean negative log likelihood of a token, by language."""
    answers: tuple[Kept, ...] = ()
    vectors: tuple[tuple[float, ...], ...] = ()
    golden: dict[str, Marks] = field(default_factory=dict)
    """By `name@version` of each set."""


_RECORD = TypeAdapter(Record)


class Records:
    """The files in state/acceptance."""

    def __init__(self, state: Path) -> None:
        self._folder = state / "acceptance"
        self._log = logging.getLogger("appliance.acceptance")

    def file(self, spec: Spec) -> Path:
        """Where the record of `spec` is, or will be: removed, it is as if those weights had never passed."""
        settings = spec.settings.of_engine.model_dump(mode="json", exclude=_BESIDE_THE_ANSWERS)
        settings |= {"quantization": spec.card.quantization, "dtype": spec.card.dtype, "device": spec.device}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        return self._folder / f"{spec.fingerprint[:16]}-{digest[:8]}.json"

    def find(self, spec: Spec) -> Record | None:
        """What is known of `spec`; None where it never passed, or what was kept can't be read, which the log says."""
        file = self.file(spec)
        try:
            return _RECORD.validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as cause:
            what = "it counts as missing: restore it from a backup, or apply the card again"
            self._log.warning("%s can't be read (%s); %s", file, type(cause).__name__, what)
            return None

    def keep(self, spec: Spec, record: Record) -> None:
        """Have `record` on disk when this returns. Raises OSError."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        durable.replace(self.file(spec), _RECORD.dump_json(record, indent=1))
