"""Requests that may leave, and the clearing of their final bytes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.clearance import LONGEST_SECONDS, Cleared, NotCleared, digest, sign
from appliance.config import Provider
from appliance.privacy.forms import Traces
from appliance.privacy.said import Said

TICKET_SECONDS = 600.0
"""For which a ticket holds."""
_MOST_TICKETS = 1000
"""One holds up to some megabytes, as long as its answer streams."""


@dataclass(frozen=True, slots=True)
class _Ticket:
    """What a request is held to."""

    providers: frozenset[str]
    traces: Traces
    said: Said
    expires: float


class Tickets:
    """All that are valid."""

    def __init__(
        self, providers: Mapping[str, Provider], key: Ed25519PrivateKey, clock: Callable[[], float]
    ) -> None:  # fmt: skip
        """`key` signs clearances; `clock` gives seconds since 1970."""
        self._providers = providers
        self._key = key
        self._clock = clock
        self._tickets: dict[str, _Ticket] = {}

    def issue(self, providers: tuple[str, ...], traces: Traces, payload: bytes) -> str | None:
        """A ticket to send what `payload` says to one of `providers`; None while there are too many."""
        now = self._clock()
        self._tickets = {name: ticket for name, ticket in self._tickets.items() if ticket.expires > now}
        if len(self._tickets) >= _MOST_TICKETS:
            return None
        name = secrets.token_urlsafe(16)
        self._tickets[name] = _Ticket(frozenset(providers), traces, Said(payload), now + TICKET_SECONDS)
        return name

    def forget(self, name: str) -> None:
        """It is valid no longer, if it was."""
        self._tickets.pop(name, None)

    def clear(self, name: str, provider: str, method: str, path: str, body: bytes) -> str:
        """The clearance of a final request, as `Gate.clear` has it. Raises `NotCleared`."""
        ticket = self._tickets.get(name)
        if ticket is None or ticket.expires <= self._clock():
            raise NotCleared("the gate holds no such ticket, or not any more")
        if provider not in ticket.providers:
            raise NotCleared("the verdict names other providers")
        models = {model.model for model in self._providers[provider].models.values()}
        if method != "POST" or path not in _targets(self._providers[provider], models):
            raise NotCleared("the request's target may not leave")
        if (form := ticket.traces.remain(body, models)) is not None:
            raise NotCleared(f"something of an original still stands in the request: {form}")
        if (new := ticket.said.anything_new(body, models)) is not None:
            raise NotCleared(f"the request says what the verdict does not: {new}")
        expires = int(self._clock()) + LONGEST_SECONDS
        return sign(self._key, Cleared(provider, method, path, digest(body), expires, secrets.token_hex(16)))


def _targets(provider: Provider, models: Collection[str]) -> Collection[str]:
    """Where a provider takes requests: paths with their queries, of which none says anything of a request."""
    base = urlsplit(provider.url).path.rstrip("/")
    match provider.api:
        case "openai":
            return {f"{base}/chat/completions"}
        case "azure":
            query = f"api-version={provider.api_version}"
            return {f"{base}/openai/deployments/{model}/chat/completions?{query}" for model in models}
        case "anthropic":
            return {f"{base.removesuffix('/v1')}/v1/messages"}
