"""Opens the store of keys and books that the config names, and the pepper by which its keys are hashed."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from appliance.accounts.registry import Registry
from appliance.accounts.store import Store
from appliance.config import Config
from appliance.errors import ConfigInvalid, Invalid, Problem

PEPPER = "pepper"
_PEPPER_BYTES = 32


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What a shared store is opened with. Their files lie wherever a site keeps such, out of sight under a seal."""

    password: str | None = None
    pepper: bytes | None = None

    @classmethod
    def read(cls, config: Config) -> Credentials:
        """From where the config says. Raises `ConfigInvalid` for what isn't there or can't be one."""
        store = config.settings.accounts.store
        if store.postgresql is None or store.pepper is None:
            return cls()
        password = store.postgresql.password
        return cls(
            password.read(config.file.parent) if password is not None else None,
            _shared(store.pepper.read(config.file.parent), str(config.file)),
        )


def open_store(config: Config, socket: Path | None = None, credentials: Credentials | None = None) -> Store:
    """The store: SQLite in the state folder, or PostgreSQL through `socket` (None: directly).

    `credentials` are some that were read before; None: they are read now. Raises `ConfigInvalid` for those that
    aren't there, `BooksUnavailable` when the store can't be opened.
    """
    settings = config.settings.accounts.store.postgresql
    if settings is None:
        config.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Store.sqlite(config.state)
    password = (credentials or Credentials.read(config)).password
    return Store.postgresql(settings, password, socket, config.path(settings.ca) if settings.ca else None)


def open_registry(config: Config, store: Store, credentials: Credentials | None = None) -> tuple[Registry, bytes]:
    """The registry of keys in `store`, and the pepper that a `Keyring` needs.

    Makes the pepper where there was none. Raises `Invalid` when it is broken, or missing while there are keys: a
    new one would lock all callers out without a word.
    """
    shared = (credentials or Credentials.read(config)).pepper
    pepper = shared if shared is not None else _own(config.state, store)
    return Registry(store, pepper), pepper


def _shared(text: str, file: str) -> bytes:
    try:
        pepper = bytes.fromhex(text)
    except ValueError:
        pepper = b""
    if len(pepper) != _PEPPER_BYTES:
        what = f"must be {2 * _PEPPER_BYTES} hexadecimal digits; `openssl rand -hex {_PEPPER_BYTES}` makes some"
        raise ConfigInvalid(file, [Problem("accounts.store.pepper", what)])
    return pepper


def _own(folder: Path, store: Store) -> bytes:
    file = folder / PEPPER
    if not file.exists():
        if store.keys():
            raise _broken(file, "is missing, and without it no key opens")
        _place(file, secrets.token_bytes(_PEPPER_BYTES))
    try:  # through no link, and without waiting for what isn't a file
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
            pepper = opened.read(_PEPPER_BYTES + 1)
    except OSError as cause:
        what = f"can't be read ({cause.strerror}); it has to be a file, and owned by the user that runs the appliance"
        raise Invalid(str(file), [Problem("", what)]) from None
    if len(pepper) != _PEPPER_BYTES:
        raise _broken(file, f"has to be {_PEPPER_BYTES} bytes long, no more and no less")
    return pepper


def _broken(file: Path, what: str) -> Invalid:
    way_out = "restore it from a backup, or stop the appliance, delete it and accounts.db*, and create new keys"
    return Invalid(str(file), [Problem("", f"{what}; {way_out}")])


def _place(file: Path, content: bytes) -> None:
    """Make `file` as a whole, unless another process has just done so."""
    draft = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink()
