"""Tokens of the company's own identity provider (OpenID Connect), which open the appliance beside keys.

Signature and times are PyJWT's to verify. Here is decided what else has to be right, and who somebody is by it: an
access token or an ID token, signed with a key that the provider publishes, for this appliance, and not for long.
Nothing that a token names (`jku`, `x5u`, `jwk`) is followed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, NoReturn

import jwt
from pydantic import TypeAdapter, ValidationError

from appliance import config
from appliance.accounts.departed import Departed
from appliance.accounts.entries import Kind, Scope
from appliance.accounts.keys import unknown
from appliance.accounts.published import ALGORITHMS, PublishedKeys
from appliance.config import Accounts
from appliance.config.accounts import PersonName
from appliance.core import BY_TOKEN, Caller, Role
from appliance.engines.upstream import Upstream
from appliance.errors import BooksUnavailable
from appliance.names import proper

_LONGEST = 8192
_LEEWAY_SECONDS = 30
_REMEMBERED = 4096
_REQUIRED = ["iss", "sub", "aud", "exp", "iat"]
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""A token that says to be something else, such as a logout token, is no key."""
_RANK = (Role.USER, Role.POWER_USER, Role.AUDITOR, Role.ADMIN, Role.SUPER_ADMIN)
"""Of several roles that a token names, the last one here counts."""


class _Verified(NamedTuple):
    caller: Caller
    ends: float
    """Seconds since 1970."""


class _Unfit(Exception):
    """Why a token doesn't open, in words of ours."""


