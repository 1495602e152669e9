"""How whoever uses the appliance is shown where use is: by name or, in works-council mode, by pseudonym.

A key with a user says who that is as well as the name does, so it is shown by the person's pseudonym, too. Keys of
nobody's are shown by their id.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Set
from typing import Protocol

from appliance.accounts.entries import Kind, Scope
from appliance.core import BY_TOKEN, Caller
from appliance.errors import BadRequest
from appliance.names import PSEUDONYM

UNKNOWN = "person without pseudonym"
"""Whoever the key store doesn't know: used the appliance before there was one, or was erased."""
_KEY = re.compile(rf"\b(?:key|{BY_TOKEN[:-1]})_[0-9a-f]+")


class Person(Protocol):
    """Somebody in the key store."""

    @property
    def pseudonym(self) -> str:
        """`p_` and 24 hexadecimal digits."""

    @property
    def name(self) -> str:
        """Who it is."""


class Register(Protocol):
    """The key store, as far as it is asked here: nobody is put into it by being looked for."""

    def known(self, name: str) -> Person | None:
        """Whoever has that name."""

    def find(self, pseudonym: str) -> Person | None:
        """Whoever has that pseudonym."""


class Persons:
    """What to show of users and keys. `veiled` is works-council mode."""

    def __init__(
        self,
        register: Register | None = None,
        owner: Callable[[str], str | None] | None = None,
        *,
        veiled: bool = False,
    ) -> None:
        """`owner` tells whose a key is, by its id; None: nobody's, or one that it doesn't know."""
        self.veiled = veiled
        self._register = register
        self._owner = owner
        self._met: dict[str, str] = {}

    def meet(self, key_id: str, user: str | None) -> None:
        """Note whose a key is that may stand in no list."""
        if user:
            self._met[key_id] = user

    def forget(self, scopes: Set[Scope]) -> None:
        """Note no longer whose the keys of these users are."""
        self._met = {key: user for key, user in self._met.items() if Scope(Kind.USER, user) not in scopes}

    def owner(self, key_id: str) -> str | None:
        """Whose a key is, as far as is known."""
        return (self._owner(key_id) if self._owner is not None else None) or self._met.get(key_id)

    def user(self, name: str) -> str:
        """What to show of a user; nothing of nobody."""
        if not (self.veiled and name):
            return name
        person = self._register.known(name) if self._register is not None else None
        return UNKNOWN if person is None else person.pseudonym

    def key(self, key_id: str, user: str | None = None) -> str:
        """What to show of a key, of `user`'s where that is known."""
        if not self.veiled:
            return key_id
        if user := user or self.owner(key_id):
            return self.user(user)
        return UNKNOWN if key_id.startswith(BY_TOKEN) else key_id

    def scope(self, scope: Scope) -> str:
        """What to show of a holder of an allowance."""
        if scope.kind is Kind.USER:
            return self.user(scope.name)
        return self.key(scope.name) if scope.kind is Kind.KEY else scope.name

    def behind(self, shown: Scope) -> Scope | None:
        """The holder of an allowance that `scope` shows so; None for a person's keys, and for whom nobody knows."""
        if not self.veiled or shown.kind not in (Kind.USER, Kind.KEY):
            return shown
        if PSEUDONYM.fullmatch(shown.name) is None:
            return shown if shown.name != UNKNOWN else None
        person = self._register.find(shown.name) if self._register is not None else None
        return Scope(Kind.USER, person.name) if person is not None and shown.kind is Kind.USER else None

    def caller(self, caller: Caller) -> str:
        """What to show of whoever asks, in place of the key's id."""
        return self.key(caller.key_id, caller.user)

    def text(self, text: str) -> str:
        """A line of ours that may name keys, as it may be shown."""
        return _KEY.sub(lambda found: self.key(found[0]), text) if self.veiled else text

    def meant(self, asked: Mapping[str, str]) -> dict[str, str]:
        """What `user` and `key_id` stand for in a filter by columns of the books; all others stay.

        Raises `BadRequest` for a person's name, or the id of a person's key: whoever knows a name would learn which
        use is theirs.
        """
        meant = dict(asked)
        if not self.veiled:
            return meant
        if (user := meant.get("user")) and not PSEUDONYM.fullmatch(user):
            raise _named("user")
        if PSEUDONYM.fullmatch(key := meant.get("key_id", "")):
            # all keys of that person; of two persons at once there is nothing
            if meant.setdefault("user", key) == key:
                del meant["key_id"]
        elif key.startswith(BY_TOKEN) or self.owner(key) is not None:
            raise _named("key")
        if user := meant.get("user"):
            person = self._register.find(user) if self._register is not None else None
            meant["user"] = user if person is None else person.name
        return meant


def _named(param: str) -> BadRequest:
    whose = "persons are" if param == "user" else "this key is a person's, and persons are"
    return BadRequest(
        f"{param}: {whose} shown by pseudonym here (audit.works_council): give one that `by=user` shows, such as "
        "p_0123456789abcdef01234567; which is whose takes a reveal by a super_admin and an auditor",
        param=param, code="pseudonym_needed",
    )  # fmt: skip
