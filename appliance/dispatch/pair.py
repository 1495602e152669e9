"""The outlet and the dialler, as the gateway holds them: started before the gateway seals itself, used after."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from appliance.dispatch.way import Route
from appliance.errors import OutletFailed
from appliance.seal.child import Child, any_ended
from appliance.seal.parts import Seal

# -P: nothing is imported from wherever the appliance was started.
_MODULES = {
    "outlet": ["-P", "-m", "appliance.dispatch.outlet"],
    "dialler": ["-P", "-S", "-m", "appliance.dispatch.dialler"],
}


class Pair:
    """Both processes. They end when `close` is called, and when this process ends, however it ends."""

    def __init__(
        self, routes: Mapping[Path, Route], folder: Path, *, clearance_key: bytes | None, best_effort: bool
    ) -> None:
        """Start them and wait until both are sealed; `routes` has the Unix socket for each, in `folder`.

        The sockets are bound here, so that a request that comes before the outlet is up waits and doesn't fail.
        Raises `SealUnavailable` when the kernel refuses a part and `best_effort` isn't set, and `OutletFailed`.
        """
        listeners = [_listen(path) for path in routes]
        # The gateway keeps neither end: whoever takes it over can give the dialler no orders.
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        handed = {"outlet": [near, *listeners], "dialler": [far]}
        self._children = {name: Child(name, _MODULES[name], handed[name], OutletFailed) for name in handed}
        for opened in (near, far, *listeners):
            opened.close()
        destinations = [asdict(route.destination) for route in routes.values()]
        orders: dict[str, dict[str, Any]] = {
            "outlet": {
                "routes": [asdict(route) for route in routes.values()],
                "folder": str(folder),
                "clearance_key": clearance_key.hex() if clearance_key else None,
            },
            "dialler": {"destinations": destinations},
        }
        self.seals: dict[str, Seal] = {}
        """What holds around each, by name."""
        try:
            for name, child in self._children.items():
                child.say(orders[name] | {"best_effort": best_effort})
            self.seals = {name: child.sealed()[0] for name, child in self._children.items()}
        except BaseException:
            self._end()
            raise
        self._lives = [os.pidfd_open(child.pid) for child in self._children.values()]

    @property
    def pids(self) -> dict[int, str]:
        """What each process id is: `outlet` or `dialler`."""
        return {child.pid: name for name, child in self._children.items()}

    async def ended(self) -> None:
        """Return when one of them has ended, for whatever reason: nothing can be reached from then on.

        One caller at a time; cancel it before `close`.
        """
        await any_ended(self._lives)

    async def probe(self, order: Mapping[str, Any]) -> dict[str, str]:
        """Carry out an order of `appliance.seal.probes` inside the outlet's seal: what became of each attempt.

        It is a sealed process's word. Raises `OutletFailed`, and `TimeoutError` after some seconds without an answer.
        """
        return await self._children["outlet"].probe(order)

    def close(self) -> None:
        """End both."""
        for life in self._lives:
            os.close(life)
        self._lives = []
        self._end()

    def _end(self) -> None:
        for child in self._children.values():
            child.end()
        for child in self._children.values():
            child.wait()


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o600)  # before listen(): nobody connects under the wider mode
    listener.listen(1024)
    return listener
