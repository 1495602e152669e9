"""Which sources of weights lie outside the house, and who may ask them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from appliance import addresses
from appliance.errors import PreparationFailed
from appliance.weights.card import Source


def is_private(url: str) -> bool:
    """Whether all addresses of the URL's host are of the house. Raises `PreparationFailed` for an unknown host."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        found = socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as cause:
        raise PreparationFailed(f"{host} isn't known here ({cause}). Check the address.") from cause
    return all(addresses.is_private(str(info[4][0])) for info in found)


Ask = Callable[[str], None]
"""Told the URL of a host before that is asked for anything; raises if it may not be."""


def address(source: Source) -> str | None:
    """Where the source is fetched from; None if it is here already."""
    if source.hub is not None:
        return source.hub.endpoint
    return source.mirror.url if source.mirror is not None else None


def refuse_outside(url: str) -> None:
    """Raises `PreparationFailed`, saying what to do instead, if the URL's host is outside the house."""
    if not is_private(url):
        raise PreparationFailed(
            f"{urlsplit(url).hostname} is outside the house, and the config says `egress: deny`. On a machine that may "
            "fetch, prepare the model and bring it: `appliance bundle`, or copy its folder under models/. If this "
            "machine may after all: --this-machine-may-fetch, which is put on record."
        )
