"""Whether the log is whole, as the verifier finds it, and what to note elsewhere of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.audit import timestamps
from appliance.audit.checkpoint import Checkpoint
from appliance.audit.verifier import Fault, Unusable, Verdict, verify
from appliance.errors import ConfigInvalid
from appliance.signing import fingerprint

_CHECKPOINTS = "checkpoints.jsonl"


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
    fresh: bool = False
    """Whether it is so new that nothing of it is signed yet: nothing is wrong with it, and nothing proves it."""
    stamps: int = 0
    """Time stamps that lie beside it."""
    stamped: int = 0
    """The newest checkpoint that has one."""
    stamps_verified: bool = False
    """Whether an authority is configured, by which they are verified."""
    stamps_trouble: str = ""
    """Why they could not be."""


def verified(folder: Path, authority: Path | None = None) -> Verification:
    """Verify the log in `folder`, and its time stamps by the certificates in the file `authority`.

    What stops the verification counts as something wrong.
    """
    try:
        verdict = verify(folder, processes=None)
    except (Unusable, OSError) as why:
        return Verification(None, (str(why),))
    trouble = ""
    if authority is not None:
        try:
            wrong = timestamps.check(folder, authority)
            verdict.blame(*(Fault(0, what, file) for file, what in wrong.items()))
        except ConfigInvalid as invalid:
            trouble = invalid.problems[0].what
        except OSError as cause:
            trouble = f"{cause.filename}: {cause.strerror}"
    fresh = _fresh(folder, verdict)
    stamps = sorted(int(file.stem) for file in (folder / timestamps.FOLDER).glob("*.tsr") if file.stem.isdecimal())
    return Verification(
        None if fresh else verdict.genuine, () if fresh else [str(fault) for fault in verdict.faults],
        verdict.records, verdict.removed, verdict.unsigned, _newest(folder / _CHECKPOINTS),
        fingerprint(verdict.key) if verdict.key else "", fresh, len(stamps), stamps[-1] if stamps else 0,
        authority is not None, trouble,
    )  # fmt: skip


def _fresh(folder: Path, verdict: Verdict) -> bool:
    """Whether only a checkpoint is missing, and there was no reason yet to make one.

    A segment is closed only after it is signed: a log with more than the first, open one had checkpoints.
    """
    try:
        unsigned = not (folder / _CHECKPOINTS).exists() or not (folder / _CHECKPOINTS).stat().st_size
    except OSError:
        return False
    others = any(fault.file != _CHECKPOINTS for fault in verdict.faults)
    closed = any(folder.glob("*.gz")) or any(folder.glob("*.stub.json")) or any(folder.glob(f"{timestamps.FOLDER}/*"))
    return unsigned and not others and not closed and verdict.segments <= 1


def _newest(file: Path) -> Checkpoint | None:
    try:
        lines = file.read_bytes().splitlines()
        return Checkpoint(**json.loads(lines[-1])) if lines else None
    except (OSError, ValueError, TypeError):
        return None
