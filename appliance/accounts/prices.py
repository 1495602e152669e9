"""What tokens cost, in nano-euros. Pure; every cost is rounded up, so that no use of a model with a price is free."""

from __future__ import annotations

from fractions import Fraction

from appliance import config
from appliance.accounts.entries import NANO
from appliance.config.accounts import ModelPrice

_SECONDS_IN_HOUR = 3600
_MILLION = 1_000_000


class Prices:
    """The configured price table. A model that isn't in it costs nothing."""

    def __init__(self, settings: config.Prices) -> None:
        self._rates = {name: _rates(price, settings.machine_hour_euros) for name, price in settings.models.items()}

    def cost(self, model: str, prompt_tokens: int, completion_tokens: int) -> int:
        """Nano-euros of a request; prompt and answer are each rounded up."""
        rates = self._rates.get(model)
        if rates is None:
            return 0
        prompt, prompt_per, completion, completion_per = rates
        return -(-prompt_tokens * prompt // prompt_per) - (-completion_tokens * completion // completion_per)


def _rates(price: ModelPrice, machine_hour_euros: float | None) -> tuple[int, int, int, int]:
    """Nano-euros of a token as exact fractions: of the prompt, then of the answer."""
    if price.tokens_per_second is not None:
        second = _exact(machine_hour_euros or 0) * NANO / _SECONDS_IN_HOUR
        prompt = completion = second / _exact(price.tokens_per_second)
    else:
        prompt = _exact(price.prompt_euros_per_million or 0) * NANO / _MILLION
        completion = _exact(price.completion_euros_per_million or 0) * NANO / _MILLION
    return prompt.numerator, prompt.denominator, completion.numerator, completion.denominator


def _exact(written: float) -> Fraction:
    """The number as it was written, 0.1 as a tenth."""
    return Fraction(repr(written))


def nanoeuros(euros: float) -> int:
    """An amount of the config in nano-euros, at least one: nothing is less than what can be booked."""
    return max(1, int(_exact(euros) * NANO))
