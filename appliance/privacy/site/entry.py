"""What stands on a site's own list."""

from __future__ import annotations

from dataclasses import dataclass, field

from appliance.privacy.kinds import Kind

LISTS = (Kind.CLIENT, Kind.EMPLOYEE, Kind.PROJECT, Kind.ORGANISATION)
"""The lists that there are, one for each of these kinds."""


@dataclass(frozen=True, slots=True)
class SiteEntry:
    """Somebody or something that a text may speak of, in whatever form. Names are as the site writes them."""

    name: str = field(repr=False)
    kind: Kind
    aliases: tuple[str, ...] = field(default=(), repr=False)
