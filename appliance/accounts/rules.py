"""All of the config that the books go by, as one thing that is replaced as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from appliance.accounts.calendar import Calendar
from appliance.accounts.prices import Prices
from appliance.accounts.terms import Terms
from appliance.config import Accounts, Allowance


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds now."""

    terms: Terms
    prices: Prices
    calendar: Calendar

    @classmethod
    def of(cls, accounts: Accounts, keys: Mapping[str, Allowance], calendar: Calendar | None = None) -> Rules:
        """The rules of the config and of `keys`: allowances of keys that have one of their own, by key id.

        `calendar` is the one so far. It stays if the zone does, and with it the day that is booked on.
        """
        if calendar is None or calendar.zone != accounts.zone:
            calendar = Calendar(accounts.zone)
        return cls(Terms(accounts, keys), Prices(accounts.prices), calendar)
