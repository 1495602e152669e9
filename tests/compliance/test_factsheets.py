"""What the report says of the models that the config serves."""

from __future__ import annotations

from appliance import config
from appliance.compliance.factsheets import factsheets
from appliance.weights.adapters import adapters
from tests.fakes.house import House


def test_a_model_is_told_with_the_adapters_beside_it(house: House) -> None:
    house.card("one")
    house.adapter("one", "legal")
    house.serve("chat", "one", adapters={"chat-legal": "legal", "chat-medical": "medical"})
    (sheet,) = factsheets(config.load(house.write()))
    legal = adapters(house.folder / "models" / "one")["legal"]
    assert sheet.adapters == (f"chat-legal: legal, {legal.fingerprint}", "chat-medical: medical")
