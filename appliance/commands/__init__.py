"""What each command of the command line does.

Imports stand inside: `appliance status` should not wait for a web framework to load.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from appliance.accounts.store import Store
    from appliance.config import Config

OK, FAILED = 0, 1


def write(text: str) -> None:
    """Write a line, or several, to whoever reads the output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@contextlib.contextmanager
def store_of(config: Config) -> Iterator[Store]:
    """The store of keys and books, opened by the command line itself.

    Raises `ConfigInvalid` where `state` is a folder of somebody else's, `BooksUnavailable` for a store that is gone.
    """
    from appliance import state
    from appliance.accounts.opening import open_store
    from appliance.egress.owner import as_owner

    # as root, too: what root made there would lock the appliance's own user out
    with as_owner(config.state) if config.state.exists() else contextlib.nullcontext():
        if config.settings.accounts.store.postgresql is None:
            state.require_fit(config)
        store = open_store(config)
        try:
            yield store
        finally:
            store.close(last=not state.is_served(config.state))
