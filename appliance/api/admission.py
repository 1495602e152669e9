"""Who comes in, and what they may: every route is checked here and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from appliance.accounts import roles
from appliance.accounts.keys import PREFIX, Keyring, unknown
from appliance.accounts.roles import Permission
from appliance.config import UseCase
from appliance.core import Caller, DataClass, ServiceClass, highest
from appliance.errors import BadRequest, Unauthenticated

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
    """What a request is for, and what follows: how urgent it is, how sensitive at the least, where it may go."""

    use_case: str | None
    service_class: ServiceClass
    data_class: DataClass
    local_only: bool


_PURPOSE = frozenset({b"x-use-case", b"x-data-class", b"x-route"})
_CLASSES = {each.value.encode(): each for each in DataClass}


def purpose(scope: Scope, caller: Caller, known: Mapping[str, UseCase], floor: DataClass) -> Purpose:
    """What `X-Use-Case`, `X-Data-Class` and `X-Route` say, beside what use case, key and config do.

    Raises `Forbidden` unless the use case is one of the config and of the caller's key, `BadRequest` for a class or a
    way that there isn't: what was meant to protect a request is never passed over.
    """
    said: dict[bytes, bytes] = {}
    for header, value in scope["headers"]:
        if header in _PURPOSE:
            said[header] = b"" if header in said else value  # which of two counts, nobody could tell
    service_class, data_class = caller.service_class, highest(floor, caller.data_class)
    name = None
    if b"x-use-case" in said:
        name = said[b"x-use-case"].decode("latin-1")
        if name not in caller.use_cases or name not in known:
            raise roles.not_allowed("use case")
        service_class = known[name].service_class or service_class
        data_class = highest(data_class, known[name].data_class)
    if b"x-data-class" in said:
        wanted = _CLASSES.get(said[b"x-data-class"])
        if wanted is None:
            raise _unknown("X-Data-Class", f"must be one of {', '.join(DataClass)}")
        data_class = highest(data_class, wanted)
    if said.get(b"x-route", b"local") != b"local":
        raise _unknown("X-Route", "must be local, or be left out")
    return Purpose(name, service_class, data_class, b"x-route" in said)


def _unknown(header: str, must: str) -> BadRequest:
    return BadRequest(f"the header {header} {must}, and be sent once", code="invalid_value", param=header)


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
