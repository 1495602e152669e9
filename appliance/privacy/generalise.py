"""Coarser words for what alone tells little about a person, but with other things too much."""

from __future__ import annotations

import re

from appliance.privacy.kinds import Kind

_AGE = re.compile(r"(?<!\d)\d{1,3}(?!\d)")
_YEAR = re.compile(r"(?<!\d)(?:1[89]|20)\d\d(?!\d)")
_POSTCODE = re.compile(r"(?:D-)?(\d\d)\d{3}")
_OLDEST = 90


def coarser(kind: Kind, original: str) -> str | None:
    """`34 Jahre` as `30-39 Jahre`, `3.3.1978` as `1978`, `80331` as `80xxx`; None where it can't be told how.

    Whoever is 90 or more is only that: few are.
    """
    match kind:
        case Kind.AGE:
            ages = _AGE.findall(original)
            return _AGE.sub(_band(int(ages[0])), original) if len(ages) == 1 else None
        case Kind.DATE_OF_BIRTH:
            years = _YEAR.findall(original)
            return str(years[0]) if len(years) == 1 else None
        case Kind.POSTCODE:
            postcode = _POSTCODE.fullmatch(original)
            return f"{postcode[1]}xxx" if postcode else None
    return None


def _band(age: int) -> str:
    decade = age // 10 * 10
    return f"{_OLDEST}+" if decade >= _OLDEST else f"{decade}-{decade + 9}"