class Identity:
    """One identity provider: who its tokens speak of."""

    def __init__(
        self,
        accounts: Accounts,
        upstream: Upstream,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`accounts.identity` has to be there; `upstream` leads to the host of its `keys_url`."""
        assert accounts.identity is not None  # noqa: S101 - as said
        self._names: TypeAdapter[str] = TypeAdapter(PersonName)
        self._clock = clock
        self._remembered: dict[bytes, _Verified] = {}
        self._departed = Departed(monotonic)
        self._generation = 0
        self._published = PublishedKeys(accounts.identity, upstream, monotonic=monotonic)
        self.take(accounts)

    def take(self, accounts: Accounts) -> None:
        """Judge by new settings from now on; where its keys are fetched stays as it was at the start."""
        assert accounts.identity is not None  # noqa: S101 - whether there is one changes with a restart only
        self._settings: config.Identity = accounts.identity
        self._teams = accounts.teams.keys()
        self._use_cases = frozenset(accounts.identity.use_cases)
        self._published.refresh_seconds = accounts.identity.refresh_seconds
        self._remembered.clear()

    def start(self) -> None:
        """Begin to fetch keys; it goes on until `close`. Needs a running loop and doesn't wait."""
        self._published.start()

    async def close(self) -> None:
        """End it."""
        await self._published.close()

    @property
    def trouble(self) -> str | None:
        """Why the provider's keys could not be fetched the last time; None when they could."""
        return self._published.trouble

    async def authenticate(self, token: str) -> Caller:
        """Who a token speaks of. It waits only where a key has to be fetched first: five seconds at most.

        Raises `Unauthenticated`, the same for whatever is wrong with the token and for a wrong key, or
        `BooksUnavailable` when it can't be told, since the provider's keys couldn't be fetched for too long.
        """
        if not self._published.fresh:
            await self._published.ask()
            if not self._published.fresh:
                raise BooksUnavailable(
                    "tokens can't be checked at the moment, since the identity provider can't be reached; "
                    "try again later, or use an API key",
                    code="identity_unavailable", retry_after=10,
                )  # fmt: skip
        if self._generation != self._published.generation:  # a key may have been taken back
            self._generation = self._published.generation
            self._remembered.clear()
        if len(token) > _LONGEST or not token.isascii():
            raise unknown("a token that is too long, or no ASCII")
        digest = hashlib.sha256(token.encode()).digest()
        verified = self._remembered.get(digest)
        if verified is None or self._clock() >= verified.ends:
            verified = await self._verify(token)
            if verified.caller.user is not None and Scope(Kind.USER, verified.caller.user) in self._departed:
                raise unknown("a token of somebody who was erased a moment ago")
            self._remember(digest, verified)
        return verified.caller

    def refuse(self, scope: Scope) -> None:
        """Take no token of a user for an hour, whatever the provider says."""
        self._departed.add((scope,))
        self._remembered.clear()

    def _remember(self, digest: bytes, verified: _Verified) -> None:
        self._remembered.pop(digest, None)
        if len(self._remembered) >= _REMEMBERED:
            del self._remembered[next(iter(self._remembered))]  # the oldest
        self._remembered[digest] = verified

    async def _verify(self, token: str) -> _Verified:
        try:
            claims = await self._claims(token)
            return _Verified(self._caller(claims), claims["exp"] + _LEEWAY_SECONDS)
        except _Unfit as why:
            raise unknown(f"a token: {why}") from None
        except jwt.PyJWTError as why:  # by name: its words hold what the token does
            raise unknown(f"a token: {type(why).__name__}") from None

    async def _claims(self, token: str) -> dict[str, Any]:
        """What a token says, once all of it is known to be right."""
        header = jwt.get_unverified_header(token)
        kid, algorithm, kind = header.get("kid"), header.get("alg"), header.get("typ", "JWT")
        if "crit" in header:
            _refuse("has a header that may not be ignored")
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            _refuse("is of another type")
        if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
            _refuse("is signed in a way that isn't accepted")
        key = await self._published.find(kid, algorithm) if isinstance(kid, str) else None
        if key is None:
            _refuse("names no published key that fits")
        settings = self._settings
        claims: dict[str, Any] = jwt.decode(
            token, key, [algorithm], {"require": _REQUIRED},
            audience=settings.audience, issuer=settings.issuer, leeway=_LEEWAY_SECONDS,
        )  # fmt: skip
        times = [claims[name] for name in ("exp", "iat", "nbf") if name in claims]
        if not all(type(moment) in (int, float) for moment in times):
            _refuse("has a time that is no number")
        if claims["exp"] - claims["iat"] > settings.longest_seconds:
            _refuse("was issued to live too long")
        if "cnf" in claims:
            _refuse("is bound to a key that its bearer would have to prove")
        return claims

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        named = self._settings.claims
        who = f"{claims['iss']}\0{claims['sub']}".encode("utf-8", "surrogatepass")
        return Caller(
            key_id=f"{BY_TOKEN}{hashlib.sha256(who).hexdigest()[:16]}",
            role=self._role(named.role and _claim(claims, named.role)),
            user=self._name(named.user, _claim(claims, named.user)),
            team=self._team(named.team, named.team and _claim(claims, named.team)),
            use_cases=self._use_cases,
        )

    def _role(self, value: object) -> Role:
        words = [value] if isinstance(value, str) else [] if value is None else value
        if not isinstance(words, list):
            _refuse("names a role that is no word")
        meant = self._settings.roles
        return max((meant[word] for word in words if isinstance(word, str) and word in meant),
                   key=_RANK.index, default=Role.USER)  # fmt: skip

    def _team(self, claim: str | None, value: object) -> str | None:
        if claim is None or value is None:
            return None
        if isinstance(value, list):
            return next((each for each in value if isinstance(each, str) and each in self._teams), None)
        return self._name(claim, value)

    def _name(self, claim: str, value: object) -> str:
        try:
            return self._names.validate_python(proper(value) if isinstance(value, str) else value, strict=True)
        except ValidationError:
            _refuse(f"has no fit name in {claim}")


def _refuse(why: str) -> NoReturn:
    raise _Unfit(why)


def _claim(claims: Mapping[str, Any], path: str) -> object:
    """What stands at a dotted path; None where nothing does. A claim whose own name has dots is found, too."""
    if path in claims:
        return claims[path]
    found: object = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
