"""The site's own lists on disk: a file for each kind, encrypted as a whole, and replaced as a whole.

Beside them lies the key that they are encrypted with, made at first use. It keeps names out of backups of the lists
alone, out of searches and of copies; whoever has the whole folder can read them.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.durable import replace
from appliance.errors import ListsFailed
from appliance.privacy.kinds import Kind
from appliance.privacy.site.entry import LISTS, SiteEntry

KEY = "key"
_KEY_BYTES = 32
_MAGIC = b"appliance site list 1\n"
_NONCE_BYTES = 12


class Lists:
    """The lists in a folder, which need not be there yet. All of it raises `ListsFailed`, saying what to do."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def every(self) -> list[SiteEntry]:
        """The entries of all lists."""
        return [entry for kind in LISTS for entry in self.read(kind)]

    def read(self, kind: Kind) -> list[SiteEntry]:
        """The entries of one list, in their order; none where there is no such list."""
        file = self._file(kind)
        sealed = _content(file)
        if sealed is None:
            return []
        key = self._key()
        if key is None:
            raise ListsFailed(
                f"{file} can't be read without {self._folder / KEY}: restore that file from a backup, or remove the "
                "list and import it again"
            )
        begin = len(_MAGIC) + _NONCE_BYTES
        try:
            if not sealed.startswith(_MAGIC):
                raise ValueError
            content = AESGCM(key).decrypt(sealed[len(_MAGIC) : begin], sealed[begin:], _bound_to(kind))
            return [SiteEntry(name, kind, tuple(aliases)) for name, *aliases in json.loads(content)]
        except (InvalidTag, ValueError, TypeError):
            raise ListsFailed(
                f"{file} is damaged, is another list's, or {self._folder / KEY} is not its key: restore both from a "
                "backup, or remove the list and import it again"
            ) from None

    def change(self, kind: Kind, work: Callable[[list[SiteEntry]], Sequence[SiteEntry]]) -> None:
        """Put what `work` makes of a list in its place, as a whole and on disk when this returns; one at a time."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(folder, fcntl.LOCK_EX)
                self._write(kind, work(self.read(kind)))
            finally:
                os.close(folder)
        except OSError as cause:
            raise ListsFailed(f"the list can't be written: {cause}") from None

    def _write(self, kind: Kind, entries: Sequence[SiteEntry]) -> None:
        key = self._key()
        if key is None:
            key = secrets.token_bytes(_KEY_BYTES)
            replace(self._folder / KEY, key)
        content = json.dumps([[entry.name, *entry.aliases] for entry in entries], ensure_ascii=False).encode()
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = AESGCM(key).encrypt(nonce, content, _bound_to(kind))
        replace(self._file(kind), _MAGIC + nonce + sealed)

    def _file(self, kind: Kind) -> Path:
        return self._folder / f"{kind}.list"

    def _key(self) -> bytes | None:
        file = self._folder / KEY
        key = _content(file)
        if key is not None and len(key) != _KEY_BYTES:
            raise ListsFailed(f"{file} is no key: restore it from a backup")
        return key


def _bound_to(kind: Kind) -> bytes:
    """What is authenticated beside the content, so that no list can stand in for another, nor an older format."""
    return _MAGIC + kind.encode()


def _content(file: Path) -> bytes | None:
    """None where there is no file. A link isn't followed: the folder may lie where a gateway can write."""
    try:
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as opened:
            return opened.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as cause:
        raise ListsFailed(f"{file} can't be read: {cause.strerror}; the appliance's own user has to own it") from None
