"""Every config that was in effect: kept as it was, listed, and read again to bring it back.

Two files each, `000004.yaml` with the bytes and `000004.json` with what is told of them. The second is written last, so
that what a crash left half done is no version.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from appliance import durable, plain
from appliance.egress.owner import as_owner
from appliance.errors import NotFound

_TOLD = re.compile(r"\d{6,}\.json")
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Version:
    """A config that was in effect."""

    number: int
    at: str
    """When it took effect (UTC)."""
    by: str
    """Who had it applied: `host:` and the account on this host, `SIGHUP`, `watch`, or `start`."""
    changes: tuple[str, ...]
    """What it changed, in words."""
    sha256: str
    """Of the bytes that took effect."""
    rollback: int | None = None
    """The version whose bytes came back with it."""
    rewritten: str | None = None
    """SHA-256 of what is kept in their place, since a person whom it named was erased; None: it is as it was."""

    @property
    def kept(self) -> str:
        """SHA-256 of what is kept."""
        return self.rewritten or self.sha256


_READ = TypeAdapter(Version)


class Versions:
    """The versions in a folder, which is made with the first. For any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def all(self) -> list[Version]:
        """All that are whole, by number. Raises OSError."""
        if not self._folder.is_dir():
            return []
        found = (self._read(file) for file in self._folder.iterdir() if _TOLD.fullmatch(file.name))
        return sorted((version for version in found if version is not None), key=lambda version: version.number)

    def named(self, number: int | None = None) -> Version:
        """That of the number; None: the one before the newest. Raises `NotFound` with those there are, and OSError."""
        every = self.all()
        if number is None:
            if len(every) > 1:
                return every[-2]
            raise NotFound("no earlier config was applied, so there is none to return to")
        for version in every:
            if version.number == number:
                return version
        there = f"there are {every[0].number} to {every[-1].number}" if every else f"none is kept in {self._folder}"
        raise NotFound(f"there is no version {number} of the config; {there}")

    def text(self, version: Version) -> bytes:
        """The bytes of its file. Raises `NotFound` where they are gone, or aren't what was kept."""
        file = self._file(version.number, "yaml")
        try:
            text = plain.read(file, _MOST_BYTES, linked=False)
        except OSError as cause:
            raise NotFound(f"the text of version {version.number} is gone: {file}: {cause.strerror}") from cause
        if hashlib.sha256(text).hexdigest() != version.kept:
            raise NotFound(f"{file} was changed since it was kept, so there is no way back to version {version.number}")
        return text

    def keep(self, text: bytes, by: str, changes: Sequence[str]) -> Version:
        """Keep `text`, which takes effect now; the newest version if that has the same. Raises OSError."""
        with self._lock:
            return self._keep(text, by, changes)

    def _keep(self, text: bytes, by: str, changes: Sequence[str]) -> Version:
        every = self.all()
        digest = hashlib.sha256(text).hexdigest()
        if every and digest in (every[-1].sha256, every[-1].kept):
            return every[-1]
        same = [version.number for version in every if digest == version.kept]
        number = every[-1].number + 1 if every else 1
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        version = Version(number, at, by, tuple(changes), digest, same[-1] if same else None)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        durable.replace(self._file(number, "yaml"), text)
        self._tell(version)
        return version

    def forget(self, name: str) -> int:
        """Have no version name a person under `accounts.users` any more; in how many it stood. Raises OSError.

        Such a version loses its comments, too. What else may hold the name, `audit.erasure.left` tells.
        """
        if not self._folder.is_dir():
            return 0
        found = 0
        with self._lock, as_owner(self._folder):
            every = self.all()
            for version in every:
                file = self._file(version.number, "yaml")
                text = _without(plain.read(file, _MOST_BYTES, linked=False), name) if file.is_file() else None
                if text is not None:
                    found += 1
                    _overwrite(file, text)
                    self._tell(replace(version, rewritten=hashlib.sha256(text).hexdigest()))
            whole = {f"{version.number:06}" for version in every}
            for file in self._folder.glob("*"):  # what a crash left may hold it, too
                if file.stem not in whole or file.suffix == ".new":
                    file.unlink()
        return found

    def _file(self, number: int, kind: str) -> Path:
        return self._folder / f"{number:06}.{kind}"

    def _tell(self, version: Version) -> None:
        durable.replace(self._file(version.number, "json"), json.dumps(asdict(version)).encode())

    def _read(self, file: Path) -> Version | None:
        try:
            version = _READ.validate_json(plain.read(file, _MOST_BYTES, linked=False))
        except (OSError, ValueError):
            return None
        return version if version.number == int(file.stem) else None


def _without(text: bytes, name: str) -> bytes | None:
    """A config without the person; None where it doesn't name them."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:  # not as it was kept
        return None
    named = False
    for users in _below(_below([] if root is None else [root], "accounts"), "users"):
        if isinstance(users, yaml.MappingNode):
            others = [(key, terms) for key, terms in users.value if key.value != name]
            named = named or len(others) < len(users.value)
            users.value = others
    if not named:
        return None
    return bytes(yaml.serialize(root, Dumper=yaml.SafeDumper, allow_unicode=True, encoding="utf-8"))


def _below(nodes: Sequence[yaml.Node], setting: str) -> list[yaml.Node]:
    found = [node.value for node in nodes if isinstance(node, yaml.MappingNode)]
    return [value for pairs in found for key, value in pairs if key.value == setting]


def _overwrite(file: Path, text: bytes) -> None:
    """Replace `file`, and what its blocks held before."""
    with file.open("r+b") as before:
        durable.replace(file, text)
        size = os.fstat(before.fileno()).st_size
        before.write(bytes(size))
        before.flush()
        os.fsync(before.fileno())
