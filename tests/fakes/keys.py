"""Keys of an appliance that runs, as its administrator makes them."""

from __future__ import annotations

from typing import Any

import httpx

from appliance import config
from appliance.accounts.opening import open_registry, open_store
from appliance.accounts.registry import KeyOrder
from tests.fakes.house import Running, until


def make(running: Running, **order: Any) -> tuple[str, str]:
    """The id of a new key and the key, once it opens: fields as in `KeyOrder`."""
    loaded = config.load(running.house.config)
    store = open_store(loaded)
    try:
        registry, _ = open_registry(loaded, store)
        record, key = registry.create(KeyOrder(**order))
    finally:
        store.close()
    headers = {"authorization": f"Bearer {key}"}
    until(lambda: httpx.get(f"{running.base_url}/v1/usage", headers=headers).status_code in (200, 403))
    return record.id, key
