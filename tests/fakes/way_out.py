"""The real way out to servers of the house, for tests of what goes through it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from appliance import config
from appliance.dispatch.endpoints import Endpoints


@contextmanager
def way_out(folder: Path, **sections: Any) -> Iterator[Endpoints]:
    """Outlet and dialler, started for a config with these sections, which is written into `folder`."""
    written = {"models": {"chat": {"card": "tiny"}}, "state": str(folder), **sections}
    (folder / "appliance.yaml").write_text(json.dumps(written))
    (folder / "run").mkdir()
    endpoints = Endpoints(config.load(folder / "appliance.yaml"))
    endpoints.open()
    try:
        yield endpoints
    finally:
        endpoints.close()
