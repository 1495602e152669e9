"""The outlet's end of a real dialler's channel, to order what an outlet would, or never would.

    python -m tests.fakes.orders HOST PORT KIND     order that from a dialler, and print what came of it

Imports the standard library only, so that any Python runs it.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from appliance.dispatch.dialler import ORDER, Destination

ROOT = Path(__file__).resolve().parents[2]
MODULE = ["-S", "-m", "appliance.dispatch.dialler"]


class Dialler:
    """A dialler, and the end of its channel that the outlet would hold."""

    def __init__(self, *destinations: Destination, best_effort: bool = False) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, *MODULE, str(theirs.fileno())],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[theirs.fileno()], bufsize=0, cwd=ROOT,
            )  # fmt: skip
        assert self.process.stdin
        assert self.process.stdout
        told = {"destinations": [asdict(each) for each in destinations], "best_effort": best_effort}
        self.process.stdin.write(json.dumps(told).encode() + b"\n")
        self.said = json.loads(self.process.stdout.readline())
        self.channel.settimeout(30)

    def order(self, index: int) -> None:
        self.channel.send(ORDER.pack(index))

    def answer(self) -> tuple[int, str, socket.socket | None]:
        data, descriptors, _, _ = socket.recv_fds(self.channel, 4096, 1)
        connection = socket.socket(fileno=descriptors[0]) if descriptors else None
        return ORDER.unpack_from(data)[0], data[ORDER.size :].decode(), connection

    def close(self) -> None:
        self.channel.close()
        with self.process:
            assert self.process.stdin
            self.process.stdin.close()


@contextlib.contextmanager
def dialler(*destinations: Destination) -> Iterator[Dialler]:
    made = Dialler(*destinations)
    try:
        yield made
    finally:
        made.close()


def destination(host: str, port: int, kind: Literal["in-house", "provider"] = "in-house") -> Destination:
    return Destination("name", host, port, kind, tls=False)


def main(arguments: list[str]) -> None:
    """Order it."""
    host, port, kind = arguments
    with dialler(destination(host, int(port), kind)) as made:  # type: ignore[arg-type]
        assert made.said.get("missing") == [], made.said
        made.order(0)
        _, reason, connection = made.answer()
        sys.stdout.write("connected" if connection else reason)


if __name__ == "__main__":
    main(sys.argv[1:])
