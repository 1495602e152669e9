"""Whether the log is whole, as the verifier finds it, and what to note elsewhere of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.audit.checkpoint import Checkpoint
from appliance.audit.verifier import Unusable, verify
from appliance.signing import fingerprint


@dataclass(frozen=True, slots=True)
class Verification:
    """`wrong` are the verifier's own words, the first bad record first; `holds` is None where nothing was verified."""

    holds: bool | None
    wrong: Sequence[str] = ()
    records: int = 0
    removed: int = 0
    """So many more were removed by retention."""
    unsigned: int = 0
    """So many of `records` stand behind the newest checkpoint."""
    newest: Checkpoint | None = None
    fingerprint: str = ""


def verified(folder: Path) -> Verification:
    """Verify the log in `folder`. What stops the verification counts as something wrong."""
    try:
        verdict = verify(folder, processes=None)
    except (Unusable, OSError) as why:
        return Verification(None, (str(why),))
    wrong = [str(fault) for fault in verdict.faults]
    return Verification(verdict.genuine, wrong, verdict.records, verdict.removed, verdict.unsigned,
                        _newest(folder / "checkpoints.jsonl"), fingerprint(verdict.key))  # fmt: skip


def _newest(file: Path) -> Checkpoint | None:
    try:
        lines = file.read_bytes().splitlines()
        return Checkpoint(**json.loads(lines[-1])) if lines else None
    except (OSError, ValueError, TypeError):
        return None
