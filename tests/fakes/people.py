"""Whom tests run things as: whoever runs them, and where root does, an ordinary user, too."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOMEBODY = 1000
EVERYBODYS = shutil.which(f"python3.{sys.version_info.minor}", path=os.defpath) or ""
"""A Python that every user may run; empty where the host has none."""


def _why_not() -> str:
    """Why nothing can be run as SOMEBODY; empty if it can."""
    if os.geteuid() != 0:
        return "only root can become another user; all others are one already"
    if not EVERYBODYS:
        return "this host has no Python of this version that every user may run"
    if closed := [folder for folder in [ROOT, *ROOT.parents] if not folder.stat().st_mode & 0o001]:
        return f"other users may not enter {closed[0]}, where this checkout lies"
    return ""


as_somebody = pytest.mark.skipif(bool(_why_not()), reason=_why_not() or "-")
PEOPLE = [
    pytest.param(None, id="as whoever runs this"),
    pytest.param(SOMEBODY, id="as an ordinary user", marks=as_somebody),
]
