"""Keys of made-up teams, for as long as a run takes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

from appliance.config import Config


@contextlib.contextmanager
def key(config: Config, team: str, service_class: str = "standard") -> Iterator[dict[str, str]]:
    """Headers with a key of `team`, made by the command line and revoked at the end of the block."""
    made = json.loads(
        _keys(config, "create", "--team", team, "--class", service_class, "--expires", "1d", "--name", "benchmark")
    )
    try:
        yield {"authorization": f"Bearer {made['key']}"}
    finally:
        _keys(config, "revoke", made["id"])


def _keys(config: Config, *arguments: str) -> str:
    command = [sys.executable, "-m", "appliance", "keys", *arguments, "--json", "--config", str(config.file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
