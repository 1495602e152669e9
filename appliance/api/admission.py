"""Who comes in, and what they may: every route is checked here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from appliance.accounts import roles
from appliance.accounts.keys import PREFIX, Keyring, unknown
from appliance.accounts.roles import Permission
from appliance.config import UseCase
from appliance.core import Caller, ServiceClass
from appliance.errors import Unauthenticated

Access = Permission | Literal["public"]
"""What a route states: the permission it needs, or that it needs none."""


class Tokens(Protocol):
    """What tells whose token it is, beside keys."""

    async def authenticate(self, token: str) -> Caller:
        """Whose token it is; it may wait for a key to be fetched. Raises `Unauthenticated` and `BooksUnavailable`."""


class Freshened(Protocol):
    """What keeps the keys like those in the store."""

    async def freshen(self) -> None:
        """Look at the store once more; gives up after a second."""


class Entrance(Protocol):
    """What callers are known by. Read at each request, since `apply` may replace it."""

    @property
    def keys(self) -> Keyring:
        """The keys that open."""

    @property
    def watch(self) -> Freshened:
        """What renews them."""

    @property
    def identity(self) -> Tokens | None:
        """The identity provider whose tokens open, too."""


async def admit(scope: Scope, permission: Permission, entrance: Entrance) -> Caller:
    """Let in who has `permission`; who was known stands in `scope["caller"]`, also when it doesn't reach.

    Raises `Unauthenticated` and `Forbidden`, all of either kind alike.
    """
    caller = scope["caller"] = await authenticate(scope, entrance)
    roles.require(caller, permission)
    return caller


async def authenticate(scope: Scope, entrance: Entrance) -> Caller:
    """Who calls, by `Authorization: Bearer` or `x-api-key`, one of them once. Raises `Unauthenticated`."""
    sent = [header for header in scope["headers"] if header[0] in (b"authorization", b"x-api-key")]
    if len(sent) > 1:  # whoever checks the one and passes on the other lets a stranger in
        raise unknown("more than one credential")
    presented = _presented(*sent[0]) if sent else ""
    if not presented:
        raise Unauthenticated(
            "no API key: send `Authorization: Bearer <key>` or `x-api-key: <key>`", code="missing_api_key"
        )
    if entrance.identity is not None and presented.count(".") == 2 and sent[0][0] == b"authorization":
        try:
            return await entrance.identity.authenticate(presented)
        except Unauthenticated as refusal:
            raise unknown(refusal.reason or "token") from None
    try:
        return entrance.keys.authenticate(presented)
    except Unauthenticated:
        if not presented.startswith(PREFIX):
            raise
    await entrance.watch.freshen()  # made a moment ago, perhaps, on the command line or at another appliance
    return entrance.keys.authenticate(presented)


def _presented(header: bytes, value: bytes) -> str:
    if header == b"authorization":
        if value[:7].lower() != b"bearer ":
            return ""
        value = value[7:]
    return value.strip().decode("latin-1")


class Purpose(NamedTuple):
    """What a request is for, and how urgent that makes it."""

    use_case: str | None
    service_class: ServiceClass


def use_case(scope: Scope, caller: Caller, known: Mapping[str, UseCase]) -> Purpose:
    """What `X-Use-Case` names, and the class that follows: the use case's own, else the caller's.

    Raises `Forbidden` unless the use case is one of the config and of the caller's key.
    """
    named = [value for header, value in scope["headers"] if header == b"x-use-case"]
    if not named:
        return Purpose(None, caller.service_class)
    name = named[0].decode("latin-1")
    if len(named) > 1 or name not in caller.use_cases or name not in known:
        raise roles.not_allowed("use case")
    return Purpose(name, known[name].service_class or caller.service_class)


class Guarded:
    """A route's application behind `admit`. `needs` has the access of each method."""

    def __init__(self, app: ASGIApp, needs: Mapping[str, Access], entrance: Entrance) -> None:
        self._app = app
        self._needs = needs
        self._entrance = entrance

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check, then hand over. A method without an access was answered by a 405 before."""
        access = self._needs[scope["method"]]
        if access != "public":
            await admit(scope, access, self._entrance)
        await self._app(scope, receive, send)
