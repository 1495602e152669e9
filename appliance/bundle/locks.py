"""The hash-locked sets of packages in configs/locks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from appliance.errors import BundleFailed

FOLDER = "configs/locks"
Left = Literal["tests", "preparation", "evaluation"]
_SETS: dict[Left, str] = {"tests": "dev", "preparation": "prepare", "evaluation": "evaluate"}


@dataclass(frozen=True, slots=True)
class Pin:
    """One line of a lock: a package in one version, and the SHA-256 of every file that may stand for it."""

    name: str
    version: str
    hashes: frozenset[str]


def chosen(device: str, without: tuple[Left, ...]) -> tuple[str, ...]:
    """The sets that a bundle for `device` holds."""
    left = {_SETS[each] for each in without}
    return tuple(
        name for name in ("uv", "gateway", f"engine-{device}", "prepare", "evaluate", "dev") if name not in left
    )


def read(lock: Path) -> tuple[Pin, ...]:
    """The pins of a lock; raises `BundleFailed` for a line that has no exact version or no hash."""
    text = re.sub(r"^\s*#.*\n?", "", lock.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    pins: list[Pin] = []
    for line in filter(str.strip, text.splitlines()):
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*])?==(\S+)", line)
        hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})", line)
        if match is None or not hashes:
            raise BundleFailed(f"{lock}: {line[:60]!r} isn't locked by version and hash. Run `make lock`.")
        pins.append(Pin(match[1], match[2], frozenset(hashes)))
    return tuple(pins)
