"""The report's texts in German and English, and how either writes figures, days and moments."""

from __future__ import annotations

import zoneinfo
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum

from appliance.compliance.words import de, en

_NANO = 10**9
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_KIBI = 1024


class Language(StrEnum):
    """What a report can be written in."""

    GERMAN = "de"
    ENGLISH = "en"


TEXTS: Mapping[Language, Mapping[str, str]] = {Language.GERMAN: de.TEXTS, Language.ENGLISH: en.TEXTS}


class Words:
    """One language; moments are told in the time zone `zone`."""

    def __init__(self, language: Language, zone: zoneinfo.ZoneInfo) -> None:
        self.language = language
        self._texts = TEXTS[language]
        self._zone = zone
        self._german = language is Language.GERMAN

    def __call__(self, name: str, /, **fills: str | int) -> str:
        """The text `name`, filled; raises KeyError for one that isn't there. Numbers are written as numbers are.

        Of one thing it speaks in the singular: where `count` is 1, and there is a text `name.one`.
        """
        text = self._texts[name]
        if fills.get("count") == 1:
            text = self._texts.get(f"{name}.one", text)
        if not fills:
            return text
        return text.format(**{key: self.number(fill) if isinstance(fill, int) else fill for key, fill in fills.items()})

    def known(self, name: str) -> str | None:
        """The text `name`; None where the language has none."""
        return self._texts.get(name)

    def number(self, number: int) -> str:
        """With its thousands apart."""
        text = f"{number:,}"
        return text.replace(",", ".") if self._german else text

    def euros(self, nanoeuros: int) -> str:
        """To the cent; less than one isn't nothing."""
        if 0 < nanoeuros < _NANO // 100:
            return "< 0,01 €" if self._german else "< €0.01"
        text = f"{nanoeuros / _NANO:,.2f}"
        return f"{text.translate(_GERMAN)} €" if self._german else f"€{text}"

    def size(self, count: int) -> str:
        """Bytes as people read them."""
        size, unit = float(count), 0
        while size >= _KIBI and unit < len(_UNITS) - 1:
            size, unit = size / _KIBI, unit + 1
        text = f"{size:,.1f}" if unit else f"{size:,.0f}"
        return f"{text.translate(_GERMAN) if self._german else text} {_UNITS[unit]}"

    def seconds(self, seconds: float) -> str:
        """A time that has passed."""
        for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
            if seconds >= 2 * length:
                return self(f"time.{unit}", count=int(seconds // length))
        return self("time.seconds", count=int(seconds))

    def day(self, at: datetime | float | str) -> str:
        """`22.11.2026`, or `22 November 2026`: of a datetime, of seconds since 1970, or of what a record tells."""
        local = self._local(at)
        if isinstance(local, str):
            return local
        return f"{local:%d.%m.%Y}" if self._german else f"{local.day} {self(f'month.{local.month}')} {local.year}"

    def moment(self, at: datetime | float | str) -> str:
        """`22.11.2026, 14:05:09`: of a datetime, of seconds since 1970, or of what a record tells."""
        local = self._local(at)
        if isinstance(local, str):
            return local
        return f"{local:%d.%m.%Y, %H:%M:%S}" if self._german else f"{local:%Y-%m-%d, %H:%M:%S}"

    def month(self, at: datetime | float) -> str:
        """`November 2026`: of a datetime as it stands, or of seconds since 1970."""
        local = at if isinstance(at, datetime) else datetime.fromtimestamp(at, self._zone)
        return f"{self(f'month.{local.month}')} {local.year}"

    def _local(self, at: datetime | float | str) -> datetime | str:
        """In the zone of the report; a text that is no time, as a damaged record has it, stays as it is."""
        if isinstance(at, str):
            try:
                at = datetime.fromisoformat(at)
            except ValueError:
                return at
        moment = at if isinstance(at, datetime) else datetime.fromtimestamp(at, UTC)
        return moment.astimezone(self._zone)


_GERMAN = str.maketrans(",.", ".,")
