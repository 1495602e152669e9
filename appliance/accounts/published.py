"""The keys that an identity provider publishes, fetched now and then; the only thing that is ever fetched from it.

A broken answer never takes the place of keys that were good, but keys that can't be confirmed open nothing for long.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from math import inf
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from appliance.config import Identity
from appliance.engines.upstream import Upstream
from appliance.errors import Refused

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
Keys = Mapping[tuple[str, str], PublicKey]
"""By `kid` and algorithm: a key opens what is signed by an algorithm of its own, and nothing else."""

_FITTING = {
    ("RSA", ""): ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-384"): ("ES384",),
    ("EC", "P-521"): ("ES512",),
    ("OKP", "Ed25519"): ("EdDSA",),
}
"""What a key of each kind and curve can have signed. Signatures by a shared secret (HS256) are not among it."""
ALGORITHMS = frozenset(algorithm for fitting in _FITTING.values() for algorithm in fitting)

_LARGEST = 256 * 1024
_MOST_KEYS = 100
_SECONDS = 5.0
_PAUSE_SECONDS = 10.0
_TOO_OLD = 3
"""Times `refresh_seconds`."""


class Unusable(Exception):
    """What came is no set of keys; the message says why, in words of ours."""


class PublishedKeys:
    """The last good keys of one provider."""

    def __init__(
        self, settings: Identity, upstream: Upstream, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`upstream` leads to the host of `settings.keys_url`. Nothing is fetched before `start`."""
        self._upstream = upstream
        self._path = urlsplit(settings.keys_url).path or "/"
        self.refresh_seconds = settings.refresh_seconds
        self._monotonic = monotonic
        self._keys: Keys = {}
        self._fetched = self._asked = -inf
        self._fetching: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self.generation = 0
        """Goes up with each set that came."""
        self.trouble: str | None = None
        """Why the last fetch failed; None when it didn't."""

    def start(self) -> None:
        """Begin to fetch, at once and then every `refresh_seconds`."""
        self._keeping = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Stop, and break off what is under way."""
        tasks = [task for task in (self._keeping, self._fetching) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._upstream.close()

    @property
    def fresh(self) -> bool:
        """Whether keys are there that were published not too long ago."""
        return self._monotonic() - self._fetched <= _TOO_OLD * self.refresh_seconds

    async def find(self, kid: str, algorithm: str) -> PublicKey | None:
        """The key for a token's header. For one that isn't there, the provider is asked again first."""
        if (kid, algorithm) not in self._keys:
            await self.ask()
        return self._keys.get((kid, algorithm))

    async def ask(self) -> None:
        """Fetch because of a token: at most once in ten seconds, whatever callers send. It never fails."""
        if self._fetching is None:
            if self._monotonic() - self._asked < _PAUSE_SECONDS:
                return
            self._asked = self._monotonic()
        await self.renew()

    async def renew(self) -> None:
        """Fetch, or wait for the fetch under way. It never fails: `trouble` says what went wrong."""
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())
            self._fetching.add_done_callback(self._done)
        await asyncio.shield(self._fetching)  # others wait for it, too

    def _done(self, _: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _keep(self) -> None:
        while True:
            await self.renew()
            pause = self.refresh_seconds
            await asyncio.sleep(min(pause, _PAUSE_SECONDS) if self.trouble else pause)

    async def _fetch(self) -> None:
        try:
            keys = parse(await self._download())
        except (Unusable, Refused, OSError, TimeoutError) as why:
            told = str(why) if isinstance(why, Unusable) else "it can't be reached, or broke off"
            if told != self.trouble:
                logging.getLogger("appliance.identity").warning(
                    "the identity provider's keys could not be fetched: %s; the ones that were fetched last count for "
                    "%g s, then its tokens are refused. Check accounts.identity.keys_url and its server",
                    told, _TOO_OLD * self.refresh_seconds,
                )  # fmt: skip
            self.trouble = told
            return
        if self.trouble is not None or not self.generation:
            logging.getLogger("appliance.identity").info("the identity provider's keys were fetched")
        self._keys, self._fetched, self.trouble = keys, self._monotonic(), None
        self.generation += 1

    async def _download(self) -> bytes:
        async with asyncio.timeout(_SECONDS):
            response = await self._upstream.get(self._path)
            try:
                if response.status != 200:  # a redirect, too: nothing else is fetched
                    also = "; the outlet's lines on standard error say why" if response.status == 502 else ""
                    raise Unusable(f"it answered {response.status}{also}")
                body = bytearray()
                while data := await response.read():
                    body += data
                    if len(body) > _LARGEST:
                        raise Unusable(f"its answer is over {_LARGEST} bytes")
                return bytes(body)
            finally:
                response.close()


def parse(document: bytes) -> Keys:
    """The keys of a JSON Web Key Set that may sign tokens; others in it are left out.

    Left out is what has no `kid`, is meant for something else (`use`, `key_ops`), is too short or no public key.
    Raises `Unusable` where none is left.
    """
    try:
        told = json.loads(document)
    except (ValueError, RecursionError):
        raise Unusable("its answer is no JSON") from None
    listed = told.get("keys") if isinstance(told, dict) else None
    if not isinstance(listed, list) or len(listed) > _MOST_KEYS:
        raise Unusable(f"its answer is no JSON Web Key Set of at most {_MOST_KEYS} keys")
    keys: dict[tuple[str, str], PublicKey] = {}
    for jwk in listed:
        for algorithm in _algorithms(jwk):
            if (key := _public(jwk, algorithm)) is not None:
                keys.setdefault((jwk["kid"], algorithm), key)
    if not keys:
        raise Unusable("there is no key in its answer that could have signed a token")
    return keys


def _algorithms(jwk: object) -> tuple[str, ...]:
    """What may have been signed with a key, by its own word; nothing where it is for something else."""
    if not isinstance(jwk, dict) or not isinstance(jwk.get("kid"), str):
        return ()
    may, kind, curve = jwk.get("key_ops", ["verify"]), jwk.get("kty"), jwk.get("crv", "")
    if jwk.get("use", "sig") != "sig" or not isinstance(may, list) or "verify" not in may:
        return ()
    if not isinstance(kind, str) or not isinstance(curve, str):
        return ()
    return tuple(each for each in _FITTING.get((kind, curve), ()) if jwk.get("alg", each) == each)


def _public(jwk: dict[str, object], algorithm: str) -> PublicKey | None:
    try:
        made = jwt.PyJWK(jwk, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, OverflowError):  # whatever a file may hold
        return None
    fits = isinstance(made.key, PublicKey) and not made.Algorithm.check_key_length(made.key)
    return made.key if fits else None
